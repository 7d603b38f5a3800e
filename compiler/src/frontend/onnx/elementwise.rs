//! Elementwise operations of the standard domain, and constants.

use super::node::{Converted, Fail, NodeCx};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Element, TensorOp, UnaryKind};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    if let Some(kind) = unary_kind(op) {
        let x = cx.operand(0)?;
        cx.single(TensorOp::Unary { kind }, vec![x])?;
    } else if let Some(kind) = binary_kind(op) {
        binary(cx, kind)?;
    } else {
        match op {
            "Identity" => {
                let x = cx.operand(0)?;
                cx.define(x);
            }
            "Dropout" => dropout(cx)?,
            "IsInf" => {
                if !cx.flag("detect_positive", true)? || !cx.flag("detect_negative", true)? {
                    return Err(Fail::unsupported("IsInf of one sign only; compare with a large number instead"));
                }
                let x = cx.operand(0)?;
                cx.single(TensorOp::Unary { kind: UnaryKind::IsInf }, vec![x])?;
            }
            "Constant" => constant(cx)?,
            "Cast" => cast(cx)?,
            "CastLike" => {
                let (x, like) = (cx.operand(0)?, cx.operand(1)?);
                let id = cx.cast(x, cx.ty(like).element)?;
                let id = wrapped(cx, id, cx.element_code(1).unwrap_or(0))?;
                cx.define(id);
            }
            "Where" => {
                let (condition, a, b) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
                cx.single(TensorOp::Where {}, vec![condition, a, b])?;
            }
            "Clip" => clip(cx)?,
            "Sum" | "Mean" => sum(cx, op == "Mean")?,
            "Mod" => {
                let kind = if cx.flag("fmod", false)? { BinaryKind::Fmod } else { BinaryKind::Mod };
                binary(cx, kind)?;
            }
            "PRelu" | "LeakyRelu" => leaky(cx, op)?,
            "Softsign" => {
                let x = cx.operand(0)?;
                let size = cx.push(TensorOp::Unary { kind: UnaryKind::Abs }, vec![x])?;
                let below = cx.with_constant(BinaryKind::Add, size, &[1.0])?;
                cx.single(TensorOp::Binary { kind: BinaryKind::Div }, vec![x, below])?;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
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
        "Ceil" => K::Ceil,
        "Round" => K::Round,
        "Erf" => K::Erf,
        "Softplus" => K::Softplus,
        "Sin" => K::Sin,
        "Cos" => K::Cos,
        "Tan" => K::Tan,
        "Asin" => K::Asin,
        "Acos" => K::Acos,
        "Atan" => K::Atan,
        "Sinh" => K::Sinh,
        "Cosh" => K::Cosh,
        "Asinh" => K::Asinh,
        "Acosh" => K::Acosh,
        "Atanh" => K::Atanh,
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
        "Xor" => K::Xor,
        _ => return None,
    })
}

fn binary(cx: &mut NodeCx<'_, '_>, kind: BinaryKind) -> Converted<()> {
    let mut all = cx.operands()?.into_iter();
    let mut value = all.next().ok_or_else(|| Fail::attribute("no operands"))?;
    for other in all {
        value = match kind {
            BinaryKind::Pow => power(cx, value, other)?,
            kind => cx.push(TensorOp::Binary { kind }, vec![value, other])?,
        };
    }
    cx.define(value);
    Ok(())
}

/// Exponents may have another type than the base; an integer base with a float exponent is computed in doubles.
fn power(cx: &mut NodeCx<'_, '_>, base: ValueId, exponent: ValueId) -> Converted<ValueId> {
    let (of_base, of_exponent) = (cx.ty(base).element, cx.ty(exponent).element);
    let op = TensorOp::Binary { kind: BinaryKind::Pow };
    if of_base == Element::I64 && of_exponent != Element::I64 {
        let (base, exponent) = (cx.cast(base, Element::F64)?, cx.cast(exponent, Element::F64)?);
        let power = cx.push(op, vec![base, exponent])?;
        return cx.cast(power, Element::I64);
    }
    let exponent = cx.cast(exponent, of_base)?;
    cx.push(op, vec![base, exponent])
}

fn sum(cx: &mut NodeCx<'_, '_>, mean: bool) -> Converted<()> {
    let all = cx.operands()?;
    let (&first, rest) = all.split_first().ok_or_else(|| Fail::attribute("nothing to add"))?;
    let mut sum = first;
    for &next in rest {
        sum = cx.push(TensorOp::Binary { kind: BinaryKind::Add }, vec![sum, next])?;
    }
    if mean {
        sum = cx.with_constant(BinaryKind::Div, sum, &[all.len() as f64])?;
    }
    cx.define(sum);
    Ok(())
}

/// x where it is not negative, else x times a slope.
fn leaky(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    let x = cx.operand(0)?;
    let scaled = if op == "PRelu" {
        let slope = cx.operand(1)?;
        cx.push(TensorOp::Binary { kind: BinaryKind::Mul }, vec![x, slope])?
    } else {
        let slope = f64::from(cx.float("alpha")?.unwrap_or(0.01));
        cx.with_constant(BinaryKind::Mul, x, &[slope])?
    };
    let negative = cx.with_constant(BinaryKind::Less, x, &[0.0])?;
    cx.single(TensorOp::Where {}, vec![negative, scaled, x])
}

fn dropout(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let training = cx.optional(2).and_then(|id| cx.constant(id)).map(|value| value.data.clone());
    if cx.optional(2).is_some() && training != Some(Data::Bool(vec![false])) {
        return Err(Fail::unsupported("Dropout in training mode; export the model for inference"));
    }
    if cx.proto.output.get(1).is_some_and(|name| !name.is_empty()) {
        return Err(Fail::unsupported("the mask of Dropout; export the model for inference, without that output"));
    }
    let x = cx.operand(0)?;
    cx.define(x);
    Ok(())
}

fn cast(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let code = cx.int("to")?.ok_or_else(|| Fail::attribute("`to` is missing"))?;
    let code = i32::try_from(code).map_err(|_| Fail::attribute(format!("`to` is {code}")))?;
    let to = super::tensors::element(code);
    let to = to.ok_or_else(|| {
        Fail::unsupported(format!(
            "a cast to {}; cast to float, double, int64 or bool",
            super::tensors::element_name(code)
        ))
    })?;
    if cx.ty(x).element == Element::Str && to == Element::Bool {
        return Err(Fail::unsupported("a cast of strings to booleans; encode them before the model"));
    }
    let id = cx.cast(x, to)?;
    let id = wrapped(cx, id, code)?;
    cx.define(id);
    Ok(())
}

/// What does not fit integers of two or four bits wraps around, as in the node tests.
fn wrapped(cx: &mut NodeCx<'_, '_>, id: ValueId, code: i32) -> Converted<ValueId> {
    let Some((bits, signed)) = super::tensors::packed_integer(code) else { return Ok(id) };
    let least = if signed { -f64::from(1 << (bits - 1)) } else { 0.0 };
    let above = cx.with_constant(BinaryKind::Sub, id, &[least])?;
    let rest = cx.with_constant(BinaryKind::Mod, above, &[f64::from(1 << bits)])?;
    cx.with_constant(BinaryKind::Add, rest, &[least])
}

fn clip(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let limit = |name: &str, position: usize| -> Converted<Option<f64>> {
        if let Some(value) = cx.float(name)? {
            return Ok(Some(f64::from(value)));
        }
        let Some(id) = cx.optional(position) else { return Ok(None) };
        let value = cx.constant(id).and_then(TensorValue::to_f64).and_then(|values| values.first().copied());
        value.map(Some).ok_or_else(|| Fail::unsupported("Clip with computed limits; use constant ones"))
    };
    let (low, high) = (limit("min", 1)?, limit("max", 2)?);
    cx.single(TensorOp::Clip { low, high }, vec![x])
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
        return Err(Fail::unsupported("a constant without a dense value; store it as a dense tensor"));
    };
    let id = cx.push_constant(value)?;
    cx.define(id);
    Ok(())
}
