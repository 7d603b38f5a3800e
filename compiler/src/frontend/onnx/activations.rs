//! Activation functions, as compositions of the elementwise operations that Tacit has.

use super::node::{Converted, NodeCx};
use tacit_ir::graph::ValueId;
use tacit_ir::stage::tensor::{BinaryKind, TensorOp, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    let known =
        ["HardSigmoid", "HardSwish", "Elu", "Celu", "Selu", "Gelu", "Mish", "Swish", "Shrink", "ThresholdedRelu"];
    if !known.contains(&op) {
        return Ok(false);
    }
    let x = cx.operand(0)?;
    let x = cx.as_float(x)?;
    let parameter = |cx: &NodeCx<'_, '_>, name: &str, default: f64| -> Converted<f64> {
        Ok(cx.float(name)?.map_or(default, f64::from))
    };
    let value = match op {
        "HardSigmoid" => {
            let (alpha, beta) = (parameter(cx, "alpha", 0.2)?, parameter(cx, "beta", 0.5)?);
            clipped_line(cx, x, alpha, beta)?
        }
        "HardSwish" => {
            let gate = clipped_line(cx, x, 1.0 / 6.0, 0.5)?;
            product(cx, x, gate)?
        }
        "Elu" => {
            let alpha = parameter(cx, "alpha", 1.0)?;
            exponential_below(cx, x, alpha, 1.0)?
        }
        "Celu" => {
            let alpha = parameter(cx, "alpha", 1.0)?;
            exponential_below(cx, x, alpha, alpha)?
        }
        "Selu" => {
            // The defaults of the ONNX specification.
            let alpha = parameter(cx, "alpha", 1.673_263_2)?;
            let gamma = parameter(cx, "gamma", 1.050_701)?;
            let value = exponential_below(cx, x, alpha, 1.0)?;
            cx.with_constant(BinaryKind::Mul, value, &[gamma])?
        }
        "Gelu" => gelu(cx, x)?,
        "Mish" => {
            let soft = cx.push(TensorOp::Unary { kind: UnaryKind::Softplus }, vec![x])?;
            let gate = cx.push(TensorOp::Unary { kind: UnaryKind::Tanh }, vec![soft])?;
            product(cx, x, gate)?
        }
        "Swish" => {
            let alpha = parameter(cx, "alpha", 1.0)?;
            let scaled = if alpha == 1.0 { x } else { cx.with_constant(BinaryKind::Mul, x, &[alpha])? };
            let gate = cx.push(TensorOp::Unary { kind: UnaryKind::Sigmoid }, vec![scaled])?;
            product(cx, x, gate)?
        }
        "Shrink" => {
            let (bias, limit) = (parameter(cx, "bias", 0.0)?, parameter(cx, "lambd", 0.5)?);
            let (below, above) = (
                cx.with_constant(BinaryKind::Less, x, &[-limit])?,
                cx.with_constant(BinaryKind::Greater, x, &[limit])?,
            );
            let (raised, lowered) =
                (cx.with_constant(BinaryKind::Add, x, &[bias])?, cx.with_constant(BinaryKind::Sub, x, &[bias])?);
            let zero = cx.with_constant(BinaryKind::Mul, x, &[0.0])?;
            let rest = cx.push(TensorOp::Where {}, vec![above, lowered, zero])?;
            cx.push(TensorOp::Where {}, vec![below, raised, rest])?
        }
        _ => {
            let alpha = parameter(cx, "alpha", 1.0)?;
            let above = cx.with_constant(BinaryKind::Greater, x, &[alpha])?;
            let zero = cx.with_constant(BinaryKind::Mul, x, &[0.0])?;
            cx.push(TensorOp::Where {}, vec![above, x, zero])?
        }
    };
    cx.define(value);
    Ok(true)
}

fn product(cx: &mut NodeCx<'_, '_>, a: ValueId, b: ValueId) -> Converted<ValueId> {
    cx.push(TensorOp::Binary { kind: BinaryKind::Mul }, vec![a, b])
}

/// `alpha * x + beta` limited to 0..1.
fn clipped_line(cx: &mut NodeCx<'_, '_>, x: ValueId, alpha: f64, beta: f64) -> Converted<ValueId> {
    let scaled = cx.with_constant(BinaryKind::Mul, x, &[alpha])?;
    let moved = cx.with_constant(BinaryKind::Add, scaled, &[beta])?;
    cx.push(TensorOp::Clip { low: Some(0.0), high: Some(1.0) }, vec![moved])
}

/// x where it is not negative, else `factor * (exp(x / width) - 1)`.
fn exponential_below(cx: &mut NodeCx<'_, '_>, x: ValueId, factor: f64, width: f64) -> Converted<ValueId> {
    let scaled = cx.with_constant(BinaryKind::Div, x, &[width])?;
    let power = cx.push(TensorOp::Unary { kind: UnaryKind::Exp }, vec![scaled])?;
    let less = cx.with_constant(BinaryKind::Sub, power, &[1.0])?;
    let below = cx.with_constant(BinaryKind::Mul, less, &[factor])?;
    let negative = cx.with_constant(BinaryKind::Less, x, &[0.0])?;
    cx.push(TensorOp::Where {}, vec![negative, below, x])
}

/// `x/2 (1 + erf(x / sqrt 2))`, or with `approximate = "tanh"` `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
fn gelu(cx: &mut NodeCx<'_, '_>, x: ValueId) -> Converted<ValueId> {
    let gate = if cx.string("approximate")?.as_deref() == Some("tanh") {
        let square = product(cx, x, x)?;
        let cube = product(cx, square, x)?;
        let part = cx.with_constant(BinaryKind::Mul, cube, &[0.044_715])?;
        let sum = cx.push(TensorOp::Binary { kind: BinaryKind::Add }, vec![x, part])?;
        let argument = cx.with_constant(BinaryKind::Mul, sum, &[(2.0 / std::f64::consts::PI).sqrt()])?;
        cx.push(TensorOp::Unary { kind: UnaryKind::Tanh }, vec![argument])?
    } else {
        let argument = cx.with_constant(BinaryKind::Mul, x, &[std::f64::consts::FRAC_1_SQRT_2])?;
        cx.push(TensorOp::Unary { kind: UnaryKind::Erf }, vec![argument])?
    };
    let raised = cx.with_constant(BinaryKind::Add, gate, &[1.0])?;
    let half = cx.with_constant(BinaryKind::Mul, x, &[0.5])?;
    product(cx, half, raised)
}
