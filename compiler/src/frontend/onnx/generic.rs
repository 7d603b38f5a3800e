//! Operations of the standard domain.

use super::node::{Converted, Fail, NodeCx};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, ReduceKind, TensorOp, UnaryKind};

pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    if let Some(kind) = unary_kind(op) {
        let x = cx.operand(0)?;
        return cx.single(TensorOp::Unary { kind }, vec![x]);
    }
    if let Some(kind) = binary_kind(op) {
        return binary(cx, kind);
    }
    if let Some(kind) = reduce_kind(op) {
        return reduce(cx, kind);
    }
    match op {
        "Identity" | "Dropout" => {
            let x = cx.operand(0)?;
            cx.define(x);
            Ok(())
        }
        "Constant" => constant(cx),
        "ConstantOfShape" => {
            let shape = cx.known_ints(0)?.ok_or_else(|| Fail::attribute("the shape is missing"))?;
            let fill = cx.tensor_attribute("value")?.unwrap_or(TensorValue::f32(vec![1], vec![0.0]));
            let dims: Vec<usize> = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
            let size = dims.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim));
            let size = size.filter(|&size| size <= cx.importer.limits.max_elements);
            let size = size.ok_or_else(|| Fail::shape(format!("a constant of shape {shape:?} is too large")))?;
            let data = fill.data.pick((0..size).map(|_| 0));
            let id = cx.push_constant(TensorValue { shape: dims, data })?;
            cx.define(id);
            Ok(())
        }
        "Shape" => {
            let x = cx.operand(0)?;
            // The batch is written as -1, which Reshape reads as such.
            let dims = cx.ty(x).shape.iter().map(|dim| match dim {
                Dim::Batch => -1,
                Dim::Fixed(size) => *size as i64,
            });
            let dims: Vec<i64> = dims.collect();
            let id = cx.push_constant(TensorValue { shape: vec![dims.len()], data: Data::I64(dims) })?;
            cx.define(id);
            Ok(())
        }
        "Cast" => {
            let x = cx.operand(0)?;
            let code = cx.int("to")?.unwrap_or(0);
            let to = i32::try_from(code).ok().and_then(super::tensors::element);
            let to = to.ok_or_else(|| Fail::unsupported(format!("a cast to element type {code}")))?;
            cx.single(TensorOp::Cast { to }, vec![x])
        }
        "MatMul" => matmul(cx),
        "Gemm" => gemm(cx),
        "Where" => {
            let all = cx.operands()?;
            cx.single(TensorOp::Where {}, all)
        }
        "Clip" => clip(cx),
        "Softmax" | "LogSoftmax" => softmax(cx, op == "LogSoftmax"),
        "ArgMax" | "ArgMin" => {
            let x = cx.operand(0)?;
            let axis = cx.axis(cx.int("axis")?.unwrap_or(0), x)?;
            let last = cx.int("select_last_index")?.unwrap_or(0) != 0;
            let id = cx.push(TensorOp::ArgMax { axis, least: op == "ArgMin", last }, vec![x])?;
            let id = if cx.int("keepdims")?.unwrap_or(1) == 0 { drop_axes(cx, id, &[axis])? } else { id };
            cx.define(id);
            Ok(())
        }
        "Reshape" => reshape(cx),
        "Flatten" => {
            let x = cx.operand(0)?;
            let columns = cx.ty(x).shape.iter().skip(1).map(|dim| match dim {
                Dim::Fixed(size) => *size as i64,
                Dim::Batch => 1,
            });
            let columns: i64 = columns.product();
            if cx.int("axis")?.unwrap_or(1) != 1 {
                return Err(Fail::unsupported("Flatten along another axis than 1"));
            }
            cx.single(TensorOp::Reshape { shape: vec![-1, columns] }, vec![x])
        }
        "Squeeze" => {
            let x = cx.operand(0)?;
            let axes = match cx.ints_or_input("axes", 1)? {
                Some(axes) => axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?,
                None => (0..cx.ty(x).shape.len()).filter(|&axis| cx.ty(x).shape[axis] == Dim::Fixed(1)).collect(),
            };
            let id = drop_axes(cx, x, &axes)?;
            cx.define(id);
            Ok(())
        }
        "Unsqueeze" => {
            let x = cx.operand(0)?;
            let axes = cx.ints_or_input("axes", 1)?.ok_or_else(|| Fail::attribute("`axes` is missing"))?;
            let rank = (cx.ty(x).shape.len() + axes.len()) as i64;
            let mut axes: Vec<i64> = axes.iter().map(|&axis| if axis < 0 { axis + rank } else { axis }).collect();
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
        "Transpose" => {
            let x = cx.operand(0)?;
            let rank = cx.ty(x).shape.len() as i64;
            let order = cx.ints("perm")?.unwrap_or_else(|| (0..rank).rev().collect());
            let order = order.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<_>>()?;
            cx.single(TensorOp::Transpose { order }, vec![x])
        }
        "Concat" => {
            let all = cx.operands()?;
            let first = *all.first().ok_or_else(|| Fail::attribute("nothing to concatenate"))?;
            let axis = cx.axis(cx.int("axis")?.unwrap_or(1), first)?;
            cx.single(TensorOp::Concat { axis }, all)
        }
        "Gather" => {
            let x = cx.operand(0)?;
            let axis = cx.axis(cx.int("axis")?.unwrap_or(0), x)?;
            let scalar = cx.optional(1).is_some_and(|id| cx.ty(id).shape.is_empty());
            if let (Some(_), Some(Dim::Fixed(_))) = (cx.constant(x), cx.ty(x).shape.first())
                && cx.optional(1).is_some_and(|id| cx.constant(id).is_none())
                && cx.ty(x).shape.len() == 1
            {
                // A constant vector of labels, looked up by computed positions.
                let columns = cx.constant(x).map_or(0, |value| value.data.len()) as i64;
                let table = cx.push(TensorOp::Reshape { shape: vec![1, columns] }, vec![x])?;
                let positions = cx.operand(1)?;
                let shape = shape_codes(cx, positions);
                let matrix = cx.as_matrix(positions)?;
                let picked = cx.push(TensorOp::GatherRows {}, vec![table, matrix])?;
                return cx.single(TensorOp::Reshape { shape }, vec![picked]);
            }
            let indices = cx.known_ints(1)?.ok_or_else(|| Fail::attribute("the positions are missing"))?;
            let size = match cx.ty(x).shape[axis] {
                Dim::Fixed(size) => size as i64,
                Dim::Batch => return Err(Fail::unsupported("Gather along the batch")),
            };
            let indices =
                indices.iter().map(|&i| usize::try_from(if i < 0 { i + size } else { i }).unwrap_or(usize::MAX));
            let indices = indices.collect();
            let id = cx.push(TensorOp::Take { axis, indices }, vec![x])?;
            let id = if scalar { drop_axes(cx, id, &[axis])? } else { id };
            cx.define(id);
            Ok(())
        }
        "Slice" => slice(cx),
        "Sum" | "Mean" => {
            let mut all = cx.operands()?.into_iter();
            let mut sum = all.next().ok_or_else(|| Fail::attribute("nothing to add"))?;
            let mut count = 1;
            for next in all {
                sum = cx.push(TensorOp::Binary { kind: BinaryKind::Add }, vec![sum, next])?;
                count += 1;
            }
            if op == "Mean" {
                let count = cx.push_constant(TensorValue::f32(vec![1], vec![count as f32]))?;
                sum = cx.push(TensorOp::Binary { kind: BinaryKind::Div }, vec![sum, count])?;
            }
            cx.define(sum);
            Ok(())
        }
        _ => Err(Fail::unsupported(format!(
            "`{op}` of the standard domain (opset {}); remove it or compute it outside the model",
            cx.importer.opsets.standard
        ))),
    }
}

fn unary_kind(op: &str) -> Option<UnaryKind> {
    use UnaryKind as K;
    Some(match op {
        "Neg" => K::Neg,
        "Abs" => K::Abs,
        "Exp" => K::Exp,
        "Log" => K::Log,
        "Sqrt" => K::Sqrt,
        "Sigmoid" => K::Sigmoid,
        "Tanh" => K::Tanh,
        "Relu" => K::Relu,
        "Floor" => K::Floor,
        "Not" => K::Not,
        "Sign" => K::Sign,
        "Reciprocal" => K::Reciprocal,
        "IsNaN" => K::IsNan,
        _ => return None,
    })
}

fn binary_kind(op: &str) -> Option<BinaryKind> {
    use BinaryKind as K;
    Some(match op {
        "Add" => K::Add,
        "Sub" => K::Sub,
        "Mul" => K::Mul,
        "Div" => K::Div,
        "Pow" => K::Pow,
        "Max" => K::Max,
        "Min" => K::Min,
        "Equal" => K::Equal,
        "Less" => K::Less,
        "LessOrEqual" => K::LessOrEqual,
        "Greater" => K::Greater,
        "GreaterOrEqual" => K::GreaterOrEqual,
        "And" => K::And,
        "Or" => K::Or,
        _ => return None,
    })
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
        _ => return None,
    })
}

fn binary(cx: &mut NodeCx<'_, '_>, kind: BinaryKind) -> Converted<()> {
    let mut all = cx.operands()?.into_iter();
    let mut value = all.next().ok_or_else(|| Fail::attribute("no operands"))?;
    for mut other in all {
        // Exponents may have another type than the base.
        if kind == BinaryKind::Pow && cx.ty(other).element != cx.ty(value).element {
            let to = cx.ty(value).element;
            other = cx.push(TensorOp::Cast { to }, vec![other])?;
        }
        value = cx.push(TensorOp::Binary { kind }, vec![value, other])?;
    }
    cx.define(value);
    Ok(())
}

fn reduce(cx: &mut NodeCx<'_, '_>, kind: ReduceKind) -> Converted<()> {
    let x = cx.operand(0)?;
    let rank = cx.ty(x).shape.len();
    let axes = match cx.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?,
        None if cx.int("noop_with_empty_axes")?.unwrap_or(0) != 0 => {
            cx.define(x);
            return Ok(());
        }
        None => (0..rank).collect(),
    };
    if axes.len() > 1 && matches!(kind, ReduceKind::L2 | ReduceKind::SumSquare) {
        return Err(Fail::unsupported("a norm over several axes; reduce one after the other"));
    }
    let mut id = cx.push(TensorOp::Reduce { kind, axes: axes.clone() }, vec![x])?;
    if cx.int("keepdims")?.unwrap_or(1) == 0 {
        id = drop_axes(cx, id, &axes)?;
    }
    cx.define(id);
    Ok(())
}

/// A shape with -1 for the batch.
fn shape_codes(cx: &NodeCx<'_, '_>, id: ValueId) -> Vec<i64> {
    let code = |dim: &Dim| match dim {
        Dim::Batch => -1,
        Dim::Fixed(size) => *size as i64,
    };
    cx.ty(id).shape.iter().map(code).collect()
}

fn drop_axes(cx: &mut NodeCx<'_, '_>, id: ValueId, axes: &[usize]) -> Converted<ValueId> {
    let shape = shape_codes(cx, id);
    if axes.iter().any(|&axis| shape.get(axis) != Some(&1)) {
        return Err(Fail::shape(format!("axes {axes:?} of {} do not all have size 1", cx.ty(id))));
    }
    let shape = shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| size).collect();
    cx.push(TensorOp::Reshape { shape }, vec![id])
}

fn constant(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let value = if let Some(value) = cx.tensor_attribute("value")? {
        value
    } else if let Some(value) = cx.float("value_float")? {
        TensorValue::f32(Vec::new(), vec![value])
    } else if let Some(values) = cx.floats("value_floats")? {
        TensorValue::f32(vec![values.len()], values)
    } else if let Some(value) = cx.int("value_int")? {
        TensorValue { shape: Vec::new(), data: Data::I64(vec![value]) }
    } else if let Some(values) = cx.ints("value_ints")? {
        TensorValue { shape: vec![values.len()], data: Data::I64(values) }
    } else if let Some(value) = cx.string("value_string")? {
        TensorValue { shape: Vec::new(), data: Data::Str(vec![value]) }
    } else if let Some(values) = cx.strings("value_strings")? {
        TensorValue { shape: vec![values.len()], data: Data::Str(values) }
    } else {
        return Err(Fail::unsupported("a constant without a dense value"));
    };
    let id = cx.push_constant(value)?;
    cx.define(id);
    Ok(())
}

/// A product with a constant matrix is a linear map.
fn matmul(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let x = cx.as_float(x)?;
    let transposed = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| weights[r * columns + c]);
    let op = TensorOp::Linear { outputs: columns, weights: transposed.collect(), bias: vec![0.0; columns] };
    let squeeze = cx.ty(w).shape.len() == 1;
    let id = cx.push(op, vec![x])?;
    let id = if squeeze { cx.push(TensorOp::Reshape { shape: vec![-1] }, vec![id])? } else { id };
    cx.define(id);
    Ok(())
}

fn constant_matrix(cx: &NodeCx<'_, '_>, id: ValueId) -> Converted<(usize, usize, Vec<f64>)> {
    let value = cx.constant(id).ok_or_else(|| {
        Fail::unsupported("a product of two computed tensors; only products with constant weights are supported")
    })?;
    let weights = value.to_f64().ok_or_else(|| Fail::attribute("a matrix of strings"))?;
    super::node::finite("weight", &weights)?;
    match value.shape.as_slice() {
        [rows, columns] => Ok((*rows, *columns, weights)),
        [rows] => Ok((*rows, 1, weights)),
        other => Err(Fail::unsupported(format!("a product with a tensor of rank {}", other.len()))),
    }
}

fn gemm(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    if cx.int("transA")?.unwrap_or(0) != 0 {
        return Err(Fail::unsupported("Gemm with transA; transpose the input before"));
    }
    let alpha = f64::from(cx.float("alpha")?.unwrap_or(1.0));
    let beta = f64::from(cx.float("beta")?.unwrap_or(1.0));
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let (outputs, weights) = if cx.int("transB")?.unwrap_or(0) != 0 {
        (rows, weights)
    } else {
        let order = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        (columns, order.map(|at| weights[at]).collect())
    };
    let weights = weights.into_iter().map(|w| w * alpha).collect();
    let bias = match cx.optional(2) {
        None => vec![0.0; outputs],
        Some(id) => {
            let bias = cx.constant(id).and_then(TensorValue::to_f64);
            let bias = bias.ok_or_else(|| Fail::unsupported("Gemm with a computed bias"))?;
            let one = bias.len() == 1;
            if !one && bias.len() != outputs {
                return Err(Fail::shape(format!("{} biases for {outputs} outputs", bias.len())));
            }
            (0..outputs).map(|i| beta * bias[if one { 0 } else { i }]).collect()
        }
    };
    let x = cx.as_float(x)?;
    cx.single(TensorOp::Linear { outputs, weights, bias }, vec![x])
}

fn clip(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let limit = |name: &str, position: usize| -> Converted<Option<f64>> {
        if let Some(value) = cx.float(name)? {
            return Ok(Some(f64::from(value)));
        }
        let Some(id) = cx.optional(position) else { return Ok(None) };
        let value = cx.constant(id).and_then(TensorValue::to_f64).and_then(|values| values.first().copied());
        value.map(Some).ok_or_else(|| Fail::unsupported("Clip with computed limits"))
    };
    let (low, high) = (limit("min", 1)?, limit("max", 2)?);
    cx.single(TensorOp::Clip { low, high }, vec![x])
}

fn softmax(cx: &mut NodeCx<'_, '_>, log: bool) -> Converted<()> {
    let x = cx.operand(0)?;
    let old = cx.importer.opsets.standard < 13;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(if old { 1 } else { -1 }), x)?;
    // Before opset 13 all axes from this one on were flattened; the same for the last axis.
    if old && axis + 1 != cx.ty(x).shape.len() {
        return Err(Fail::unsupported("Softmax over several axes; export with opset 13 or newer"));
    }
    cx.single(TensorOp::Softmax { axis, log }, vec![x])
}

fn reshape(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let wanted = cx.ints_or_input("shape", 1)?.ok_or_else(|| Fail::attribute("the shape is missing"))?;
    let old = cx.ty(x).shape.clone();
    let mut shape: Vec<i64> = wanted
        .iter()
        .enumerate()
        .map(|(axis, &dim)| match (dim, old.get(axis)) {
            (0, Some(Dim::Fixed(size))) => *size as i64,
            (0, Some(Dim::Batch)) => -1,
            (dim, _) => dim,
        })
        .collect();
    let fixed = |dims: &[Dim]| {
        dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size as i64 } else { 1 }).product::<i64>()
    };
    let total = fixed(&old);
    let has_batch = old.contains(&Dim::Batch);
    let known: i64 = shape.iter().filter(|&&dim| dim > 0).product();
    if let Some(at) = shape.iter().position(|&dim| dim == -1) {
        // -1 is the batch where the sizes say so, else the rest of the values.
        if !(has_batch && known == total) {
            if has_batch && known != 0 && total % known == 0 && shape.first() == Some(&-1) && at == 0 {
                return Err(Fail::unsupported(format!("a reshape that moves values across rows, to {wanted:?}")));
            }
            shape[at] = total.checked_div(known).unwrap_or(0);
        }
    } else if has_batch && known == total && shape.first() == Some(&1) {
        // A batch of one that the exporter fixed.
        shape[0] = -1;
    }
    cx.single(TensorOp::Reshape { shape }, vec![x])
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
    for at in 0..starts.len() {
        let axis = cx.axis(axes[at], x)?;
        let Dim::Fixed(size) = cx.ty(id).shape[axis] else {
            let whole = starts[at] == 0 && ends[at] >= i64::from(i32::MAX) && steps[at] == 1;
            if whole {
                continue;
            }
            return Err(Fail::unsupported("Slice along the batch"));
        };
        let (size, step) = (size as i64, steps[at]);
        if step == 0 {
            return Err(Fail::attribute("a step of 0"));
        }
        let place = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let (start, end) = (place(starts[at]).clamp(low.max(0), high), place(ends[at]).clamp(low, high));
        let mut indices = Vec::new();
        let mut position = start;
        while (step > 0 && position < end) || (step < 0 && position > end) {
            indices.push(usize::try_from(position).unwrap_or(usize::MAX));
            position += step;
        }
        id = cx.push(TensorOp::Take { axis, indices }, vec![id])?;
    }
    cx.define(id);
    Ok(())
}
