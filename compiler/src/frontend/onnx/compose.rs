//! Shorthand for operations that are compositions of others.

use super::node::{Converted, Fail, NodeCx};
use super::shape::shape_codes;
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, ReduceKind, TensorOp, UnaryKind};

impl NodeCx<'_, '_> {
    pub(super) fn unary(&mut self, kind: UnaryKind, x: ValueId) -> Converted<ValueId> {
        self.push(TensorOp::Unary { kind }, vec![x])
    }

    pub(super) fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> Converted<ValueId> {
        self.push(TensorOp::Binary { kind }, vec![a, b])
    }

    pub(super) fn reduce(&mut self, kind: ReduceKind, axes: &[usize], x: ValueId) -> Converted<ValueId> {
        self.push(TensorOp::Reduce { kind, axes: axes.to_vec() }, vec![x])
    }

    /// -1 is the batch, or a dimension that follows from the others.
    pub(super) fn reshape(&mut self, x: ValueId, shape: Vec<i64>) -> Converted<ValueId> {
        if shape_codes(self, x) == shape { Ok(x) } else { self.push(TensorOp::Reshape { shape }, vec![x]) }
    }

    pub(super) fn transpose(&mut self, x: ValueId, order: Vec<usize>) -> Converted<ValueId> {
        if order.iter().copied().eq(0..order.len()) { Ok(x) } else { self.push(TensorOp::Transpose { order }, vec![x]) }
    }

    pub(super) fn take(&mut self, x: ValueId, axis: usize, indices: Vec<usize>) -> Converted<ValueId> {
        self.push(TensorOp::Take { axis, indices }, vec![x])
    }

    /// Numbers of an element type.
    pub(super) fn numbers(&mut self, element: Element, shape: Vec<usize>, values: Vec<f64>) -> Converted<ValueId> {
        self.push_constant(TensorValue { shape, data: Data::of_numbers(element, values) })
    }

    /// The size of an axis that is not the batch.
    pub(super) fn size(&self, x: ValueId, axis: usize) -> Converted<usize> {
        match self.ty(x).shape.get(axis) {
            Some(Dim::Fixed(size)) => Ok(*size),
            _ => Err(Fail::unsupported(
                "an operation along the rows; a model must treat every row alike: use another axis",
            )),
        }
    }

    /// Values of an operand that must be constant.
    pub(super) fn known(&self, position: usize, what: &str) -> Converted<Option<TensorValue>> {
        let Some(id) = self.optional(position) else { return Ok(None) };
        let value = self.constant(id).cloned();
        value.map(Some).ok_or_else(|| Fail::unsupported(format!("a computed {what}; use a constant one")))
    }

    /// A vector of constants as `[n, 1, 1]`, so that it broadcasts along this axis of a tensor; a scalar as it is.
    pub(super) fn along_axis(&mut self, vector: ValueId, axis: usize, rank: usize) -> Converted<ValueId> {
        match self.ty(vector).shape.as_slice() {
            [Dim::Fixed(1)] => self.reshape(vector, Vec::new()),
            [Dim::Fixed(count)] => {
                let shape = [*count as i64].into_iter().chain(std::iter::repeat_n(1, rank - 1 - axis)).collect();
                self.reshape(vector, shape)
            }
            _ => Ok(vector),
        }
    }
}
