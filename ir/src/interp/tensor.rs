//! Float interpreter: what onnxruntime computes, in the same types.
//!
//! It is the oracle of the float stage and runs on the client, for everything before the first and after the last
//! encrypted operation.

mod elementwise;
mod ml;
mod shape;
mod trees;
mod value;
mod window;

pub use value::{Data, TensorValue};

use crate::diag::{Code, Diagnostic, Result};
use crate::graph::{Graph, ValueId};
use crate::stage::tensor::{Dim, Tensor, TensorOp, TensorType};
use indexmap::IndexMap;
use std::collections::BTreeMap;

/// Values of one tensor; a graph that asks for more, from a hostile artifact or on far too many rows, is refused.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Evaluates a graph on inputs by name; every output by name, in order.
///
/// # Errors
/// [`Code::InputName`] for a missing input, [`Code::ElementTypeMismatch`], [`Code::ColumnCount`] or
/// [`Code::ShapeMismatch`] for one that does not fit its type, and what an operation refuses.
/// [`Code::ShapeMismatch`] also for a value of more than [`MAX_ELEMENTS`].
pub fn evaluate(
    graph: &Graph<Tensor>,
    inputs: &BTreeMap<String, TensorValue>,
) -> Result<IndexMap<String, TensorValue>> {
    let mut values: Vec<TensorValue> = Vec::with_capacity(graph.len());
    for id in graph.values() {
        let value = node_value(graph, id, &values, inputs)
            .map_err(|why| if why.place.is_none() { why.at(graph.loc(id).to_string()) } else { why })?;
        // Operations rely on the shapes of their operands, so none is taken on trust.
        if !conforms(&value, &graph.node(id).ty) {
            let found = &value.shape;
            return Err(Diagnostic::internal(format!("expected {}, computed shape {found:?}", graph.node(id).ty))
                .at(graph.loc(id).to_string()));
        }
        values.push(value);
    }
    Ok(graph.outputs().iter().map(|(name, id)| (name.clone(), values[id.index()].clone())).collect())
}

/// Whether a value has the type's element type and shape, and as much data as the shape says.
fn conforms(value: &TensorValue, ty: &TensorType) -> bool {
    value.data.element() == ty.element
        && fits_shape(&value.shape, &ty.shape)
        && value.shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim)) == Some(value.data.len())
}

fn fits_shape(shape: &[usize], dims: &[Dim]) -> bool {
    shape.len() == dims.len()
        && shape.iter().zip(dims).all(|(&size, dim)| match dim {
            Dim::Batch => true,
            Dim::Fixed(wanted) => size == *wanted,
        })
}

/// Fails when the node's value would have too many elements, before anything is allocated.
fn check_size(graph: &Graph<Tensor>, id: ValueId, operands: &[&TensorValue]) -> std::result::Result<(), Fault> {
    let node = graph.node(id);
    let batch_of = |(operand, value): (&ValueId, &&TensorValue)| {
        let dims = &graph.node(*operand).ty.shape;
        dims.iter().position(|dim| *dim == Dim::Batch).and_then(|axis| value.shape.get(axis).copied())
    };
    let rows = node.operands.iter().zip(operands).filter_map(batch_of).max().unwrap_or(1);
    let size = node.ty.shape.iter().try_fold(1usize, |size, dim| match dim {
        Dim::Batch => size.checked_mul(rows),
        Dim::Fixed(dim) => size.checked_mul(*dim),
    });
    match size {
        Some(size) if size <= MAX_ELEMENTS => Ok(()),
        _ => Err(Fault::Shape(format!("a value of type {} for {rows} rows is over {MAX_ELEMENTS} elements", node.ty))),
    }
}

fn node_value(
    graph: &Graph<Tensor>,
    id: ValueId,
    values: &[TensorValue],
    inputs: &BTreeMap<String, TensorValue>,
) -> Result<TensorValue> {
    let node = graph.node(id);
    let operands: Vec<&TensorValue> = node.operands.iter().map(|id| &values[id.index()]).collect();
    if let TensorOp::Input { name } = &node.op {
        let value = inputs.get(name).ok_or_else(|| {
            Diagnostic::new(Code::InputName, format!("the input `{name}` is missing")).at(format!("input `{name}`"))
        })?;
        return fit(name, value, &node.ty);
    }
    check_size(graph, id, &operands).and_then(|()| apply(&node.op, &operands)).map_err(|why| match why {
        Fault::Shape(why) => Diagnostic::new(Code::ShapeMismatch, why),
        Fault::Value(why) => Diagnostic::new(Code::ValueOutOfRange, why),
    })
}

/// Why an operation cannot compute.
enum Fault {
    Shape(String),
    Value(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Shape(why)
    }
}

/// An input against its declared type. Floats convert to each other where nothing is lost on the way onnxruntime's
/// users take (a float64 array for a float32 input), integers convert to floats.
fn fit(name: &str, value: &TensorValue, ty: &TensorType) -> Result<TensorValue> {
    let place = format!("input `{name}`");
    let value = value.cast_input(ty.element).ok_or_else(|| {
        let message = format!("expected {} values, found {}", ty.element.as_str(), value.data.element().as_str());
        Diagnostic::new(Code::ElementTypeMismatch, message).at(place.clone())
    })?;
    if !conforms(&value, ty) {
        let code =
            if value.shape.len() == 2 && ty.columns().is_some() { Code::ColumnCount } else { Code::ShapeMismatch };
        let found: Vec<String> = value.shape.iter().map(usize::to_string).collect();
        return Err(Diagnostic::new(code, format!("expected {ty}, found shape [{}]", found.join(", ")))
            .at(place)
            .help("give one row per prediction and the model's columns, in the order it was trained with"));
    }
    Ok(value)
}

fn apply(op: &TensorOp, x: &[&TensorValue]) -> std::result::Result<TensorValue, Fault> {
    use TensorOp as Op;
    Ok(match (op, x) {
        (Op::Constant { shape, f32, f64, i64, str }, _) => {
            let data = f32.clone().map(Data::F32);
            let data = data.or_else(|| f64.clone().map(Data::F64)).or_else(|| i64.clone().map(Data::I64));
            let data = data.or_else(|| str.clone().map(Data::Str)).unwrap_or(Data::F32(Vec::new()));
            TensorValue { shape: shape.clone(), data }
        }
        (
            Op::TreeEnsemble {
                targets,
                aggregate,
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
            },
            [x],
        ) => {
            let forest = trees::Forest {
                targets: *targets,
                aggregate: *aggregate,
                single: *single,
                base,
                roots,
                feature,
                mode,
                threshold,
                on_true,
                on_false,
                missing_true: missing_true.iter().copied().collect(),
                sets,
                leaf_target,
                leaf_weight,
            };
            forest.evaluate(x)?
        }
        (Op::Linear { outputs, weights, bias }, [x]) => ml::linear(x, *outputs, weights, bias)?,
        (Op::Scaler { offset, scale }, [x]) => ml::scaler(x, offset, scale)?,
        (Op::Normalizer { norm }, [x]) => ml::normalizer(x, *norm)?,
        (Op::Imputer { replaced, values }, [x]) => ml::imputer(x, *replaced, values)?,
        (Op::Binarizer { threshold }, [x]) => ml::binarizer(x, *threshold)?,
        (Op::OneHot { ints, strings, zeros }, [x]) => ml::one_hot(x, ints.as_deref(), strings.as_deref(), *zeros)?,
        (Op::LabelEncoder { .. }, [x]) => ml::label_encoder(op, x)?,
        (Op::PostTransform { kind }, [x]) => ml::post_transform(x, *kind)?,
        (Op::BinaryScores { positive, kind }, [x]) => ml::binary_scores(x, *positive, *kind)?,
        (Op::BinaryLabel { threshold }, [x]) => ml::binary_label(x, *threshold)?,
        (Op::PairVotes { classes }, [x]) => ml::pair_votes(x, *classes)?,
        (Op::PairProbabilities { classes, a, b }, [x]) => ml::pair_probabilities(x, *classes, a, b)?,
        (Op::ZipMap { .. }, [x]) => (*x).clone(),
        (Op::Conv { strides, dilations, pads, group }, [x, w, bias @ ..]) => {
            window::conv(x, w, bias.first().copied(), (strides, dilations, pads), *group)?
        }
        (Op::Pool { kind, window, count_pads }, [x]) => window::pool(x, *kind, &window.window(), *count_pads)?,
        (Op::Pad { pads, value }, [x]) => window::pad(x, pads, *value)?,
        (Op::Unary { kind }, [x]) => elementwise::unary(*kind, x)?,
        (Op::Binary { kind }, [a, b]) => elementwise::binary(*kind, a, b)?,
        (Op::Where {}, [condition, a, b]) => elementwise::choose(condition, a, b)?,
        (Op::Cast { to }, [x]) => x.cast(*to).map_err(Fault::Value)?,
        (Op::Clip { low, high }, [x]) => elementwise::clip(x, *low, *high)?,
        (Op::Reshape { shape }, [x]) => shape::reshape(x, shape)?,
        (Op::Concat { axis }, all) => shape::concat(all, *axis)?,
        (Op::Take { axis, indices }, [x]) => shape::take(x, *axis, indices)?,
        (Op::Transpose { order }, [x]) => shape::transpose(x, order)?,
        (Op::Reduce { kind, axes }, [x]) => shape::reduce(x, *kind, axes)?,
        (Op::Softmax { axis, log }, [x]) => shape::softmax(x, *axis, *log)?,
        (Op::ArgMax { axis, least, last }, [x]) => shape::arg_max(x, *axis, *least, *last)?,
        (Op::GatherRows {}, [x, positions]) => shape::gather_rows(x, positions)?,
        (Op::TopK { axis, count, least, positions }, [x]) => shape::top_k(x, *axis, *count, *least, *positions)?,
        (Op::Tile { repeats }, [x]) => shape::tile(x, repeats)?,
        (Op::Expand { shape }, [x]) => shape::expand(x, shape, None)?,
        (Op::Expand { shape }, [x, like]) => shape::expand(x, shape, Some(like))?,
        (op, _) => {
            return Err(Fault::Shape(format!("`{}` with operands of the wrong number", crate::attr::OpSet::name(op))));
        }
    })
}
