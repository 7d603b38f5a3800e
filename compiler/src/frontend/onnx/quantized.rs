//! Quantized models: their integers are computed in floats that hold them exactly.

use super::matrix::matrix_product;
use super::node::{Converted, Fail, NodeCx};
use super::window;
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, PoolKind, ReduceKind, TensorOp, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "QuantizeLinear" => {
            let x = cx.operand(0)?;
            let x = cx.cast(x, Element::F32)?;
            let axis = channel_axis(cx, x)?;
            let id = quantize(cx, x, (1, 2), axis)?;
            cx.define(id);
        }
        "DequantizeLinear" => {
            let x = cx.operand(0)?;
            let axis = channel_axis(cx, x)?;
            let id = dequantize(cx, (0, 1, 2), axis)?;
            cx.define(id);
        }
        "QLinearConv" => qlinear_conv(cx)?,
        "QLinearMatMul" => qlinear_matmul(cx)?,
        "ConvInteger" => {
            let (x, w) = (centred(cx, 0, 2, 1)?, centred(cx, 1, 3, 0)?);
            let sum = window::conv_of(cx, x, w, None)?;
            let sum = cx.cast(sum, Element::I64)?;
            cx.define(sum);
        }
        "MatMulInteger" => {
            let (a, b) = (centred_rows(cx, 0, 2)?, centred(cx, 1, 3, usize::MAX)?);
            let product = matrix_product(cx, a, b)?;
            let product = cx.cast(product, Element::I64)?;
            cx.define(product);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Operations that onnxruntime's quantizer adds to the standard ones.
const ONNXRUNTIMES: [&str; 10] = [
    "QGemm",
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearConcat",
    "QuantizeLinear",
    "DequantizeLinear",
];

/// The limits of integers that a value is: those of the quantization that it comes from.
pub(super) fn limits_of(cx: &NodeCx<'_, '_>, id: ValueId) -> Option<(f64, f64)> {
    let mut at = id;
    loop {
        let node = cx.importer.graph.node(at);
        match node.op {
            TensorOp::Clip { low: Some(low), high: Some(high) } => {
                return (low.fract() == 0.0 && high.fract() == 0.0).then_some((low, high));
            }
            TensorOp::Cast { .. } | TensorOp::Reshape { .. } | TensorOp::Transpose { .. } => {
                at = *node.operands.first()?
            }
            _ => return None,
        }
    }
}

/// Whether an operation of the domain `com.microsoft` is known.
pub(super) fn is_onnxruntimes(op: &str) -> bool {
    ONNXRUNTIMES.contains(&op)
}

/// onnxruntime's own operations on quantized values: dequantized, computed, quantized.
pub(super) fn onnxruntimes(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    let one = |cx: &mut NodeCx<'_, '_>, at: usize| dequantize(cx, (at, at + 1, at + 2), 0);
    let (value, out) = match op {
        "QuantizeLinear" | "DequantizeLinear" => return convert(cx, op).map(|_| ()),
        "QGemm" => return qgemm(cx),
        "QLinearAdd" | "QLinearMul" => {
            let kind = if op == "QLinearAdd" { BinaryKind::Add } else { BinaryKind::Mul };
            let (a, b) = (one(cx, 0)?, one(cx, 3)?);
            (cx.binary(kind, a, b)?, 6)
        }
        "QLinearConcat" => {
            let mut parts = Vec::new();
            for at in (2..cx.proto.input.len()).step_by(3) {
                parts.push(one(cx, at)?);
            }
            let first = parts.first().copied().ok_or_else(|| Fail::attribute("nothing to join"))?;
            let axis = cx.axis(cx.int("axis")?.ok_or_else(|| Fail::attribute("`axis` is missing"))?, first)?;
            (cx.push(TensorOp::Concat { axis }, parts)?, 0)
        }
        _ => {
            if cx.flag("channels_last", false)? {
                return Err(Fail::unsupported("`channels_last`; quantize with the channels first"));
            }
            let x = one(cx, 0)?;
            let value = match op {
                "QLinearSigmoid" => cx.unary(UnaryKind::Sigmoid, x)?,
                "QLinearLeakyRelu" => {
                    let slope = f64::from(cx.float("alpha")?.unwrap_or(0.01));
                    let scaled = cx.with_constant(BinaryKind::Mul, x, &[slope])?;
                    let negative = cx.with_constant(BinaryKind::Less, x, &[0.0])?;
                    cx.push(TensorOp::Where {}, vec![negative, scaled, x])?
                }
                "QLinearAveragePool" => window::pool_of(cx, x, PoolKind::Average)?,
                _ => {
                    let axes: Vec<usize> = (2..cx.ty(x).shape.len()).collect();
                    cx.reduce(ReduceKind::Mean, &axes, x)?
                }
            };
            (value, 3)
        }
    };
    let id = quantize(cx, value, (out, out + 1), 0)?;
    cx.define(id);
    Ok(())
}

/// `alpha * a_scale * b_scale * ((a - a_zero) (b - b_zero) + c)`, quantized where there is a scale for it.
fn qgemm(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (mut a, mut b) = (centred_rows(cx, 0, 2)?, centred(cx, 3, 5, if cx.flag("transB", false)? { 0 } else { 1 })?);
    if cx.flag("transA", false)? {
        a = cx.transpose(a, vec![1, 0])?;
    }
    if cx.flag("transB", false)? {
        b = cx.transpose(b, vec![1, 0])?;
    }
    let mut sum = matrix_product(cx, a, b)?;
    if let Some(c) = cx.optional(6) {
        let c = cx.cast(c, Element::F64)?;
        sum = cx.binary(BinaryKind::Add, sum, c)?;
    }
    let alpha = f64::from(cx.float("alpha")?.unwrap_or(1.0));
    let first = cx.operand(1)?;
    let scales = [cx.with_constant(BinaryKind::Mul, first, &[alpha])?, cx.operand(4)?];
    let id =
        if cx.optional(7).is_some() { requantize(cx, sum, scales, (7, 8), 1)? } else { scaled(cx, sum, scales, 1)? };
    cx.define(id);
    Ok(())
}

/// Brevitas' and QONNX' operations: quantized values, not integers, come out.
pub(super) fn qonnx(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    let x = cx.operand(0)?;
    let x = cx.as_float(x)?;
    let scale = cx.operand(1)?;
    positive(cx, scale)?;
    match op {
        "Quant" => {
            let zero = cx.operand(2)?;
            let bits = cx.known(3, "bit width")?.and_then(|bits| bits.to_f64()).and_then(|bits| bits.first().copied());
            let bits =
                bits.filter(|bits| (1.0..=32.0).contains(bits)).ok_or_else(|| Fail::attribute("the bit width"))?;
            let (signed, narrow) = (cx.flag("signed", true)?, cx.flag("narrow", false)?);
            let (low, high) = if signed {
                (-(bits - 1.0).exp2() + f64::from(u8::from(narrow)), (bits - 1.0).exp2() - 1.0)
            } else {
                (0.0, bits.exp2() - 1.0 - f64::from(u8::from(narrow)))
            };
            let rounding = match cx.string("rounding_mode")?.as_deref() {
                None | Some("ROUND") => UnaryKind::Round,
                Some("FLOOR") => UnaryKind::Floor,
                Some("CEIL") => UnaryKind::Ceil,
                Some(other) => return Err(Fail::unsupported(format!("rounding mode `{other}`; use ROUND"))),
            };
            let steps = cx.binary(BinaryKind::Div, x, scale)?;
            let moved = cx.binary(BinaryKind::Add, steps, zero)?;
            let clipped = cx.push(TensorOp::Clip { low: Some(low), high: Some(high) }, vec![moved])?;
            let rounded = cx.unary(rounding, clipped)?;
            let centred = cx.binary(BinaryKind::Sub, rounded, zero)?;
            let value = cx.binary(BinaryKind::Mul, centred, scale)?;
            cx.define(value);
        }
        "BipolarQuant" => {
            let negative = cx.with_constant(BinaryKind::Less, x, &[0.0])?;
            let minus = cx.unary(UnaryKind::Neg, scale)?;
            cx.single(TensorOp::Where {}, vec![negative, minus, scale])?;
        }
        _ => return Err(Fail::unsupported(format!("`{op}` of QONNX; only Quant and BipolarQuant are known"))),
    }
    Ok(())
}

/// The axis of scales per channel.
fn channel_axis(cx: &NodeCx<'_, '_>, x: ValueId) -> Converted<usize> {
    if cx.int("block_size")?.unwrap_or(0) != 0 {
        return Err(Fail::unsupported("scales for blocks; quantize per tensor or per channel"));
    }
    let axis = cx.axis(cx.int("axis")?.unwrap_or(1), x);
    // With one scale the axis means nothing, and need not exist.
    let single = |position: usize| cx.optional(position).is_none_or(|id| is_single(cx, id));
    if single(1) && single(2) { Ok(axis.unwrap_or(0)) } else { axis }
}

fn is_single(cx: &NodeCx<'_, '_>, id: ValueId) -> bool {
    matches!(cx.ty(id).shape.as_slice(), [] | [Dim::Fixed(1)])
}

/// Scales or zero points along the axis of a value that they belong to: one for all, or one for each channel.
fn channels(cx: &mut NodeCx<'_, '_>, own: ValueId, what: &str, axis: usize, of: ValueId) -> Converted<ValueId> {
    let ty = cx.ty(of).clone();
    if let ([Dim::Fixed(count)], false) = (cx.ty(own).shape.as_slice(), is_single(cx, own))
        && ty.shape.get(axis) != Some(&Dim::Fixed(*count))
    {
        let why = format!("{count} {what} for axis {axis} of {ty}");
        return Err(
            Fail::shape(why).help("one for the whole tensor, or one for each channel; quantize the model again")
        );
    }
    cx.along_axis(own, axis, ty.shape.len())
}

/// The integers that an ONNX element type holds.
fn limits(cx: &NodeCx<'_, '_>, code: i32) -> Converted<(f64, f64)> {
    let signed = |bits: i32| (-f64::from(1 << (bits - 1)), f64::from((1 << (bits - 1)) - 1));
    Ok(match code {
        2 => (0.0, 255.0),
        3 => signed(8),
        4 => (0.0, 65535.0),
        5 => signed(16),
        21 => (0.0, 15.0),
        22 => signed(4),
        25 => (0.0, 3.0),
        26 => signed(2),
        _ => {
            let name = super::tensors::element_name(code);
            return Err(Fail::unsupported(format!(
                "{}: quantization to {name}; use integers of 2, 4, 8 or 16 bits",
                cx.proto.op_type
            )));
        }
    })
}

/// ONNX's number of the element type of biases.
const INT32: i32 = 6;

/// Zero points are integers of their own type: a list of a tensor may hold others.
fn within_limits(cx: &NodeCx<'_, '_>, position: usize, (low, high): (f64, f64)) -> Converted<()> {
    let zero = cx.optional(position).and_then(|id| cx.constant(id)).and_then(|value| value.to_f64());
    match zero.unwrap_or_default().iter().find(|value| !(low..=high).contains(*value)) {
        None => Ok(()),
        Some(value) => Err(Fail::attribute(format!("a zero point of {value}, outside {low} to {high}"))
            .help("zero points are integers of the type that is quantized to; quantize the model again")),
    }
}

fn positive(cx: &NodeCx<'_, '_>, scale: ValueId) -> Converted<()> {
    let values = cx.constant(scale).and_then(|value| value.to_f64());
    let values = values.ok_or_else(|| Fail::unsupported("a computed scale; use a constant one"))?;
    match values.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        None => Ok(()),
        Some(value) => Err(Fail::attribute(format!("a scale of {value}"))
            .help("scales are positive numbers; calibrate with rows on which no activation is constant or infinite")),
    }
}

/// `round(x / scale) + zero point`, limited to the type of the zero point, which is uint8 where there is none.
fn quantize(cx: &mut NodeCx<'_, '_>, x: ValueId, (scale, zero): (usize, usize), axis: usize) -> Converted<ValueId> {
    let code = match (cx.int("output_dtype")?.unwrap_or(0), cx.element_code(zero)) {
        (0, None) => 2,
        (0, Some(code)) => code,
        (code, _) => i32::try_from(code).unwrap_or(0),
    };
    let (low, high) = limits(cx, code)?;
    let scale = cx.operand(scale)?;
    positive(cx, scale)?;
    let scale = channels(cx, scale, "scales", axis, x)?;
    let steps = cx.binary(BinaryKind::Div, x, scale)?;
    let mut rounded = cx.unary(UnaryKind::Round, steps)?;
    within_limits(cx, zero, (low, high))?;
    if let Some(zero) = cx.optional(zero) {
        let zero = channels(cx, zero, "zero points", axis, x)?;
        let element = cx.ty(rounded).element;
        let zero = cx.cast(zero, element)?;
        rounded = cx.binary(BinaryKind::Add, rounded, zero)?;
    }
    let clipped = cx.push(TensorOp::Clip { low: Some(low), high: Some(high) }, vec![rounded])?;
    cx.cast(clipped, Element::I64)
}

/// `(x - zero point) * scale`.
fn dequantize(cx: &mut NodeCx<'_, '_>, (x, scale, zero): (usize, usize, usize), axis: usize) -> Converted<ValueId> {
    let x = cx.operand(x)?;
    let scale = cx.operand(scale)?;
    positive(cx, scale)?;
    let scale = channels(cx, scale, "scales", axis, x)?;
    let mut steps = cx.cast(x, Element::F32)?;
    if let Some(code) = cx.element_code(zero).filter(|code| *code != INT32) {
        within_limits(cx, zero, limits(cx, code)?)?;
    }
    if let Some(zero) = cx.optional(zero) {
        let zero = channels(cx, zero, "zero points", axis, x)?;
        let zero = cx.cast(zero, Element::F32)?;
        steps = cx.binary(BinaryKind::Sub, steps, zero)?;
    }
    cx.binary(BinaryKind::Mul, steps, scale)
}

/// An operand less its zero point, along an axis, in doubles, which hold the sums of integers exactly.
fn centred(cx: &mut NodeCx<'_, '_>, position: usize, zero: usize, axis: usize) -> Converted<ValueId> {
    let x = cx.operand(position)?;
    let rank = cx.ty(x).shape.len();
    let x = cx.cast(x, Element::F64)?;
    if cx.known(zero, "zero point")?.is_none() {
        return Ok(x);
    }
    if let Some(code) = cx.element_code(zero) {
        within_limits(cx, zero, limits(cx, code)?)?;
    }
    let zero = cx.operand(zero)?;
    let zero = channels(cx, zero, "zero points", axis.min(rank.saturating_sub(1)), x)?;
    let zero = cx.cast(zero, Element::F64)?;
    cx.binary(BinaryKind::Sub, x, zero)
}

/// The same for a matrix whose zero points, if several, are one a row.
fn centred_rows(cx: &mut NodeCx<'_, '_>, position: usize, zero: usize) -> Converted<ValueId> {
    let rank = cx.ty(cx.operand(position)?).shape.len();
    centred(cx, position, zero, rank.saturating_sub(2))
}

/// The sum times the quotient of scales, in floats as onnxruntime has it, rounded to the output's integers.
fn requantize(
    cx: &mut NodeCx<'_, '_>,
    sum: ValueId,
    factors: [ValueId; 2],
    out: (usize, usize),
    axis: usize,
) -> Converted<ValueId> {
    let scaled = scaled(cx, sum, factors, axis)?;
    quantize(cx, scaled, out, axis)
}

/// The sum times the quotient of scales, in floats.
fn scaled(cx: &mut NodeCx<'_, '_>, sum: ValueId, [a, b]: [ValueId; 2], axis: usize) -> Converted<ValueId> {
    let factor = cx.binary(BinaryKind::Mul, a, b)?;
    let factor = channels(cx, factor, "scales", axis, sum)?;
    let sum = cx.cast(sum, Element::F32)?;
    cx.binary(BinaryKind::Mul, sum, factor)
}

fn qlinear_conv(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (centred(cx, 0, 2, 1)?, centred(cx, 3, 5, 0)?);
    let bias = match cx.optional(8) {
        Some(bias) => Some(cx.cast(bias, Element::F64)?),
        None => None,
    };
    let sum = window::conv_of(cx, x, w, bias)?;
    let scales = [cx.operand(1)?, cx.operand(4)?];
    let id = requantize(cx, sum, scales, (6, 7), 1)?;
    cx.define(id);
    Ok(())
}

fn qlinear_matmul(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (a, b) = (centred_rows(cx, 0, 2)?, centred(cx, 3, 5, usize::MAX)?);
    let product = matrix_product(cx, a, b)?;
    let (of_a, of_b) = (cx.operand(1)?, cx.operand(4)?);
    if !is_single(cx, of_a) {
        return Err(Fail::unsupported("a scale for each row; quantize per tensor or per column"));
    }
    let last = cx.ty(product).shape.len().saturating_sub(1);
    let id = requantize(cx, product, [of_a, of_b], (6, 7), last)?;
    cx.define(id);
    Ok(())
}
