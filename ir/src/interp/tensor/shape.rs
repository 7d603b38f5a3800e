//! Operations that move values or work along an axis.

use super::value::map_data;
use super::{Data, Fault, TensorValue};
use crate::stage::tensor::ReduceKind;

pub(super) fn reshape(x: &TensorValue, shape: &[i64]) -> Result<TensorValue, Fault> {
    let known: usize = shape.iter().filter_map(|&dim| usize::try_from(dim).ok()).product();
    let batch = x.data.len().checked_div(known).unwrap_or(0);
    let shape: Vec<usize> = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(batch)).collect();
    if shape.iter().product::<usize>() != x.data.len() {
        return Err(Fault::Shape(format!("{} values do not reshape to {shape:?}", x.data.len())));
    }
    Ok(TensorValue { shape, data: x.data.clone() })
}

/// Sizes before, at and after an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

pub(super) fn concat(all: &[&TensorValue], axis: usize) -> Result<TensorValue, Fault> {
    let first = all.first().ok_or_else(|| "nothing to concatenate".to_owned())?;
    let (outer, _, inner) = around(&first.shape, axis);
    let fits = |x: &TensorValue| {
        let others =
            |shape: &[usize]| shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, &d)| d).collect();
        let (own, wanted): (Vec<usize>, Vec<usize>) = (others(&x.shape), others(&first.shape));
        own == wanted && x.data.element() == first.data.element()
    };
    if !all.iter().all(|x| fits(x)) {
        return Err(Fault::Shape("tensors with different row counts side by side".to_owned()));
    }
    let mut shape = first.shape.clone();
    shape[axis] = all.iter().map(|x| x.shape[axis]).sum();
    macro_rules! join {
        ($variant:ident) => {{
            let mut out = Vec::with_capacity(shape.iter().product());
            for row in 0..outer {
                for x in all {
                    if let Data::$variant(data) = &x.data {
                        let width = x.shape[axis] * inner;
                        out.extend_from_slice(&data[row * width..(row + 1) * width]);
                    }
                }
            }
            Data::$variant(out)
        }};
    }
    let data = match &first.data {
        Data::F32(_) => join!(F32),
        Data::F64(_) => join!(F64),
        Data::I64(_) => join!(I64),
        Data::Bool(_) => join!(Bool),
        Data::Str(_) => join!(Str),
    };
    Ok(TensorValue { shape, data })
}

pub(super) fn take(x: &TensorValue, axis: usize, indices: &[usize]) -> Result<TensorValue, Fault> {
    let (outer, size, inner) = around(&x.shape, axis);
    let positions = (0..outer)
        .flat_map(|o| indices.iter().flat_map(move |&index| (0..inner).map(move |i| (o * size + index) * inner + i)));
    let mut shape = x.shape.clone();
    shape[axis] = indices.len();
    Ok(TensorValue { shape, data: x.data.pick(positions) })
}

pub(super) fn transpose(x: &TensorValue, order: &[usize]) -> Result<TensorValue, Fault> {
    let strides: Vec<usize> = (0..x.shape.len()).map(|axis| x.shape[axis + 1..].iter().product()).collect();
    let shape: Vec<usize> = order.iter().map(|&axis| x.shape[axis]).collect();
    let position = |flat: usize| {
        let (mut rest, mut position) = (flat, 0);
        for (&size, &axis) in shape.iter().zip(order).rev() {
            position += rest % size * strides[axis];
            rest /= size;
        }
        position
    };
    let data = x.data.pick((0..x.data.len()).map(position));
    Ok(TensorValue { shape: shape.clone(), data })
}

/// For each position of the input, the position of the reduced value it belongs to; and the reduced shape.
fn reduced_positions(shape: &[usize], axes: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let reduced: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    let size: usize = shape.iter().product();
    let position = |flat: usize| {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for (&size, &kept) in shape.iter().zip(&reduced).rev() {
            if kept != 1 {
                at += rest % size * stride;
            }
            rest /= size;
            stride *= kept;
        }
        at
    };
    ((0..size).map(position).collect(), reduced)
}

/// Reduces over axes. Floats are summed in double precision: onnxruntime's order of summation is not specified.
pub(super) fn reduce(x: &TensorValue, kind: ReduceKind, axes: &[usize]) -> Result<TensorValue, Fault> {
    let (positions, shape) = reduced_positions(&x.shape, axes);
    let count = shape.iter().product::<usize>();
    let per_value = positions.len().checked_div(count).unwrap_or(0);
    if per_value == 0 && matches!(kind, ReduceKind::Max | ReduceKind::Min | ReduceKind::Mean) {
        return Err(Fault::Shape(format!("`{}` of no values", kind.as_str())));
    }
    let data = match &x.data {
        Data::I64(data) => Data::I64(reduce_ints(data, kind, &positions, count, per_value)),
        Data::F32(_) | Data::F64(_) => {
            let values = x.to_f64().unwrap_or_default();
            let sums = reduce_floats(&values, kind, &positions, count, per_value);
            match x.data {
                Data::F32(_) => Data::F32(sums.into_iter().map(|x| x as f32).collect()),
                _ => Data::F64(sums),
            }
        }
        other => return Err(Fault::Shape(format!("`{}` of {} values", kind.as_str(), other.element().as_str()))),
    };
    Ok(TensorValue { shape, data })
}

fn reduce_floats(x: &[f64], kind: ReduceKind, positions: &[usize], count: usize, per_value: usize) -> Vec<f64> {
    use ReduceKind as K;
    let start = match kind {
        K::Max | K::LogSumExp => f64::NEG_INFINITY,
        K::Min => f64::INFINITY,
        K::Prod => 1.0,
        K::Sum | K::Mean | K::L1 | K::L2 | K::SumSquare => 0.0,
    };
    let mut out = vec![start; count];
    for (&at, &x) in positions.iter().zip(x) {
        let sum = &mut out[at];
        *sum = match kind {
            K::Sum | K::Mean => *sum + x,
            K::L1 => *sum + x.abs(),
            K::L2 | K::SumSquare => *sum + x * x,
            K::Prod => *sum * x,
            K::Max | K::LogSumExp => {
                if x > *sum || x.is_nan() {
                    x
                } else {
                    *sum
                }
            }
            K::Min => {
                if x < *sum || x.is_nan() {
                    x
                } else {
                    *sum
                }
            }
        };
    }
    match kind {
        K::Mean => out.iter().map(|sum| sum / per_value as f64).collect(),
        K::L2 => out.into_iter().map(f64::sqrt).collect(),
        K::LogSumExp => {
            let greatest: Vec<f64> = out.iter().map(|&max| if max.is_finite() { max } else { 0.0 }).collect();
            let mut sums = vec![0.0; count];
            for (&at, &x) in positions.iter().zip(x) {
                sums[at] += (x - greatest[at]).exp();
            }
            sums.into_iter().zip(greatest).map(|(sum, max)| sum.ln() + max).collect()
        }
        K::Sum | K::L1 | K::SumSquare | K::Prod | K::Max | K::Min => out,
    }
}

fn reduce_ints(x: &[i64], kind: ReduceKind, positions: &[usize], count: usize, per_value: usize) -> Vec<i64> {
    use ReduceKind as K;
    let start = match kind {
        K::Max => i64::MIN,
        K::Min => i64::MAX,
        K::Prod => 1,
        K::Sum | K::Mean | K::L1 | K::L2 | K::SumSquare | K::LogSumExp => 0,
    };
    let mut out = vec![start; count];
    for (&at, &x) in positions.iter().zip(x) {
        let sum = &mut out[at];
        *sum = match kind {
            K::Sum | K::Mean => sum.wrapping_add(x),
            K::L1 => sum.wrapping_add(x.wrapping_abs()),
            K::L2 | K::SumSquare => sum.wrapping_add(x.wrapping_mul(x)),
            K::Prod => sum.wrapping_mul(x),
            K::Max => (*sum).max(x),
            K::Min => (*sum).min(x),
            K::LogSumExp => *sum,
        };
    }
    match kind {
        K::Mean => out.into_iter().map(|sum| sum.wrapping_div(per_value.max(1) as i64)).collect(),
        K::L2 => out.into_iter().map(|sum| (sum as f64).sqrt() as i64).collect(),
        K::LogSumExp => {
            let values: Vec<f64> = x.iter().map(|&x| x as f64).collect();
            reduce_floats(&values, kind, positions, count, per_value).into_iter().map(|x| x as i64).collect()
        }
        K::Sum | K::L1 | K::SumSquare | K::Prod | K::Max | K::Min => out,
    }
}

pub(super) fn softmax(x: &TensorValue, axis: usize, log: bool) -> Result<TensorValue, Fault> {
    let (outer, size, inner) = around(&x.shape, axis);
    macro_rules! rows {
        ($data:expr, $ty:ty) => {{
            let mut out = $data.clone();
            for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                let at = |s: usize| (o * size + s) * inner + i;
                let max = (0..size).map(|s| $data[at(s)]).fold(<$ty>::NEG_INFINITY, <$ty>::max);
                let sum: $ty = (0..size).map(|s| ($data[at(s)] - max).exp()).sum();
                for s in 0..size {
                    let shifted = $data[at(s)] - max;
                    out[at(s)] = if log { shifted - sum.ln() } else { shifted.exp() / sum };
                }
            }
            out
        }};
    }
    let data = match &x.data {
        Data::F32(data) => Data::F32(rows!(data, f32)),
        Data::F64(data) => Data::F64(rows!(data, f64)),
        other => {
            return Err(Fault::Shape(format!("softmax of {} values", other.element().as_str())));
        }
    };
    Ok(TensorValue { shape: x.shape.clone(), data })
}

pub(super) fn arg_max(x: &TensorValue, axis: usize, least: bool, last: bool) -> Result<TensorValue, Fault> {
    let (outer, size, inner) = around(&x.shape, axis);
    let values = x.to_f64().ok_or_else(|| "arg max of strings".to_owned())?;
    let mut shape = x.shape.clone();
    shape[axis] = 1;
    let best = |at: usize| {
        let (o, i) = (at / inner, at % inner);
        let value = |s: usize| {
            let value = values[(o * size + s) * inner + i];
            if least { -value } else { value }
        };
        let better = |best: usize, s: usize| value(s) > value(best) || (last && value(s) == value(best));
        (1..size).fold(0, |best, s| if better(best, s) { s } else { best }) as i64
    };
    Ok(TensorValue { shape, data: Data::I64((0..outer * inner).map(best).collect()) })
}

pub(super) fn gather_rows(x: &TensorValue, positions: &TensorValue) -> Result<TensorValue, Fault> {
    let Data::I64(indices) = &positions.data else {
        return Err(Fault::Shape("positions are integers".to_owned()));
    };
    let per_row = positions.columns();
    let (rows, columns) = (x.rows(), x.columns());
    // A constant row of labels serves every row of positions.
    let row_of = |at: usize| if rows == 1 { 0 } else { at / per_row.max(1) };
    let mut picked = Vec::with_capacity(indices.len());
    for (at, &index) in indices.iter().enumerate() {
        let from_start = if index < 0 { index.wrapping_add(columns as i64) } else { index };
        let column = usize::try_from(from_start).ok().filter(|&column| column < columns && row_of(at) < rows);
        let column = column.ok_or_else(|| Fault::Value(format!("position {index} of {columns}")))?;
        picked.push(row_of(at) * columns + column);
    }
    let data = map_data!(&x.data, items => picked.iter().map(|&at| items[at].to_owned()).collect());
    Ok(TensorValue { shape: positions.shape.clone(), data })
}

/// The greatest (or least) values along an axis, or their positions.
pub(super) fn top_k(
    x: &TensorValue,
    axis: usize,
    count: usize,
    least: bool,
    positions: bool,
) -> Result<TensorValue, Fault> {
    let (outer, size, inner) = around(&x.shape, axis);
    let values = x.to_f64().ok_or_else(|| "the greatest of strings".to_owned())?;
    let count = count.min(size);
    let mut chosen = vec![0usize; outer * count * inner];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let value = |s: usize| values[(o * size + s) * inner + i];
        let mut order: Vec<usize> = (0..size).collect();
        // A stable sort keeps the first of equal values first.
        order.sort_by(|&a, &b| if least { value(a).total_cmp(&value(b)) } else { value(b).total_cmp(&value(a)) });
        for (rank, s) in order.into_iter().take(count).enumerate() {
            chosen[(o * count + rank) * inner + i] = s;
        }
    }
    let mut shape = x.shape.clone();
    shape[axis] = count;
    if positions {
        return Ok(TensorValue { shape, data: Data::I64(chosen.into_iter().map(|s| s as i64).collect()) });
    }
    let at = |flat: usize| {
        let (o, i) = (flat / (count * inner).max(1), flat % inner.max(1));
        (o * size + chosen[flat]) * inner + i
    };
    Ok(TensorValue { shape, data: x.data.pick((0..outer * count * inner).map(at)) })
}

/// Values repeated along axes, each position of the result reading `own % size` of the input.
pub(super) fn tile(x: &TensorValue, repeats: &[usize]) -> Result<TensorValue, Fault> {
    let shape: Vec<usize> = x.shape.iter().zip(repeats).map(|(size, times)| size * times).collect();
    Ok(spread(x, shape))
}

/// Broadcast to a shape, -1 being the batch.
pub(super) fn expand(x: &TensorValue, shape: &[i64], like: Option<&TensorValue>) -> Result<TensorValue, Fault> {
    // The batch is wherever a varying size is: the operand's own first, else the model for it.
    let own = (x.shape.len() == shape.len())
        .then(|| shape.iter().zip(&x.shape).find(|(dim, size)| **dim == -1 && **size != 1).map(|(_, size)| *size));
    let rows = own.flatten().or_else(|| like.map(TensorValue::rows)).unwrap_or(1);
    let shape: Vec<usize> = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(rows)).collect();
    let offset = shape.len().checked_sub(x.shape.len()).ok_or_else(|| "an expansion to fewer axes".to_owned())?;
    if x.shape.iter().zip(&shape[offset..]).any(|(&own, &wanted)| own != 1 && own != wanted) {
        return Err(Fault::Shape(format!("{:?} does not expand to {shape:?}", x.shape)));
    }
    let mut padded = vec![1; offset];
    padded.extend(&x.shape);
    Ok(spread(&TensorValue { shape: padded, data: x.data.clone() }, shape))
}

fn spread(x: &TensorValue, shape: Vec<usize>) -> TensorValue {
    let size: usize = shape.iter().product();
    let position = |flat: usize| {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for (&size, &own) in shape.iter().zip(&x.shape).rev() {
            at += rest % size % own.max(1) * stride;
            rest /= size;
            stride *= own;
        }
        at
    };
    let data = x.data.pick((0..size).map(position));
    TensorValue { shape, data }
}
