//! Who computes what: the head on the client, the body encrypted on the server, the tail on the client.

use crate::copier::Copier;
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{BinaryKind, Tensor, TensorOp};

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

/// Whether a value is of an operation that is encrypted for its own sake.
pub(crate) fn is_model(graph: &Graph<Tensor>, id: ValueId) -> bool {
    let constant = |id: &ValueId| matches!(graph.node(*id).op, TensorOp::Constant { .. });
    matches!(graph.node(id).op, TensorOp::TreeEnsemble { .. } | TensorOp::Linear { .. } | TensorOp::Conv { .. })
        && !graph.node(id).operands.iter().all(constant)
}

/// Whether an operation gives away no more than an order of its operand's values: positions, labels, comparisons.
pub(crate) fn is_head(op: &TensorOp) -> bool {
    use BinaryKind::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    matches!(
        op,
        TensorOp::ArgMax { .. }
            | TensorOp::TopK { .. }
            | TensorOp::BinaryLabel { .. }
            | TensorOp::Binary { kind: Equal | Greater | GreaterOrEqual | Less | LessOrEqual }
    )
}

/// For each value, whether scores can be read from it: it depends on an encrypted operation, and not through heads alone.
pub(crate) fn scores(graph: &Graph<Tensor>) -> Vec<bool> {
    let mut scores = vec![false; graph.len()];
    for id in graph.values() {
        let node = graph.node(id);
        let from_scores = node.operands.iter().any(|operand| scores[operand.index()]);
        scores[id.index()] = is_model(graph, id) || from_scores && !is_head(&node.op);
    }
    scores
}

/// What the model has instead of operations with weights.
fn nothing_to_encrypt(graph: &Graph<Tensor>) -> Diagnostic {
    let mut why = Diagnostic::new(
        Code::NothingToEncrypt,
        "the model has no tree ensemble, no linear map and no convolution",
    )
    .help(
        "give the whole model, with its estimator: only operations with weights, and those between them, run encrypted",
    );
    let computed = |id: &ValueId| !matches!(graph.node(*id).op, TensorOp::Input { .. } | TensorOp::Constant { .. });
    let mut places: Vec<String> = graph.values().filter(computed).map(|id| graph.loc(id).to_string()).collect();
    places.dedup();
    why.notes = places.iter().take(10).map(|place| format!("{place} would run on the client, in clear")).collect();
    if places.len() > 10 {
        why.notes.push(format!("and {} more", places.len() - 10));
    }
    let constant = |id: ValueId| matches!(graph.node(id).op, TensorOp::Constant { .. });
    for (name, _) in graph.outputs().iter().filter(|(_, id)| constant(*id)) {
        why.notes.push(format!("the output \"{name}\" is the same for all inputs"));
    }
    why
}

/// Splits a model; with `encrypt_head` the heads that read scores are encrypted too.
///
/// # Errors
/// [`Code::NothingToEncrypt`]; [`Code::NeedsBootstrapping`] where trees read the output of other trees.
pub fn split(graph: &Graph<Tensor>, encrypt_head: bool) -> Result<Roles> {
    let models: Vec<ValueId> = graph.values().filter(|&id| is_model(graph, id)).collect();
    if models.is_empty() {
        return Err(nothing_to_encrypt(graph));
    }
    // For each value, the model operations above it that would be encrypted.
    let mut encrypted: Vec<bool> = vec![false; graph.len()];
    for &id in &models {
        encrypted[id.index()] = true;
    }
    let mut clear_maps = Vec::new();
    for &id in models.iter().rev() {
        let trees = |id: ValueId| matches!(graph.node(id).op, TensorOp::TreeEnsemble { .. });
        for above in ancestors(graph, id) {
            if !encrypted[above.index()] {
                continue;
            }
            if trees(above) && trees(id) {
                return Err(Diagnostic::new(
                    Code::NeedsBootstrapping,
                    format!("trees that read the encrypted output of other trees, {}", graph.loc(above)),
                )
                .at(graph.loc(id).to_string())
                .help(format!(
                    "make {} an output of the model, end it there, and compute what follows from the decrypted result",
                    graph.loc(above)
                )));
            }
            if trees(id) {
                // A projection before trees (PCA) is preprocessing.
                encrypted[above.index()] = false;
                clear_maps.push(graph.loc(above).to_string());
            }
        }
    }
    if encrypt_head {
        let scores = scores(graph);
        for id in graph.values().filter(|id| is_head(&graph.node(*id).op)) {
            encrypted[id.index()] |= graph.node(id).operands.iter().any(|operand| scores[operand.index()]);
        }
    }
    // What lies between encrypted operations is encrypted too.
    let mut below = encrypted.clone();
    for id in graph.values() {
        below[id.index()] |= graph.node(id).operands.iter().any(|o| below[o.index()]);
    }
    let mut above = encrypted.clone();
    for id in graph.values().rev() {
        if above[id.index()] {
            graph.node(id).operands.iter().for_each(|operand| above[operand.index()] = true);
        }
    }
    for id in graph.values() {
        encrypted[id.index()] |= below[id.index()] && above[id.index()];
    }
    // In the tail: whatever else depends on an encrypted value.
    let in_tail: Vec<bool> = graph.values().map(|id| below[id.index()] && !encrypted[id.index()]).collect();
    let mut head = Copier::new(graph, "head");
    let mut tail = Copier::new(graph, "tail");
    let mut body = Copier::new(graph, graph.name());

    let constant = |id: ValueId| matches!(graph.node(id).op, TensorOp::Constant { .. });
    let mut head_names: BTreeMap<ValueId, String> = BTreeMap::new();
    for id in graph.values().filter(|id| encrypted[id.index()]) {
        for &operand in &graph.node(id).operands {
            if !encrypted[operand.index()] && !constant(operand) && !head_names.contains_key(&operand) {
                let name = format!("head_{}", head_names.len());
                body.provide(operand, TensorOp::Input { name: name.clone() })?;
                head_names.insert(operand, name);
            }
        }
    }
    let mut outputs = 0;
    for id in graph.values().filter(|id| encrypted[id.index()]) {
        let value = body.copy(id)?;
        let read = graph.values().any(|reader| in_tail[reader.index()] && graph.node(reader).operands.contains(&id));
        if read || graph.outputs().iter().any(|(_, output)| *output == id) {
            let name = format!("enc_{outputs}");
            outputs += 1;
            body.new.output(name.clone(), value);
            tail.provide(id, TensorOp::Input { name })?;
        }
    }
    let mut passed: BTreeMap<ValueId, String> = BTreeMap::new();
    let tail_reads = graph
        .values()
        .filter(|id| in_tail[id.index()])
        .flat_map(|id| graph.node(id).operands.iter().copied())
        .chain(graph.outputs().iter().map(|(_, id)| *id));
    for id in tail_reads {
        if !in_tail[id.index()] && !encrypted[id.index()] && !constant(id) && !passed.contains_key(&id) {
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
    Ok(Roles { head: head.new, body: body.new, tail: tail.new, clear_maps })
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
