//! ai.onnx.ml operations of the head and the tail.

use super::node::{Converted, Fail, NodeCx};
use tacit_ir::interp::tensor::Data;
use tacit_ir::stage::tensor::{Element, Norm, TensorOp};

pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    match op {
        "Scaler" => {
            let offset = cx.floats("offset")?.filter(|v| !v.is_empty()).unwrap_or_else(|| vec![0.0]);
            let scale = cx.floats("scale")?.filter(|v| !v.is_empty()).unwrap_or_else(|| vec![1.0]);
            numeric(cx, TensorOp::Scaler { offset, scale })
        }
        "Normalizer" => {
            let norm = match cx.string("norm")?.as_deref() {
                None | Some("MAX") => Norm::Max,
                Some("L1") => Norm::L1,
                Some("L2") => Norm::L2,
                Some(other) => return Err(Fail::attribute(format!("`norm` is `{other}`"))),
            };
            numeric(cx, TensorOp::Normalizer { norm })
        }
        "Binarizer" => {
            let threshold = cx.float("threshold")?.unwrap_or(0.0);
            numeric(cx, TensorOp::Binarizer { threshold })
        }
        "Imputer" => {
            let op = match (cx.floats("imputed_value_floats")?, cx.ints("imputed_value_int64s")?) {
                (Some(values), _) if !values.is_empty() => {
                    let replaced = f64::from(cx.float("replaced_value_float")?.unwrap_or(0.0));
                    TensorOp::Imputer { replaced, values: super::linear::wide(values) }
                }
                (_, Some(values)) if !values.is_empty() => {
                    let replaced = cx.int("replaced_value_int64")?.unwrap_or(0) as f64;
                    TensorOp::Imputer { replaced, values: values.iter().map(|&v| v as f64).collect() }
                }
                _ => return Err(Fail::attribute("the imputer has no values")),
            };
            let x = cx.operand(0)?;
            cx.single(op, vec![x])
        }
        "OneHotEncoder" => {
            let ints = cx.ints("cats_int64s")?.filter(|v| !v.is_empty());
            let strings = cx.strings("cats_strings")?.filter(|v| !v.is_empty());
            let zeros = cx.int("zeros")?.unwrap_or(1) != 0;
            let x = cx.operand(0)?;
            cx.single(TensorOp::OneHot { ints, strings, zeros }, vec![x])
        }
        "LabelEncoder" => label_encoder(cx),
        "FeatureVectorizer" => {
            let mut parts = Vec::new();
            for id in cx.operands()? {
                let id = cx.as_matrix(id)?;
                parts.push(cx.push(TensorOp::Cast { to: Element::F32 }, vec![id])?);
            }
            cx.single(TensorOp::Concat { axis: 1 }, parts)
        }
        "ArrayFeatureExtractor" => {
            let x = cx.operand(0)?;
            let positions = cx.operand(1)?;
            match cx.constant(positions).map(|value| &value.data) {
                Some(Data::I64(indices)) => {
                    let rank = cx.ty(x).shape.len();
                    let indices = indices.iter().map(|&i| usize::try_from(i).unwrap_or(usize::MAX)).collect();
                    cx.single(TensorOp::Take { axis: rank.saturating_sub(1), indices }, vec![x])
                }
                _ if cx.constant(x).is_some() => {
                    // A constant row of labels, looked up by computed positions.
                    let rank = cx.ty(x).shape.len();
                    let columns = cx.constant(x).map_or(0, |value| value.data.len());
                    let table = if rank == 1 {
                        cx.push(TensorOp::Reshape { shape: vec![1, columns as i64] }, vec![x])?
                    } else {
                        x
                    };
                    let positions = cx.as_matrix(positions)?;
                    let picked = cx.push(TensorOp::GatherRows {}, vec![table, positions])?;
                    // onnxruntime gives [1, rows] for a vector of positions.
                    cx.define(picked);
                    Ok(())
                }
                _ => Err(Fail::unsupported(
                    "positions that are computed from the data; only constant ones are supported",
                )),
            }
        }
        "ZipMap" => {
            let x = cx.operand(0)?;
            let ints = cx.ints("classlabels_int64s")?.filter(|v| !v.is_empty());
            let strings = cx.strings("classlabels_strings")?.filter(|v| !v.is_empty());
            cx.single(TensorOp::ZipMap { ints, strings }, vec![x])
        }
        "DictVectorizer" | "CastMap" | "CategoryMapper" => {
            Err(Fail::unsupported(format!("`{op}`; encode this column before the model, or with OrdinalEncoder")))
        }
        _ => Err(Fail::unsupported(format!("`{op}` of ai.onnx.ml"))),
    }
}

fn numeric(cx: &mut NodeCx<'_, '_>, op: TensorOp) -> Converted<()> {
    let x = cx.operand(0)?;
    let x = cx.as_float(x)?;
    cx.single(op, vec![x])
}

fn label_encoder(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let tensor = |cx: &NodeCx<'_, '_>, name: &str| cx.tensor_attribute(name).map(|value| value.map(|value| value.data));
    let (keys_tensor, values_tensor) = (tensor(cx, "keys_tensor")?, tensor(cx, "values_tensor")?);
    let mut keys = (cx.ints("keys_int64s")?, cx.floats("keys_floats")?, cx.strings("keys_strings")?);
    let mut values = (cx.ints("values_int64s")?, cx.floats("values_floats")?, cx.strings("values_strings")?);
    for (slot, data) in [(&mut keys, keys_tensor), (&mut values, values_tensor)] {
        match data {
            None => {}
            Some(Data::I64(data)) => slot.0 = Some(data),
            Some(Data::F32(data)) => slot.1 = Some(data),
            Some(Data::F64(data)) => slot.1 = Some(data.into_iter().map(|x| x as f32).collect()),
            Some(Data::Str(data)) => slot.2 = Some(data),
            Some(Data::Bool(_)) => return Err(Fail::attribute("boolean keys or values")),
        }
    }
    // Version 1: strings and their positions, in the direction of the input's type.
    if let Some(classes) = cx.strings("classes_strings")? {
        let positions = (0..classes.len() as i64).collect();
        let x = cx.operand(0)?;
        if cx.ty(x).element == Element::Str {
            (keys.2, values.0) = (Some(classes), Some(positions));
        } else {
            (keys.0, values.2) = (Some(positions), Some(classes));
        }
    }
    let nonempty = |len: Option<usize>| len.is_some_and(|len| len > 0);
    if !nonempty(keys.0.as_ref().map(Vec::len)) {
        keys.0 = None;
    }
    if !nonempty(keys.1.as_ref().map(Vec::len)) {
        keys.1 = None;
    }
    if !nonempty(keys.2.as_ref().map(Vec::len)) {
        keys.2 = None;
    }
    let default = tensor(cx, "default_tensor")?;
    let op = TensorOp::LabelEncoder {
        keys_i64: keys.0,
        keys_f32: keys.1,
        keys_str: keys.2,
        values_i64: values.0.filter(|v| !v.is_empty()),
        values_f32: values.1.filter(|v| !v.is_empty()),
        values_str: values.2.filter(|v| !v.is_empty()),
        default_i64: match &default {
            Some(Data::I64(data)) => data.first().copied().unwrap_or(-1),
            _ => cx.int("default_int64")?.unwrap_or(-1),
        },
        default_f32: match &default {
            Some(Data::F32(data)) => data.first().copied().unwrap_or(-0.0),
            _ => cx.float("default_float")?.unwrap_or(-0.0),
        },
        default_str: match &default {
            Some(Data::Str(data)) => data.first().cloned().unwrap_or_default(),
            _ => cx.string("default_string")?.unwrap_or_else(|| "_Unused".to_owned()),
        },
    };
    let x = cx.operand(0)?;
    cx.single(op, vec![x])
}
