//! The typing rule of the float stage: one rule an operation, used to build, to check and to re-infer.

use super::{BinaryKind, Dim, Element, Mode, PostTransform, Tensor, TensorOp, TensorType, UnaryKind};
use crate::graph::Stage;

type Inferred = Result<TensorType, String>;

impl Stage for Tensor {
    type Op = TensorOp;
    type Type = TensorType;
    const NAME: &'static str = "tensor";

    fn infer(op: &TensorOp, operands: &[&TensorType], declared: Option<&TensorType>) -> Inferred {
        use TensorOp as Op;
        let ty = match (op, operands) {
            (Op::Input { .. }, []) => declared.cloned().ok_or_else(|| "an input needs a type".to_owned()),
            (Op::Constant { .. }, []) => constant(op),
            (Op::TreeEnsemble { .. }, [x]) => tree_ensemble(op, x),
            (Op::Linear { outputs, weights, bias }, [x]) => {
                let columns = columns(x)?;
                if outputs.checked_mul(columns) != Some(weights.len()) || bias.len() != *outputs {
                    let (weights, bias) = (weights.len(), bias.len());
                    return Err(format!("{weights} weights, {bias} biases: {outputs} outputs, {columns} columns"));
                }
                scores(x, *outputs)
            }
            (
                Op::Scaler { .. }
                | Op::Normalizer { .. }
                | Op::Binarizer { .. }
                | Op::Imputer { .. }
                | Op::OneHot { .. }
                | Op::LabelEncoder { .. },
                [x],
            ) => preprocessing(op, x),
            (Op::Conv { .. } | Op::Pool { .. } | Op::Pad { .. }, [x, ..]) => {
                if !matches!(x.element, Element::F32 | Element::F64) {
                    return Err(format!("a window over {x}"));
                }
                super::window::infer(op, operands)
            }
            (Op::Unary { kind }, [x]) => unary(*kind, x),
            (Op::Binary { kind }, [a, b]) => binary(*kind, a, b),
            (Op::Where {}, [condition, a, b]) => {
                if condition.element != Element::Bool || a.element != b.element {
                    return Err("`where` takes a boolean and two tensors of one type".to_owned());
                }
                typed(a.element, broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?)
            }
            (Op::Cast { to }, [x]) => typed(*to, x.shape.clone()),
            (Op::Clip { .. }, [x]) => {
                if number(x) {
                    Ok((*x).clone())
                } else {
                    Err(format!("`clip` of {x}"))
                }
            }
            (
                Op::Reshape { .. } | Op::Take { .. } | Op::Transpose { .. } | Op::Tile { .. } | Op::Expand { .. },
                [x, ..],
            ) => moved(op, x, operands),
            (Op::Concat { axis }, [first, ..]) => concat(*axis, first, operands),
            (Op::Reduce { .. } | Op::Softmax { .. } | Op::ArgMax { .. } | Op::TopK { .. }, [x]) => along(op, x),
            (Op::GatherRows {}, [x, positions]) => {
                if x.shape.len() != 2 || positions.shape.len() != 2 || positions.element != Element::I64 {
                    return Err(format!("positions {positions} in {x}"));
                }
                if x.shape[0] != positions.shape[0] && x.shape[0] != Dim::Fixed(1) {
                    return Err(format!("rows of {positions} and of {x}"));
                }
                typed(x.element, positions.shape.clone())
            }
            (Op::PostTransform { .. }, [x]) => {
                columns(x)?;
                numbers(x)?;
                typed(Element::F32, x.shape.clone())
            }
            (Op::BinaryScores { positive: _, kind }, [x]) => {
                if *kind == PostTransform::Probit || x.columns() != Some(1) {
                    return Err(format!("`{}` for two classes of {x}", kind.as_str()));
                }
                numbers(x)?;
                typed(Element::F32, vec![x.shape[0], Dim::Fixed(2)])
            }
            (Op::BinaryLabel { .. }, [x]) => {
                columns(x)?;
                numbers(x)?;
                typed(Element::I64, vec![x.shape[0], Dim::Fixed(1)])
            }
            (Op::PairVotes { classes } | Op::PairProbabilities { classes, .. }, [x]) => {
                let pairs = classes.checked_mul(classes.saturating_sub(1)).map(|twice| twice / 2);
                let pairs = pairs.ok_or_else(|| format!("{classes} classes"))?;
                if x.columns() != Some(pairs) {
                    return Err(format!("{x} for {pairs} pairs of classes"));
                }
                if let Op::PairProbabilities { a, b, .. } = op
                    && (a.len() != pairs || b.len() != pairs)
                {
                    return Err("Platt parameters do not match the pairs".to_owned());
                }
                numbers(x)?;
                typed(Element::F32, vec![x.shape[0], Dim::Fixed(*classes)])
            }
            (Op::ZipMap { ints, strings }, [x]) => {
                let keys = ints.as_ref().map_or(0, Vec::len) + strings.as_ref().map_or(0, Vec::len);
                if Some(keys) != x.columns() {
                    return Err(format!("{keys} keys for {x}"));
                }
                Ok((*x).clone())
            }
            (op, operands) => Err(format!("`{}` with {} operands", crate::attr::OpSet::name(op), operands.len())),
        }?;
        match ty.shape.iter().filter(|dim| **dim == Dim::Batch).count() {
            0 | 1 => Ok(ty),
            _ => Err(format!("{ty} has several batch dimensions")),
        }
    }
}

fn typed(element: Element, shape: Vec<Dim>) -> Inferred {
    Ok(TensorType { element, shape })
}

fn float(ty: &TensorType) -> bool {
    matches!(ty.element, Element::F32 | Element::F64)
}

fn number(ty: &TensorType) -> bool {
    float(ty) || ty.element == Element::I64
}

fn numbers(ty: &TensorType) -> Result<(), String> {
    if number(ty) { Ok(()) } else { Err(format!("expected numbers, found {ty}")) }
}

/// Columns of a `[rows, columns]` tensor.
fn columns(ty: &TensorType) -> Result<usize, String> {
    ty.columns().ok_or_else(|| format!("expected [rows, columns], found {ty}"))
}

/// Scores of a float type: f64 for f64 features, else f32.
fn scores(x: &TensorType, count: usize) -> Inferred {
    columns(x)?;
    numbers(x)?;
    let element = if x.element == Element::F64 { Element::F64 } else { Element::F32 };
    typed(element, vec![x.shape[0], Dim::Fixed(count)])
}

fn axis_ok(axis: usize, ty: &TensorType) -> Result<(), String> {
    if axis < ty.shape.len() { Ok(()) } else { Err(format!("axis {axis} of a tensor of rank {}", ty.shape.len())) }
}

/// Size of an axis that does not run over the batch.
fn fixed(axis: usize, ty: &TensorType) -> Result<usize, String> {
    axis_ok(axis, ty)?;
    match ty.shape[axis] {
        Dim::Fixed(size) => Ok(size),
        Dim::Batch => Err(format!("axis {axis} of {ty} is the batch; rows are computed one by one")),
    }
}

fn one_or(len: usize, ty: &TensorType, what: &str) -> Result<(), String> {
    if len == 1 || ty.columns() == Some(len) { Ok(()) } else { Err(format!("{len} {what} for {ty}")) }
}

fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Dim], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |at| shape[at]);
    let size = |dim: Dim| if let Dim::Fixed(size) = dim { size.to_string() } else { "of the batch".to_owned() };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Ok(other),
            (x, y) => Err(format!("sizes {} and {} do not broadcast", size(x), size(y))),
        })
        .collect()
}

fn constant(op: &TensorOp) -> Inferred {
    let TensorOp::Constant { shape, f32, f64, i64, str } = op else { return Err("not a constant".to_owned()) };
    let present = [
        f32.as_ref().map(|d| (Element::F32, d.len())),
        f64.as_ref().map(|d| (Element::F64, d.len())),
        i64.as_ref().map(|d| (Element::I64, d.len())),
        str.as_ref().map(|d| (Element::Str, d.len())),
    ];
    let mut present = present.into_iter().flatten();
    let (Some((element, len)), None) = (present.next(), present.next()) else {
        return Err("a constant has exactly one list of data".to_owned());
    };
    let size = shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim));
    if size != Some(len) {
        return Err(format!("{len} values for shape {shape:?}"));
    }
    typed(element, shape.iter().map(|&dim| Dim::Fixed(dim)).collect())
}

fn tree_ensemble(op: &TensorOp, x: &TensorType) -> Inferred {
    let TensorOp::TreeEnsemble {
        targets,
        aggregate: _,
        single,
        base,
        roots,
        feature,
        mode,
        threshold,
        on_true,
        on_false,
        missing_true,
        sets,
        leaf_target,
        leaf_weight,
    } = op
    else {
        return Err("not a tree ensemble".to_owned());
    };
    let columns = columns(x)?;
    numbers(x)?;
    let nodes = mode.len();
    if [feature.len(), threshold.len(), on_true.len(), on_false.len()] != [nodes; 4] {
        return Err("node lists of different lengths".to_owned());
    }
    if !base.is_empty() && base.len() != *targets {
        return Err(format!("{} base values for {targets} targets", base.len()));
    }
    if leaf_target.len() != leaf_weight.len() || leaf_target.iter().any(|target| target >= targets) {
        return Err("leaf targets out of range".to_owned());
    }
    if roots.iter().chain(missing_true).any(|&node| node >= nodes) {
        return Err("a root or missing-value node is out of range".to_owned());
    }
    for node in 0..nodes {
        let ok = if mode[node] == Mode::Leaf {
            on_true[node] <= on_false[node] && on_false[node] <= leaf_weight.len()
        } else {
            // Children after parents: no cycles, and depth is bounded by the node count.
            let children_ok = [on_true[node], on_false[node]].iter().all(|&child| child > node && child < nodes);
            let set_ok = mode[node] != Mode::Member || (threshold[node] >= 0.0 && threshold[node] < sets.len() as f64);
            children_ok && set_ok && feature[node] < columns && !threshold[node].is_nan()
        };
        if !ok {
            return Err(format!("tree node {node} is inconsistent"));
        }
    }
    typed(if *single { Element::F32 } else { Element::F64 }, vec![x.shape[0], Dim::Fixed(*targets)])
}

fn preprocessing(op: &TensorOp, x: &TensorType) -> Inferred {
    use TensorOp as Op;
    match op {
        Op::Scaler { offset, scale } => {
            one_or(offset.len(), x, "offsets")?;
            one_or(scale.len(), x, "scales")?;
            numbers(x)?;
            typed(Element::F32, x.shape.clone())
        }
        Op::Normalizer { norm: _ } => {
            columns(x)?;
            numbers(x)?;
            typed(Element::F32, x.shape.clone())
        }
        Op::Binarizer { threshold: _ } => {
            numbers(x)?;
            typed(Element::F32, x.shape.clone())
        }
        Op::Imputer { replaced: _, values } => {
            one_or(values.len(), x, "values")?;
            numbers(x)?;
            Ok(x.clone())
        }
        Op::OneHot { ints, strings, zeros: _ } => {
            let categories = match (ints, strings, x.element) {
                (Some(ints), None, Element::I64 | Element::F32 | Element::F64) => ints.len(),
                (None, Some(strings), Element::Str) => strings.len(),
                _ => return Err(format!("{x} does not match the categories")),
            };
            let mut shape = x.shape.clone();
            shape.push(Dim::Fixed(categories));
            typed(Element::F32, shape)
        }
        Op::LabelEncoder {
            keys_i64,
            keys_f32,
            keys_f64,
            keys_str,
            values_i64,
            values_f32,
            values_f64,
            values_str,
            default_i64,
            default_f32,
            default_f64,
            default_str,
        } => {
            let keys = [
                keys_i64.as_ref().map(|v| (Element::I64, v.len())),
                keys_f32.as_ref().map(|v| (Element::F32, v.len())),
                keys_f64.as_ref().map(|v| (Element::F64, v.len())),
                keys_str.as_ref().map(|v| (Element::Str, v.len())),
            ];
            let values = [
                values_i64.as_ref().map(|v| (Element::I64, v.len(), default_i64.is_some())),
                values_f32.as_ref().map(|v| (Element::F32, v.len(), default_f32.is_some())),
                values_f64.as_ref().map(|v| (Element::F64, v.len(), default_f64.is_some())),
                values_str.as_ref().map(|v| (Element::Str, v.len(), default_str.is_some())),
            ];
            let keys: Vec<_> = keys.into_iter().flatten().collect();
            let values: Vec<_> = values.into_iter().flatten().collect();
            match (keys.as_slice(), values.as_slice()) {
                ([(from, keys)], [(to, values, true)]) if keys == values && *from == x.element => {
                    typed(*to, x.shape.clone())
                }
                _ => Err(format!("keys, values, default and the input {x} do not pair up")),
            }
        }
        _ => Err("not a preprocessing operation".to_owned()),
    }
}

fn unary(kind: UnaryKind, x: &TensorType) -> Inferred {
    use UnaryKind as K;
    match kind {
        K::Not if x.element == Element::Bool => Ok(x.clone()),
        K::IsNan | K::IsInf if float(x) => typed(Element::Bool, x.shape.clone()),
        K::Neg | K::Abs | K::Sign if number(x) => Ok(x.clone()),
        K::Not | K::IsNan | K::IsInf => Err(format!("`{}` of {x}", kind.as_str())),
        _ if float(x) => Ok(x.clone()),
        _ => Err(format!("`{}` of {x}", kind.as_str())),
    }
}

fn binary(kind: BinaryKind, a: &TensorType, b: &TensorType) -> Inferred {
    use BinaryKind as K;
    if a.element != b.element {
        return Err(format!("operands {a} and {b} of different types"));
    }
    let element = match kind {
        K::Equal => Some(Element::Bool),
        K::Less | K::LessOrEqual | K::Greater | K::GreaterOrEqual => number(a).then_some(Element::Bool),
        K::And | K::Or | K::Xor => (a.element == Element::Bool).then_some(Element::Bool),
        K::Add | K::Sub | K::Mul | K::Div | K::Pow | K::Max | K::Min | K::Mod | K::Fmod => {
            number(a).then_some(a.element)
        }
    };
    let element = element.ok_or_else(|| format!("`{}` of {a} and {b}", kind.as_str()))?;
    typed(element, broadcast(&a.shape, &b.shape)?)
}

/// Product of the fixed sizes, and the number of batch dimensions.
fn size(shape: &[Dim]) -> Option<(usize, usize)> {
    shape.iter().try_fold((1usize, 0), |(size, batches), dim| match dim {
        Dim::Batch => Some((size, batches + 1)),
        Dim::Fixed(dim) => Some((size.checked_mul(*dim)?, batches)),
    })
}

/// Dimensions of a shape in which -1 is the batch.
fn dims(shape: &[i64]) -> Result<Vec<Dim>, String> {
    let dim = |&dim: &i64| match dim {
        -1 => Ok(Dim::Batch),
        dim => usize::try_from(dim).map(Dim::Fixed).map_err(|_| format!("dimension {dim}")),
    };
    shape.iter().map(dim).collect()
}

fn moved(op: &TensorOp, x: &TensorType, operands: &[&TensorType]) -> Inferred {
    use TensorOp as Op;
    match (op, operands) {
        (Op::Reshape { shape }, [_]) => {
            let dims = dims(shape)?;
            if size(&dims).is_none() || size(&dims) != size(&x.shape) {
                return Err(format!("{x} does not reshape to {shape:?}"));
            }
            typed(x.element, dims)
        }
        (Op::Take { axis, indices }, [_]) => {
            let size = fixed(*axis, x)?;
            if let Some(bad) = indices.iter().find(|&&index| index >= size) {
                return Err(format!("position {bad} of {size}"));
            }
            let mut shape = x.shape.clone();
            shape[*axis] = Dim::Fixed(indices.len());
            typed(x.element, shape)
        }
        (Op::Transpose { order }, [_]) => {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if sorted != (0..x.shape.len()).collect::<Vec<_>>() {
                return Err(format!("{order:?} is not an order of {} axes", x.shape.len()));
            }
            typed(x.element, order.iter().map(|&axis| x.shape[axis]).collect())
        }
        (Op::Tile { repeats }, [_]) => {
            if repeats.len() != x.shape.len() {
                return Err(format!("{} repeats of {x}", repeats.len()));
            }
            let dim = |(dim, &times): (&Dim, &usize)| match (dim, times) {
                (dim, 1) => Ok(*dim),
                (Dim::Fixed(size), times) => {
                    size.checked_mul(times).map(Dim::Fixed).ok_or_else(|| format!("{times} repeats of {x}"))
                }
                (Dim::Batch, _) => Err("repeats of the batch".to_owned()),
            };
            typed(x.element, x.shape.iter().zip(repeats).map(dim).collect::<Result<_, _>>()?)
        }
        (Op::Expand { shape }, [_] | [_, _]) => {
            let dims = dims(shape)?;
            if broadcast(&x.shape, &dims)? != dims {
                return Err(format!("{x} does not expand to {shape:?}"));
            }
            let batched = |ty: &TensorType| ty.shape.contains(&Dim::Batch);
            if dims.contains(&Dim::Batch) && !operands.iter().any(|ty| batched(ty)) {
                return Err("an expansion to the batch without its size".to_owned());
            }
            typed(x.element, dims)
        }
        _ => Err(format!("`{}` with {} operands", crate::attr::OpSet::name(op), operands.len())),
    }
}

fn concat(axis: usize, first: &TensorType, all: &[&TensorType]) -> Inferred {
    axis_ok(axis, first)?;
    let mut total = 0usize;
    for x in all {
        let same = x.shape.len() == first.shape.len()
            && x.element == first.element
            && x.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
        let sum = match x.shape.get(axis) {
            Some(Dim::Fixed(size)) if same => total.checked_add(*size),
            _ => None,
        };
        total = sum.ok_or_else(|| format!("{x} beside {first} along axis {axis}"))?;
    }
    let mut shape = first.shape.clone();
    shape[axis] = Dim::Fixed(total);
    typed(first.element, shape)
}

fn along(op: &TensorOp, x: &TensorType) -> Inferred {
    use TensorOp as Op;
    match op {
        Op::Reduce { kind: _, axes } => {
            numbers(x)?;
            let mut shape = x.shape.clone();
            for &axis in axes {
                fixed(axis, x)?;
                shape[axis] = Dim::Fixed(1);
            }
            typed(x.element, shape)
        }
        Op::Softmax { axis, log: _ } => {
            fixed(*axis, x)?;
            if float(x) { Ok(x.clone()) } else { Err(format!("softmax of {x}")) }
        }
        Op::ArgMax { axis, least: _, last: _ } => {
            numbers(x)?;
            if fixed(*axis, x)? == 0 {
                return Err(format!("the greatest of nothing in {x}"));
            }
            let mut shape = x.shape.clone();
            shape[*axis] = Dim::Fixed(1);
            typed(Element::I64, shape)
        }
        Op::TopK { axis, count, least: _, positions } => {
            numbers(x)?;
            let size = fixed(*axis, x)?;
            if *count > size {
                return Err(format!("the greatest {count} of {size}"));
            }
            let mut shape = x.shape.clone();
            shape[*axis] = Dim::Fixed(*count);
            typed(if *positions { Element::I64 } else { x.element }, shape)
        }
        _ => Err("not an operation along an axis".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::tensor::{ReduceKind, UnaryKind};

    fn ty(text: &str) -> TensorType {
        text.parse().unwrap()
    }

    fn infer(op: &TensorOp, operands: &[&str]) -> Result<String, String> {
        let operands: Vec<TensorType> = operands.iter().map(|text| ty(text)).collect();
        let operands: Vec<&TensorType> = operands.iter().collect();
        Tensor::infer(op, &operands, None).map(|ty| ty.to_string())
    }

    #[test]
    fn types_print_and_parse() {
        for text in ["f32[?, 30]", "i64[]", "str[?]", "bool[2, 3]", "f64[1, ?]"] {
            assert_eq!(ty(text).to_string(), text);
        }
        for bad in ["f32", "f16[2]", "f32[a]", "f32[2", "f32[-1]", ""] {
            assert!(bad.parse::<TensorType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_follow_broadcasting() {
        let add = TensorOp::Binary { kind: BinaryKind::Add };
        assert_eq!(infer(&add, &["f32[?, 3]", "f32[3]"]).unwrap(), "f32[?, 3]");
        assert_eq!(infer(&add, &["f32[?, 1]", "f32[1, 4]"]).unwrap(), "f32[?, 4]");
        assert!(infer(&add, &["f32[?, 3]", "f32[2]"]).is_err());
        assert!(infer(&add, &["f32[?, 3]", "f64[3]"]).is_err());
        assert!(infer(&add, &["str[3]", "str[3]"]).is_err());
        // A column of rows beside a row of rows would be rows by rows.
        assert!(infer(&add, &["f32[?, 1]", "f32[?]"]).is_err());
    }

    #[test]
    fn rows_stay_apart() {
        for op in [
            TensorOp::Reduce { kind: ReduceKind::Sum, axes: vec![0] },
            TensorOp::Softmax { axis: 0, log: false },
            TensorOp::ArgMax { axis: 0, least: false, last: false },
            TensorOp::TopK { axis: 0, count: 1, least: false, positions: false },
            TensorOp::Take { axis: 0, indices: vec![0] },
            TensorOp::Tile { repeats: vec![2, 1] },
        ] {
            assert!(infer(&op, &["f32[?, 3]"]).is_err(), "{op:?}");
        }
    }

    #[test]
    fn hostile_attributes_are_errors() {
        let bad: [(TensorOp, &[&str]); 9] = [
            (TensorOp::PairVotes { classes: usize::MAX }, &["f32[?, 3]"]),
            (TensorOp::BinaryLabel { threshold: 0.0 }, &["f32[]"]),
            (TensorOp::Concat { axis: 0 }, &[]),
            (TensorOp::Concat { axis: 5 }, &["f32[?, 3]"]),
            (TensorOp::Reshape { shape: vec![i64::MAX, i64::MAX] }, &["f32[?, 3]"]),
            (TensorOp::Tile { repeats: vec![1, usize::MAX] }, &["f32[?, 3]"]),
            (TensorOp::Unary { kind: UnaryKind::Exp }, &["str[?]"]),
            (TensorOp::Expand { shape: vec![-1, 2] }, &["f32[]"]),
            (TensorOp::Transpose { order: vec![1, 1] }, &["f32[?, 3]"]),
        ];
        for (op, operands) in bad {
            assert!(infer(&op, operands).is_err(), "{op:?}");
        }
    }
}
