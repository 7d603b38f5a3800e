//! Linear models of ai.onnx.ml.

use super::node::{Converted, Fail, Labels, NodeCx, finite};
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{Element, PostTransform, TensorOp};

/// Widens 32-bit attribute floats.
pub(super) fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// `linear` of operand 0 from coefficients, one row an output. onnxruntime computes these models in 32-bit floats,
/// whatever the input.
pub(super) fn emit(cx: &mut NodeCx<'_, '_>, outputs: usize, weights: Vec<f64>, bias: Vec<f64>) -> Converted<ValueId> {
    let x = cx.features()?;
    let x = cx.cast(x, Element::F32)?;
    finite("coefficient", &weights)?;
    finite("intercept", &bias)?;
    let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias };
    cx.push(TensorOp::Linear { outputs, weights, bias }, vec![x])
}

/// Scores after their transform, as 32-bit floats.
pub(super) fn transformed(cx: &mut NodeCx<'_, '_>, raw: ValueId, kind: PostTransform) -> Converted<ValueId> {
    match kind {
        PostTransform::None => cx.cast(raw, Element::F32),
        kind => cx.push(TensorOp::PostTransform { kind }, vec![raw]),
    }
}

/// Label and scores of a two-class model with one score.
pub(super) fn two_classes(
    cx: &mut NodeCx<'_, '_>,
    raw: ValueId,
    labels: &Labels,
    threshold: f64,
    positive: bool,
    kind: PostTransform,
) -> Converted<()> {
    let position = cx.push(TensorOp::BinaryLabel { threshold }, vec![raw])?;
    let label = cx.labels(position, labels)?;
    let scores = both_scores(cx, raw, positive, kind)?;
    cx.define(label);
    cx.define(scores);
    Ok(())
}

/// Both scores of a two-class model with one score.
pub(super) fn both_scores(
    cx: &mut NodeCx<'_, '_>,
    raw: ValueId,
    positive: bool,
    kind: PostTransform,
) -> Converted<ValueId> {
    if kind == PostTransform::Probit {
        return Err(Fail::variant(
            "PROBIT on the one score of a two-class model, of which onnxruntime leaves the second undefined",
            "export the model with post_transform NONE or LOGISTIC",
        ));
    }
    cx.push(TensorOp::BinaryScores { positive, kind }, vec![raw])
}

pub(super) fn regressor(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let outputs = usize::try_from(cx.int("targets")?.unwrap_or(1)).unwrap_or(0);
    let weights = wide(cx.floats("coefficients")?.ok_or_else(|| Fail::attribute("`coefficients` is missing"))?);
    let bias = wide(cx.floats("intercepts")?.unwrap_or_default());
    if outputs == 0 || outputs > cx.importer.limits.max_targets {
        return Err(Fail::attribute(format!("`targets` is {outputs}")));
    }
    let raw = emit(cx, outputs, weights, bias)?;
    // On a single target onnxruntime applies no transform but PROBIT.
    let kind = match cx.post_transform()? {
        PostTransform::Probit => PostTransform::Probit,
        kind if outputs > 1 => kind,
        _ => PostTransform::None,
    };
    let scores = transformed(cx, raw, kind)?;
    cx.define(scores);
    Ok(())
}

pub(super) fn classifier(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let weights = wide(cx.floats("coefficients")?.ok_or_else(|| Fail::attribute("`coefficients` is missing"))?);
    let bias = wide(cx.floats("intercepts")?.unwrap_or_default());
    let labels = cx.class_labels("classlabels_ints", "classlabels_strings")?;
    let labels = labels.ok_or_else(|| Fail::attribute("the classifier has no class labels"))?;
    let kind = cx.post_transform()?;
    let x = cx.operand(0)?;
    let columns = cx.columns(x)?;
    let outputs = weights.len().checked_div(columns).unwrap_or(0);
    let classes_fit = outputs == labels.len() || (outputs == 1 && labels.len() == 2);
    if outputs == 0 || outputs.checked_mul(columns) != Some(weights.len()) || !classes_fit {
        return Err(Fail::shape(format!(
            "{} coefficients for {columns} columns and {} classes",
            weights.len(),
            labels.len()
        )));
    }
    let raw = emit(cx, outputs, weights, bias)?;
    match (outputs, labels.len()) {
        // The second class's score is the one score, whatever the weights' signs.
        (1, 2) => return two_classes(cx, raw, &labels, 0.0, true, kind),
        (1, _) => {
            return Err(Fail::variant("a classifier of one class", "export the model with both class labels"));
        }
        _ => {}
    }
    let position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![raw])?;
    let label = cx.labels(position, &labels)?;
    let scores = transformed(cx, raw, kind)?;
    cx.define(label);
    cx.define(scores);
    Ok(())
}
