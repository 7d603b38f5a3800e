//! Operations of ai.onnx.ml.

use super::{Data, Fault, TensorValue};
use crate::stage::tensor::{Norm, PostTransform, TensorOp};
use std::collections::BTreeMap;

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

/// Doubles are scaled as doubles and rounded at the end; everything else is scaled as 32-bit floats.
pub(super) fn scaler(x: &TensorValue, offset: &[f32], scale: &[f32]) -> Result<TensorValue, Fault> {
    if let Data::F64(data) = &x.data {
        let columns = x.columns().max(1);
        let scaled = data.iter().enumerate().map(|(at, value)| {
            let (offset, scale) = (per_column(offset, at % columns)?, per_column(scale, at % columns)?);
            Some(((value - f64::from(offset)) * f64::from(scale)) as f32)
        });
        let scaled: Option<Vec<f32>> = scaled.collect();
        let scaled = scaled.ok_or_else(|| "fewer parameters than columns".to_owned())?;
        return Ok(TensorValue::f32(x.shape.clone(), scaled));
    }
    by_column(x, |value, column| Some((value - per_column(offset, column)?) * per_column(scale, column)?))
}

/// onnxruntime's norms: the L2 norm divides the rounded squares and takes the root of each quotient.
pub(super) fn normalizer(x: &TensorValue, norm: Norm) -> Result<TensorValue, Fault> {
    let values = x.to_f64().ok_or_else(|| "a norm of strings".to_owned())?;
    let mut out: Vec<f32> = Vec::with_capacity(values.len());
    for row in values.chunks(x.columns().max(1)).take(x.rows()) {
        match norm {
            Norm::Max | Norm::L1 => {
                let size = match norm {
                    Norm::Max => row.iter().map(|&x| x as f32).fold(f32::MIN, f32::max),
                    _ => row.iter().map(|&x| x.abs() as f32).sum(),
                };
                out.extend(row.iter().map(|&x| if size == 0.0 { x as f32 } else { x as f32 / size }));
            }
            Norm::L2 => {
                let single = !matches!(x.data, Data::F64(_));
                let square = |x: f64| if single { x as f32 * x as f32 } else { (x * x) as f32 };
                let sum: f32 = row.iter().map(|&x| square(x)).sum();
                out.extend(row.iter().map(|&x| match sum {
                    0.0 => x as f32,
                    _ if x < 0.0 => -(square(x) / sum).sqrt(),
                    _ => (square(x) / sum).sqrt(),
                }));
            }
        }
    }
    Ok(TensorValue::f32(x.shape.clone(), out))
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
    if let Data::F64(data) = &x.data {
        let columns = x.columns().max(1);
        let fill = |(at, &value): (usize, &f64)| {
            let missing = if replaced.is_nan() { value.is_nan() } else { value == replaced };
            if missing { per_column(values, at % columns) } else { Some(value) }
        };
        let data: Option<Vec<f64>> = data.iter().enumerate().map(fill).collect();
        let data = Data::F64(data.ok_or_else(|| "fewer parameters than columns".to_owned())?);
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
            (known.len(), data.iter().map(|value| known.iter().rposition(|k| k == value)).collect())
        }
        (_, Some(known), _) => {
            let values = x.to_f64().ok_or_else(|| "string values for integer categories".to_owned())?;
            (known.len(), values.iter().map(|&value| known.iter().rposition(|&k| k == value as i64)).collect())
        }
        _ => {
            return Err(Fault::Shape("numeric values for string categories".to_owned()));
        }
    };
    // Of categories that are listed twice the last one counts.
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

/// A number as a map key: NaN equals itself, and the two zeros are one.
fn float_key(x: f64) -> u64 {
    if x.is_nan() {
        f64::NAN.to_bits()
    } else if x == 0.0 {
        0
    } else {
        x.to_bits()
    }
}

/// Positions of values among the keys; of keys that are listed twice the first one counts.
fn positions<K: Ord>(keys: impl Iterator<Item = K>, values: impl Iterator<Item = K>) -> Vec<Option<usize>> {
    let mut known = BTreeMap::new();
    for (at, key) in keys.enumerate() {
        known.entry(key).or_insert(at);
    }
    values.map(|value| known.get(&value).copied()).collect()
}

pub(super) fn label_encoder(op: &TensorOp, x: &TensorValue) -> Result<TensorValue, Fault> {
    let TensorOp::LabelEncoder {
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
    } = op
    else {
        return Err(Fault::Shape("not a label encoder".to_owned()));
    };
    let single = |x: &f32| float_key(f64::from(*x));
    let double = |x: &f64| float_key(*x);
    let found = match (&x.data, keys_i64, keys_f32, keys_f64, keys_str) {
        (Data::I64(data), Some(keys), ..) => positions(keys.iter(), data.iter()),
        (Data::F32(data), _, Some(keys), ..) => positions(keys.iter().map(single), data.iter().map(single)),
        (Data::F64(data), _, _, Some(keys), _) => positions(keys.iter().map(double), data.iter().map(double)),
        (Data::Str(data), .., Some(keys)) => positions(keys.iter(), data.iter()),
        _ => {
            return Err(Fault::Shape(format!("{} values do not match the keys", x.data.element().as_str())));
        }
    };
    fn mapped<T: Clone>(found: &[Option<usize>], values: &[T], default: &T) -> Vec<T> {
        found.iter().map(|at| at.and_then(|at| values.get(at)).unwrap_or(default).clone()).collect()
    }
    let data = match (values_i64, values_f32, values_f64, values_str) {
        (Some(values), ..) => Data::I64(mapped(&found, values, &default_i64.unwrap_or_default())),
        (_, Some(values), ..) => Data::F32(mapped(&found, values, &default_f32.unwrap_or_default())),
        (_, _, Some(values), _) => Data::F64(mapped(&found, values, &default_f64.unwrap_or_default())),
        (.., Some(values)) => Data::Str(mapped(&found, values, &default_str.clone().unwrap_or_default())),
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
    let v3 = -v + (v * v - 1.0 / 0.147 * log).sqrt();
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

/// onnxruntime's rule for one score of a two-class model.
pub(super) fn binary_scores(x: &TensorValue, positive: bool, kind: PostTransform) -> Result<TensorValue, Fault> {
    by_row(x, 2, |row, out| {
        let score = row.first().copied().unwrap_or(0.0);
        match (kind, positive) {
            (PostTransform::Logistic, _) => out.extend([logistic(-score), logistic(score)]),
            (_, true) => out.extend([1.0 - score, score]),
            (_, false) => out.extend([-score, score]),
        }
    })
}

pub(super) fn binary_label(x: &TensorValue, threshold: f64) -> Result<TensorValue, Fault> {
    let columns = x.columns().max(1);
    let scores = x.to_f64().ok_or_else(|| "labels of strings".to_owned())?;
    let labels = scores.chunks(columns).map(|row| i64::from(row.first().is_some_and(|&s| s > threshold)));
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

/// Class probabilities in 32-bit floats, as onnxruntime.
pub(super) fn pair_probabilities(x: &TensorValue, classes: usize, a: &[f64], b: &[f64]) -> Result<TensorValue, Fault> {
    by_row(x, classes, |row, out| {
        let mut r = vec![vec![0.0f32; classes]; classes];
        for ((((i, j), &decision), &a), &b) in pairs(classes).zip(row).zip(a).zip(b) {
            // libsvm's sigmoid_predict, limited as there.
            let p = 1.0 - logistic(decision * a as f32 + b as f32);
            r[i][j] = p.clamp(1e-7, 1.0 - 1e-7);
            r[j][i] = 1.0 - r[i][j];
        }
        out.extend(coupled(&r));
    })
}

/// Class probabilities from pairwise ones: Wu, Lin and Weng (2004), second approach, as in libsvm.
fn coupled(r: &[Vec<f32>]) -> Vec<f32> {
    let k = r.len();
    let mut p = vec![1.0 / k as f32; k];
    let mut q = vec![vec![0.0f32; k]; k];
    for t in 0..k {
        for j in (0..k).filter(|&j| j != t) {
            q[t][t] += r[j][t] * r[j][t];
            q[t][j] = -r[j][t] * r[t][j];
        }
    }
    for _ in 0..100 {
        let mut qp: Vec<f32> = q.iter().map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f32 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|&value| (value - pqp).abs() < 0.005 / k as f32) {
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
