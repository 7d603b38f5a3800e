//! Elementwise operations with numpy's broadcasting.

use super::{Data, Fault, TensorValue};
use crate::stage::tensor::{BinaryKind, UnaryKind};

pub(super) fn unary(kind: UnaryKind, x: &TensorValue) -> Result<TensorValue, Fault> {
    macro_rules! float {
        ($data:expr, $ty:ty) => {
            $data
                .iter()
                .map(|&x| -> $ty {
                    match kind {
                        UnaryKind::Neg => -x,
                        UnaryKind::Abs => x.abs(),
                        UnaryKind::Exp => x.exp(),
                        UnaryKind::Log => x.ln(),
                        UnaryKind::Sqrt => x.sqrt(),
                        UnaryKind::Sigmoid => {
                            if x >= 0.0 {
                                1.0 / (1.0 + (-x).exp())
                            } else {
                                x.exp() / (1.0 + x.exp())
                            }
                        }
                        UnaryKind::Tanh => x.tanh(),
                        // NaN stays NaN, which `max` would drop.
                        UnaryKind::Relu => {
                            if x < 0.0 {
                                0.0
                            } else {
                                x
                            }
                        }
                        UnaryKind::Floor => x.floor(),
                        UnaryKind::Ceil => x.ceil(),
                        UnaryKind::Round => x.round_ties_even(),
                        UnaryKind::Erf => libm::erf(f64::from(x)) as $ty,
                        UnaryKind::Softplus => {
                            if x > 0.0 {
                                x + (-x).exp().ln_1p()
                            } else {
                                x.exp().ln_1p()
                            }
                        }
                        UnaryKind::Sin => x.sin(),
                        UnaryKind::Cos => x.cos(),
                        UnaryKind::Tan => x.tan(),
                        UnaryKind::Asin => x.asin(),
                        UnaryKind::Acos => x.acos(),
                        UnaryKind::Atan => x.atan(),
                        UnaryKind::Sinh => x.sinh(),
                        UnaryKind::Cosh => x.cosh(),
                        UnaryKind::Asinh => x.asinh(),
                        UnaryKind::Acosh => x.acosh(),
                        UnaryKind::Atanh => x.atanh(),
                        UnaryKind::Sign => {
                            if x == 0.0 {
                                0.0
                            } else {
                                x.signum()
                            }
                        }
                        UnaryKind::Reciprocal => 1.0 / x,
                        UnaryKind::Not | UnaryKind::IsNan | UnaryKind::IsInf => x,
                    }
                })
                .collect()
        };
    }
    let data = match (&x.data, kind) {
        (Data::F32(data), UnaryKind::IsNan) => Data::Bool(data.iter().map(|x| x.is_nan()).collect()),
        (Data::F64(data), UnaryKind::IsNan) => Data::Bool(data.iter().map(|x| x.is_nan()).collect()),
        (Data::F32(data), UnaryKind::IsInf) => Data::Bool(data.iter().map(|x| x.is_infinite()).collect()),
        (Data::F64(data), UnaryKind::IsInf) => Data::Bool(data.iter().map(|x| x.is_infinite()).collect()),
        (Data::Bool(data), UnaryKind::Not) => Data::Bool(data.iter().map(|x| !x).collect()),
        (Data::F32(data), _) => Data::F32(float!(data, f32)),
        (Data::F64(data), _) => Data::F64(float!(data, f64)),
        (Data::I64(data), UnaryKind::Neg) => Data::I64(data.iter().map(|x| x.wrapping_neg()).collect()),
        (Data::I64(data), UnaryKind::Abs) => Data::I64(data.iter().map(|x| x.wrapping_abs()).collect()),
        (Data::I64(data), UnaryKind::Sign) => Data::I64(data.iter().map(|x| x.signum()).collect()),
        _ => {
            return Err(Fault::Shape(format!("`{}` of {} values", kind.as_str(), x.data.element().as_str())));
        }
    };
    Ok(TensorValue { shape: x.shape.clone(), data })
}

/// A shape, and for each of two operands the position that each value of the shape reads.
type Broadcast = (Vec<usize>, Vec<usize>, Vec<usize>);

/// The broadcast shape, and for each operand the position each result value reads.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Broadcast, Fault> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    let mut shape = Vec::with_capacity(rank);
    for axis in 0..rank {
        shape.push(match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            (x, y) => return Err(Fault::Shape(format!("sizes {x} and {y} do not broadcast"))),
        });
    }
    let size: usize = shape.iter().product();
    let positions = |own: &[usize]| {
        (0..size)
            .map(|flat| {
                let (mut rest, mut position, mut stride) = (flat, 0, 1);
                for axis in (0..rank).rev() {
                    let coordinate = rest % shape[axis];
                    rest /= shape[axis];
                    let own_size = at(own, axis);
                    position += if own_size == 1 { 0 } else { coordinate * stride };
                    stride *= own_size;
                }
                position
            })
            .collect()
    };
    let (of_a, of_b) = (positions(a), positions(b));
    Ok((shape, of_a, of_b))
}

pub(super) fn binary(kind: BinaryKind, a: &TensorValue, b: &TensorValue) -> Result<TensorValue, Fault> {
    use BinaryKind as K;
    let (shape, of_a, of_b) = broadcast(&a.shape, &b.shape)?;
    macro_rules! pairs {
        ($a:expr, $b:expr, $f:expr) => {
            of_a.iter().zip(&of_b).map(|(&i, &j)| $f(&$a[i], &$b[j])).collect()
        };
    }
    macro_rules! compare {
        ($a:expr, $b:expr) => {
            match kind {
                K::Equal => pairs!($a, $b, |x, y| x == y),
                K::Less => pairs!($a, $b, |x, y| x < y),
                K::LessOrEqual => pairs!($a, $b, |x, y| x <= y),
                K::Greater => pairs!($a, $b, |x, y| x > y),
                _ => pairs!($a, $b, |x, y| x >= y),
            }
        };
    }
    macro_rules! float {
        ($a:expr, $b:expr, $ty:ty) => {
            pairs!($a, $b, |&x: &$ty, &y: &$ty| match kind {
                K::Add => x + y,
                K::Sub => x - y,
                K::Mul => x * y,
                K::Div => x / y,
                K::Pow => x.powf(y),
                K::Max =>
                    if x.is_nan() || x > y {
                        x
                    } else {
                        y
                    },
                K::Mod => {
                    let rest = x % y;
                    if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
                }
                K::Fmod => x % y,
                _ =>
                    if x.is_nan() || x < y {
                        x
                    } else {
                        y
                    },
            })
        };
    }
    let comparison = matches!(kind, K::Equal | K::Less | K::LessOrEqual | K::Greater | K::GreaterOrEqual);
    let data = match (&a.data, &b.data) {
        (Data::F32(a), Data::F32(b)) if comparison => Data::Bool(compare!(a, b)),
        (Data::F64(a), Data::F64(b)) if comparison => Data::Bool(compare!(a, b)),
        (Data::I64(a), Data::I64(b)) if comparison => Data::Bool(compare!(a, b)),
        (Data::Str(a), Data::Str(b)) if comparison => Data::Bool(compare!(a, b)),
        (Data::Bool(a), Data::Bool(b)) if comparison => Data::Bool(compare!(a, b)),
        (Data::Bool(a), Data::Bool(b)) if kind == K::And => Data::Bool(pairs!(a, b, |&x: &bool, &y: &bool| x && y)),
        (Data::Bool(a), Data::Bool(b)) if kind == K::Or => Data::Bool(pairs!(a, b, |&x: &bool, &y: &bool| x || y)),
        (Data::Bool(a), Data::Bool(b)) if kind == K::Xor => Data::Bool(pairs!(a, b, |&x: &bool, &y: &bool| x != y)),
        (Data::I64(_), Data::I64(b))
            if matches!(kind, K::Div | K::Mod | K::Fmod) && of_b.iter().any(|&j| b[j] == 0) =>
        {
            return Err(Fault::Value("an integer division by zero".to_owned()));
        }
        (Data::F32(a), Data::F32(b)) => Data::F32(float!(a, b, f32)),
        (Data::F64(a), Data::F64(b)) => Data::F64(float!(a, b, f64)),
        (Data::I64(a), Data::I64(b)) => Data::I64(pairs!(a, b, |&x: &i64, &y: &i64| match kind {
            K::Add => x.wrapping_add(y),
            K::Sub => x.wrapping_sub(y),
            K::Mul => x.wrapping_mul(y),
            K::Div => x.wrapping_div(y),
            // As onnxruntime, through floats, so that a negative exponent rounds to zero.
            K::Pow => (x as f64).powf(y as f64) as i64,
            K::Mod => {
                let rest = x.wrapping_rem(y);
                if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
            }
            K::Fmod => x.wrapping_rem(y),
            K::Max => x.max(y),
            _ => x.min(y),
        })),
        (a, b) => {
            let (a, b) = (a.element().as_str(), b.element().as_str());
            return Err(Fault::Shape(format!("`{}` of {a} and {b}", kind.as_str())));
        }
    };
    Ok(TensorValue { shape, data })
}

pub(super) fn choose(condition: &TensorValue, a: &TensorValue, b: &TensorValue) -> Result<TensorValue, Fault> {
    let Data::Bool(flags) = &condition.data else {
        return Err(Fault::Shape("`where` on a non-boolean".to_owned()));
    };
    let (ab, _, _) = broadcast(&a.shape, &b.shape)?;
    let (shape, of_flag, _) = broadcast(&condition.shape, &ab)?;
    let (_, _, of_a) = broadcast(&shape, &a.shape)?;
    let (_, _, of_b) = broadcast(&shape, &b.shape)?;
    macro_rules! pick {
        ($a:expr, $b:expr) => {
            (0..of_flag.len())
                .map(|i| if flags[of_flag[i]] { $a[of_a[i]].clone() } else { $b[of_b[i]].clone() })
                .collect()
        };
    }
    let data = match (&a.data, &b.data) {
        (Data::F32(a), Data::F32(b)) => Data::F32(pick!(a, b)),
        (Data::F64(a), Data::F64(b)) => Data::F64(pick!(a, b)),
        (Data::I64(a), Data::I64(b)) => Data::I64(pick!(a, b)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(pick!(a, b)),
        (Data::Str(a), Data::Str(b)) => Data::Str(pick!(a, b)),
        _ => return Err(Fault::Shape("`where` between different types".to_owned())),
    };
    Ok(TensorValue { shape, data })
}

pub(super) fn clip(x: &TensorValue, low: Option<f64>, high: Option<f64>) -> Result<TensorValue, Fault> {
    macro_rules! limit {
        ($data:expr, $ty:ty) => {
            $data
                .iter()
                .map(|&x| {
                    let x = low.map_or(x, |low| if x < low as $ty { low as $ty } else { x });
                    high.map_or(x, |high| if x > high as $ty { high as $ty } else { x })
                })
                .collect()
        };
    }
    let data = match &x.data {
        Data::F32(data) => Data::F32(limit!(data, f32)),
        Data::F64(data) => Data::F64(limit!(data, f64)),
        Data::I64(data) => Data::I64(limit!(data, i64)),
        Data::Bool(_) | Data::Str(_) => {
            return Err(Fault::Shape("clip of a non-number".to_owned()));
        }
    };
    Ok(TensorValue { shape: x.shape.clone(), data })
}
