//! Operations along axes: reductions, softmax, positions of extremes.

use super::node::{Converted, Fail, NodeCx};
use super::shape::{drop_axes, shape_codes};
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{Dim, Element, ReduceKind, TensorOp, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    if let Some(kind) = reduce_kind(op) {
        let id = reduce(cx, kind)?;
        cx.define(id);
        return Ok(true);
    }
    match op {
        "ReduceLogSum" => {
            let sum = reduce(cx, ReduceKind::Sum)?;
            cx.single(TensorOp::Unary { kind: UnaryKind::Log }, vec![sum])?;
        }
        "Softmax" | "LogSoftmax" => softmax(cx, op == "LogSoftmax")?,
        "ArgMax" | "ArgMin" => {
            let x = cx.operand(0)?;
            let axis = cx.axis(cx.int("axis")?.unwrap_or(0), x)?;
            let last = cx.flag("select_last_index", false)?;
            let id = cx.push(TensorOp::ArgMax { axis, least: op == "ArgMin", last }, vec![x])?;
            let id = if cx.flag("keepdims", true)? { id } else { drop_axes(cx, id, &[axis])? };
            cx.define(id);
        }
        "TopK" => top_k(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn reduce_kind(op: &str) -> Option<ReduceKind> {
    use ReduceKind as K;
    Some(match op {
        "ReduceSum" => K::Sum,
        "ReduceMean" => K::Mean,
        "ReduceMax" => K::Max,
        "ReduceMin" => K::Min,
        "ReduceL2" => K::L2,
        "ReduceL1" => K::L1,
        "ReduceSumSquare" => K::SumSquare,
        "ReduceProd" => K::Prod,
        "ReduceLogSumExp" => K::LogSumExp,
        _ => return None,
    })
}

fn reduce(cx: &mut NodeCx<'_, '_>, kind: ReduceKind) -> Converted<ValueId> {
    let x = cx.operand(0)?;
    let rank = cx.ty(x).shape.len();
    let mut axes = match cx.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?,
        None if cx.flag("noop_with_empty_axes", false)? => return Ok(x),
        None => (0..rank).collect(),
    };
    axes.sort_unstable();
    axes.dedup();
    if matches!(kind, ReduceKind::Max | ReduceKind::Min) {
        if cx.ty(x).element == Element::Bool {
            return Err(Fail::unsupported("the greatest or least of booleans; cast them to integers"));
        }
        if axes.iter().any(|axis| cx.ty(x).shape[*axis] == Dim::Fixed(0)) {
            return Err(Fail::unsupported("the greatest or least of no values; remove it"));
        }
    }
    let id = cx.push(TensorOp::Reduce { kind, axes: axes.clone() }, vec![x])?;
    if cx.flag("keepdims", true)? { Ok(id) } else { drop_axes(cx, id, &axes) }
}

fn softmax(cx: &mut NodeCx<'_, '_>, log: bool) -> Converted<()> {
    let x = cx.operand(0)?;
    let old = cx.importer.opsets.standard < 13;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(if old { 1 } else { -1 }), x)?;
    let shape = cx.ty(x).shape.clone();
    if !old || axis + 1 == shape.len() {
        return cx.single(TensorOp::Softmax { axis, log }, vec![x]);
    }
    // Before opset 13 all axes from this one on were one.
    let flat = shape[axis..].iter().try_fold(1usize, |size, dim| match dim {
        Dim::Fixed(dim) => size.checked_mul(*dim),
        Dim::Batch => None,
    });
    let flat = flat.and_then(|flat| i64::try_from(flat).ok());
    let flat = flat.ok_or_else(|| {
        Fail::unsupported("Softmax along the rows; a model must treat every row alike: use another axis")
    })?;
    let codes = shape_codes(cx, x);
    let narrow = codes[..axis].iter().copied().chain([flat]).collect();
    let id = cx.push(TensorOp::Reshape { shape: narrow }, vec![x])?;
    let id = cx.push(TensorOp::Softmax { axis, log }, vec![id])?;
    cx.single(TensorOp::Reshape { shape: codes }, vec![id])
}

/// Values and positions; always sorted, which an unsorted result may be too.
fn top_k(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(-1), x)?;
    let count = match cx.int("k")? {
        Some(count) => Some(count),
        None => cx.known_ints(1)?.and_then(|values| values.first().copied()),
    };
    let count = count.and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or_else(|| Fail::attribute("`k` is missing or negative"))?;
    let least = !cx.flag("largest", true)?;
    for positions in [false, true] {
        let id = cx.push(TensorOp::TopK { axis, count, least, positions }, vec![x])?;
        cx.define(id);
    }
    Ok(())
}
