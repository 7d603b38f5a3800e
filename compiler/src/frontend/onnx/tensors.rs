//! TensorProto to values and constants.

use super::ImportLimits;
use onnx_protobuf::TensorProto;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::Element;

/// ONNX's element type numbers that Tacit reads.
pub(super) fn element(code: i32) -> Option<Element> {
    match code {
        1 => Some(Element::F32),
        11 => Some(Element::F64),
        2..=7 | 12 | 13 | 21 | 22 | 25 | 26 => Some(Element::I64),
        9 => Some(Element::Bool),
        8 => Some(Element::Str),
        _ => None,
    }
}

/// Bits of integers that are packed several in a byte, and whether they are signed.
pub(super) fn packed_integer(code: i32) -> Option<(u32, bool)> {
    match code {
        21 => Some((4, false)),
        22 => Some((4, true)),
        25 => Some((2, false)),
        26 => Some((2, true)),
        _ => None,
    }
}

/// Integers packed in bytes, the first in the lowest bits; what pads the last byte is left out.
fn unpack(bytes: impl Iterator<Item = u8>, bits: u32, signed: bool, count: usize) -> Vec<i64> {
    let one = |byte: u8, at: u32| {
        let value = i64::from(byte >> (at * bits)) & ((1 << bits) - 1);
        if signed && value >> (bits - 1) == 1 { value - (1 << bits) } else { value }
    };
    bytes.flat_map(|byte| (0..u8::BITS / bits).map(move |at| one(byte, at))).take(count).collect()
}

/// The value of a tensor, from its raw bytes or its typed list.
pub(super) fn value(tensor: &TensorProto, limits: &ImportLimits) -> Result<TensorValue> {
    let wrong = |why: String| Diagnostic::new(Code::ShapeMismatch, why);
    if tensor.data_location.value() != 0 || !tensor.external_data.is_empty() {
        return Err(Diagnostic::new(Code::VariantUnsupported, "the tensor's data is in another file").help(
            "save the model with its weights inside: onnx.save_model(model, path, save_as_external_data=False)",
        ));
    }
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| wrong(format!("negative dimensions {:?}", tensor.dims)))?;
    let size =
        shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim)).filter(|&size| size <= limits.max_elements);
    let size = size.ok_or_else(|| {
        let message = format!("a tensor of shape {shape:?} is over {} elements", limits.max_elements);
        Diagnostic::new(Code::ModelTooLarge, message)
    })?;
    let raw = &tensor.raw_data;
    macro_rules! raw {
        ($ty:ty) => {
            raw.chunks_exact(size_of::<$ty>()).map(|bytes| <$ty>::from_le_bytes(bytes.try_into().unwrap_or_default()))
        };
    }
    macro_rules! ints {
        ($ty:ty) => {
            if raw.is_empty() {
                tensor.int32_data.iter().map(|&x| i64::from(x)).collect()
            } else {
                raw!($ty).map(i64::from).collect()
            }
        };
    }
    if let Some((bits, signed)) = packed_integer(tensor.data_type) {
        let bytes: Vec<u8> =
            if raw.is_empty() { tensor.int32_data.iter().map(|&x| x as u8).collect() } else { raw.clone() };
        if bytes.len() != size.div_ceil((u8::BITS / bits) as usize) {
            return Err(wrong(format!("{} bytes of packed {bits}-bit integers for shape {shape:?}", bytes.len())));
        }
        return Ok(TensorValue { shape, data: Data::I64(unpack(bytes.into_iter(), bits, signed, size)) });
    }
    let data = match tensor.data_type {
        1 => Data::F32(if raw.is_empty() { tensor.float_data.clone() } else { raw!(f32).collect() }),
        11 => Data::F64(if raw.is_empty() { tensor.double_data.clone() } else { raw!(f64).collect() }),
        7 => Data::I64(if raw.is_empty() { tensor.int64_data.clone() } else { raw!(i64).collect() }),
        6 => Data::I64(ints!(i32)),
        5 => Data::I64(ints!(i16)),
        3 => Data::I64(ints!(i8)),
        4 => Data::I64(ints!(u16)),
        2 => Data::I64(ints!(u8)),
        12 => {
            Data::I64(if raw.is_empty() { unsigned(&tensor.uint64_data) } else { raw!(u32).map(i64::from).collect() })
        }
        13 => Data::I64(if raw.is_empty() {
            unsigned(&tensor.uint64_data)
        } else {
            raw!(u64).map(|x| x as i64).collect()
        }),
        9 => {
            let flags: Vec<bool> = if raw.is_empty() {
                tensor.int32_data.iter().map(|&x| x != 0).collect()
            } else {
                raw.iter().map(|&x| x != 0).collect()
            };
            Data::Bool(flags)
        }
        8 => {
            let texts = tensor.string_data.iter().map(|text| String::from_utf8(text.clone()));
            let texts: std::result::Result<Vec<String>, _> = texts.collect();
            Data::Str(texts.map_err(|_| Diagnostic::new(Code::AttributeInvalid, "a string is not UTF-8"))?)
        }
        other => {
            let message = format!("the element type {} is not supported", element_name(other));
            return Err(Diagnostic::new(Code::VariantUnsupported, message)
                .help("export the model with 32-bit or 64-bit floats"));
        }
    };
    let width = match tensor.data_type {
        1 | 6 | 12 => 4,
        11 | 7 | 13 => 8,
        5 | 4 => 2,
        _ => 1,
    };
    if !raw.len().is_multiple_of(width) {
        return Err(wrong(format!("{} bytes of data for elements of {width} bytes", raw.len())));
    }
    if data.len() != size {
        return Err(wrong(format!("{} values for shape {shape:?}", data.len())));
    }
    Ok(TensorValue { shape, data })
}

/// ONNX's name of an element type number.
pub(super) fn element_name(code: i32) -> String {
    let name = match code {
        0 => "undefined",
        10 => "float16",
        14 => "complex64",
        15 => "complex128",
        16 => "bfloat16",
        17..=20 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        24 => "float8e8m0",
        25 => "uint2",
        26 => "int2",
        _ => return code.to_string(),
    };
    name.to_owned()
}

fn unsigned(values: &[u64]) -> Vec<i64> {
    values.iter().map(|&x| x as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(data_type: i32, dims: Vec<i64>, raw_data: Vec<u8>) -> TensorProto {
        TensorProto { data_type, dims, raw_data, ..Default::default() }
    }

    #[test]
    fn packed_integers_are_read_from_the_lowest_bits_on() {
        let read = |tensor: &TensorProto| value(tensor, &ImportLimits::default());
        let data = |tensor: &TensorProto| read(tensor).unwrap().data;
        assert_eq!(data(&packed(22, vec![3], vec![0x8f, 0x07])), Data::I64(vec![-1, -8, 7]));
        assert_eq!(data(&packed(21, vec![3], vec![0x8f, 0x07])), Data::I64(vec![15, 8, 7]));
        assert_eq!(data(&packed(26, vec![5], vec![0b10_11_00_01, 0b11])), Data::I64(vec![1, 0, -1, -2, -1]));
        let list = TensorProto { data_type: 22, dims: vec![2], int32_data: vec![0xf1], ..Default::default() };
        assert_eq!(data(&list), Data::I64(vec![1, -1]));
        for wrong in [packed(22, vec![3], vec![0]), packed(22, vec![3], vec![0, 0, 0]), packed(25, vec![5], vec![0])] {
            assert_eq!(read(&wrong).unwrap_err().code, Code::ShapeMismatch);
        }
    }
}
