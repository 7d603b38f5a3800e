//! `encrypt-head`: a model that gives labels and positions, but no scores.
//!
//! Does nothing unless the option of that name is set. Outputs from which scores can be read are left out, and what does not
//! change the order of values is taken off before the position of a greatest one: `arg_max(softmax(x)) = arg_max(x)`. The
//! split then encrypts the heads that are left.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use crate::roles::{is_head, scores};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{Element, PostTransform, Tensor, TensorOp, UnaryKind};

pub(super) static INFO: PassInfo = PassInfo {
    name: "encrypt-head",
    summary: "with the option encrypt-head, leave nothing to the client but labels and positions",
    from: &[StageName::Tensor],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Tensor(graph) = ir else { return Ok(ir) };
    if !cx.options.encrypt_head {
        return Ok(Ir::Tensor(graph));
    }
    let scores = scores(&graph);
    let heads: Vec<ValueId> = graph.values().filter(|id| reads_scores(&graph, *id, &scores)).collect();
    let shown: Vec<&str> =
        graph.outputs().iter().filter(|(_, id)| scores[id.index()]).map(|(name, _)| name.as_str()).collect();
    if heads.is_empty() || shown.len() == graph.outputs().len() {
        return Err(Diagnostic::new(
            Code::OptionInvalid,
            "encrypt-head: no output is a label, a position or a comparison of encrypted scores",
        )
        .help("end the model in ArgMax or TopK of its scores, or compile without --encrypt-head"));
    }
    for name in &shown {
        cx.note(format!("the output `{name}` is left out: scores can be read from it"));
    }
    cx.count("outputs left out", shown.len() as u64);
    let mut monotone = 0;
    let kept: Vec<(String, ValueId)> = graph.outputs().iter().filter(|(_, id)| !scores[id.index()]).cloned().collect();
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.len());
    let mut new = Graph::<Tensor>::new(graph.name());
    for id in graph.values() {
        let node = graph.node(id);
        let mut operands = node.operands.clone();
        if let Some(axis) = order_alone(&node.op) {
            while let Some(inner) = below_order(&graph, operands[0], axis) {
                operands[0] = inner;
                monotone += 1;
            }
        }
        let operands = operands.iter().map(|operand| map[operand.index()]).collect();
        let copied = new.push(node.op.clone(), operands, Some(node.ty.clone()), graph.loc(id).clone());
        map.push(copied.map_err(|why| ill_typed(&why))?);
    }
    for (name, id) in kept {
        new.output(name, map[id.index()]);
    }
    cx.count("monotone operations taken off", monotone);
    // What only the left out outputs needed.
    let live = new.rewrite(|new, _, node, operands, loc| {
        new.push(node.op.clone(), operands, Some(node.ty.clone()), loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    Ok(Ir::Tensor(live))
}

fn reads_scores(graph: &Graph<Tensor>, id: ValueId, scores: &[bool]) -> bool {
    let node = graph.node(id);
    is_head(&node.op) && node.operands.iter().any(|operand| scores[operand.index()])
}

/// The axis along which only the order of an operation's operand matters.
fn order_alone(op: &TensorOp) -> Option<usize> {
    match op {
        TensorOp::ArgMax { axis, .. } | TensorOp::TopK { axis, positions: true, .. } => Some(*axis),
        _ => None,
    }
}

/// The operand of an increasing function that keeps the order along an axis.
fn below_order(graph: &Graph<Tensor>, id: ValueId, axis: usize) -> Option<ValueId> {
    use UnaryKind as U;
    let node = graph.node(id);
    let [operand] = node.operands.as_slice() else { return None };
    let rank = node.ty.shape.len();
    let keeps = match &node.op {
        TensorOp::Softmax { axis: own, log: _ } => *own == axis,
        TensorOp::PostTransform { kind: PostTransform::Softmax } => axis + 1 == rank,
        TensorOp::PostTransform { kind: PostTransform::None | PostTransform::Logistic } => true,
        TensorOp::Unary { kind } => {
            matches!(
                kind,
                U::Exp | U::Log | U::Sqrt | U::Sigmoid | U::Tanh | U::Erf | U::Softplus | U::Atan | U::Asinh | U::Sinh
            )
        }
        TensorOp::Cast { to: Element::F32 | Element::F64 } => {
            matches!(graph.node(*operand).ty.element, Element::F32 | Element::F64)
        }
        TensorOp::ZipMap { .. } => true,
        _ => false,
    };
    keeps.then_some(*operand)
}
