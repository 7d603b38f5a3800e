//! Operations of ai.onnx.ml.

use super::{Data, Fault, TensorValue};
use crate::stage::tensor::{Norm, PostTransform, TensorOp};

fn floats(x: &TensorValue) -> Result<Vec<f32>, Fault> {
    x.to_f32().ok_or_else(|| Fault::Shape("a numeric operation on strings".to_owned()))
}

fn per_column<T: Copy>(values: &[T], column: usize) -> Option<T> {
    if values.len() == 1 { values.first().copied() } else { values.get(column).copied() }
}

/// A function of a value and its column, in 32-bit floats.
fn by_column(x: &TensorValue, f: impl Fn(f32, usize) -> Option<f32>) -> Result<TensorValue, Fault> {
    let columns = x.columns().max(1);
    let data = floats(x)?.into_iter().enumerate().map(|(at, value)| f(value, at % columns));
    let data: Option<Vec<f32>> = data.collect();
    let data = data.ok_or_else(|| Fault::Shape("fewer parameters than columns".to_owned()))?;
    Ok(TensorValue::f32(x.shape.clone(), data))
}

/// A function of each row, in 32-bit floats.
fn by_row(x: &TensorValue, columns: usize, mut f: impl FnMut(&[f32], &mut Vec<f32>)) -> Result<TensorValue, Fault> {
    let data = floats(x)?;
    let mut out = Vec::with_capacity(x.rows() * columns);
    for row in data.chunks(x.columns().max(1)).take(x.rows()) {
        f(row, &mut out);
    }
    Ok(TensorValue::f32(vec![x.rows(), columns], out))
}

pub(super) fn linear(x: &TensorValue, outputs: usize, weights: &[f64], bias: &[f64]) -> Result<TensorValue, Fault> {
    let columns = x.columns();
    if columns * outputs != weights.len() {
        return Err(Fault::Shape(format!("{columns} columns for {} weights", weights.len())));
    }
    // Sums in double precision: onnxruntime's own order of summation is not specified.
    let values = x.to_f64().ok_or_else(|| "a linear map of strings".to_owned())?;
    let mut out = Vec::with_capacity(x.rows() * outputs);
    for row in values.chunks(columns.max(1)).take(x.rows()) {
        for (weights, bias) in weights.chunks(columns.max(1)).zip(bias) {
            out.push(weights.iter().zip(row).map(|(w, x)| w * x).sum::<f64>() + bias);
        }
    }
    let shape = vec![x.rows(), outputs];
    Ok(match x.data {
        Data::F64(_) => TensorValue { shape, data: Data::F64(out) },
        _ => TensorValue::f32(shape, out.into_iter().map(|x| x as f32).collect()),
    })
}

pub(super) fn scaler(x: &TensorValue, offset: &[f32], scale: &[f32]) -> Result<TensorValue, Fault> {
    by_column(x, |value, column| Some((value - per_column(offset, column)?) * per_column(scale, column)?))
}

pub(super) fn normalizer(x: &TensorValue, norm: Norm) -> Result<TensorValue, Fault> {
    by_row(x, x.columns(), |row, out| {
        let size = match norm {
            Norm::Max => row.iter().copied().fold(f32::MIN, f32::max),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        };
        out.extend(row.iter().map(|x| if size == 0.0 { *x } else { x / size }));
    })
}

pub(super) fn imputer(x: &TensorValue, replaced: f64, values: &[f64]) -> Result<TensorValue, Fault> {
    if let Data::I64(data) = &x.data {
        let columns = x.columns().max(1);
        let fill = |(at, &value): (usize, &i64)| {
            if value as f64 == replaced { per_column(values, at % columns).map(|v| v as i64) } else { Some(value) }
        };
        let data: Option<Vec<i64>> = data.iter().enumerate().map(fill).collect();
        let data = Data::I64(data.ok_or_else(|| "fewer parameters than columns".to_owned())?);
        return Ok(TensorValue { shape: x.shape.clone(), data });
    }
    by_column(x, |value, column| {
        let missing = if replaced.is_nan() { value.is_nan() } else { f64::from(value) == replaced };
        if missing { per_column(values, column).map(|value| value as f32) } else { Some(value) }
    })
}

pub(super) fn binarizer(x: &TensorValue, threshold: f32) -> Result<TensorValue, Fault> {
    by_column(x, |value, _| Some(if value > threshold { 1.0 } else { 0.0 }))
}

pub(super) fn one_hot(
    x: &TensorValue,
    ints: Option<&[i64]>,
    strings: Option<&[String]>,
    zeros: bool,
) -> Result<TensorValue, Fault> {
    let (count, category): (usize, Vec<Option<usize>>) = match (&x.data, ints, strings) {
        (Data::Str(data), _, Some(known)) => {
            (known.len(), data.iter().map(|value| known.iter().position(|k| k == value)).collect())
        }
        (_, Some(known), _) => {
            let values = x.to_f64().ok_or_else(|| "string values for integer categories".to_owned())?;
            (known.len(), values.iter().map(|&value| known.iter().position(|&k| k == value as i64)).collect())
        }
        _ => {
            return Err(Fault::Shape("numeric values for string categories".to_owned()));
        }
    };
    let mut out = vec![0.0; category.len() * count];
    for (at, category) in category.into_iter().enumerate() {
        match category {
            Some(category) => out[at * count + category] = 1.0,
            None if zeros => {}
            None => return Err(Fault::Value(format!("value {at} is not a known category"))),
        }
    }
    let mut shape = x.shape.clone();
    shape.push(count);
    Ok(TensorValue::f32(shape, out))
}

pub(super) fn label_encoder(op: &TensorOp, x: &TensorValue) -> Result<TensorValue, Fault> {
    let TensorOp::LabelEncoder {
        keys_i64,
        keys_f32,
        keys_str,
        values_i64,
        values_f32,
        values_str,
        default_i64,
        default_f32,
        default_str,
    } = op
    else {
        return Err(Fault::Shape("not a label encoder".to_owned()));
    };
    let found: Vec<Option<usize>> = match (&x.data, keys_i64, keys_f32, keys_str) {
        (Data::I64(data), Some(keys), _, _) => data.iter().map(|v| keys.iter().position(|k| k == v)).collect(),
        (Data::F32(data), _, Some(keys), _) => {
            data.iter().map(|v| keys.iter().position(|k| k == v || (k.is_nan() && v.is_nan()))).collect()
        }
        (Data::F32(data), Some(keys), _, _) => data.iter().map(|&v| keys.iter().position(|&k| k as f32 == v)).collect(),
        (Data::Str(data), _, _, Some(keys)) => data.iter().map(|v| keys.iter().position(|k| k == v)).collect(),
        _ => {
            return Err(Fault::Shape(format!("{} values do not match the keys", x.data.element().as_str())));
        }
    };
    fn mapped<T: Clone>(found: &[Option<usize>], values: &[T], default: &T) -> Vec<T> {
        found.iter().map(|at| at.and_then(|at| values.get(at)).unwrap_or(default).clone()).collect()
    }
    let data = match (values_i64, values_f32, values_str) {
        (Some(values), _, _) => Data::I64(mapped(&found, values, default_i64)),
        (_, Some(values), _) => Data::F32(mapped(&found, values, default_f32)),
        (_, _, Some(values)) => Data::Str(mapped(&found, values, default_str)),
        _ => return Err(Fault::Shape("a label encoder without values".to_owned())),
    };
    Ok(TensorValue { shape: x.shape.clone(), data })
}

/// onnxruntime's logistic, stable for large negative values.
fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

/// onnxruntime's `ComputeProbit`: sqrt(2) times the inverse error function, by Winitzki's approximation.
fn probit(x: f32) -> f32 {
    let y = 2.0 * x - 1.0;
    let sign = if y < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let v3 = -v + (v * v - log / 0.147).sqrt();
    std::f32::consts::SQRT_2 * sign * v3.sqrt()
}

pub(super) fn post_transform(x: &TensorValue, kind: PostTransform) -> Result<TensorValue, Fault> {
    by_row(x, x.columns(), |row, out| match kind {
        PostTransform::None => out.extend_from_slice(row),
        PostTransform::Logistic => out.extend(row.iter().map(|&x| logistic(x))),
        PostTransform::Probit => out.extend(row.iter().map(|&x| probit(x))),
        PostTransform::Softmax | PostTransform::SoftmaxZero => {
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            let zero = |x: f32| kind == PostTransform::SoftmaxZero && x.abs() <= 1e-7;
            let exp = |x: f32| {
                if zero(x) { x * (-max).exp() } else { (x - max).exp() }
            };
            let sum: f32 = row.iter().map(|&x| exp(x)).sum();
            out.extend(row.iter().map(|&x| exp(x) / sum));
        }
    })
}

/// onnxruntime's `write_scores` for one score of a two-class model.
pub(super) fn binary_scores(x: &TensorValue, positive: bool, kind: PostTransform) -> Result<TensorValue, Fault> {
    let columns = if kind == PostTransform::Probit { 1 } else { 2 };
    by_row(x, columns, |row, out| {
        let score = row.first().copied().unwrap_or(0.0);
        match (kind, positive) {
            (PostTransform::Probit, _) => out.push(probit(score)),
            (_, true) => out.extend([1.0 - score, score]),
            (PostTransform::Logistic, false) => out.extend([logistic(-score), logistic(score)]),
            (_, false) => out.extend([-score, score]),
        }
    })
}

pub(super) fn binary_label(x: &TensorValue, threshold: f64) -> Result<TensorValue, Fault> {
    let columns = x.columns().max(1);
    let scores = floats(x)?;
    let labels = scores.chunks(columns).map(|row| i64::from(row.first().is_some_and(|&s| f64::from(s) > threshold)));
    Ok(TensorValue { shape: vec![x.rows(), 1], data: Data::I64(labels.take(x.rows()).collect()) })
}

/// Pairs (i, j), i < j, in libsvm's order.
fn pairs(classes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..classes).flat_map(move |i| (i + 1..classes).map(move |j| (i, j)))
}

pub(super) fn pair_votes(x: &TensorValue, classes: usize) -> Result<TensorValue, Fault> {
    by_row(x, classes, |row, out| {
        let mut votes = vec![0.0; classes];
        for ((i, j), &decision) in pairs(classes).zip(row) {
            votes[if decision > 0.0 { i } else { j }] += 1.0;
        }
        out.extend(votes);
    })
}

pub(super) fn pair_probabilities(x: &TensorValue, classes: usize, a: &[f64], b: &[f64]) -> Result<TensorValue, Fault> {
    by_row(x, classes, |row, out| {
        let mut r = vec![vec![0.0f64; classes]; classes];
        for (pair, ((i, j), &decision)) in pairs(classes).zip(row).enumerate() {
            // libsvm's sigmoid_predict, limited as there.
            let value = f64::from(decision) * a[pair] + b[pair];
            let p = if value >= 0.0 { (-value).exp() / (1.0 + (-value).exp()) } else { 1.0 / (1.0 + value.exp()) };
            r[i][j] = p.clamp(1e-7, 1.0 - 1e-7);
            r[j][i] = 1.0 - r[i][j];
        }
        out.extend(coupled(&r).into_iter().map(|p| p as f32));
    })
}

/// Class probabilities from pairwise ones: Wu, Lin and Weng (2004), second approach, as in libsvm.
fn coupled(r: &[Vec<f64>]) -> Vec<f64> {
    let k = r.len();
    let mut p = vec![1.0 / k as f64; k];
    let mut q = vec![vec![0.0; k]; k];
    for t in 0..k {
        for j in (0..k).filter(|&j| j != t) {
            q[t][t] += r[j][t] * r[j][t];
            q[t][j] = -r[j][t] * r[t][j];
        }
    }
    for _ in 0..k.max(100) {
        let mut qp: Vec<f64> = q.iter().map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|&value| (value - pqp).abs() < 0.005 / k as f64) {
            break;
        }
        for t in 0..k {
            let diff = (pqp - qp[t]) / q[t][t];
            p[t] += diff;
            pqp = (pqp + diff * (diff * q[t][t] + 2.0 * qp[t])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..k {
                qp[j] = (qp[j] + diff * q[t][j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}
