//! Support vector machines with a linear kernel: their support vectors collapse to one weight vector a decision.

use super::linear::{emit, wide};
use super::node::{Converted, Fail, NodeCx};
use tacit_ir::stage::tensor::{PostTransform, TensorOp};

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
    let rho = wide(cx.floats("rho")?.unwrap_or_default()).first().copied().unwrap_or(0.0);
    let x = cx.operand(0)?;
    let x = cx.as_matrix(x)?;
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
    let raw = emit(cx, 1, weights, vec![rho])?;
    let kind = cx.post_transform()?;
    let mut value =
        if kind == PostTransform::None { raw } else { cx.push(TensorOp::PostTransform { kind }, vec![raw])? };
    if cx.int("one_class")?.unwrap_or(0) != 0 {
        return Err(Fail::unsupported("one-class SVM; use the decision function of a regressor instead"));
    }
    value = cx.as_matrix(value)?;
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
    let x = cx.as_matrix(x)?;
    let columns = cx.columns(x)?;
    let per_class: Vec<usize> = per_class.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
    let supports: usize = per_class.iter().sum();
    if per_class.len() != classes || classes < 2 {
        return Err(Fail::unsupported(
            "an SVM classifier without support vectors; export LinearSVC as LinearClassifier",
        ));
    }
    let pairs = classes * (classes - 1) / 2;
    if vectors.len() != supports * columns || coefficients.len() != supports * (classes - 1) || rho.len() != pairs {
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
    let kind = cx.post_transform()?;
    let with_probabilities = !prob_a.is_empty();
    if with_probabilities && (prob_a.len() != pairs || prob_b.len() != pairs) {
        return Err(Fail::attribute("`prob_a` and `prob_b` do not match the pairs of classes"));
    }
    // onnxruntime takes the label from the probabilities where there are some, else from the votes.
    let ranking = if with_probabilities {
        cx.push(TensorOp::PairProbabilities { classes, a: prob_a, b: prob_b }, vec![decisions])?
    } else {
        cx.push(TensorOp::PairVotes { classes }, vec![decisions])?
    };
    let position = cx.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![ranking])?;
    let label = cx.labels(position, &labels)?;
    let scores = if with_probabilities { ranking } else { decisions };
    let scores = if classes == 2 && !with_probabilities {
        // One decision becomes two scores; a positive one speaks for the first class.
        let kind_two = TensorOp::BinaryScores { positive: false, kind };
        cx.push(kind_two, vec![scores])?
    } else if kind == PostTransform::None {
        scores
    } else {
        cx.push(TensorOp::PostTransform { kind }, vec![scores])?
    };
    cx.define(label);
    cx.define(scores);
    Ok(())
}
