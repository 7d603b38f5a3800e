//! The .npy format, versions 1 to 3. Written here because the crates that read it know no strings, and class labels are.

use tacit_ir::interp::tensor::{Data, TensorValue};

/// Reads an array.
pub(super) fn parse(bytes: &[u8]) -> Result<TensorValue, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not an .npy array")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or("truncated")?;
    let (len, rest) = match version[0] {
        1 => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or("truncated")?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or("truncated")?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        other => return Err(format!(".npy version {other}")),
    };
    let (header, data) = rest.split_at_checked(len).ok_or("truncated")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let descr = field(header, "descr")?.trim_matches(['\'', '"']).to_owned();
    if field(header, "fortran_order")?.starts_with("True") {
        return Err("the array is in Fortran order; save numpy.ascontiguousarray(x)".to_owned());
    }
    let shape = field(header, "shape")?.trim_matches(['(', ')']).to_owned();
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse().map_err(|_| format!("a dimension `{dim}`")))
        .collect::<Result<_, _>>()?;
    let size = shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim)).ok_or("an absurd shape")?;
    macro_rules! numbers {
        ($ty:ty) => {{
            let width = size_of::<$ty>();
            if size.checked_mul(width) != Some(data.len()) {
                return Err(format!("{} bytes of data for shape {shape:?}", data.len()));
            }
            data.chunks_exact(width).map(|bytes| <$ty>::from_le_bytes(bytes.try_into().unwrap_or_default()))
        }};
    }
    let values = match descr.as_str() {
        "<f4" => Data::F32(numbers!(f32).collect()),
        "<f8" => Data::F64(numbers!(f64).collect()),
        "<i8" => Data::I64(numbers!(i64).collect()),
        "<u8" => Data::I64(numbers!(u64).map(|x| x as i64).collect()),
        "<i4" => Data::I64(numbers!(i32).map(i64::from).collect()),
        "<u4" => Data::I64(numbers!(u32).map(i64::from).collect()),
        "<i2" => Data::I64(numbers!(i16).map(i64::from).collect()),
        "<u2" => Data::I64(numbers!(u16).map(i64::from).collect()),
        "|i1" => Data::I64(numbers!(i8).map(i64::from).collect()),
        "|u1" => Data::I64(numbers!(u8).map(i64::from).collect()),
        "|b1" => Data::Bool(numbers!(u8).map(|x| x != 0).collect()),
        text if text.starts_with("<U") => {
            let chars: usize = text[2..].parse().map_err(|_| format!("element type {text}"))?;
            if size.checked_mul(chars).and_then(|n| n.checked_mul(4)) != Some(data.len()) {
                return Err(format!("{} bytes of data for shape {shape:?}", data.len()));
            }
            let word = |bytes: &[u8]| -> String {
                let codes = bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap_or_default()));
                codes.take_while(|&code| code != 0).filter_map(char::from_u32).collect()
            };
            let words = if chars == 0 { vec![String::new(); size] } else { data.chunks(chars * 4).map(word).collect() };
            Data::Str(words)
        }
        "|O" => return Err("the array holds Python objects; save strings as fixed-width text".to_owned()),
        other => return Err(format!("element type {other} is not supported")),
    };
    Ok(TensorValue { shape, data: values })
}

/// The text of a key of the header's dictionary, up to the comma that ends it.
fn field<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("the header has no `{key}`");
    let at = header.find(&format!("'{key}'")).ok_or_else(missing)?;
    let value = header[at..].split_once(':').ok_or_else(missing)?.1.trim_start();
    let end = if value.starts_with('(') { value.find(')').map(|end| end + 1) } else { value.find([',', '}']) };
    Ok(&value[..end.ok_or_else(missing)?])
}

/// The bytes of an array.
pub(super) fn bytes(value: &TensorValue) -> Vec<u8> {
    let (descr, data): (String, Vec<u8>) = match &value.data {
        Data::F32(data) => ("<f4".into(), data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::F64(data) => ("<f8".into(), data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::I64(data) => ("<i8".into(), data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::Bool(data) => ("|b1".into(), data.iter().map(|&x| u8::from(x)).collect()),
        Data::Str(data) => {
            let width = data.iter().map(|word| word.chars().count()).max().unwrap_or(0).max(1);
            let padded = |word: &String| {
                let codes: Vec<u32> = word.chars().map(u32::from).collect();
                (0..width).flat_map(move |at| codes.get(at).copied().unwrap_or(0).to_le_bytes()).collect::<Vec<u8>>()
            };
            (format!("<U{width}"), data.iter().flat_map(padded).collect())
        }
    };
    let dims: Vec<String> = value.shape.iter().map(usize::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", dims.join(", "));
    // The data starts at a multiple of 64 bytes.
    header.extend(std::iter::repeat_n(' ', (64 - (10 + header.len() + 1) % 64) % 64));
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_round_trip() {
        let arrays = [
            TensorValue::f32(vec![2, 2], vec![1.0, f32::NAN.abs(), -0.0, f32::INFINITY]),
            TensorValue { shape: vec![3], data: Data::I64(vec![1, -2, i64::MAX]) },
            TensorValue { shape: vec![2], data: Data::Str(vec!["märz".into(), String::new()]) },
            TensorValue { shape: vec![1, 2], data: Data::Bool(vec![true, false]) },
        ];
        for array in arrays {
            let back = parse(&bytes(&array)).unwrap();
            assert_eq!(format!("{back:?}"), format!("{array:?}"));
        }
    }

    #[test]
    fn broken_arrays_are_errors() {
        let whole = bytes(&TensorValue::f32(vec![4], vec![1.0; 4]));
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "cut at {len}");
        }
        assert!(parse(b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O', }").is_err());
    }
}
