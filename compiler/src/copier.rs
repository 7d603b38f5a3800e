//! Copying a part of a float graph, with inputs in the place of what is not copied.

use std::collections::BTreeMap;
use tacit_ir::attr::OpSet;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{Tensor, TensorOp, TensorType};

/// Copies the part of a graph that a value needs.
pub(crate) struct Copier<'a> {
    old: &'a Graph<Tensor>,
    pub(crate) new: Graph<Tensor>,
    map: BTreeMap<ValueId, ValueId>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(old: &'a Graph<Tensor>, name: &str) -> Self {
        Copier { old, new: Graph::new(name), map: BTreeMap::new() }
    }

    /// Puts an input in a value's place.
    pub(crate) fn provide(&mut self, id: ValueId, input: TensorOp) -> Result<()> {
        let ty = self.old.node(id).ty.clone();
        self.provide_as(id, input, ty)
    }

    /// Puts an input of another type in a value's place.
    pub(crate) fn provide_as(&mut self, id: ValueId, input: TensorOp, ty: TensorType) -> Result<()> {
        let new = self.new.push(input, vec![], Some(ty), self.old.loc(id).clone()).map_err(Diagnostic::internal)?;
        self.map.insert(id, new);
        Ok(())
    }

    /// Copies a value and what it depends on, down to the inputs provided.
    pub(crate) fn copy(&mut self, id: ValueId) -> Result<ValueId> {
        let mut needed: Vec<ValueId> = Vec::new();
        let mut stack = vec![id];
        while let Some(next) = stack.pop() {
            if !self.map.contains_key(&next) && !needed.contains(&next) {
                needed.push(next);
                stack.extend(&self.old.node(next).operands);
            }
        }
        needed.sort();
        for next in needed {
            let node = self.old.node(next);
            let operands: Vec<ValueId> =
                node.operands.iter().filter_map(|operand| self.map.get(operand).copied()).collect();
            let new = self
                .new
                .push(node.op.clone(), operands, Some(node.ty.clone()), self.old.loc(next).clone())
                .map_err(|why| Diagnostic::internal(format!("copying {}: {why}", node.op.name())))?;
            self.map.insert(next, new);
        }
        Ok(self.map[&id])
    }
}
