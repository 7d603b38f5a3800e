//! A tensor in memory.

use crate::stage::tensor::{Dim, Element, TensorOp, TensorType};

/// Row-major data of one element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Integers.
    I64(Vec<i64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Strings.
    Str(Vec<String>),
}

/// A tensor: shape and row-major data.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorValue {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// As many values as the sizes' product.
    pub data: Data,
}

/// Applies the same expression to the data of whatever type, keeping the type.
macro_rules! map_data {
    ($data:expr, $items:ident => $body:expr) => {
        match $data {
            Data::F32($items) => Data::F32($body),
            Data::F64($items) => Data::F64($body),
            Data::I64($items) => Data::I64($body),
            Data::Bool($items) => Data::Bool($body),
            Data::Str($items) => Data::Str($body),
        }
    };
}
pub(super) use map_data;

impl Data {
    /// Numbers of an element type; 32-bit floats where it holds none.
    pub fn of_numbers(element: Element, numbers: Vec<f64>) -> Self {
        match element {
            Element::F64 => Data::F64(numbers),
            Element::I64 => Data::I64(numbers.into_iter().map(|x| x as i64).collect()),
            Element::F32 | Element::Bool | Element::Str => Data::F32(numbers.into_iter().map(|x| x as f32).collect()),
        }
    }

    /// The element type.
    pub fn element(&self) -> Element {
        match self {
            Data::F32(_) => Element::F32,
            Data::F64(_) => Element::F64,
            Data::I64(_) => Element::I64,
            Data::Bool(_) => Element::Bool,
            Data::Str(_) => Element::Str,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(data) => data.len(),
            Data::F64(data) => data.len(),
            Data::I64(data) => data.len(),
            Data::Bool(data) => data.len(),
            Data::Str(data) => data.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values at these positions, in their order.
    #[must_use]
    pub fn pick(&self, positions: impl Iterator<Item = usize>) -> Data {
        map_data!(self, items => positions.map(|at| items[at].to_owned()).collect())
    }
}

impl TensorValue {
    /// A tensor of 32-bit floats.
    pub fn f32(shape: Vec<usize>, data: Vec<f32>) -> Self {
        TensorValue { shape, data: Data::F32(data) }
    }

    /// Numbers in the shape and of the element type of a type, with this many rows; integers are the nearest ones.
    pub fn of_type(ty: &TensorType, rows: usize, data: Vec<f64>) -> Self {
        let shape = ty.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { rows }).collect();
        let data = match ty.element {
            Element::F64 => Data::F64(data),
            Element::I64 => Data::I64(data.into_iter().map(|x| x.round() as i64).collect()),
            Element::Bool => Data::Bool(data.into_iter().map(|x| x.round() != 0.0).collect()),
            Element::F32 | Element::Str => Data::F32(data.into_iter().map(|x| x as f32).collect()),
        };
        TensorValue { shape, data }
    }

    /// The operation that holds the value. Booleans, which constants do not have, are kept as integers; the caller casts.
    pub fn constant_op(&self) -> TensorOp {
        let shape = self.shape.clone();
        let (mut f32, mut f64, mut i64, mut str) = (None, None, None, None);
        match &self.data {
            Data::F32(data) => f32 = Some(data.clone()),
            Data::F64(data) => f64 = Some(data.clone()),
            Data::I64(data) => i64 = Some(data.clone()),
            Data::Bool(data) => i64 = Some(data.iter().map(|&x| i64::from(x)).collect()),
            Data::Str(data) => str = Some(data.clone()),
        }
        TensorOp::Constant { shape, f32, f64, i64, str }
    }

    /// Rows (the first dimension), or 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values per row.
    pub fn columns(&self) -> usize {
        self.data.len().checked_div(self.rows()).unwrap_or(0)
    }

    /// The values row by row, where they are numbers.
    pub fn to_rows(&self) -> Option<Vec<Vec<f64>>> {
        Some(self.to_f64()?.chunks(self.columns().max(1)).map(<[f64]>::to_vec).collect())
    }

    /// The values as 64-bit floats; `None` for strings.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match &self.data {
            Data::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(data) => data.clone(),
            Data::I64(data) => data.iter().map(|&x| x as f64).collect(),
            Data::Bool(data) => data.iter().map(|&x| f64::from(u8::from(x))).collect(),
            Data::Str(_) => return None,
        })
    }

    /// The values as 32-bit floats; `None` for strings.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        match &self.data {
            Data::F32(data) => Some(data.clone()),
            _ => self.to_f64().map(|data| data.into_iter().map(|x| x as f32).collect()),
        }
    }

    /// An input for a declared element type; only conversions that users expect: between floats, and integers to floats.
    pub(super) fn cast_input(&self, to: Element) -> Option<TensorValue> {
        let from = self.data.element();
        let numeric = |element| matches!(element, Element::F32 | Element::F64 | Element::I64 | Element::Bool);
        let whole = match (&self.data, to) {
            (Data::F32(data), Element::I64) => data.iter().all(|x| x.fract() == 0.0),
            (Data::F64(data), Element::I64) => data.iter().all(|x| x.fract() == 0.0),
            _ => true,
        };
        if from == to || (numeric(from) && numeric(to) && whole) { self.cast(to).ok() } else { None }
    }

    /// ONNX Cast.
    ///
    /// # Errors
    /// A string that is not a number.
    pub fn cast(&self, to: Element) -> Result<TensorValue, String> {
        if self.data.element() == to {
            return Ok(self.clone());
        }
        let data = match (&self.data, to) {
            (Data::Str(data), Element::F32) => Data::F32(parse_all(data)?),
            (Data::Str(data), Element::F64) => Data::F64(parse_all(data)?),
            (Data::Str(data), Element::I64) => Data::I64(parse_all(data)?),
            (Data::Str(_), Element::Bool) => {
                return Err("strings do not cast to booleans".to_owned());
            }
            (Data::I64(data), Element::Str) => Data::Str(data.iter().map(i64::to_string).collect()),
            (Data::Bool(data), Element::Str) => {
                Data::Str(data.iter().map(|&x| if x { "1" } else { "0" }.to_owned()).collect())
            }
            (Data::F32(data), Element::Str) => Data::Str(data.iter().map(|x| float_text(f64::from(*x))).collect()),
            (Data::F64(data), Element::Str) => Data::Str(data.iter().map(|x| float_text(*x)).collect()),
            (Data::I64(data), Element::F32) => Data::F32(data.iter().map(|&x| x as f32).collect()),
            (_, Element::F32) => Data::F32(self.to_f32().unwrap_or_default()),
            (_, Element::F64) => Data::F64(self.to_f64().unwrap_or_default()),
            (_, Element::I64) => Data::I64(self.to_f64().unwrap_or_default().iter().map(|&x| x as i64).collect()),
            (_, Element::Bool) => Data::Bool(self.to_f64().unwrap_or_default().iter().map(|&x| x != 0.0).collect()),
            (Data::Str(_), Element::Str) => self.data.clone(),
        };
        Ok(TensorValue { shape: self.shape.clone(), data })
    }
}

fn parse_all<T: std::str::FromStr>(data: &[String]) -> Result<Vec<T>, String> {
    data.iter().map(|text| text.trim().parse().map_err(|_| format!("`{text}` is not a number"))).collect()
}

/// Significant digits with which onnxruntime casts floats of either size to strings.
const TEXT_DIGITS: i32 = 8;

/// C's `%.8g`, which is how onnxruntime casts floats to strings.
fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    // The exponent after rounding decides the form, so 9.99999999 counts as 1e1.
    let scientific = format!("{x:.*e}", (TEXT_DIGITS - 1) as usize);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if (-4..TEXT_DIGITS).contains(&exponent) {
        let decimals = (TEXT_DIGITS - 1 - exponent).max(0) as usize;
        trimmed(&format!("{x:.decimals$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_onnxruntime_casts_them() {
        let cases = [
            (0.1, "0.1"),
            (1e-7, "1e-07"),
            (123_456.789, "123456.79"),
            (1e10, "1e+10"),
            (-0.0, "-0"),
            (100.0, "100"),
            (16_777_216.0, "16777216"),
            (9.999_999_99, "10"),
            (0.0001, "0.0001"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-INF"),
        ];
        for (x, text) in cases {
            assert_eq!(float_text(x), text);
        }
    }

    #[test]
    fn inputs_convert_only_where_nothing_is_lost() {
        let whole = TensorValue::f32(vec![2], vec![1.0, -3.0]);
        assert_eq!(whole.cast_input(Element::I64).unwrap().data, Data::I64(vec![1, -3]));
        assert!(TensorValue::f32(vec![1], vec![1.5]).cast_input(Element::I64).is_none());
        assert!(whole.cast_input(Element::Str).is_none());
    }
}
