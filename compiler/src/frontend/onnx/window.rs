//! Layers of convolutional networks: convolutions, pooling, padding, batch normalization.

use super::node::{Converted, Fail, NodeCx, finite};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, PoolKind, PoolWindow, ReduceKind, TensorOp};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "Conv" => conv(cx)?,
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
    let [Dim::Batch, Dim::Fixed(_), sizes @ ..] = ty.shape.as_slice() else { return Err(wrong()) };
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

fn conv(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let weights = cx.constant(w).ok_or_else(|| Fail::unsupported("Conv with computed weights; use constant ones"))?;
    let kernel = weights.shape.get(2..).unwrap_or_default().to_vec();
    finite("weight", &weights.to_f64().unwrap_or_default())?;
    let sizes = spatial(cx, x)?;
    let (strides, dilations, pads) = geometry(cx, &sizes, &kernel)?;
    let group = cx.int("group")?.unwrap_or(1);
    let group = usize::try_from(group).map_err(|_| Fail::attribute(format!("`group` is {group}")))?;
    let mut operands = vec![x, w];
    if let Some(bias) = cx.optional(2) {
        let value = cx.constant(bias).and_then(TensorValue::to_f64);
        finite("bias", &value.ok_or_else(|| Fail::unsupported("Conv with a computed bias; use a constant one"))?)?;
        operands.push(bias);
    }
    cx.single(TensorOp::Conv { strides, dilations, pads, group }, operands)
}

fn pool(cx: &mut NodeCx<'_, '_>, kind: PoolKind) -> Converted<()> {
    let x = cx.operand(0)?;
    let sizes = spatial(cx, x)?;
    let kernel = sizes_attribute(cx, "kernel_shape", sizes.len(), 1)?;
    let (strides, dilations, pads) = geometry(cx, &sizes, &kernel)?;
    if cx.proto.output.len() > 1 {
        return Err(Fail::unsupported("MaxPool with positions as a second output"));
    }
    let ceil = cx.flag("ceil_mode", false)?;
    let count_pads = cx.flag("count_include_pad", false)?;
    let window = PoolWindow { kernel, strides, dilations, pads, ceil };
    cx.single(TensorOp::Pool { kind, window, count_pads }, vec![x])
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
    if mode != "constant" {
        return Err(Fail::unsupported(format!("Pad in mode `{mode}`; only constant padding is supported")));
    }
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
    let pads: Option<Vec<usize>> = full.iter().map(|&pad| usize::try_from(pad).ok()).collect();
    let pads = pads.ok_or_else(|| Fail::unsupported("negative pads; use Slice"))?;
    let x = cx.as_float(x)?;
    cx.single(TensorOp::Pad { pads, value }, vec![x])
}
