//! The float stage: the model as the front end read it, in normal form, one value per node.
//!
//! `tree_ensemble` and `linear` are the operations that later stages encrypt; all others run on the client, before the
//! first or after the last encrypted one.

mod infer;
pub mod window;

use crate::{attr_enum, attr_record, define_ops};
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
        /// Least integer not below.
        Ceil = "ceil",
        /// Nearest integer, halves to even.
        Round = "round",
        /// Error function.
        Erf = "erf",
        /// ln(1 + e^x)
        Softplus = "softplus",
        /// Sine.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// Tangent.
        Tan = "tan",
        /// Inverse of the sine.
        Asin = "asin",
        /// Inverse of the cosine.
        Acos = "acos",
        /// Inverse of the tangent.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Inverse of the hyperbolic sine.
        Asinh = "asinh",
        /// Inverse of the hyperbolic cosine.
        Acosh = "acosh",
        /// Inverse of the hyperbolic tangent.
        Atanh = "atanh",
        /// Logical not.
        Not = "not",
        /// -1, 0 or 1.
        Sign = "sign",
        /// Reciprocal.
        Reciprocal = "reciprocal",
        /// Whether NaN.
        IsNan = "is_nan",
        /// Whether infinite.
        IsInf = "is_inf",
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
        /// Exactly one of a and b
        Xor = "xor",
        /// Remainder with the divisor's sign.
        Mod = "mod",
        /// Remainder with the dividend's sign, C's `fmod`.
        Fmod = "fmod",
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
        /// ln of the sum of e^x
        LogSumExp = "log_sum_exp",
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

attr_enum! {
    /// What pooling makes of a window.
    pub enum PoolKind {
        /// Its greatest value.
        Max = "max",
        /// The mean of its values.
        Average = "average",
    }
}

attr_record! {
    /// Where the window of a pooling goes.
    pub struct PoolWindow {
        /// Size of the window along each spatial axis.
        pub kernel: Vec<usize>,
        /// From one position to the next.
        pub strides: Vec<usize>,
        /// From one element of the window to the next.
        pub dilations: Vec<usize>,
        /// Elements added before and, in the second half, after each axis.
        pub pads: Vec<usize>,
        /// A last window that lies only partly inside counts.
        pub ceil: bool,
    }
}

impl PoolWindow {
    /// The window.
    pub fn window(&self) -> window::Window {
        let PoolWindow { kernel, strides, dilations, pads, ceil } = self.clone();
        window::Window { kernel, strides, dilations, pads, ceil }
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
        /// Raw scores of a tree ensemble, base values added: [rows, features] to [rows, targets]. Their type is f32, or f64
        /// where features are compared in f64.
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
        /// Convolution (cross-correlation) of `[rows, channels, ...]` with weights `[outputs, channels / group, ...]` and a
        /// bias, if given, per output.
        Conv = "conv" {
            /// From one position to the next, along each spatial axis.
            strides: Vec<usize>,
            /// From one element of the kernel to the next.
            dilations: Vec<usize>,
            /// Zeros added before and, in the second half, after each axis.
            pads: Vec<usize>,
            /// Groups of channels that are convolved apart.
            group: usize,
        },
        /// The maximum or mean of each window of `[rows, channels, ...]`.
        Pool = "pool" {
            /// Which.
            kind: PoolKind,
            /// The window.
            window: PoolWindow,
            /// Whether a mean counts padding.
            count_pads: bool,
        },
        /// A constant around the values.
        Pad = "pad" {
            /// Elements added before and, in the second half, after each axis.
            pads: Vec<usize>,
            /// The constant.
            value: f64,
        },
        /// (x - offset) * scale, in the input's float type (f32 for integers), rounded to f32.
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
            /// 32-bit float keys; NaN is equal to itself.
            keys_f32: Option<Vec<f32>>,
            /// 64-bit float keys.
            keys_f64: Option<Vec<f64>>,
            /// String keys.
            keys_str: Option<Vec<String>>,
            /// Integer values.
            values_i64: Option<Vec<i64>>,
            /// 32-bit float values.
            values_f32: Option<Vec<f32>>,
            /// 64-bit float values.
            values_f64: Option<Vec<f64>>,
            /// String values.
            values_str: Option<Vec<String>>,
            /// Value of other keys, if integers.
            default_i64: Option<i64>,
            /// If 32-bit floats.
            default_f32: Option<f32>,
            /// If 64-bit floats.
            default_f64: Option<f64>,
            /// If strings.
            default_str: Option<String>,
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
        /// The values at each row's positions: [rows, m], or [1, m] for all rows, and i64 positions [rows, n]; negative
        /// positions count from the end.
        GatherRows = "gather_rows" {},
        /// The greatest (or least) values along an axis in that order, or their positions; the first of equal ones first.
        TopK = "top_k" {
            /// The axis.
            axis: usize,
            /// How many.
            count: usize,
            /// Least instead of greatest.
            least: bool,
            /// Positions instead of values.
            positions: bool,
        },
        /// The tensor repeated along each axis.
        Tile = "tile" {
            /// How often, for each axis.
            repeats: Vec<usize>,
        },
        /// Broadcast to a shape; -1 marks the batch, whose size is that of the second operand where there is one.
        Expand = "expand" {
            /// The shape.
            shape: Vec<i64>,
        },
        /// ai.onnx.ml post transform of scores.
        PostTransform = "post_transform" {
            /// Which.
            kind: PostTransform,
        },
        /// Both scores of a two-class model with one score s: the logistic of -s and s where that is the transform, else
        /// s itself beside 1-s or -s, untransformed, as onnxruntime has it.
        BinaryScores = "binary_scores" {
            /// The first score is 1-s, else -s.
            positive: bool,
            /// The transform; not probit, for which onnxruntime writes one score of two.
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
