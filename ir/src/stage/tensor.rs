//! The float stage: the model as the front end read it, in normal form, one value per node.
//!
//! `tree_ensemble` and `linear` are the operations that later stages encrypt; all others run on the client, before the
//! first or after the last encrypted one.

use crate::graph::Stage;
use crate::{attr_enum, define_ops};
use std::fmt;
use std::str::FromStr;

attr_enum! {
    /// Element type of a tensor.
    pub enum Element {
        /// 32-bit float.
        F32 = "f32",
        /// 64-bit float.
        F64 = "f64",
        /// 64-bit integer (all ONNX integer types).
        I64 = "i64",
        /// Boolean.
        Bool = "bool",
        /// String.
        Str = "str",
    }
}

/// One dimension: the batch, or a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Number of rows; prints as `?`.
    Batch,
    /// Known size.
    Fixed(usize),
}

/// Element type and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub element: Element,
    /// Shape; at most one batch dimension.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// Rows by `columns`.
    pub fn rows(element: Element, columns: usize) -> Self {
        TensorType { element, shape: vec![Dim::Batch, Dim::Fixed(columns)] }
    }
    /// The last dimension, for `[rows, columns]` tensors.
    pub fn columns(&self) -> Option<usize> {
        match self.shape.as_slice() {
            [_, Dim::Fixed(columns)] => Some(*columns),
            _ => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = self.shape.iter().map(|dim| match dim {
            Dim::Batch => "?".to_owned(),
            Dim::Fixed(size) => size.to_string(),
        });
        write!(f, "{}[{}]", self.element.as_str(), dims.collect::<Vec<_>>().join(", "))
    }
}

impl FromStr for TensorType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a type such as f32[?, 4]");
        let (element, dims) = text.split_once('[').ok_or_else(wrong)?;
        let dims = dims.strip_suffix(']').ok_or_else(wrong)?;
        let dim = |dim: &str| match dim.trim() {
            "?" => Ok(Dim::Batch),
            size => size.parse().map(Dim::Fixed).map_err(|_| wrong()),
        };
        let shape = dims.split(',').filter(|dim| !dim.trim().is_empty()).map(dim).collect::<Result<_, _>>()?;
        Ok(TensorType { element: Element::from_name(element.trim()).ok_or_else(wrong)?, shape })
    }
}

attr_enum! {
    /// How a tree node tests its feature.
    pub enum Mode {
        /// A leaf.
        Leaf = "leaf",
        /// True where value <= threshold.
        Leq = "leq",
        /// True where value < threshold.
        Lt = "lt",
        /// True where value >= threshold.
        Gte = "gte",
        /// True where value > threshold.
        Gt = "gt",
        /// True where value = threshold.
        Eq = "eq",
        /// True where value != threshold.
        Neq = "neq",
        /// True where the value is in a set.
        Member = "member",
    }
}

attr_enum! {
    /// How trees combine.
    pub enum Aggregate {
        /// Sum.
        Sum = "sum",
        /// Sum over trees divided by their number.
        Average = "average",
        /// Least.
        Min = "min",
        /// Greatest.
        Max = "max",
    }
}

attr_enum! {
    /// ai.onnx.ml's transforms of scores.
    pub enum PostTransform {
        /// As they are.
        None = "none",
        /// Logistic of each.
        Logistic = "logistic",
        /// Softmax of a row.
        Softmax = "softmax",
        /// Softmax that leaves zeros at zero.
        SoftmaxZero = "softmax_zero",
        /// Inverse of the normal distribution's integral, as onnxruntime computes it.
        Probit = "probit",
    }
}

attr_enum! {
    /// Elementwise functions of one tensor.
    pub enum UnaryKind {
        /// -x
        Neg = "neg",
        /// |x|
        Abs = "abs",
        /// e^x
        Exp = "exp",
        /// ln x
        Log = "log",
        /// Square root.
        Sqrt = "sqrt",
        /// 1/(1+e^-x)
        Sigmoid = "sigmoid",
        /// tanh x
        Tanh = "tanh",
        /// max(x, 0)
        Relu = "relu",
        /// Largest integer not above.
        Floor = "floor",
        /// Logical not.
        Not = "not",
        /// -1, 0 or 1.
        Sign = "sign",
        /// Reciprocal.
        Reciprocal = "reciprocal",
        /// Whether NaN.
        IsNan = "is_nan",
    }
}

attr_enum! {
    /// Elementwise functions of two tensors, with numpy's broadcasting.
    pub enum BinaryKind {
        /// a+b
        Add = "add",
        /// a-b
        Sub = "sub",
        /// a*b
        Mul = "mul",
        /// a/b
        Div = "div",
        /// a^b
        Pow = "pow",
        /// max
        Max = "max",
        /// min
        Min = "min",
        /// a=b
        Equal = "equal",
        /// a<b
        Less = "less",
        /// a<=b
        LessOrEqual = "less_or_equal",
        /// a>b
        Greater = "greater",
        /// a>=b
        GreaterOrEqual = "greater_or_equal",
        /// a and b
        And = "and",
        /// a or b
        Or = "or",
    }
}

attr_enum! {
    /// Reductions over axes.
    pub enum ReduceKind {
        /// Sum.
        Sum = "sum",
        /// Mean.
        Mean = "mean",
        /// Greatest.
        Max = "max",
        /// Least.
        Min = "min",
        /// Euclidean norm.
        L2 = "l2",
        /// Sum of absolute values.
        L1 = "l1",
        /// Sum of squares.
        SumSquare = "sum_square",
        /// Product.
        Prod = "prod",
    }
}

attr_enum! {
    /// Norms of ai.onnx.ml Normalizer.
    pub enum Norm {
        /// Greatest value.
        Max = "max",
        /// Sum of absolute values.
        L1 = "l1",
        /// Euclidean.
        L2 = "l2",
    }
}

define_ops! {
    /// Operations of the float stage.
    pub enum TensorOp {
        /// A graph input.
        Input = "input" {
            /// Its name.
            name: String,
        },
        /// A constant; exactly one of the lists is present.
        Constant = "constant" {
            /// Shape.
            shape: Vec<usize>,
            /// f32 data.
            f32: Option<Vec<f32>>,
            /// f64 data.
            f64: Option<Vec<f64>>,
            /// Integer data.
            i64: Option<Vec<i64>>,
            /// String data.
            str: Option<Vec<String>>,
        },
        /// Raw scores of a tree ensemble, base values added: [rows, features] to [rows, targets].
        TreeEnsemble = "tree_ensemble" {
            /// Number of targets.
            targets: usize,
            /// How trees combine.
            aggregate: Aggregate,
            /// Whether features, thresholds and weights are 32-bit floats.
            single: bool,
            /// Added to each target; empty for none.
            base: Vec<f64>,
            /// Root node of each tree.
            roots: Vec<usize>,
            /// Per node: feature.
            feature: Vec<usize>,
            /// Per node: test.
            mode: crate::attr::Many<Mode>,
            /// Per node: threshold; for `member` the index into `sets`.
            threshold: Vec<f64>,
            /// Per node: child where the test is true; for a leaf the first of its weights.
            on_true: Vec<usize>,
            /// Per node: child where it is false; for a leaf one past its last weight.
            on_false: Vec<usize>,
            /// Nodes at which NaN takes the true branch.
            missing_true: Vec<usize>,
            /// Membership sets.
            sets: crate::attr::Many<Vec<f64>>,
            /// Targets of leaf weights.
            leaf_target: Vec<usize>,
            /// Leaf weights.
            leaf_weight: Vec<f64>,
        },
        /// `x W^T + b`: [rows, columns] to [rows, outputs].
        Linear = "linear" {
            /// Number of outputs.
            outputs: usize,
            /// Row-major, outputs x columns.
            weights: Vec<f64>,
            /// Per output.
            bias: Vec<f64>,
        },
        /// (x - offset) * scale, in 32-bit floats.
        Scaler = "scaler" {
            /// One, or one per column.
            offset: Vec<f32>,
            /// One, or one per column.
            scale: Vec<f32>,
        },
        /// Rows divided by their norm.
        Normalizer = "normalizer" {
            /// The norm.
            norm: Norm,
        },
        /// Replaces a value (or NaN) by a constant per column.
        Imputer = "imputer" {
            /// The value replaced.
            replaced: f64,
            /// One, or one per column.
            values: Vec<f64>,
        },
        /// 1 above the threshold, else 0.
        Binarizer = "binarizer" {
            /// The threshold.
            threshold: f32,
        },
        /// Category indicators: appends a dimension.
        OneHot = "one_hot" {
            /// Integer categories.
            ints: Option<Vec<i64>>,
            /// String categories.
            strings: Option<Vec<String>>,
            /// Unknown categories give zeros (else an error).
            zeros: bool,
        },
        /// A map from keys to values.
        LabelEncoder = "label_encoder" {
            /// Integer keys.
            keys_i64: Option<Vec<i64>>,
            /// Float keys.
            keys_f32: Option<Vec<f32>>,
            /// String keys.
            keys_str: Option<Vec<String>>,
            /// Integer values.
            values_i64: Option<Vec<i64>>,
            /// Float values.
            values_f32: Option<Vec<f32>>,
            /// String values.
            values_str: Option<Vec<String>>,
            /// Value of other keys, of the value's type.
            default_i64: i64,
            /// See above.
            default_f32: f32,
            /// See above.
            default_str: String,
        },
        /// An elementwise function.
        Unary = "unary" {
            /// Which.
            kind: UnaryKind,
        },
        /// An elementwise function of two tensors.
        Binary = "binary" {
            /// Which.
            kind: BinaryKind,
        },
        /// The second operand where the first holds, else the third.
        Where = "where" {},
        /// Another element type.
        Cast = "cast" {
            /// The type.
            to: Element,
        },
        /// Limits values.
        Clip = "clip" {
            /// Lower end.
            low: Option<f64>,
            /// Upper end.
            high: Option<f64>,
        },
        /// Another shape; -1 marks the batch.
        Reshape = "reshape" {
            /// The new shape.
            shape: Vec<i64>,
        },
        /// Tensors side by side.
        Concat = "concat" {
            /// Along this axis.
            axis: usize,
        },
        /// Chosen positions of an axis (Gather, Slice, ArrayFeatureExtractor with constant indices).
        Take = "take" {
            /// The axis.
            axis: usize,
            /// The positions.
            indices: Vec<usize>,
        },
        /// Axes in another order.
        Transpose = "transpose" {
            /// The order.
            order: Vec<usize>,
        },
        /// A reduction; reduced axes keep size 1.
        Reduce = "reduce" {
            /// Which.
            kind: ReduceKind,
            /// The axes.
            axes: Vec<usize>,
        },
        /// Softmax along an axis.
        Softmax = "softmax" {
            /// The axis.
            axis: usize,
            /// Its logarithm instead.
            log: bool,
        },
        /// Position of the greatest (or least) value along an axis, which keeps size 1.
        ArgMax = "arg_max" {
            /// The axis.
            axis: usize,
            /// Least instead of greatest.
            least: bool,
            /// The last of equal values instead of the first.
            last: bool,
        },
        /// The value at the row's position: [rows, m] and i64 positions [rows, n].
        GatherRows = "gather_rows" {},
        /// ai.onnx.ml post transform of scores.
        PostTransform = "post_transform" {
            /// Which.
            kind: PostTransform,
        },
        /// Scores of a two-class model with one score: onnxruntime's `write_scores`.
        BinaryScores = "binary_scores" {
            /// Leaf weights are all positive: the second score is 1 - s, else -s.
            positive: bool,
            /// Which.
            kind: PostTransform,
        },
        /// Position of the winning class of a one-score two-class model: s > threshold.
        BinaryLabel = "binary_label" {
            /// The threshold.
            threshold: f64,
        },
        /// One-against-one votes of a support vector classifier: [rows, pairs] to scores [rows, classes].
        PairVotes = "pair_votes" {
            /// Number of classes.
            classes: usize,
        },
        /// Class probabilities from pairwise decisions by Platt scaling and coupling (libsvm).
        PairProbabilities = "pair_probabilities" {
            /// Number of classes.
            classes: usize,
            /// Platt slope of each pair.
            a: Vec<f64>,
            /// Platt offset of each pair.
            b: Vec<f64>,
        },
        /// Names the columns; the value passes through.
        ZipMap = "zip_map" {
            /// Integer keys.
            ints: Option<Vec<i64>>,
            /// String keys.
            strings: Option<Vec<String>>,
        },
    }
}

/// The float stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor;

fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Dim], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |at| shape[at]);
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Ok(other),
            (x, y) => Err(format!("dimensions {x:?} and {y:?} do not broadcast")),
        })
        .collect()
}

fn one_or(len: usize, columns: Option<usize>, what: &str) -> Result<(), String> {
    if len == 1 || Some(len) == columns { Ok(()) } else { Err(format!("{len} {what} for {columns:?} columns")) }
}

impl Stage for Tensor {
    type Op = TensorOp;
    type Type = TensorType;
    const NAME: &'static str = "tensor";

    fn infer(op: &TensorOp, operands: &[&TensorType], declared: Option<&TensorType>) -> Result<TensorType, String> {
        use TensorOp as Op;
        let arity = match op {
            Op::Input { .. } | Op::Constant { .. } => 0,
            Op::Binary { .. } | Op::GatherRows {} => 2,
            Op::Where {} => 3,
            Op::Concat { .. } => operands.len().max(1),
            _ => 1,
        };
        if operands.len() != arity {
            return Err(format!("{} operands, expected {arity}", operands.len()));
        }
        let float = |ty: &TensorType| matches!(ty.element, Element::F32 | Element::F64);
        let with = |element: Element, shape: Vec<Dim>| Ok(TensorType { element, shape });
        let axis_ok = |axis: usize, ty: &TensorType| {
            if axis < ty.shape.len() {
                Ok(())
            } else {
                Err(format!("axis {axis} of a tensor of rank {}", ty.shape.len()))
            }
        };
        let columns_as = |first: &TensorType, columns: usize| {
            let mut shape = first.shape.clone();
            match shape.last_mut() {
                Some(last) if shape_rank_two(first) => *last = Dim::Fixed(columns),
                _ => return Err(format!("expected [rows, columns], found {first}")),
            }
            Ok(TensorType { element: if first.element == Element::F64 { Element::F64 } else { Element::F32 }, shape })
        };
        match (op, operands) {
            (Op::Input { .. }, _) => declared.cloned().ok_or_else(|| "an input needs a type".to_owned()),
            (Op::Constant { shape, f32, f64, i64, str }, _) => {
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
                with(element, shape.iter().map(|&dim| Dim::Fixed(dim)).collect())
            }
            (
                Op::TreeEnsemble {
                    targets,
                    aggregate: _,
                    single: _,
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
                },
                [x],
            ) => {
                let columns = x.columns().ok_or_else(|| format!("expected [rows, columns], found {x}"))?;
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
                        let children_ok =
                            [on_true[node], on_false[node]].iter().all(|&child| child > node && child < nodes);
                        let set_ok = mode[node] != Mode::Member || (threshold[node] as usize) < sets.len();
                        children_ok && set_ok && feature[node] < columns && !threshold[node].is_nan()
                    };
                    if !ok {
                        return Err(format!("tree node {node} is inconsistent"));
                    }
                }
                columns_as(x, *targets).map(|ty| TensorType { element: Element::F32, ..ty })
            }
            (Op::Linear { outputs, weights, bias }, [x]) => {
                let columns = x.columns().ok_or_else(|| format!("expected [rows, columns], found {x}"))?;
                if outputs.checked_mul(columns) != Some(weights.len()) || bias.len() != *outputs {
                    return Err(format!(
                        "{} weights, {} biases: {outputs} outputs, {columns} columns",
                        weights.len(),
                        bias.len()
                    ));
                }
                columns_as(x, *outputs)
            }
            (Op::Scaler { offset, scale }, [x]) => {
                one_or(offset.len(), x.columns(), "offsets")?;
                one_or(scale.len(), x.columns(), "scales")?;
                with(Element::F32, x.shape.clone())
            }
            (Op::Normalizer { .. } | Op::Binarizer { .. } | Op::PostTransform { .. }, [x]) => {
                with(Element::F32, x.shape.clone())
            }
            (Op::Imputer { replaced: _, values }, [x]) => {
                one_or(values.len(), x.columns(), "values")?;
                Ok((*x).clone())
            }
            (Op::OneHot { ints, strings, zeros: _ }, [x]) => {
                let categories = ints.as_ref().map_or(0, Vec::len).max(strings.as_ref().map_or(0, Vec::len));
                let mut shape = x.shape.clone();
                shape.push(Dim::Fixed(categories));
                with(Element::F32, shape)
            }
            (Op::LabelEncoder { keys_i64, keys_f32, keys_str, values_i64, values_f32, values_str, .. }, [x]) => {
                let keys =
                    [keys_i64.as_ref().map(Vec::len), keys_f32.as_ref().map(Vec::len), keys_str.as_ref().map(Vec::len)];
                let values = [
                    values_i64.as_ref().map(|v| (Element::I64, v.len())),
                    values_f32.as_ref().map(|v| (Element::F32, v.len())),
                    values_str.as_ref().map(|v| (Element::Str, v.len())),
                ];
                match (
                    keys.iter().flatten().collect::<Vec<_>>().as_slice(),
                    values.iter().flatten().collect::<Vec<_>>().as_slice(),
                ) {
                    ([keys], [(element, values)]) if *keys == values => with(*element, x.shape.clone()),
                    _ => Err("keys and values do not pair up".to_owned()),
                }
            }
            (Op::Unary { kind }, [x]) => match kind {
                UnaryKind::Not => with(Element::Bool, x.shape.clone()),
                UnaryKind::IsNan => with(Element::Bool, x.shape.clone()),
                UnaryKind::Neg | UnaryKind::Abs | UnaryKind::Sign if x.element == Element::I64 => Ok((*x).clone()),
                _ if float(x) => Ok((*x).clone()),
                _ => Err(format!("`{}` of {x}", kind.as_str())),
            },
            (Op::Binary { kind }, [a, b]) => {
                if a.element != b.element {
                    return Err(format!("operands {a} and {b} of different types"));
                }
                let shape = broadcast(&a.shape, &b.shape)?;
                use BinaryKind as K;
                let element = match kind {
                    K::Equal | K::Less | K::LessOrEqual | K::Greater | K::GreaterOrEqual | K::And | K::Or => {
                        Element::Bool
                    }
                    K::Add | K::Sub | K::Mul | K::Div | K::Pow | K::Max | K::Min => a.element,
                };
                with(element, shape)
            }
            (Op::Where {}, [condition, a, b]) => {
                if condition.element != Element::Bool || a.element != b.element {
                    return Err("`where` takes a boolean and two tensors of one type".to_owned());
                }
                with(a.element, broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?)
            }
            (Op::Cast { to }, [x]) => with(*to, x.shape.clone()),
            (Op::Clip { .. }, [x]) => Ok((*x).clone()),
            (Op::Reshape { shape }, [x]) => {
                let size = |shape: &[Dim]| {
                    shape.iter().try_fold((1usize, 0), |(size, batches), dim| match dim {
                        Dim::Batch => Some((size, batches + 1)),
                        Dim::Fixed(dim) => Some((size.checked_mul(*dim)?, batches)),
                    })
                };
                let dims = shape.iter().map(|&dim| match dim {
                    -1 => Ok(Dim::Batch),
                    dim => usize::try_from(dim).map(Dim::Fixed).map_err(|_| format!("dimension {dim}")),
                });
                let dims: Vec<Dim> = dims.collect::<Result<_, _>>()?;
                if size(&dims) != size(&x.shape) || size(&dims).is_none_or(|(_, batches)| batches > 1) {
                    return Err(format!("{x} does not reshape to {shape:?}"));
                }
                with(x.element, dims)
            }
            (Op::Concat { axis }, all) => {
                let first = all[0];
                axis_ok(*axis, first)?;
                let mut total = 0usize;
                for x in all {
                    let same = x.shape.len() == first.shape.len()
                        && x.element == first.element
                        && x.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == *axis || a == b);
                    match x.shape.get(*axis) {
                        Some(Dim::Fixed(size)) if same => total += size,
                        _ => return Err(format!("{x} beside {first} along axis {axis}")),
                    }
                }
                let mut shape = first.shape.clone();
                shape[*axis] = Dim::Fixed(total);
                with(first.element, shape)
            }
            (Op::Take { axis, indices }, [x]) => {
                axis_ok(*axis, x)?;
                let Dim::Fixed(size) = x.shape[*axis] else {
                    return Err("cannot take positions of the batch".to_owned());
                };
                if let Some(bad) = indices.iter().find(|&&index| index >= size) {
                    return Err(format!("position {bad} of {size}"));
                }
                let mut shape = x.shape.clone();
                shape[*axis] = Dim::Fixed(indices.len());
                with(x.element, shape)
            }
            (Op::Transpose { order }, [x]) => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if sorted != (0..x.shape.len()).collect::<Vec<_>>() {
                    return Err(format!("{order:?} is not an order of {} axes", x.shape.len()));
                }
                with(x.element, order.iter().map(|&axis| x.shape[axis]).collect())
            }
            (Op::Reduce { kind: _, axes }, [x]) => {
                let mut shape = x.shape.clone();
                for &axis in axes {
                    axis_ok(axis, x)?;
                    if shape[axis] == Dim::Batch {
                        return Err("a reduction over the batch".to_owned());
                    }
                    shape[axis] = Dim::Fixed(1);
                }
                with(x.element, shape)
            }
            (Op::Softmax { axis, log: _ }, [x]) => {
                axis_ok(*axis, x)?;
                if float(x) { Ok((*x).clone()) } else { Err(format!("softmax of {x}")) }
            }
            (Op::ArgMax { axis, least: _, last: _ }, [x]) => {
                axis_ok(*axis, x)?;
                let mut shape = x.shape.clone();
                shape[*axis] = Dim::Fixed(1);
                with(Element::I64, shape)
            }
            (Op::GatherRows {}, [x, positions]) => with(x.element, positions.shape.clone()),
            (Op::BinaryScores { positive: _, kind }, [x]) => {
                columns_as(x, if *kind == PostTransform::Probit { 1 } else { 2 })
            }
            (Op::BinaryLabel { .. }, [x]) => with(Element::I64, vec![x.shape[0], Dim::Fixed(1)]),
            (Op::PairVotes { classes } | Op::PairProbabilities { classes, .. }, [x]) => {
                let pairs = classes * classes.saturating_sub(1) / 2;
                if x.columns() != Some(pairs) {
                    return Err(format!("{x} for {pairs} pairs of classes"));
                }
                if let Op::PairProbabilities { a, b, .. } = op
                    && (a.len() != pairs || b.len() != pairs)
                {
                    return Err("Platt parameters do not match the pairs".to_owned());
                }
                columns_as(x, *classes)
            }
            (Op::ZipMap { .. }, [x]) => Ok((*x).clone()),
            _ => Err("operands of the wrong number".to_owned()),
        }
    }
}

fn shape_rank_two(ty: &TensorType) -> bool {
    ty.shape.len() == 2
}
