//! One node being converted: operands, constants, attributes, results.

use super::{BATCH_SIZE, Importer};
use onnx_protobuf::NodeProto;
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::graph::{Loc, ValueId};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, TensorOp, TensorType};

/// Why a node is not converted.
pub(super) enum Fail {
    /// Tacit does not support it; the text says what could be done.
    Unsupported(String),
    /// It is wrong.
    Error(Diagnostic),
}

impl Fail {
    pub(super) fn unsupported(why: impl Into<String>) -> Self {
        Fail::Unsupported(why.into())
    }
    pub(super) fn attribute(why: impl Into<String>) -> Self {
        Fail::Error(Diagnostic::new(Code::AttributeInvalid, why.into()))
    }
    pub(super) fn variant(why: impl Into<String>, help: &str) -> Self {
        Fail::Error(Diagnostic::new(Code::VariantUnsupported, why.into()).help(help))
    }
    pub(super) fn type_mismatch(why: impl Into<String>) -> Self {
        Fail::Error(Diagnostic::new(Code::ElementTypeMismatch, why.into()))
    }
    pub(super) fn shape(why: impl Into<String>) -> Self {
        Fail::Error(Diagnostic::new(Code::ShapeMismatch, why.into()))
    }
    /// Says what to do.
    pub(super) fn help(self, help: &str) -> Self {
        match self {
            Fail::Error(why) => Fail::Error(why.help(help)),
            unsupported => unsupported,
        }
    }
}

impl From<Diagnostic> for Fail {
    fn from(why: Diagnostic) -> Self {
        Fail::Error(why)
    }
}

pub(super) type Converted<T> = Result<T, Fail>;

pub(super) struct NodeCx<'i, 'a> {
    pub(super) importer: &'i mut Importer<'a>,
    pub(super) proto: &'a NodeProto,
    pub(super) loc: Loc,
    pub(super) outputs: Vec<ValueId>,
}

impl NodeCx<'_, '_> {
    /// The operand at a position; an error when it is absent.
    pub(super) fn operand(&self, position: usize) -> Converted<ValueId> {
        self.optional(position).ok_or_else(|| Fail::attribute(format!("input {position} is missing")))
    }

    /// The operand at a position, if there is one.
    pub(super) fn optional(&self, position: usize) -> Option<ValueId> {
        let name = self.proto.input.get(position).filter(|name| !name.is_empty())?;
        self.importer.values.get(name.as_str()).copied()
    }

    /// ONNX's element type of an operand, where it is an initializer, an input or a constant.
    pub(super) fn element_code(&self, position: usize) -> Option<i32> {
        self.importer.codes.get(self.proto.input.get(position)?.as_str()).copied()
    }

    /// Whether all that reads the node's first output is a Reshape to this shape.
    pub(super) fn only_reshaped_to(&self, shape: &[i64]) -> bool {
        let graph = self.importer.proto;
        let Some(name) = self.proto.output.first() else { return false };
        let known = |node: &NodeProto| {
            let id = self.importer.values.get(node.input.get(1)?.as_str())?;
            match &self.importer.constants.get(id)?.data {
                Data::I64(values) => Some(values.clone()),
                _ => None,
            }
        };
        let mut readers = graph.node.iter().filter(|node| node.input.contains(name));
        readers.all(|node| node.op_type == "Reshape" && known(node).as_deref() == Some(shape))
            && graph.output.iter().all(|output| output.name != *name)
    }

    /// Whether the node's first output is one of the model's.
    pub(super) fn is_output(&self) -> bool {
        let outputs = &self.importer.proto.output;
        self.proto.output.first().is_some_and(|name| outputs.iter().any(|output| output.name == *name))
    }

    /// Whether an operand holds the number of rows.
    pub(super) fn holds_batch(&self, position: usize) -> bool {
        self.optional(position).is_some_and(|id| self.importer.holds_batch_size(id))
    }

    pub(super) fn operands(&self) -> Converted<Vec<ValueId>> {
        (0..self.proto.input.len()).map(|position| self.operand(position)).collect()
    }

    pub(super) fn ty(&self, id: ValueId) -> &TensorType {
        self.importer.ty(id)
    }

    /// The constant value of an operand, if it is one.
    pub(super) fn constant(&self, id: ValueId) -> Option<&TensorValue> {
        self.importer.constants.get(&id)
    }

    /// Constant integers of an operand that must be known.
    pub(super) fn known_ints(&self, position: usize) -> Converted<Option<Vec<i64>>> {
        let Some(id) = self.optional(position) else { return Ok(None) };
        match self.constant(id).map(|value| &value.data) {
            Some(Data::I64(values)) if values.contains(&BATCH_SIZE) => Err(Fail::unsupported(format!(
                "input {position} depends on the number of rows; use -1 or 0 for the rows, and constants for the rest"
            ))),
            Some(Data::I64(values)) => Ok(Some(values.clone())),
            Some(_) => Err(Fail::attribute(format!("input {position} is not an integer tensor"))),
            None => Err(Fail::unsupported(format!("input {position} must be a constant; fold it before export"))),
        }
    }

    /// As [`Self::known_ints`], for shapes: the number of rows may be among them, as [`BATCH_SIZE`].
    pub(super) fn known_shape(&self, position: usize) -> Converted<Option<Vec<i64>>> {
        match self.optional(position).and_then(|id| self.constant(id)).map(|value| &value.data) {
            Some(Data::I64(values)) => Ok(Some(values.clone())),
            _ => self.known_ints(position),
        }
    }

    /// Integers from an attribute (older opsets) or from a constant input (newer ones).
    pub(super) fn ints_or_input(&self, name: &str, position: usize) -> Converted<Option<Vec<i64>>> {
        match self.ints(name)? {
            Some(values) => Ok(Some(values)),
            None => self.known_ints(position),
        }
    }

    pub(super) fn push(&mut self, op: TensorOp, operands: Vec<ValueId>) -> Converted<ValueId> {
        let loc = self.loc.clone();
        self.importer.push(op, operands, &loc)
    }

    pub(super) fn push_constant(&mut self, value: TensorValue) -> Converted<ValueId> {
        let loc = self.loc.clone();
        Ok(self.importer.constant(value, &loc)?)
    }

    /// An elementwise operation with a constant of the operand's element type.
    pub(super) fn with_constant(&mut self, kind: BinaryKind, id: ValueId, values: &[f64]) -> Converted<ValueId> {
        let shape = if values.len() == 1 { Vec::new() } else { vec![values.len()] };
        let constant = self.numbers(self.ty(id).element, shape, values.to_vec())?;
        self.binary(kind, id, constant)
    }

    /// The value in another element type; itself where it has that one.
    pub(super) fn cast(&mut self, id: ValueId, to: Element) -> Converted<ValueId> {
        if self.ty(id).element == to { Ok(id) } else { self.push(TensorOp::Cast { to }, vec![id]) }
    }

    /// Defines the node's next output.
    pub(super) fn define(&mut self, id: ValueId) {
        self.outputs.push(id);
    }

    /// One operation, one output.
    pub(super) fn single(&mut self, op: TensorOp, operands: Vec<ValueId>) -> Converted<()> {
        let id = self.push(op, operands)?;
        self.define(id);
        Ok(())
    }

    /// A vector of rows as one column; anything else as it is. For positions and labels: models take matrices only, since
    /// onnxruntime reads a vector as one row.
    pub(super) fn as_matrix(&mut self, id: ValueId) -> Converted<ValueId> {
        match self.ty(id).shape.as_slice() {
            [Dim::Batch] => self.push(TensorOp::Reshape { shape: vec![-1, 1] }, vec![id]),
            _ => Ok(id),
        }
    }

    /// Operand 0 as floats `[rows, columns]`: integers and booleans are cast to f32.
    pub(super) fn features(&mut self) -> Converted<ValueId> {
        let id = self.operand(0)?;
        self.columns(id)?;
        self.as_float(id)
    }

    /// The value as floats: integers and booleans are cast to f32.
    pub(super) fn as_float(&mut self, id: ValueId) -> Converted<ValueId> {
        match self.ty(id).element {
            Element::F32 | Element::F64 => Ok(id),
            Element::I64 | Element::Bool => self.push(TensorOp::Cast { to: Element::F32 }, vec![id]),
            Element::Str => Err(Fail::type_mismatch("a numeric operation on strings")
                .help("encode them before it, with OneHotEncoder or LabelEncoder")),
        }
    }

    /// Columns of a `[rows, columns]` value.
    pub(super) fn columns(&self, id: ValueId) -> Converted<usize> {
        let ty = self.ty(id);
        let wrong = || Fail::shape(format!("expected [rows, columns], found {ty}"));
        ty.columns().ok_or_else(|| {
            wrong().help(
                "keep the rows as the first axis and the columns as the second: reshape or transpose before this node",
            )
        })
    }

    /// An axis attribute, counted from the end when negative.
    pub(super) fn axis(&self, axis: i64, id: ValueId) -> Converted<usize> {
        let rank = self.ty(id).shape.len() as i64;
        let positive = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&positive) {
            Ok(positive as usize)
        } else {
            Err(Fail::attribute(format!("axis {axis} of a tensor of rank {rank}")))
        }
    }

    /// Class labels at positions `[rows, 1]`, as `[rows]`.
    pub(super) fn labels(&mut self, positions: ValueId, labels: &Labels) -> Converted<ValueId> {
        let data = match labels {
            Labels::Ints(values) => Data::I64(values.clone()),
            Labels::Strings(values) => Data::Str(values.clone()),
        };
        let table = self.push_constant(TensorValue { shape: vec![1, data.len()], data })?;
        let picked = self.push(TensorOp::GatherRows {}, vec![table, positions])?;
        self.push(TensorOp::Reshape { shape: vec![-1] }, vec![picked])
    }
}

/// Class labels of a classifier.
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Ints(values) => values.len(),
            Labels::Strings(values) => values.len(),
        }
    }

    /// The labels at these positions.
    pub(super) fn pick(&self, positions: &[usize]) -> Labels {
        match self {
            Labels::Ints(values) => Labels::Ints(positions.iter().filter_map(|&at| values.get(at).copied()).collect()),
            Labels::Strings(values) => {
                Labels::Strings(positions.iter().filter_map(|&at| values.get(at).cloned()).collect())
            }
        }
    }
}

/// All weights finite.
pub(super) fn finite(what: &str, values: &[f64]) -> Converted<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Fail::Error(
            Diagnostic::new(Code::WeightNotFinite, format!("{what} {at} is {}", values[at]))
                .help("a trained model has finite weights; train or export it again"),
        )),
    }
}
