//! Maps from keys to values: LabelEncoder of ai.onnx.ml 1, 2 and 4, and CategoryMapper.

use super::node::{Converted, Fail, NodeCx};
use tacit_ir::interp::tensor::Data;
use tacit_ir::stage::tensor::{Element, TensorOp};

/// One list of data, of whichever attribute holds it; a tensor attribute goes last.
fn list(cx: &NodeCx<'_, '_>, name: &str) -> Converted<Data> {
    let lists = [
        cx.ints(&format!("{name}_int64s"))?.map(Data::I64),
        cx.floats(&format!("{name}_floats"))?.map(Data::F32),
        cx.strings(&format!("{name}_strings"))?.map(Data::Str),
        cx.tensor_attribute(&format!("{name}_tensor"))?.map(|value| value.data),
    ];
    let mut present = lists.into_iter().flatten().filter(|data| !data.is_empty());
    match (present.next(), present.next()) {
        (Some(data), None) => Ok(data),
        (None, _) => Err(Fail::attribute(format!("the {name} are missing"))),
        (Some(_), Some(_)) => Err(Fail::attribute(format!("the {name} are given twice"))),
    }
}

/// The map as an operation. `default`: one value of the values' type.
fn encoder(keys: Data, values: Data, default: Data) -> Converted<TensorOp> {
    if keys.len() != values.len() {
        return Err(Fail::attribute(format!("{} keys for {} values", keys.len(), values.len())));
    }
    let (mut keys_i64, mut keys_f32, mut keys_f64, mut keys_str) = (None, None, None, None);
    match keys {
        Data::I64(keys) => keys_i64 = Some(keys),
        Data::F32(keys) => keys_f32 = Some(keys),
        Data::F64(keys) => keys_f64 = Some(keys),
        Data::Str(keys) => keys_str = Some(keys),
        Data::Bool(_) => return Err(Fail::attribute("boolean keys")),
    }
    let (mut values_i64, mut values_f32, mut values_f64, mut values_str) = (None, None, None, None);
    match values {
        Data::I64(values) => values_i64 = Some(values),
        Data::F32(values) => values_f32 = Some(values),
        Data::F64(values) => values_f64 = Some(values),
        Data::Str(values) => values_str = Some(values),
        Data::Bool(_) => return Err(Fail::attribute("boolean values")),
    }
    let (mut default_i64, mut default_f32, mut default_f64, mut default_str) = (None, None, None, None);
    match default {
        Data::I64(value) => default_i64 = value.first().copied(),
        Data::F32(value) => default_f32 = value.first().copied(),
        Data::F64(value) => default_f64 = value.first().copied(),
        Data::Str(value) => default_str = value.into_iter().next(),
        Data::Bool(_) => {}
    }
    Ok(TensorOp::LabelEncoder {
        keys_i64,
        keys_f32,
        keys_f64,
        keys_str,
        values_i64,
        values_f32,
        values_f64,
        values_str,
        default_i64,
        default_f32,
        default_f64,
        default_str,
    })
}

/// The value of unknown keys, with onnxruntime's defaults.
fn default(cx: &NodeCx<'_, '_>, values: Element) -> Converted<Data> {
    if let Some(value) = cx.tensor_attribute("default_tensor")?
        && !value.data.is_empty()
    {
        let given = value.data.element();
        return if given == values {
            Ok(value.data)
        } else {
            let (given, values) = (given.as_str(), values.as_str());
            Err(Fail::attribute(format!("`default_tensor` is {given}, the values are {values}")))
        };
    }
    Ok(match values {
        Element::I64 | Element::Bool => Data::I64(vec![cx.int("default_int64")?.unwrap_or(-1)]),
        Element::F32 => Data::F32(vec![cx.float("default_float")?.unwrap_or(-0.0)]),
        Element::F64 => Data::F64(vec![cx.float("default_float")?.map_or(-0.0, f64::from)]),
        Element::Str => Data::Str(vec![cx.string("default_string")?.unwrap_or_else(|| "_Unused".to_owned())]),
    })
}

pub(super) fn label_encoder(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    // Version 1: strings and their positions, in the direction of the input's type.
    if let Some(classes) = cx.strings("classes_strings")? {
        let positions = (0..classes.len() as i64).collect();
        return two_way(cx, classes, positions);
    }
    let (mut keys, mut values) = (list(cx, "keys")?, list(cx, "values")?);
    if keys.len() != values.len() {
        return Err(Fail::attribute(format!("{} keys for {} values", keys.len(), values.len())));
    }
    // NaN is a key only since version 4; before, nothing is equal to it.
    if let (Data::F32(floats), true) = (&keys, cx.importer.opsets.ml < 4) {
        let known: Vec<usize> = (0..floats.len()).filter(|&at| !floats[at].is_nan()).collect();
        (keys, values) = (keys.pick(known.iter().copied()), values.pick(known.iter().copied()));
    }
    let default = default(cx, values.element())?;
    let op = encoder(keys, values, default)?;
    cx.single(op, vec![x])
}

pub(super) fn category_mapper(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let strings = cx.strings("cats_strings")?.unwrap_or_default();
    let ints = cx.ints("cats_int64s")?.unwrap_or_default();
    two_way(cx, strings, ints)
}

/// Strings to integers or back, by the input's type.
fn two_way(cx: &mut NodeCx<'_, '_>, strings: Vec<String>, ints: Vec<i64>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (strings, ints) = (Data::Str(strings), Data::I64(ints));
    let (keys, values) = if cx.ty(x).element == Element::Str { (strings, ints) } else { (ints, strings) };
    let default = default(cx, values.element())?;
    let op = encoder(keys, values, default)?;
    cx.single(op, vec![x])
}
