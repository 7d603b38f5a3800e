//! Support vector machines with a linear kernel: their support vectors collapse to one weight vector a decision.

use super::linear::{both_scores, emit, transformed, wide};
use super::node::{Converted, Fail, Labels, NodeCx, finite};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, PostTransform, ReduceKind, TensorOp};

fn linear_kernel(cx: &NodeCx<'_, '_>) -> Converted<()> {
    match cx.string("kernel_type")?.as_deref() {
        None | Some("LINEAR") => Ok(()),
        Some(other) => Err(Fail::unsupported(format!(
            "the kernel is {other}; only a linear kernel runs without bootstrapping: train with kernel=\"linear\""
        ))),
    }
}

pub(super) fn regressor(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    linear_kernel(cx)?;
    let coefficients = wide(cx.floats("coefficients")?.unwrap_or_default());
    let vectors = wide(cx.floats("support_vectors")?.unwrap_or_default());
    let rho = wide(cx.floats("rho")?.unwrap_or_default());
    let rho = *rho.first().ok_or_else(|| Fail::attribute("`rho` is missing"))?;
    let x = cx.operand(0)?;
    let columns = cx.columns(x)?;
    let supports = usize::try_from(cx.int("n_supports")?.unwrap_or(0)).unwrap_or(0);
    let weights = if supports == 0 {
        coefficients
    } else {
        if supports != coefficients.len() || supports.checked_mul(columns) != Some(vectors.len()) {
            return Err(Fail::attribute(format!(
                "{} coefficients and {} vector values for {supports} supports",
                coefficients.len(),
                vectors.len()
            )));
        }
        combine(&vectors, columns, coefficients.iter().copied().enumerate())
    };
    // onnxruntime ignores the post transform of this operation.
    let mut value = emit(cx, 1, weights, vec![rho])?;
    if cx.flag("one_class", false)? {
        let inside = cx.with_constant(BinaryKind::Greater, value, &[0.0])?;
        let plus = cx.push_constant(TensorValue::f32(Vec::new(), vec![1.0]))?;
        let minus = cx.push_constant(TensorValue::f32(Vec::new(), vec![-1.0]))?;
        value = cx.push(TensorOp::Where {}, vec![inside, plus, minus])?;
    }
    cx.define(value);
    Ok(())
}

/// The sum of support vectors, each times its coefficient.
fn combine(vectors: &[f64], columns: usize, coefficients: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
    let mut weights = vec![0.0; columns];
    for (vector, coefficient) in coefficients {
        for (weight, value) in weights.iter_mut().zip(&vectors[vector * columns..]) {
            *weight += coefficient * value;
        }
    }
    weights
}

pub(super) fn classifier(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    linear_kernel(cx)?;
    let coefficients = wide(cx.floats("coefficients")?.unwrap_or_default());
    let vectors = wide(cx.floats("support_vectors")?.unwrap_or_default());
    let rho = wide(cx.floats("rho")?.unwrap_or_default());
    let prob_a = wide(cx.floats("prob_a")?.unwrap_or_default());
    let prob_b = wide(cx.floats("prob_b")?.unwrap_or_default());
    let per_class = cx.ints("vectors_per_class")?.unwrap_or_default();
    let labels = cx.class_labels("classlabels_ints", "classlabels_strings")?;
    let labels = labels.ok_or_else(|| Fail::attribute("the classifier has no class labels"))?;
    let classes = labels.len();
    let x = cx.operand(0)?;
    let columns = cx.columns(x)?;
    let per_class: Vec<usize> = per_class.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
    let supports = per_class.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)).unwrap_or(usize::MAX);
    let kind = cx.post_transform()?;
    if supports == 0 {
        return without_vectors(cx, coefficients, &rho, &labels, kind);
    }
    if per_class.len() != classes || !(2..=cx.importer.limits.max_targets).contains(&classes) {
        return Err(Fail::attribute(format!("{} counts of vectors for {classes} classes", per_class.len())));
    }
    let sizes = |a: usize, b: usize| a.checked_mul(b);
    let pairs = sizes(classes, classes - 1).map_or(usize::MAX, |twice| twice / 2);
    if sizes(supports, columns) != Some(vectors.len())
        || sizes(supports, classes - 1) != Some(coefficients.len())
        || rho.len() != pairs
    {
        return Err(Fail::attribute("support vectors, coefficients and rho do not match"));
    }
    // libsvm's layout: row j-1 of the coefficients holds class i's vectors against class j, row i those of j against i.
    let start: Vec<usize> = per_class.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + n))).collect();
    let mut weights = Vec::with_capacity(pairs * columns);
    for i in 0..classes {
        for j in i + 1..classes {
            let of = |class: usize, row: usize| {
                let coefficients = &coefficients;
                (start[class]..start[class] + per_class[class]).map(move |v| (v, coefficients[row * supports + v]))
            };
            weights.extend(combine(&vectors, columns, of(i, j - 1).chain(of(j, i))));
        }
    }
    let decisions = emit(cx, pairs, weights, rho)?;
    let with_probabilities = !prob_a.is_empty();
    finite("Platt parameter", &prob_a)?;
    finite("Platt parameter", &prob_b)?;
    if with_probabilities && (prob_a.len() != pairs || prob_b.len() != pairs) {
        return Err(Fail::attribute("`prob_a` and `prob_b` do not match the pairs of classes"));
    }
    // The label is the winner of the votes, with or without probabilities.
    let votes = cx.push(TensorOp::PairVotes { classes }, vec![decisions])?;
    let position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![votes])?;
    let label = cx.labels(position, &labels)?;
    let scores = if with_probabilities {
        let scores = cx.push(TensorOp::PairProbabilities { classes, a: prob_a, b: prob_b }, vec![decisions])?;
        transformed(cx, scores, kind)?
    } else if classes == 2 {
        // The one decision becomes two scores.
        both_scores(cx, decisions, kind != PostTransform::None, kind)?
    } else {
        transformed(cx, decisions, kind)?
    };
    cx.define(label);
    cx.define(scores);
    Ok(())
}

/// liblinear's form: one row of coefficients a class, one offset for all. With two classes the second wins wherever the
/// larger score is positive (or at least a half, where all coefficients are positive), else the larger score's class.
fn without_vectors(
    cx: &mut NodeCx<'_, '_>,
    coefficients: Vec<f64>,
    rho: &[f64],
    labels: &Labels,
    kind: PostTransform,
) -> Converted<()> {
    let classes = labels.len();
    let offset = *rho.first().ok_or_else(|| Fail::attribute("`rho` is missing"))?;
    let positive = coefficients.iter().all(|&coefficient| coefficient >= 0.0);
    let raw = emit(cx, classes, coefficients, vec![offset; classes])?;
    let mut position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![raw])?;
    if classes == 2 {
        let larger = cx.push(TensorOp::Reduce { kind: ReduceKind::Max, axes: vec![1] }, vec![raw])?;
        let (test, threshold) = if positive { (BinaryKind::GreaterOrEqual, 0.5) } else { (BinaryKind::Greater, 0.0) };
        let wins = cx.with_constant(test, larger, &[threshold])?;
        let second = cx.push_constant(TensorValue { shape: Vec::new(), data: Data::I64(vec![1]) })?;
        position = cx.push(TensorOp::Where {}, vec![wins, second, position])?;
    }
    let label = cx.labels(position, labels)?;
    let scores = transformed(cx, raw, kind)?;
    cx.define(label);
    cx.define(scores);
    Ok(())
}
