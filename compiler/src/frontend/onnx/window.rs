//! Layers of convolutional networks: convolutions, pooling, padding, batch normalization.

use super::node::{Converted, Fail, NodeCx, finite};
use super::quantized;
use super::shape::shape_codes;
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, PoolKind, PoolWindow, ReduceKind, TensorOp, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "Conv" => conv(cx)?,
        "ConvTranspose" => conv_transpose(cx)?,
        "MaxPool" => pool(cx, PoolKind::Max)?,
        "AveragePool" => pool(cx, PoolKind::Average)?,
        "GlobalAveragePool" => global(cx, ReduceKind::Mean)?,
        "GlobalMaxPool" => global(cx, ReduceKind::Max)?,
        "BatchNormalization" => batch_normalization(cx)?,
        "Pad" => pad(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sizes of the axes behind rows and channels.
fn spatial(cx: &NodeCx<'_, '_>, x: ValueId) -> Converted<Vec<usize>> {
    let ty = cx.ty(x);
    let wrong = || Fail::unsupported(format!("a window over {ty}; only [batch, channels, ...] is supported"));
    if !matches!(ty.element, Element::F32 | Element::F64) {
        return Err(wrong());
    }
    let [_, Dim::Fixed(_), sizes @ ..] = ty.shape.as_slice() else { return Err(wrong()) };
    sizes.iter().map(|dim| if let Dim::Fixed(size) = dim { Ok(*size) } else { Err(wrong()) }).collect()
}

fn sizes_attribute(cx: &NodeCx<'_, '_>, name: &str, count: usize, default: usize) -> Converted<Vec<usize>> {
    let Some(values) = cx.ints(name)? else { return Ok(vec![default; count]) };
    let values: Option<Vec<usize>> = values.iter().map(|&value| usize::try_from(value).ok()).collect();
    values
        .filter(|values| values.len() == count)
        .ok_or_else(|| Fail::attribute(format!("`{name}` does not hold {count} sizes")))
}

/// Strides, dilations and pads, `auto_pad` worked out.
fn geometry(cx: &NodeCx<'_, '_>, sizes: &[usize], kernel: &[usize]) -> Converted<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let rank = sizes.len();
    let strides = sizes_attribute(cx, "strides", rank, 1)?;
    let dilations = sizes_attribute(cx, "dilations", rank, 1)?;
    if kernel.len() != rank || strides.contains(&0) || kernel.contains(&0) || dilations.contains(&0) {
        return Err(Fail::shape(format!("a window {kernel:?} with strides {strides:?} over {sizes:?}")));
    }
    let auto = cx.string("auto_pad")?.unwrap_or_else(|| "NOTSET".to_owned());
    let pads = match auto.as_str() {
        "NOTSET" => sizes_attribute(cx, "pads", 2 * rank, 0)?,
        "VALID" => vec![0; 2 * rank],
        "SAME_UPPER" | "SAME_LOWER" => {
            let mut pads = vec![0; 2 * rank];
            for axis in 0..rank {
                let extent = (kernel[axis] - 1).saturating_mul(dilations[axis]).saturating_add(1);
                let positions = sizes[axis].div_ceil(strides[axis]);
                let reach = positions.saturating_sub(1).saturating_mul(strides[axis]).saturating_add(extent);
                let total = reach.saturating_sub(sizes[axis]);
                let small = total / 2;
                let (before, after) =
                    if auto == "SAME_UPPER" { (small, total - small) } else { (total - small, small) };
                (pads[axis], pads[axis + rank]) = (before, after);
            }
            pads
        }
        other => return Err(Fail::attribute(format!("`auto_pad` is `{other}`"))),
    };
    Ok((strides, dilations, pads))
}

fn group(cx: &NodeCx<'_, '_>) -> Converted<usize> {
    let group = cx.int("group")?.unwrap_or(1);
    usize::try_from(group).ok().filter(|group| *group > 0).ok_or_else(|| Fail::attribute(format!("`group` is {group}")))
}

fn conv(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let id = conv_of(cx, x, w, cx.optional(2))?;
    cx.define(id);
    Ok(())
}

/// The convolution that the node's attributes describe.
pub(super) fn conv_of(cx: &mut NodeCx<'_, '_>, x: ValueId, w: ValueId, bias: Option<ValueId>) -> Converted<ValueId> {
    let weights = cx.constant(w).ok_or_else(|| Fail::unsupported("Conv with computed weights; use constant ones"))?;
    let kernel = weights.shape.get(2..).unwrap_or_default().to_vec();
    finite("weight", &weights.to_f64().unwrap_or_default())?;
    let sizes = spatial(cx, x)?;
    let (strides, dilations, pads) = geometry(cx, &sizes, &kernel)?;
    let group = group(cx)?;
    let mut operands = vec![x, w];
    if let Some(bias) = bias {
        let value = cx.constant(bias).and_then(TensorValue::to_f64);
        finite("bias", &value.ok_or_else(|| Fail::unsupported("Conv with a computed bias; use a constant one"))?)?;
        operands.push(bias);
    }
    cx.push(TensorOp::Conv { strides, dilations, pads, group }, operands)
}

/// A convolution over the input with `stride - 1` zeros between its elements, with the kernel mirrored (Dumoulin and Visin, "A
/// guide to convolution arithmetic for deep learning", 2016).
fn conv_transpose(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let weights = cx.known(1, "weight")?.ok_or_else(|| Fail::attribute("the weights are missing"))?;
    let values = weights.to_f64().unwrap_or_default();
    finite("weight", &values)?;
    let sizes = spatial(cx, x)?;
    let (rank, group) = (sizes.len(), group(cx)?);
    let [inputs, per_group, kernel @ ..] = weights.shape.as_slice() else {
        return Err(Fail::shape("weights are [inputs, outputs / group, ...]"));
    };
    let (inputs, per_group, kernel) = (*inputs, *per_group, kernel.to_vec());
    if kernel.len() != rank || kernel.contains(&0) || !inputs.is_multiple_of(group) {
        return Err(Fail::shape(format!("a kernel {kernel:?} of {group} groups over {}", cx.ty(x))));
    }
    let strides = sizes_attribute(cx, "strides", rank, 1)?;
    let dilations = sizes_attribute(cx, "dilations", rank, 1)?;
    let extra = sizes_attribute(cx, "output_padding", rank, 0)?;
    if strides.contains(&0) || dilations.contains(&0) {
        return Err(Fail::attribute("a stride or dilation of 0"));
    }
    let reach: Vec<i64> = (0..rank).map(|axis| ((kernel[axis] - 1) * dilations[axis]) as i64).collect();
    let span: Vec<i64> = (0..rank).map(|axis| ((sizes[axis].max(1) - 1) * strides[axis] + 1) as i64).collect();
    let full = |axis: usize| span[axis] + reach[axis] + extra[axis] as i64;
    // What is cut off before and after each axis.
    let auto = cx.string("auto_pad")?.unwrap_or_else(|| "NOTSET".to_owned());
    let wanted = match cx.ints("output_shape")? {
        Some(shape) if shape.len() >= rank => Some(shape[shape.len() - rank..].to_vec()),
        Some(_) => return Err(Fail::attribute("`output_shape` is too short")),
        None if auto.starts_with("SAME") => Some((0..rank).map(|axis| (sizes[axis] * strides[axis]) as i64).collect()),
        None => None,
    };
    let cut: Vec<(i64, i64)> = match (&wanted, auto.as_str()) {
        (Some(wanted), _) => (0..rank)
            .map(|axis| {
                let total = full(axis) - wanted[axis];
                let half = total.div_euclid(2);
                if auto == "SAME_UPPER" { (half, total - half) } else { (total - half, half) }
            })
            .collect(),
        (None, "VALID") => vec![(0, 0); rank],
        (None, _) => {
            let pads = sizes_attribute(cx, "pads", 2 * rank, 0)?;
            (0..rank).map(|axis| (pads[axis] as i64, pads[axis + rank] as i64)).collect()
        }
    };
    let stuffed = spread(cx, x, &sizes, &strides)?;
    // Padding around it: a kernel's reach less what is cut off, which may be negative.
    let border = |axis: usize| (reach[axis] - cut[axis].0, reach[axis] - cut[axis].1 + extra[axis] as i64);
    let mut at = stuffed;
    for (axis, span) in span.iter().enumerate() {
        let (before, after) = border(axis);
        let (from, to) = (-before.min(0), span + after.min(0));
        if to <= from {
            return Err(Fail::shape("pads cut everything off"));
        }
        if before < 0 || after < 0 {
            at = cx.take(at, 2 + axis, (from as usize..to as usize).collect())?;
        }
    }
    let side = |pick: fn((i64, i64)) -> i64| (0..rank).map(move |axis| pick(border(axis)).max(0) as usize);
    let pads: Vec<usize> = side(|b| b.0).chain(side(|b| b.1)).collect();
    // [inputs, outputs / group, kernel] to [outputs, inputs / group, mirrored kernel].
    let (area, own) = (kernel.iter().product::<usize>(), inputs / group);
    let mut turned = Vec::with_capacity(values.len());
    for output in 0..group * per_group {
        for input in 0..own {
            let first = ((output / per_group * own + input) * per_group + output % per_group) * area;
            turned.extend(values[first..first + area].iter().rev());
        }
    }
    let element = cx.ty(x).element;
    let shape = [group * per_group, own].into_iter().chain(kernel).collect();
    let w = cx.numbers(element, shape, turned)?;
    let mut operands = vec![at, w];
    if cx.known(2, "bias")?.is_some() {
        operands.push(cx.operand(2)?);
    }
    cx.single(TensorOp::Conv { strides: vec![1; rank], dilations, pads, group }, operands)
}

/// `strides - 1` zeros between the elements of each spatial axis.
fn spread(cx: &mut NodeCx<'_, '_>, x: ValueId, sizes: &[usize], strides: &[usize]) -> Converted<ValueId> {
    if strides.iter().all(|stride| *stride == 1) {
        return Ok(x);
    }
    let front = shape_codes(cx, x)[..2].to_vec();
    let pairs = |inner: &dyn Fn(usize) -> usize| -> Vec<i64> {
        let tail = (0..sizes.len()).flat_map(|axis| [sizes[axis] as i64, inner(axis) as i64]);
        front.iter().copied().chain(tail).collect()
    };
    let mut at = cx.reshape(x, pairs(&|_| 1))?;
    let rank = 2 + 2 * sizes.len();
    let mut pads = vec![0; 2 * rank];
    for (axis, stride) in strides.iter().enumerate() {
        pads[rank + 2 + 2 * axis + 1] = stride - 1;
    }
    at = cx.push(TensorOp::Pad { pads, value: 0.0 }, vec![at])?;
    let merged = front.iter().copied().chain((0..sizes.len()).map(|axis| (sizes[axis] * strides[axis]) as i64));
    at = cx.reshape(at, merged.collect())?;
    for (axis, (size, stride)) in sizes.iter().zip(strides).enumerate() {
        at = cx.take(at, 2 + axis, (0..(size.max(&1) - 1) * stride + 1).collect())?;
    }
    Ok(at)
}

fn pool(cx: &mut NodeCx<'_, '_>, kind: PoolKind) -> Converted<()> {
    let mut x = cx.operand(0)?;
    // The largest of quantized integers; floats hold them exactly, and what reads them takes floats.
    let integers = kind == PoolKind::Max && cx.ty(x).element == Element::I64;
    let limits = if integers { quantized::limits_of(cx, x) } else { None };
    if integers {
        x = cx.cast(x, Element::F32)?;
    }
    let mut id = pool_of(cx, x, kind)?;
    if let Some((low, high)) = limits {
        // This changes no value, but says that they are the same integers again: what reads a maximum of quantized values reads
        // them from a table of their own, as in models whose maximum is quantized anew, and not sums with all that it is made of.
        let rounded = cx.unary(UnaryKind::Round, id)?;
        id = cx.push(TensorOp::Clip { low: Some(low), high: Some(high) }, vec![rounded])?;
    }
    if integers && cx.is_output() {
        id = cx.cast(id, Element::I64)?;
    }
    cx.define(id);
    Ok(())
}

/// The node's pooling of a value.
pub(super) fn pool_of(cx: &mut NodeCx<'_, '_>, x: ValueId, kind: PoolKind) -> Converted<ValueId> {
    let sizes = spatial(cx, x)?;
    let kernel = sizes_attribute(cx, "kernel_shape", sizes.len(), 1)?;
    let (strides, dilations, pads) = geometry(cx, &sizes, &kernel)?;
    if cx.proto.output.len() > 1 {
        return Err(Fail::unsupported(
            "MaxPool with positions as a second output; export without it (return_indices=False)",
        ));
    }
    let ceil = cx.flag("ceil_mode", false)?;
    let count_pads = cx.flag("count_include_pad", false)?;
    let window = PoolWindow { kernel, strides, dilations, pads, ceil };
    cx.push(TensorOp::Pool { kind, window, count_pads }, vec![x])
}

fn global(cx: &mut NodeCx<'_, '_>, kind: ReduceKind) -> Converted<()> {
    let x = cx.operand(0)?;
    let axes = (2..2 + spatial(cx, x)?.len()).collect();
    cx.single(TensorOp::Reduce { kind, axes }, vec![x])
}

/// `scale * (x - mean) / sqrt(variance + epsilon) + bias`, per channel: a product and a sum with constants.
fn batch_normalization(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    if cx.flag("training_mode", false)? {
        return Err(Fail::unsupported("BatchNormalization in training mode; export the model for inference"));
    }
    let epsilon = f64::from(cx.float("epsilon")?.unwrap_or(1e-5));
    let parameter = |position: usize| -> Converted<Vec<f64>> {
        let id = cx.operand(position)?;
        let values = cx.constant(id).and_then(TensorValue::to_f64);
        values.ok_or_else(|| Fail::unsupported("BatchNormalization with computed parameters; use constant ones"))
    };
    let (scale, bias, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let ty = cx.ty(x).clone();
    let channels = match ty.shape.get(1) {
        Some(Dim::Fixed(channels)) => *channels,
        _ => return Err(Fail::shape(format!("expected [rows, channels, ...], found {ty}"))),
    };
    if [&scale, &bias, &mean, &variance].iter().any(|values| values.len() != channels) {
        return Err(Fail::shape(format!("parameters for another number of channels than {channels}")));
    }
    let factor: Vec<f64> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let offset: Vec<f64> = bias.iter().zip(&mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    finite("scale", &factor)?;
    finite("offset", &offset)?;
    // [channels, 1, 1] broadcasts over the axes behind the channels.
    let shape: Vec<usize> = [channels].into_iter().chain(ty.shape.iter().skip(2).map(|_| 1)).collect();
    let constant = |values: Vec<f64>| TensorValue {
        shape: shape.clone(),
        data: match ty.element {
            Element::F64 => Data::F64(values),
            _ => Data::F32(values.into_iter().map(|x| x as f32).collect()),
        },
    };
    let (factor, offset) = (cx.push_constant(constant(factor))?, cx.push_constant(constant(offset))?);
    let scaled = cx.push(TensorOp::Binary { kind: BinaryKind::Mul }, vec![x, factor])?;
    cx.single(TensorOp::Binary { kind: BinaryKind::Add }, vec![scaled, offset])
}

fn pad(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let mode = cx.string("mode")?.unwrap_or_else(|| "constant".to_owned());
    let pads = cx.ints_or_input("pads", 1)?.ok_or_else(|| Fail::attribute("`pads` is missing"))?;
    let value = match (cx.float("value")?, cx.optional(2)) {
        (Some(value), _) => f64::from(value),
        (None, Some(id)) => {
            let value = cx.constant(id).and_then(TensorValue::to_f64).and_then(|values| values.first().copied());
            value.ok_or_else(|| Fail::unsupported("Pad with a computed value; use a constant one"))?
        }
        (None, None) => 0.0,
    };
    let rank = cx.ty(x).shape.len();
    let full = match cx.known_ints(3)? {
        None => pads,
        Some(axes) => {
            let mut full = vec![0; 2 * rank];
            for (number, &axis) in axes.iter().enumerate() {
                let axis = cx.axis(axis, x)?;
                let pair = pads.get(number).zip(pads.get(number + axes.len()));
                let (before, after) = pair.ok_or_else(|| Fail::attribute("pads and axes do not fit together"))?;
                (full[axis], full[axis + rank]) = (*before, *after);
            }
            full
        }
    };
    if mode != "constant" {
        return repeated(cx, x, &mode, &full);
    }
    let pads: Option<Vec<usize>> = full.iter().map(|&pad| usize::try_from(pad).ok()).collect();
    let pads = pads.ok_or_else(|| Fail::unsupported("negative pads; use Slice"))?;
    let x = cx.as_float(x)?;
    cx.single(TensorOp::Pad { pads, value }, vec![x])
}

/// Padding with the values themselves: the nearest one, mirrored, or from the other end.
fn repeated(cx: &mut NodeCx<'_, '_>, x: ValueId, mode: &str, pads: &[i64]) -> Converted<()> {
    let rank = cx.ty(x).shape.len();
    let mut at = x;
    for axis in 0..rank {
        let (Some(&before), Some(&after)) = (pads.get(axis), pads.get(axis + rank)) else {
            return Err(Fail::attribute("`pads` is too short"));
        };
        if before == 0 && after == 0 {
            continue;
        }
        let size = cx.size(x, axis)? as i64;
        if size == 0 || before.max(after) > 1 << 24 {
            return Err(Fail::shape(format!("pads of {before} and {after} around {size} values")));
        }
        let source = |place: i64| match mode {
            "edge" => Some(place.clamp(0, size - 1)),
            "wrap" => Some(place.rem_euclid(size)),
            "reflect" if size == 1 => Some(0),
            "reflect" => {
                let turn = place.rem_euclid(2 * (size - 1));
                Some(turn.min(2 * (size - 1) - turn))
            }
            _ => None,
        };
        let indices: Option<Vec<usize>> =
            (-before..size + after).map(|place| source(place).map(|p| p as usize)).collect();
        let indices = indices.ok_or_else(|| Fail::attribute(format!("`mode` is `{mode}`")))?;
        at = cx.take(at, axis, indices)?;
    }
    cx.define(at);
    Ok(())
}
