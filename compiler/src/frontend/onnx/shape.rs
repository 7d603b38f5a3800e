//! Operations that move values.

use super::BATCH_SIZE;
use super::node::{Converted, Fail, NodeCx};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Dim, TensorOp};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "Shape" => shape(cx)?,
        "ConstantOfShape" => {
            let fill = cx.tensor_attribute("value")?.unwrap_or(TensorValue::f32(vec![1], vec![0.0]));
            if fill.data.len() != 1 {
                return Err(Fail::attribute(format!("`value` has {} elements", fill.data.len())));
            }
            let wanted = cx.known_shape(0)?.ok_or_else(|| Fail::attribute("the shape is missing"))?;
            let fill = cx.push_constant(TensorValue { shape: Vec::new(), data: fill.data })?;
            expand(cx, fill, wanted)?;
        }
        "Expand" => {
            let x = cx.operand(0)?;
            let wanted = cx.known_shape(1)?.ok_or_else(|| Fail::attribute("the shape is missing"))?;
            // The result has the larger of both sizes on every axis.
            let own = cx.ty(x).shape.clone();
            let offset = wanted.len().max(own.len()) - own.len();
            let pad = wanted.len().max(own.len()) - wanted.len();
            let mut codes: Vec<i64> = std::iter::repeat_n(1, pad).chain(wanted).collect();
            for (code, dim) in codes[offset..].iter_mut().zip(own) {
                *code = match (*code, dim) {
                    (1, Dim::Batch) => BATCH_SIZE,
                    (1, Dim::Fixed(size)) => size as i64,
                    (code, _) => code,
                };
            }
            expand(cx, x, codes)?;
        }
        "Reshape" => reshape(cx)?,
        "Flatten" => flatten(cx)?,
        "Squeeze" => {
            let x = cx.operand(0)?;
            let axes = match cx.ints_or_input("axes", 1)? {
                Some(axes) => axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?,
                None => (0..cx.ty(x).shape.len()).filter(|&axis| cx.ty(x).shape[axis] == Dim::Fixed(1)).collect(),
            };
            let id = drop_axes(cx, x, &axes)?;
            cx.define(id);
        }
        "Unsqueeze" => unsqueeze(cx)?,
        "Transpose" => {
            let x = cx.operand(0)?;
            let rank = cx.ty(x).shape.len();
            let order = match cx.ints("perm")? {
                Some(order) => order.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<_>>()?,
                None => (0..rank).rev().collect(),
            };
            cx.single(TensorOp::Transpose { order }, vec![x])?;
        }
        "Concat" => {
            let all = cx.operands()?;
            let first = *all.first().ok_or_else(|| Fail::attribute("nothing to concatenate"))?;
            let axis = cx.int("axis")?.ok_or_else(|| Fail::attribute("`axis` is missing"))?;
            let axis = cx.axis(axis, first)?;
            cx.single(TensorOp::Concat { axis }, all)?;
        }
        "Split" => split(cx)?,
        "Gather" => gather(cx)?,
        "GatherElements" => {
            let (x, positions) = (cx.operand(0)?, cx.operand(1)?);
            if cx.axis(cx.int("axis")?.unwrap_or(0), x)? != 1 || cx.ty(x).shape.len() != 2 {
                return Err(Fail::unsupported(
                    "GatherElements along another axis than the columns of a matrix; reshape to [rows, columns] before it",
                ));
            }
            cx.single(TensorOp::GatherRows {}, vec![x, positions])?;
        }
        "GatherND" => gather_nd(cx)?,
        "Slice" => slice(cx)?,
        "Tile" => {
            let x = cx.operand(0)?;
            let repeats = cx.known_ints(1)?.ok_or_else(|| Fail::attribute("`repeats` is missing"))?;
            let repeats = repeats.iter().map(|&times| usize::try_from(times));
            let repeats = repeats.collect::<Result<_, _>>().map_err(|_| Fail::attribute("a negative repeat"))?;
            cx.single(TensorOp::Tile { repeats }, vec![x])?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A shape with -1 for the batch.
pub(super) fn shape_codes(cx: &NodeCx<'_, '_>, id: ValueId) -> Vec<i64> {
    let code = |dim: &Dim| match dim {
        Dim::Batch => -1,
        Dim::Fixed(size) => *size as i64,
    };
    cx.ty(id).shape.iter().map(code).collect()
}

/// The value without axes of size 1.
pub(super) fn drop_axes(cx: &mut NodeCx<'_, '_>, id: ValueId, axes: &[usize]) -> Converted<ValueId> {
    let shape = shape_codes(cx, id);
    if axes.iter().any(|&axis| shape.get(axis) != Some(&1)) {
        return Err(Fail::shape(format!("axes {axes:?} of {} do not all have size 1", cx.ty(id))));
    }
    let shape = shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| size).collect();
    cx.push(TensorOp::Reshape { shape }, vec![id])
}

/// A shape is known but for the batch, for which a stand-in is put.
fn shape(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let rank = cx.ty(x).shape.len() as i64;
    let end = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, stop) = (end(cx.int("start")?.unwrap_or(0)), end(cx.int("end")?.unwrap_or(rank)));
    let dims: Vec<i64> = shape_codes(cx, x).into_iter().map(|dim| if dim == -1 { BATCH_SIZE } else { dim }).collect();
    if cx.ty(x).shape.first() == Some(&Dim::Batch) {
        cx.importer.batch_source = Some(x);
    }
    let dims = dims.get(start..stop).unwrap_or_default().to_vec();
    let id = cx.push_constant(TensorValue { shape: vec![dims.len()], data: Data::I64(dims) })?;
    cx.define(id);
    Ok(())
}

fn expand(cx: &mut NodeCx<'_, '_>, x: ValueId, wanted: Vec<i64>) -> Converted<()> {
    let size = wanted.iter().try_fold(1i64, |size, &dim| match dim {
        BATCH_SIZE => Some(size),
        0.. => size.checked_mul(dim),
        _ => None,
    });
    if size.and_then(|size| usize::try_from(size).ok()).is_none_or(|size| size > cx.importer.limits.max_elements) {
        return Err(Fail::shape(format!("a tensor of shape {wanted:?} is negative or too large")));
    }
    let batched = wanted.contains(&BATCH_SIZE);
    let shape = wanted.into_iter().map(|dim| if dim == BATCH_SIZE { -1 } else { dim }).collect();
    let has_rows = cx.ty(x).shape.contains(&Dim::Batch);
    match cx.importer.batch_source {
        Some(source) if batched && !has_rows => cx.single(TensorOp::Expand { shape }, vec![x, source]),
        _ => cx.single(TensorOp::Expand { shape }, vec![x]),
    }
}

fn reshape(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let wanted = match cx.ints("shape")? {
        Some(shape) => shape,
        None => cx.known_shape(1)?.ok_or_else(|| Fail::attribute("the shape is missing"))?,
    };
    let zero_is_zero = cx.flag("allowzero", false)?;
    let old = shape_codes(cx, x);
    let mut shape = Vec::with_capacity(wanted.len());
    for (axis, &dim) in wanted.iter().enumerate() {
        shape.push(match dim {
            BATCH_SIZE => BATCH_SIZE,
            0 if !zero_is_zero => match old.get(axis) {
                Some(-1) => BATCH_SIZE,
                Some(&size) => size,
                None => return Err(Fail::attribute(format!("dimension {axis} is copied from a smaller shape"))),
            },
            -1.. => dim,
            _ => return Err(Fail::attribute(format!("dimension {dim}"))),
        });
    }
    let product =
        |dims: &[i64]| dims.iter().filter(|&&dim| dim >= 0).try_fold(1i64, |size, &dim| size.checked_mul(dim));
    let too_large = || Fail::shape(format!("the shape {wanted:?} is too large"));
    let (total, known) = (product(&old).ok_or_else(too_large)?, product(&shape).ok_or_else(too_large)?);
    let has_batch = old.contains(&-1);
    let across = || {
        Fail::unsupported(format!(
            "a reshape that moves values across rows, to {wanted:?}; keep the rows as the first axis, of size -1 or 0"
        ))
    };
    let open: Vec<usize> = (0..shape.len()).filter(|&at| shape[at] == -1).collect();
    match open.as_slice() {
        [] => {}
        // The open dimension is the batch where the other sizes leave nothing else for it.
        &[at] if has_batch && !shape.contains(&BATCH_SIZE) => {
            if known != total {
                return Err(across());
            }
            shape[at] = BATCH_SIZE;
        }
        &[at] => shape[at] = total.checked_div(known).unwrap_or(0),
        _ => return Err(Fail::attribute(format!("several open dimensions in {wanted:?}"))),
    }
    if has_batch && !shape.contains(&BATCH_SIZE) {
        // A batch of one that the exporter fixed.
        match shape.first_mut() {
            Some(first) if *first == 1 && known == total => *first = BATCH_SIZE,
            _ => return Err(across()),
        }
    }
    let shape = shape.into_iter().map(|dim| if dim == BATCH_SIZE { -1 } else { dim }).collect();
    cx.single(TensorOp::Reshape { shape }, vec![x])
}

fn flatten(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let rank = cx.ty(x).shape.len() as i64;
    let axis = cx.int("axis")?.unwrap_or(1);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&axis| axis <= rank as usize);
    let axis = axis.ok_or_else(|| Fail::attribute(format!("`axis` is outside the rank {rank}")))?;
    let codes = shape_codes(cx, x);
    let merged = |dims: &[i64]| match dims {
        [-1] => Ok(-1),
        dims if dims.iter().all(|&dim| dim >= 0) => {
            dims.iter().try_fold(1i64, |size, &dim| size.checked_mul(dim)).ok_or_else(|| Fail::shape("sizes overflow"))
        }
        // A batch beside sizes of one is still the batch.
        dims if dims.iter().all(|&dim| dim == -1 || dim == 1) => Ok(-1),
        _ => Err(Fail::unsupported("Flatten that merges rows with values; flatten from axis 1 on")),
    };
    let shape = vec![merged(&codes[..axis])?, merged(&codes[axis..])?];
    cx.single(TensorOp::Reshape { shape }, vec![x])
}

fn unsqueeze(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axes = cx.ints_or_input("axes", 1)?.ok_or_else(|| Fail::attribute("`axes` is missing"))?;
    let rank = (cx.ty(x).shape.len() + axes.len()) as i64;
    let mut axes: Vec<i64> = axes.iter().map(|&axis| if axis < 0 { axis.saturating_add(rank) } else { axis }).collect();
    axes.sort_unstable();
    let mut shape = shape_codes(cx, x);
    for axis in axes {
        match usize::try_from(axis) {
            Ok(axis) if axis <= shape.len() => shape.insert(axis, 1),
            _ => return Err(Fail::attribute(format!("axis {axis} of a tensor of rank {rank}"))),
        }
    }
    cx.single(TensorOp::Reshape { shape }, vec![x])
}

/// The size of an axis that is not the batch.
fn fixed_size(cx: &NodeCx<'_, '_>, id: ValueId, axis: usize, op: &str) -> Converted<usize> {
    match cx.ty(id).shape.get(axis) {
        Some(Dim::Fixed(size)) => Ok(*size),
        _ => {
            Err(Fail::unsupported(format!("{op} along the rows; a model must treat every row alike: use another axis")))
        }
    }
}

fn split(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(0), x)?;
    let size = fixed_size(cx, x, axis, "Split")?;
    let parts = cx.proto.output.len();
    let sizes: Vec<usize> = match cx.ints_or_input("split", 1)? {
        Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect(),
        // Equal parts, the last one smaller.
        None => {
            let part = size.div_ceil(parts.max(1));
            (0..parts).map(|at| part.min(size.saturating_sub(at * part))).collect()
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if sizes.len() != parts || sum != Some(size) {
        return Err(Fail::attribute(format!("{size} columns split into {sizes:?} for {parts} outputs")));
    }
    let mut start = 0;
    for size in sizes {
        let id = cx.push(TensorOp::Take { axis, indices: (start..start + size).collect() }, vec![x])?;
        cx.define(id);
        start += size;
    }
    Ok(())
}

/// A position counted from the end where negative; out of range it stays out of range.
fn wrapped(index: i64, size: usize) -> usize {
    let index = if index < 0 { index.saturating_add(size as i64) } else { index };
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn gather(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let positions = cx.operand(1)?;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(0), x)?;
    if cx.constant(positions).is_none() {
        return look_up(cx, x, positions);
    }
    let size = fixed_size(cx, x, axis, "Gather")?;
    let indices = cx.known_ints(1)?.ok_or_else(|| Fail::attribute("the positions are missing"))?;
    let indices = indices.iter().map(|&index| wrapped(index, size)).collect();
    let id = cx.push(TensorOp::Take { axis, indices }, vec![x])?;
    // The axis becomes as many axes as the positions have.
    let mut shape = shape_codes(cx, id);
    shape.splice(axis..=axis, shape_codes(cx, positions));
    cx.single(TensorOp::Reshape { shape }, vec![id])
}

/// A constant vector of labels, looked up by computed positions of any shape.
fn look_up(cx: &mut NodeCx<'_, '_>, x: ValueId, positions: ValueId) -> Converted<()> {
    if cx.constant(x).is_none() || cx.ty(x).shape.len() != 1 {
        return Err(Fail::unsupported(
            "Gather at computed positions of anything but a constant vector; use constant positions",
        ));
    }
    let columns = cx.constant(x).map_or(0, |value| value.data.len()) as i64;
    let table = cx.push(TensorOp::Reshape { shape: vec![1, columns] }, vec![x])?;
    let shape = shape_codes(cx, positions);
    let inner = shape.iter().skip(1).try_fold(1i64, |size, &dim| if dim < 0 { None } else { size.checked_mul(dim) });
    let inner = inner.ok_or_else(|| {
        Fail::unsupported("Gather at positions whose first axis is not the rows; use constant positions")
    })?;
    let first = shape.first().copied().unwrap_or(1);
    let matrix = cx.push(TensorOp::Reshape { shape: vec![first, inner] }, vec![positions])?;
    let picked = cx.push(TensorOp::GatherRows {}, vec![table, matrix])?;
    cx.single(TensorOp::Reshape { shape }, vec![picked])
}

/// Only with one row of positions for each row of the data (`batch_dims` 1), each naming one column.
fn gather_nd(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, positions) = (cx.operand(0)?, cx.operand(1)?);
    let (of_x, of_positions) = (cx.ty(x).shape.clone(), cx.ty(positions).shape.clone());
    let by_row = cx.int("batch_dims")?.unwrap_or(0) == 1 && of_x.len() == 2 && of_positions.len() == 2;
    if !by_row || of_positions[1] != Dim::Fixed(1) {
        return Err(Fail::unsupported(
            "GatherND other than one column a row (batch_dims=1); use Gather with constant positions",
        ));
    }
    let picked = cx.push(TensorOp::GatherRows {}, vec![x, positions])?;
    let id = drop_axes(cx, picked, &[1])?;
    cx.define(id);
    Ok(())
}

fn slice(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let required = |what: &str, v: Option<Vec<i64>>| v.ok_or_else(|| Fail::attribute(format!("`{what}` is missing")));
    let starts = required("starts", cx.ints_or_input("starts", 1)?)?;
    let ends = required("ends", cx.ints_or_input("ends", 2)?)?;
    let axes = cx.ints_or_input("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = cx.known_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(Fail::attribute("`starts`, `ends`, `axes` and `steps` of different lengths"));
    }
    let mut id = x;
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = cx.axis(axis, x)?;
        if cx.ty(id).shape[axis] == Dim::Batch && start == 0 && end >= i64::from(i32::MAX) && step == 1 {
            continue;
        }
        let size = fixed_size(cx, id, axis, "Slice")? as i64;
        if step == 0 {
            return Err(Fail::attribute("a step of 0"));
        }
        let place = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let (start, end) = (place(start).clamp(low.max(0).min(high), high), place(end).clamp(low, high));
        let mut indices = Vec::new();
        let mut position = start;
        while (step > 0 && position < end) || (step < 0 && position > end) {
            indices.push(usize::try_from(position).unwrap_or(usize::MAX));
            position = position.saturating_add(step);
        }
        id = cx.push(TensorOp::Take { axis, indices }, vec![id])?;
    }
    cx.define(id);
    Ok(())
}
