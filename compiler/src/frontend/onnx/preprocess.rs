//! ai.onnx.ml operations of the head and the tail.

use super::labels;
use super::linear::wide;
use super::node::{Converted, Fail, NodeCx};
use tacit_ir::graph::ValueId;
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
        "Imputer" => imputer(cx),
        "OneHotEncoder" => one_hot(cx),
        "LabelEncoder" => labels::label_encoder(cx),
        "CategoryMapper" => labels::category_mapper(cx),
        "FeatureVectorizer" => feature_vectorizer(cx),
        "ArrayFeatureExtractor" => array_feature_extractor(cx),
        "ZipMap" => {
            let x = cx.operand(0)?;
            let ints = cx.ints("classlabels_int64s")?.filter(|v| !v.is_empty());
            let strings = cx.strings("classlabels_strings")?.filter(|v| !v.is_empty());
            cx.single(TensorOp::ZipMap { ints, strings }, vec![x])
        }
        "DictVectorizer" | "CastMap" => {
            Err(Fail::unsupported(format!("`{op}` reads a map; give its entries as columns, encoded before the model")))
        }
        _ => Err(Fail::unsupported(format!(
            "`{op}` of ai.onnx.ml {}: not known to Tacit; compute it before the model",
            cx.importer.opsets.ml
        ))),
    }
}

fn numeric(cx: &mut NodeCx<'_, '_>, op: TensorOp) -> Converted<()> {
    let x = cx.operand(0)?;
    let x = cx.as_float(x)?;
    cx.single(op, vec![x])
}

fn imputer(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let ints = cx.ints("imputed_value_int64s")?.filter(|values| !values.is_empty());
    let floats = cx.floats("imputed_value_floats")?.filter(|values| !values.is_empty());
    let op = match (floats, ints) {
        (Some(values), None) => {
            let replaced = f64::from(cx.float("replaced_value_float")?.unwrap_or(0.0));
            TensorOp::Imputer { replaced, values: wide(values) }
        }
        (None, Some(values)) if cx.ty(x).element == Element::I64 => {
            let replaced = cx.int("replaced_value_int64")?.unwrap_or(0) as f64;
            TensorOp::Imputer { replaced, values: values.iter().map(|&v| v as f64).collect() }
        }
        (None, Some(_)) => return Err(Fail::type_mismatch("integer values for a tensor of floats")),
        _ => return Err(Fail::attribute("the imputer needs either float or integer values")),
    };
    cx.single(op, vec![x])
}

fn one_hot(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let ints = cx.ints("cats_int64s")?.filter(|v| !v.is_empty());
    let strings = cx.strings("cats_strings")?.filter(|v| !v.is_empty());
    let zeros = cx.flag("zeros", true)?;
    let x = cx.operand(0)?;
    cx.single(TensorOp::OneHot { ints, strings, zeros }, vec![x])
}

/// Columns of several operands as floats, each cut to its declared number of columns.
fn feature_vectorizer(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let wanted = cx.ints("inputdimensions")?;
    let mut parts = Vec::new();
    for (position, id) in cx.operands()?.into_iter().enumerate() {
        let columns = cx.columns(id)?;
        let size = wanted.as_ref().and_then(|wanted| wanted.get(position)).map_or(Ok(columns), |&size| {
            usize::try_from(size).map_err(|_| Fail::attribute(format!("`inputdimensions` holds {size}")))
        })?;
        let id = if size < columns { take(cx, id, (0..size).collect())? } else { id };
        if size > columns {
            return Err(Fail::unsupported(format!(
                "{columns} columns padded to {size}; give `inputdimensions` the columns that there are"
            )));
        }
        parts.push(cx.cast(id, Element::F32)?);
    }
    cx.single(TensorOp::Concat { axis: 1 }, parts)
}

fn take(cx: &mut NodeCx<'_, '_>, id: ValueId, indices: Vec<usize>) -> Converted<ValueId> {
    let axis = cx.ty(id).shape.len().saturating_sub(1);
    cx.push(TensorOp::Take { axis, indices }, vec![id])
}

/// Positions of the last axis. onnxruntime gives a vector the shape [1, positions].
fn array_feature_extractor(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, positions) = (cx.operand(0)?, cx.operand(1)?);
    let vector = cx.ty(x).shape.len() == 1;
    if let Some(Data::I64(indices)) = cx.constant(positions).map(|value| &value.data) {
        let indices: Vec<usize> = indices.iter().map(|&i| usize::try_from(i).unwrap_or(usize::MAX)).collect();
        let count = indices.len() as i64;
        let id = take(cx, x, indices)?;
        let id = if vector { cx.push(TensorOp::Reshape { shape: vec![1, count] }, vec![id])? } else { id };
        cx.define(id);
        return Ok(());
    }
    if cx.constant(x).is_none() {
        return Err(Fail::unsupported("positions that are computed from the data; only constant ones are supported"));
    }
    // A constant row of labels, looked up by one computed position a row.
    let table = if vector {
        let columns = cx.constant(x).map_or(0, |value| value.data.len()) as i64;
        cx.push(TensorOp::Reshape { shape: vec![1, columns] }, vec![x])?
    } else {
        x
    };
    let positions = cx.as_matrix(positions)?;
    let columns = cx.columns(positions)?;
    let picked = cx.push(TensorOp::GatherRows {}, vec![table, positions])?;
    // onnxruntime makes one row of all rows; what puts them apart again, as in skl2onnx' nearest neighbours, may do nothing.
    if columns != 1 && cx.only_reshaped_to(&[-1, columns as i64]) {
        cx.define(picked);
        return Ok(());
    }
    if columns != 1 {
        return Err(Fail::unsupported("several computed positions a row; use constant ones"));
    }
    cx.single(TensorOp::Reshape { shape: vec![1, -1] }, vec![picked])
}
