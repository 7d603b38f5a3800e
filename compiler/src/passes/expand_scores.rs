//! `expand-scores`: the scores of classifiers that are encrypted, in operations that networks have.
//!
//! A classifier in the middle of a model (the first level of a stack) has its transform in the encrypted part. The logistic of
//! -s is 1 less that of s, so that both scores of two classes take one table; what adds up to 1 needs no norm. PROBIT, SOFTMAX_ZERO
//! and libsvm's coupling stay as they are, and are refused later. So does the norm that is a greatest value: its sign is open.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use tacit_ir::diag::Result;
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::stage::tensor::{BinaryKind, Element, Norm, PostTransform, ReduceKind, Tensor, TensorOp, UnaryKind};

pub(super) static INFO: PassInfo = PassInfo {
    name: "expand-scores",
    summary: "write transforms and norms of encrypted scores as Sigmoid, Softmax, quotients and linear maps",
    from: &[StageName::Tensor],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Tensor(graph) = ir else { return Ok(ir) };
    let mut expanded = 0;
    let graph = graph.rewrite(|new, _, node, operands, loc| {
        let found = match (&node.op, operands.as_slice()) {
            (TensorOp::PostTransform { kind }, [x]) => transform(new, *kind, *x, loc),
            (TensorOp::BinaryScores { positive, kind }, [x]) => both_scores(new, *positive, *kind, *x, loc),
            (TensorOp::Normalizer { norm: Norm::L1 }, [x]) if adds_to_one(&graph, node.operands[0]) => Some(Ok(*x)),
            (TensorOp::Normalizer { norm }, [x]) => normalized(new, *norm, *x, loc),
            (TensorOp::ZipMap { .. }, [x]) => Some(Ok(*x)),
            _ => None,
        };
        let unchanged =
            |new: &mut Graph<Tensor>| new.push(node.op.clone(), operands, Some(node.ty.clone()), loc.clone());
        expanded += u64::from(found.is_some());
        found.unwrap_or_else(|| unchanged(new)).map_err(|why| ill_typed(&why))
    })?;
    cx.count("transforms of scores", expanded);
    Ok(Ir::Tensor(graph))
}

/// The value in place of an operation; `None` where that stays.
type Expanded = Option<std::result::Result<ValueId, String>>;

/// Under any norm that is no rounding error of zero.
const LEAST_NORM: f64 = 1e-30;

/// Transforms are of 32-bit floats, whatever the scores.
fn transform(new: &mut Graph<Tensor>, kind: PostTransform, x: ValueId, loc: &Loc) -> Expanded {
    let op = match kind {
        PostTransform::None => return Some(single(new, x, loc)),
        PostTransform::Logistic => TensorOp::Unary { kind: UnaryKind::Sigmoid },
        PostTransform::Softmax => TensorOp::Softmax { axis: 1, log: false },
        PostTransform::SoftmaxZero | PostTransform::Probit => return None,
    };
    Some(single(new, x, loc).and_then(|x| new.push(op, vec![x], None, loc.clone())))
}

fn both_scores(new: &mut Graph<Tensor>, positive: bool, kind: PostTransform, x: ValueId, loc: &Loc) -> Expanded {
    let logistic = kind == PostTransform::Logistic;
    // As onnxruntime has it, no other transform is done of one score.
    let score = transform(new, if logistic { kind } else { PostTransform::None }, x, loc)?;
    let first = if positive || logistic { 1.0 } else { 0.0 };
    let both = TensorOp::Linear { outputs: 2, weights: vec![-1.0, 1.0], bias: vec![first, 0.0] };
    Some(score.and_then(|score| new.push(both, vec![score], None, loc.clone())))
}

/// Whether the elements of each row are at least 0 and their sum is 1.
fn adds_to_one(graph: &Graph<Tensor>, id: ValueId) -> bool {
    match &graph.node(id).op {
        TensorOp::PostTransform { kind: PostTransform::Softmax } => true,
        TensorOp::BinaryScores { kind: PostTransform::Logistic, .. } => true,
        TensorOp::Softmax { axis, log: false } => *axis == 1 && graph.node(id).ty.shape.len() == 2,
        _ => false,
    }
}

/// Rows of nothing but zeros stay so: no norm is less than [`LEAST_NORM`].
fn normalized(new: &mut Graph<Tensor>, norm: Norm, x: ValueId, loc: &Loc) -> Expanded {
    let kind = match norm {
        Norm::L1 => ReduceKind::L1,
        Norm::L2 => ReduceKind::L2,
        Norm::Max => return None,
    };
    Some(single(new, x, loc).and_then(|x| {
        let mut push = |op, operands| new.push(op, operands, None, loc.clone());
        let norm = push(TensorOp::Reduce { kind, axes: vec![1] }, vec![x])?;
        let norm = push(TensorOp::Clip { low: Some(LEAST_NORM), high: None }, vec![norm])?;
        push(TensorOp::Binary { kind: BinaryKind::Div }, vec![x, norm])
    }))
}

fn single(new: &mut Graph<Tensor>, x: ValueId, loc: &Loc) -> std::result::Result<ValueId, String> {
    if new.node(x).ty.element == Element::F32 {
        return Ok(x);
    }
    new.push(TensorOp::Cast { to: Element::F32 }, vec![x], None, loc.clone())
}
