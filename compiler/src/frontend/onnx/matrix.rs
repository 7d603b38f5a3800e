//! Matrix products: with a constant side they are linear maps.

use super::node::{Converted, Fail, NodeCx, finite};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::stage::tensor::TensorOp;

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "MatMul" => matmul(cx)?,
        "Gemm" => gemm(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn matmul(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let vector = cx.ty(w).shape.len() == 1;
    let rank = cx.ty(x).shape.len();
    if rank != 2 {
        return Err(Fail::unsupported(format!(
            "a product of a tensor of rank {rank}; only [rows, columns] is supported"
        )));
    }
    let x = cx.as_float(x)?;
    let op =
        TensorOp::Linear { outputs: columns, weights: transposed(&weights, rows, columns), bias: vec![0.0; columns] };
    let id = cx.push(op, vec![x])?;
    let id = if vector { cx.push(TensorOp::Reshape { shape: vec![-1] }, vec![id])? } else { id };
    cx.define(id);
    Ok(())
}

fn transposed(weights: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| weights[r * columns + c])).collect()
}

/// Rows, columns and row-major weights; a vector is one column.
fn constant_matrix(cx: &NodeCx<'_, '_>, id: ValueId) -> Converted<(usize, usize, Vec<f64>)> {
    let value = cx.constant(id).ok_or_else(|| {
        Fail::unsupported("a product whose second factor is not constant; only x times constant weights is supported")
    })?;
    let weights = value.to_f64().ok_or_else(|| Fail::type_mismatch("a matrix of strings"))?;
    finite("weight", &weights)?;
    match value.shape.as_slice() {
        [rows, columns] => Ok((*rows, *columns, weights)),
        [rows] => Ok((*rows, 1, weights)),
        other => Err(Fail::unsupported(format!("a product with a tensor of rank {}", other.len()))),
    }
}

fn gemm(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    if cx.flag("transA", false)? {
        return Err(Fail::unsupported("Gemm with transA; transpose the input before"));
    }
    let alpha = f64::from(cx.float("alpha")?.unwrap_or(1.0));
    let beta = f64::from(cx.float("beta")?.unwrap_or(1.0));
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let (outputs, weights) =
        if cx.flag("transB", false)? { (rows, weights) } else { (columns, transposed(&weights, rows, columns)) };
    let weights: Vec<f64> = weights.into_iter().map(|w| w * alpha).collect();
    let bias = match cx.optional(2) {
        None => vec![0.0; outputs],
        Some(id) => {
            let value = cx.constant(id);
            let bias = value.and_then(TensorValue::to_f64);
            let bias = bias.ok_or_else(|| Fail::unsupported("Gemm with a computed bias; use a constant one"))?;
            // One number, or one a column; a column of numbers would differ from row to row.
            let row_like = value.is_some_and(|value| matches!(value.shape.as_slice(), [] | [_] | [1, _]));
            if !row_like {
                return Err(Fail::unsupported("a bias that differs from row to row; add it before exporting"));
            }
            if bias.len() != 1 && bias.len() != outputs {
                return Err(Fail::shape(format!("{} biases for {outputs} outputs", bias.len())));
            }
            (0..outputs).map(|i| beta * bias[if bias.len() == 1 { 0 } else { i }]).collect()
        }
    };
    finite("scaled weight", &weights)?;
    finite("bias", &bias)?;
    let x = cx.as_float(x)?;
    cx.single(TensorOp::Linear { outputs, weights, bias }, vec![x])
}
