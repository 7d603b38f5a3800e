//! Normalizations over the values of a row: means, squares, roots and products.

use super::node::{Converted, Fail, NodeCx};
use super::shape::shape_codes;
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{BinaryKind, Dim, ReduceKind, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "LayerNormalization" => layer(cx)?,
        "RMSNormalization" => rms(cx)?,
        "InstanceNormalization" => instance(cx)?,
        "GroupNormalization" => group(cx)?,
        "LpNormalization" => lp(cx)?,
        "MeanVarianceNormalization" => mean_variance(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

struct Normalized {
    value: ValueId,
    mean: ValueId,
    /// 1 over the deviation.
    inverse: ValueId,
}

/// `(x - mean) / sqrt(variance + epsilon)` over some axes.
fn normalized(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], epsilon: f64) -> Converted<Normalized> {
    for axis in axes {
        cx.size(x, *axis)?;
    }
    let mean = cx.reduce(ReduceKind::Mean, axes, x)?;
    let centred = cx.binary(BinaryKind::Sub, x, mean)?;
    let inverse = inverse_root(cx, centred, axes, epsilon)?;
    Ok(Normalized { value: cx.binary(BinaryKind::Mul, centred, inverse)?, mean, inverse })
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
fn inverse_root(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], epsilon: f64) -> Converted<ValueId> {
    let square = cx.binary(BinaryKind::Mul, x, x)?;
    let variance = cx.reduce(ReduceKind::Mean, axes, square)?;
    let raised = cx.with_constant(BinaryKind::Add, variance, &[epsilon])?;
    let root = cx.unary(UnaryKind::Sqrt, raised)?;
    cx.unary(UnaryKind::Reciprocal, root)
}

fn epsilon(cx: &NodeCx<'_, '_>) -> Converted<f64> {
    Ok(f64::from(cx.float("epsilon")?.unwrap_or(1e-5)))
}

/// The axes from an attribute on.
fn axes_from(cx: &NodeCx<'_, '_>, x: ValueId) -> Converted<Vec<usize>> {
    let axis = cx.axis(cx.int("axis")?.unwrap_or(-1), x)?;
    Ok((axis..cx.ty(x).shape.len()).collect())
}

/// `value * scale + bias` with what operands there are.
fn affine(
    cx: &mut NodeCx<'_, '_>,
    value: ValueId,
    scale: Option<ValueId>,
    bias: Option<ValueId>,
) -> Converted<ValueId> {
    let value = scale.map_or(Ok(value), |scale| cx.binary(BinaryKind::Mul, value, scale))?;
    bias.map_or(Ok(value), |bias| cx.binary(BinaryKind::Add, value, bias))
}

fn layer(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (axes, epsilon) = (axes_from(cx, x)?, epsilon(cx)?);
    let Normalized { value, mean, inverse } = normalized(cx, x, &axes, epsilon)?;
    let (scale, bias) = (cx.optional(1), cx.optional(2));
    let value = affine(cx, value, scale, bias)?;
    for output in [value, mean, inverse] {
        cx.define(output);
    }
    Ok(())
}

fn rms(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (axes, epsilon) = (axes_from(cx, x)?, epsilon(cx)?);
    for axis in &axes {
        cx.size(x, *axis)?;
    }
    let inverse = inverse_root(cx, x, &axes, epsilon)?;
    let value = cx.binary(BinaryKind::Mul, x, inverse)?;
    let scale = cx.optional(1);
    let value = affine(cx, value, scale, None)?;
    cx.define(value);
    Ok(())
}

/// Operands 1 and 2, one value a channel.
fn per_channel(cx: &mut NodeCx<'_, '_>, rank: usize) -> Converted<(Option<ValueId>, Option<ValueId>)> {
    let mut both = [None, None];
    for (at, place) in both.iter_mut().enumerate() {
        if let Some(id) = cx.optional(1 + at) {
            *place = Some(cx.along_axis(id, 1, rank)?);
        }
    }
    Ok((both[0], both[1]))
}

fn instance(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (rank, epsilon) = (cx.ty(x).shape.len(), epsilon(cx)?);
    let axes: Vec<usize> = (2..rank).collect();
    let value = normalized(cx, x, &axes, epsilon)?.value;
    let (scale, bias) = per_channel(cx, rank)?;
    let value = affine(cx, value, scale, bias)?;
    cx.define(value);
    Ok(())
}

fn group(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let codes = shape_codes(cx, x);
    let (channels, epsilon) = (cx.size(x, 1)?, epsilon(cx)?);
    let groups = cx.int("num_groups")?.and_then(|groups| usize::try_from(groups).ok()).filter(|groups| *groups > 0);
    let groups = groups.filter(|groups| channels.is_multiple_of(*groups));
    let groups = groups.ok_or_else(|| Fail::attribute(format!("`num_groups` does not divide {channels} channels")))?;
    let inner: i64 = codes[2..].iter().product::<i64>() * (channels / groups) as i64;
    let split = cx.reshape(x, vec![codes[0], groups as i64, inner])?;
    let value = normalized(cx, split, &[2], epsilon)?.value;
    // Before opset 21 scales were one a group.
    let scales = cx.operand(1)?;
    let of_groups = cx.ty(scales).shape.as_slice() == [Dim::Fixed(groups)] && groups != channels;
    let value = if of_groups {
        let (scale, bias) = per_channel(cx, 3)?;
        let value = affine(cx, value, scale, bias)?;
        cx.reshape(value, codes)?
    } else {
        let value = cx.reshape(value, codes.clone())?;
        let (scale, bias) = per_channel(cx, codes.len())?;
        affine(cx, value, scale, bias)?
    };
    cx.define(value);
    Ok(())
}

fn lp(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(-1), x)?;
    cx.size(x, axis)?;
    let kind = match cx.int("p")?.unwrap_or(2) {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => return Err(Fail::attribute(format!("a norm of order {p}"))),
    };
    let norm = cx.reduce(kind, &[axis], x)?;
    let value = cx.binary(BinaryKind::Div, x, norm)?;
    // Zeros stay zeros.
    let zero = cx.with_constant(BinaryKind::Equal, norm, &[0.0])?;
    let cleared = cx.with_constant(BinaryKind::Mul, x, &[0.0])?;
    cx.single(tacit_ir::stage::tensor::TensorOp::Where {}, vec![zero, cleared, value])
}

fn mean_variance(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?;
    let value = normalized(cx, x, &axes, 1e-9)?.value;
    cx.define(value);
    Ok(())
}
