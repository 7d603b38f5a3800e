//! Linear models of ai.onnx.ml.

use super::node::{Converted, Fail, NodeCx, finite};
use tacit_ir::stage::tensor::{PostTransform, TensorOp};

/// Widens 32-bit attribute floats.
pub(super) fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// `linear` from coefficients, one row an output.
pub(super) fn emit(
    cx: &mut NodeCx<'_, '_>,
    outputs: usize,
    weights: Vec<f64>,
    bias: Vec<f64>,
) -> Converted<tacit_ir::graph::ValueId> {
    let x = cx.operand(0)?;
    let x = cx.as_matrix(x)?;
    let x = cx.as_float(x)?;
    finite("coefficient", &weights)?;
    finite("intercept", &bias)?;
    let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias };
    cx.push(TensorOp::Linear { outputs, weights, bias }, vec![x])
}

pub(super) fn regressor(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let outputs = usize::try_from(cx.int("targets")?.unwrap_or(1)).unwrap_or(0);
    let weights = wide(cx.floats("coefficients")?.ok_or_else(|| Fail::attribute("`coefficients` is missing"))?);
    let bias = wide(cx.floats("intercepts")?.unwrap_or_default());
    if outputs == 0 {
        return Err(Fail::attribute("`targets` is not positive"));
    }
    let raw = emit(cx, outputs, weights, bias)?;
    let kind = cx.post_transform()?;
    super::trees::finish_scores(cx, raw, kind)
}

pub(super) fn classifier(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let weights = wide(cx.floats("coefficients")?.ok_or_else(|| Fail::attribute("`coefficients` is missing"))?);
    let bias = wide(cx.floats("intercepts")?.unwrap_or_default());
    let labels = cx.class_labels("classlabels_ints", "classlabels_strings")?;
    let labels = labels.ok_or_else(|| Fail::attribute("the classifier has no class labels"))?;
    let kind = cx.post_transform()?;
    let x = cx.operand(0)?;
    let x = cx.as_matrix(x)?;
    let columns = cx.columns(x)?;
    let outputs = weights.len().checked_div(columns).unwrap_or(0);
    if outputs == 0 || outputs * columns != weights.len() || (outputs != labels.len() && outputs != 1) {
        return Err(Fail::shape(format!(
            "{} coefficients for {columns} columns and {} classes",
            weights.len(),
            labels.len()
        )));
    }
    let raw = emit(cx, outputs, weights, bias)?;
    if outputs == 1 && labels.len() <= 2 {
        // onnxruntime adds the second class: its label wins above 0.5 of a logistic score, above 0 otherwise.
        if labels.len() != 2 {
            return Err(Fail::unsupported("one coefficient row needs two class labels; export with both classes"));
        }
        let position = cx.push(TensorOp::BinaryLabel { threshold: 0.0 }, vec![raw])?;
        let label = cx.labels(position, &labels)?;
        let scores = cx.push(TensorOp::BinaryScores { positive: false, kind }, vec![raw])?;
        cx.define(label);
        cx.define(scores);
        return Ok(());
    }
    let position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![raw])?;
    let label = cx.labels(position, &labels)?;
    let scores = if kind == PostTransform::None { raw } else { cx.push(TensorOp::PostTransform { kind }, vec![raw])? };
    cx.define(label);
    cx.define(scores);
    Ok(())
}
