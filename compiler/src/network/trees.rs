//! Tree ensembles inside a network: their outputs are inputs of it that come from decision diagrams instead of the client.

use super::calibrate::inputs;
use crate::copier::Copier;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tacit_ir::diag::Result;
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::stage::tensor::{Aggregate, Mode, Tensor, TensorOp};

/// The tree ensembles of a graph, in its order.
pub(crate) fn all(graph: &Graph<Tensor>) -> impl Iterator<Item = ValueId> {
    graph.values().filter(|id| matches!(graph.node(*id).op, TensorOp::TreeEnsemble { .. }))
}

/// The name that the outputs of a tree ensemble have among calibration rows: no head value is called so.
pub(crate) fn name(graph: &Graph<Tensor>, id: ValueId) -> String {
    format!("trees {}", all(graph).position(|at| at == id).unwrap_or_default())
}

/// Whether tree ensembles alone read a value.
pub(crate) fn only_read(graph: &Graph<Tensor>, id: ValueId) -> bool {
    let mut readers = graph.values().map(|at| graph.node(at)).filter(|node| node.operands.contains(&id));
    readers.all(|node| matches!(node.op, TensorOp::TreeEnsemble { .. }))
}

/// Calibration rows, with the outputs of a network's tree ensembles on them.
///
/// # Errors
/// Those of evaluating trees.
pub(super) fn with_outputs<'a>(
    body: &Graph<Tensor>,
    rows: &'a BTreeMap<String, Vec<Vec<f64>>>,
) -> Result<Cow<'a, BTreeMap<String, Vec<Vec<f64>>>>> {
    let mut rows = Cow::Borrowed(rows);
    for id in all(body).filter(|_| !rows.is_empty()).collect::<Vec<_>>() {
        let mut part = Copier::new(body, "trees");
        let value = part.copy(id)?;
        let mut part = part.new;
        part.output("y", value);
        let found = evaluate(&part, &inputs(&part, &rows, usize::MAX)?)?;
        let outputs = found.get("y").and_then(TensorValue::to_rows).unwrap_or_default();
        rows.to_mut().insert(name(body, id), outputs);
    }
    Ok(rows)
}

/// Sound bounds of every output of an ensemble: the sums of its trees' least and greatest leaves.
pub(crate) fn bounds(op: &TensorOp) -> Vec<(f64, f64)> {
    let TensorOp::TreeEnsemble {
        targets,
        aggregate,
        base,
        roots,
        mode,
        on_true,
        on_false,
        leaf_target,
        leaf_weight,
        ..
    } = op
    else {
        return Vec::new();
    };
    let factor = if *aggregate == Aggregate::Average { 1.0 / roots.len().max(1) as f64 } else { 1.0 };
    let mut bounds: Vec<(f64, f64)> =
        (0..*targets).map(|at| base.get(at).copied().unwrap_or(0.0)).map(|base| (base, base)).collect();
    // Trees follow each other in the normal form, so a tree is the nodes from its root to the next.
    for (position, &root) in roots.iter().enumerate() {
        let end = roots.get(position + 1).copied().filter(|&next| next > root).unwrap_or(mode.len());
        let mut own = vec![(f64::INFINITY, f64::NEG_INFINITY); *targets];
        for leaf in (root..end).filter(|&node| mode[node] == Mode::Leaf) {
            let mut weights = vec![0.0; *targets];
            for at in on_true[leaf]..on_false[leaf] {
                weights[leaf_target[at]] += leaf_weight[at] * factor;
            }
            for (own, weight) in own.iter_mut().zip(weights) {
                *own = (own.0.min(weight), own.1.max(weight));
            }
        }
        for (sum, own) in bounds.iter_mut().zip(own) {
            *sum = (sum.0 + own.0, sum.1 + own.1);
        }
    }
    bounds
}
