//! Who computes what: the head on the client, the body encrypted on the server, the tail on the client.

use std::collections::BTreeMap;
use tacit_ir::attr::OpSet;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{Tensor, TensorOp};

/// A model split by role. Values cross by name: `head_<n>` into the body, `enc_<n>` out of it, `pass_<n>` around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Roles {
    /// From the model's inputs to the encrypted operations' operands, in clear.
    pub head: Graph<Tensor>,
    /// The encrypted operations alone.
    pub body: Graph<Tensor>,
    /// From decrypted values to the model's outputs, in clear.
    pub tail: Graph<Tensor>,
    /// Linear maps that run in the head, in clear, because what follows them is not linear.
    pub clear_maps: Vec<String>,
}

fn is_model(graph: &Graph<Tensor>, id: ValueId) -> bool {
    let constant = |id: &ValueId| matches!(graph.node(*id).op, TensorOp::Constant { .. });
    matches!(graph.node(id).op, TensorOp::TreeEnsemble { .. } | TensorOp::Linear { .. })
        && !graph.node(id).operands.iter().all(constant)
}

/// Splits a model.
///
/// # Errors
/// [`Code::NothingToEncrypt`]; [`Code::NeedsBootstrapping`] where a model operation reads the nonlinear output of another.
pub fn split(graph: &Graph<Tensor>) -> Result<Roles> {
    let models: Vec<ValueId> = graph.values().filter(|&id| is_model(graph, id)).collect();
    if models.is_empty() {
        return Err(Diagnostic::new(Code::NothingToEncrypt, "the model has no tree ensemble and no linear map")
            .help("Tacit encrypts tree ensembles, linear models and linear support vector machines"));
    }
    // For each value, the model operations above it that would be encrypted.
    let mut encrypted: Vec<bool> = vec![false; graph.len()];
    for &id in &models {
        encrypted[id.index()] = true;
    }
    let mut clear_maps = Vec::new();
    for &id in models.iter().rev() {
        let trees = matches!(graph.node(id).op, TensorOp::TreeEnsemble { .. });
        for above in ancestors(graph, id) {
            if !encrypted[above.index()] {
                continue;
            }
            if trees && matches!(graph.node(above).op, TensorOp::Linear { .. }) {
                // A projection before trees (PCA) is preprocessing.
                encrypted[above.index()] = false;
                clear_maps.push(graph.loc(above).to_string());
            } else {
                return Err(Diagnostic::new(
                    Code::NeedsBootstrapping,
                    format!("it reads, after a nonlinear step, the encrypted output of {}", graph.loc(above)),
                )
                .at(graph.loc(id).to_string())
                .help("layers behind a nonlinear one need bootstrapping, which this Tacit does not have yet"));
            }
        }
    }
    let chosen: Vec<ValueId> = models.into_iter().filter(|id| encrypted[id.index()]).collect();
    // In the tail: whatever depends on an encrypted value.
    let mut in_tail = vec![false; graph.len()];
    for id in graph.values() {
        in_tail[id.index()] = graph.node(id).operands.iter().any(|o| in_tail[o.index()] || encrypted[o.index()]);
    }
    let mut head = Copier::new(graph, "head");
    let mut tail = Copier::new(graph, "tail");
    let mut body = Graph::<Tensor>::new(graph.name());
    let internal = |why: String| Diagnostic::internal(format!("splitting roles: {why}"));

    let mut head_names: BTreeMap<ValueId, String> = BTreeMap::new();
    for (number, &id) in chosen.iter().enumerate() {
        let operand = graph.node(id).operands[0];
        let next = format!("head_{}", head_names.len());
        let name = head_names.entry(operand).or_insert(next).clone();
        let ty = graph.node(operand).ty.clone();
        let input =
            body.push(TensorOp::Input { name }, vec![], Some(ty), graph.loc(operand).clone()).map_err(internal)?;
        let node = graph.node(id);
        let value = body.push(node.op.clone(), vec![input], None, graph.loc(id).clone()).map_err(internal)?;
        body.output(format!("enc_{number}"), value);
        let input = TensorOp::Input { name: format!("enc_{number}") };
        tail.provide(id, input)?;
    }
    let mut passed: BTreeMap<ValueId, String> = BTreeMap::new();
    let tail_reads = graph
        .values()
        .filter(|id| in_tail[id.index()])
        .flat_map(|id| graph.node(id).operands.iter().copied())
        .chain(graph.outputs().iter().map(|(_, id)| *id));
    for id in tail_reads {
        let constant = matches!(graph.node(id).op, TensorOp::Constant { .. });
        if !in_tail[id.index()] && !encrypted[id.index()] && !constant && !passed.contains_key(&id) {
            let name = format!("pass_{}", passed.len());
            tail.provide(id, TensorOp::Input { name: name.clone() })?;
            passed.insert(id, name);
        }
    }
    for (name, id) in graph.outputs() {
        let value = tail.copy(*id)?;
        tail.new.output(name.clone(), value);
    }
    for (id, name) in head_names.iter().chain(&passed) {
        let value = head.copy(*id)?;
        head.new.output(name.clone(), value);
    }
    // Inputs that nothing reads are still inputs of the model.
    for id in graph.values() {
        if matches!(graph.node(id).op, TensorOp::Input { .. }) {
            head.copy(id)?;
        }
    }
    clear_maps.sort();
    Ok(Roles { head: head.new, body, tail: tail.new, clear_maps })
}

fn ancestors(graph: &Graph<Tensor>, id: ValueId) -> Vec<ValueId> {
    let mut seen = vec![false; graph.len()];
    let mut stack = graph.node(id).operands.clone();
    let mut found = Vec::new();
    while let Some(next) = stack.pop() {
        if !std::mem::replace(&mut seen[next.index()], true) {
            found.push(next);
            stack.extend(&graph.node(next).operands);
        }
    }
    found.sort();
    found
}

/// Copies the part of a graph that a value needs.
struct Copier<'a> {
    old: &'a Graph<Tensor>,
    new: Graph<Tensor>,
    map: BTreeMap<ValueId, ValueId>,
}

impl<'a> Copier<'a> {
    fn new(old: &'a Graph<Tensor>, name: &str) -> Self {
        Copier { old, new: Graph::new(name), map: BTreeMap::new() }
    }

    /// Puts an input in a value's place.
    fn provide(&mut self, id: ValueId, input: TensorOp) -> Result<()> {
        let ty = self.old.node(id).ty.clone();
        let new = self.new.push(input, vec![], Some(ty), self.old.loc(id).clone()).map_err(Diagnostic::internal)?;
        self.map.insert(id, new);
        Ok(())
    }

    fn copy(&mut self, id: ValueId) -> Result<ValueId> {
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
