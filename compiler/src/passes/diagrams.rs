//! What passes over diagrams share: applying a rewrite to every diagram of a graph.

use super::{Ir, PassCx};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::diagram::Diagram;
use tacit_ir::graph::{Graph, Stage, ValueId};
use tacit_ir::stage::circuit::{CircuitOp, most_log2_delta};
use tacit_ir::stage::quant::QuantOp;

/// Rewrites every diagram of the quant or the circuit stage.
pub(crate) fn each_diagram(
    ir: Ir,
    cx: &mut PassCx<'_>,
    mut rewrite: impl FnMut(&Diagram, &mut PassCx<'_>) -> Result<Diagram>,
) -> Result<Ir> {
    match ir {
        Ir::Tensor(graph) => Ok(Ir::Tensor(graph)),
        Ir::Quant(graph) => rebuild_ops(&graph, |_, _, op| match op {
            QuantOp::Trees { diagram } => Ok(QuantOp::Trees { diagram: rewrite(diagram, cx)? }),
            other => Ok(other.clone()),
        })
        .map(Ir::Quant),
        Ir::Circuit(graph) => rebuild_ops(&graph, |_, id, op| match op {
            CircuitOp::Decide { log2_delta, diagram } => {
                let new = rewrite(diagram, cx)?;
                let fits = most_log2_delta(&new.ranges()).unwrap_or(0);
                if *log2_delta <= fits {
                    return Ok(CircuitOp::Decide { log2_delta: *log2_delta, diagram: new });
                }
                // The values are what they were, but their bounds, sums of those of nodes, have become looser. A network
                // reads sums in its own unit, so that the diagram stays; a client is told the unit.
                let extracted = |node: ValueId| {
                    let node = graph.node(node);
                    matches!(node.op, CircuitOp::SampleExtract { .. }) && node.operands.contains(&id)
                };
                Ok(match graph.values().any(extracted) {
                    true => op.clone(),
                    false => CircuitOp::Decide { log2_delta: fits, diagram: new },
                })
            }
            other => Ok(other.clone()),
        })
        .map(Ir::Circuit),
    }
}

/// Copies a graph, each operation through `rewrite`; types are derived anew.
pub(crate) fn rebuild_ops<S: Stage>(
    graph: &Graph<S>,
    mut rewrite: impl FnMut(&Graph<S>, ValueId, &S::Op) -> Result<S::Op>,
) -> Result<Graph<S>> {
    graph.rewrite(|new, id, node, operands, loc| {
        let op = rewrite(new, id, &node.op)?;
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })
}

/// A pass made an ill-typed operation: a bug of ours.
pub(crate) fn ill_typed(why: &str) -> Diagnostic {
    Diagnostic::internal(format!("a pass made an ill-typed operation: {why}"))
}
