//! What tree ensembles make of their sums: scores and labels, by onnxruntime's rules.
//!
//! onnxruntime keeps, for each row and target, whether any leaf gave it a score. A target without one counts as zero
//! whatever its base value, and never gives the label. Where that cannot be told from the trees alone, the model is
//! refused; no known exporter writes such a model.

use super::linear::{both_scores, transformed, two_classes};
use super::node::{Converted, Fail, Labels, NodeCx};
use super::trees::{Coverage, Forest, index, new_forest};
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{Aggregate, BinaryKind, Element, PostTransform, TensorOp};

fn aggregate(name: Option<&str>) -> Converted<Aggregate> {
    Ok(match name {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => return Err(Fail::attribute(format!("`aggregate_function` is `{other}`"))),
    })
}

/// A data-dependent set of scored targets, where onnxruntime's answer would depend on it.
fn some_rows_only() -> Fail {
    Fail::variant(
        "some leaves leave out a target that others score, and the result depends on which",
        "give every leaf of a tree a weight for the same targets, zeros included",
    )
}

fn target_count(cx: &NodeCx<'_, '_>) -> Converted<usize> {
    let targets = index("n_targets", cx.int("n_targets")?.unwrap_or(1))?;
    if targets == 0 || targets > cx.importer.limits.max_targets {
        return Err(Fail::attribute(format!("`n_targets` is {targets}")));
    }
    Ok(targets)
}

pub(super) fn regressor(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let targets = target_count(cx)?;
    let forest = cx.old_forest("target", targets)?;
    let base = cx.reals("base_values")?.map(|(values, _)| values).unwrap_or_default();
    let aggregate = aggregate(cx.string("aggregate_function")?.as_deref())?;
    let kind = cx.post_transform()?;
    let raw = regression(cx, &forest, targets, aggregate, base)?;
    let scores = regression_scores(cx, raw, targets, kind)?;
    let scores = cx.cast(scores, Element::F32)?;
    cx.define(scores);
    Ok(())
}

/// ai.onnx.ml 5's TreeEnsemble; its output has the input's type.
pub(super) fn ensemble(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let targets = target_count(cx)?;
    let forest = new_forest(cx, targets)?;
    let aggregate = match cx.int("aggregate_function")?.unwrap_or(1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(Fail::attribute(format!("`aggregate_function` is {other}"))),
    };
    // onnxruntime numbers the transforms in this order, unlike the specification, which has softmax before logistic.
    let kind = match cx.int("post_transform")?.unwrap_or(0) {
        0 => PostTransform::None,
        1 => PostTransform::Logistic,
        2 => PostTransform::Softmax,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => return Err(Fail::attribute(format!("`post_transform` is {other}"))),
    };
    let raw = regression(cx, &forest, targets, aggregate, Vec::new())?;
    let element = cx.ty(raw).element;
    let scores = regression_scores(cx, raw, targets, kind)?;
    let scores = cx.cast(scores, element)?;
    cx.define(scores);
    Ok(())
}

fn regression(
    cx: &mut NodeCx<'_, '_>,
    forest: &Forest,
    targets: usize,
    aggregate: Aggregate,
    mut base: Vec<f64>,
) -> Converted<ValueId> {
    if !base.is_empty() && base.len() != targets {
        return Err(Fail::attribute(format!("{} base values for {targets} targets", base.len())));
    }
    if targets == 1 && forest.most_weights_of_a_leaf() > 1 {
        return Err(Fail::attribute("a leaf has several weights for the one target").help(
            "give every leaf one weight; if these are the positions of leaves or paths, export without decision_leaf and decision_path",
        ));
    }
    let Coverage { always, ever } = forest.coverage(targets);
    // A single target is always scored: its base value counts.
    for (target, base) in base.iter_mut().enumerate().filter(|_| targets > 1) {
        match (always[target], ever[target]) {
            (true, _) => {}
            (false, false) => *base = 0.0,
            (false, true) if *base == 0.0 => {}
            (false, true) => return Err(some_rows_only()),
        }
    }
    let all: Vec<usize> = (0..targets).collect();
    cx.emit(forest, &all, aggregate, base)
}

/// On a single target onnxruntime applies no transform but PROBIT.
fn regression_scores(cx: &mut NodeCx<'_, '_>, raw: ValueId, targets: usize, kind: PostTransform) -> Converted<ValueId> {
    match kind {
        PostTransform::None => Ok(raw),
        PostTransform::Probit => transformed(cx, raw, kind),
        kind if targets > 1 => transformed(cx, raw, kind),
        _ => Ok(raw),
    }
}

pub(super) fn classifier(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let labels = cx.class_labels("classlabels_int64s", "classlabels_strings")?;
    let labels = labels.ok_or_else(|| Fail::attribute("the classifier has no class labels"))?;
    let classes = labels.len();
    if classes > cx.importer.limits.max_targets {
        return Err(Fail::attribute(format!("{classes} classes")));
    }
    let forest = cx.old_forest("class", classes)?;
    let base = cx.reals("base_values")?.map(|(values, _)| values).unwrap_or_default();
    let kind = cx.post_transform()?;
    match classes {
        1 => Err(Fail::variant("a classifier of one class", "train the model with at least two classes")),
        2 => binary(cx, &forest, &labels, base, kind),
        _ => multiclass(cx, &forest, &labels, base, kind),
    }
}

fn multiclass(
    cx: &mut NodeCx<'_, '_>,
    forest: &Forest,
    labels: &Labels,
    base: Vec<f64>,
    kind: PostTransform,
) -> Converted<()> {
    let classes = labels.len();
    if !base.is_empty() && base.len() != classes {
        return Err(Fail::attribute(format!("{} base values for {classes} classes", base.len())));
    }
    // Base values count as scores; without them the label is one of the classes that have a score.
    let Coverage { always, ever } = forest.coverage(classes);
    let candidates: Vec<usize> =
        if base.is_empty() { (0..classes).filter(|&class| ever[class]).collect() } else { (0..classes).collect() };
    let told_apart = !base.is_empty()
        || candidates.iter().all(|&class| always[class])
        // A class without a score counts as zero and loses to any that has one.
        || forest.all_weights().all(|(_, weight)| weight > 0.0);
    if !told_apart {
        return Err(some_rows_only());
    }
    let all: Vec<usize> = (0..classes).collect();
    let raw = cx.emit(forest, &all, Aggregate::Sum, base)?;
    let ranked = if candidates.len() == classes {
        raw
    } else {
        cx.push(TensorOp::Take { axis: 1, indices: candidates.clone() }, vec![raw])?
    };
    let position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![ranked])?;
    let label = cx.labels(position, &labels.pick(&candidates))?;
    let scores = transformed(cx, raw, kind)?;
    cx.define(label);
    cx.define(scores);
    Ok(())
}

/// Two classes. Which of them have weights decides what onnxruntime does:
/// - only the first: its sum is the score of the second class, as in boosting;
/// - only the second: its sum is the score of the second class and the first one's is zero;
/// - both: two scores, and the second class wins wherever its score is positive.
fn binary(
    cx: &mut NodeCx<'_, '_>,
    forest: &Forest,
    labels: &Labels,
    base: Vec<f64>,
    kind: PostTransform,
) -> Converted<()> {
    if base.len() > 2 {
        return Err(Fail::attribute(format!("{} base values for 2 classes", base.len())));
    }
    let Coverage { always, ever } = forest.coverage(2);
    if always != ever {
        return Err(some_rows_only());
    }
    let positive = forest.all_weights().all(|(_, weight)| weight >= 0.0);
    let threshold = if positive { 0.5 } else { 0.0 };
    let base_of = |class: usize| base.get(class).copied();
    match (always[0], always[1], base.len()) {
        (true, false, 0 | 1) => {
            let raw = cx.emit(forest, &[0], Aggregate::Sum, base_of(0).into_iter().collect())?;
            two_classes(cx, raw, labels, threshold, positive, kind)
        }
        (true, false, _) => {
            let raw = cx.emit(forest, &[0], Aggregate::Sum, base_of(0).into_iter().collect())?;
            one_score_of_two(cx, raw, labels, threshold, 0, kind)
        }
        (false, true, 0 | 1) => {
            let raw = cx.emit(forest, &[1], Aggregate::Sum, Vec::new())?;
            one_score_of_two(cx, raw, labels, threshold, 1, kind)
        }
        (true, true, 0 | 1) => {
            let base = base_of(0).map_or(Vec::new(), |first| vec![first, 0.0]);
            let raw = cx.emit(forest, &[0, 1], Aggregate::Sum, base)?;
            let second = cx.push(TensorOp::Take { axis: 1, indices: vec![1] }, vec![raw])?;
            let label = sign_label(cx, second, labels)?;
            let scores = transformed(cx, raw, kind)?;
            cx.define(label);
            cx.define(scores);
            Ok(())
        }
        // With two base values onnxruntime drops the second class's own weights.
        (true, true, _) => {
            let raw = cx.emit(forest, &[0], Aggregate::Sum, base_of(1).into_iter().collect())?;
            let label = sign_label(cx, raw, labels)?;
            let scores = match kind {
                PostTransform::None => both_scores(cx, raw, false, kind)?,
                kind => {
                    let both = cx.push(TensorOp::Take { axis: 1, indices: vec![0, 0] }, vec![raw])?;
                    let both = cx.with_constant(BinaryKind::Mul, both, &[-1.0, 1.0])?;
                    transformed(cx, both, kind)?
                }
            };
            cx.define(label);
            cx.define(scores);
            Ok(())
        }
        (false, ..) => Err(Fail::variant(
            "two base values and weights for the second class only, of which onnxruntime ignores the trees",
            "name the first class in the leaf weights, as the exporters of boosted trees do",
        )),
    }
}

/// The score of one class, zero for the other.
fn one_score_of_two(
    cx: &mut NodeCx<'_, '_>,
    raw: ValueId,
    labels: &Labels,
    threshold: f64,
    class: usize,
    kind: PostTransform,
) -> Converted<()> {
    let position = cx.push(TensorOp::BinaryLabel { threshold }, vec![raw])?;
    let label = cx.labels(position, labels)?;
    let both = cx.push(TensorOp::Take { axis: 1, indices: vec![0, 0] }, vec![raw])?;
    let factors = if class == 0 { [1.0, 0.0] } else { [0.0, 1.0] };
    let both = cx.with_constant(BinaryKind::Mul, both, &factors)?;
    let scores = transformed(cx, both, kind)?;
    cx.define(label);
    cx.define(scores);
    Ok(())
}

/// The label by the sign of a score; onnxruntime here writes 1 or 0 whatever the integer labels are.
fn sign_label(cx: &mut NodeCx<'_, '_>, score: ValueId, labels: &Labels) -> Converted<ValueId> {
    let position = cx.push(TensorOp::BinaryLabel { threshold: 0.0 }, vec![score])?;
    match labels {
        Labels::Ints(_) => cx.labels(position, &Labels::Ints(vec![0, 1])),
        Labels::Strings(_) => cx.labels(position, labels),
    }
}
