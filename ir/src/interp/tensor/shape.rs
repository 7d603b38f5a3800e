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
    if all.iter().any(|x| around(&x.shape, axis).0 != outer || x.data.element() != first.data.element()) {
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

pub(super) fn reduce(x: &TensorValue, kind: ReduceKind, axes: &[usize]) -> Result<TensorValue, Fault> {
    axes.iter().try_fold(x.clone(), |x, &axis| {
        // Norms compose only when taken at once; several axes are flattened by the importer.
        let (outer, size, inner) = around(&x.shape, axis);
        let mut shape = x.shape.clone();
        shape[axis] = 1;
        macro_rules! fold {
            ($data:expr, $ty:ty) => {
                (0..outer * inner)
                    .map(|at| {
                        let (o, i) = (at / inner, at % inner);
                        let items = (0..size).map(|s| $data[(o * size + s) * inner + i]);
                        match kind {
                            ReduceKind::Sum => items.sum::<$ty>(),
                            ReduceKind::Mean => items.sum::<$ty>() / size as $ty,
                            ReduceKind::Max => items.fold(<$ty>::MIN, |a, b| if b > a { b } else { a }),
                            ReduceKind::Min => items.fold(<$ty>::MAX, |a, b| if b < a { b } else { a }),
                            ReduceKind::L2 => (items.map(|x| x * x).sum::<$ty>() as f64).sqrt() as $ty,
                            ReduceKind::L1 => items.map(|x| if x < 0 as $ty { -x } else { x }).sum::<$ty>(),
                            ReduceKind::SumSquare => items.map(|x| x * x).sum::<$ty>(),
                            ReduceKind::Prod => items.product::<$ty>(),
                        }
                    })
                    .collect()
            };
        }
        let data = match &x.data {
            Data::F32(data) => Data::F32(fold!(data, f32)),
            Data::F64(data) => Data::F64(fold!(data, f64)),
            Data::I64(data) if size > 0 => Data::I64(fold!(data, i64)),
            _ => {
                return Err(Fault::Shape(format!("`{}` of {} values", kind.as_str(), x.data.element().as_str())));
            }
        };
        Ok(TensorValue { shape, data })
    })
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
        let column = usize::try_from(index).ok().filter(|&column| column < columns && row_of(at) < rows);
        picked
            .push(row_of(at) * columns + column.ok_or_else(|| Fault::Value(format!("position {index} of {columns}")))?);
    }
    let data = map_data!(&x.data, items => picked.iter().map(|&at| items[at].to_owned()).collect());
    Ok(TensorValue { shape: positions.shape.clone(), data })
}
