//! `fuse-linear`: chains of linear maps and constant sums and products become one `linear`.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use tacit_ir::diag::Result;
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{BinaryKind, Tensor, TensorOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "fuse-linear",
    summary: "compose linear maps with each other and with constant sums and products",
    from: &[StageName::Tensor],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Tensor(graph) = ir else { return Ok(ir) };
    let uses = graph.use_counts();
    let mut fused = 0;
    let graph = graph.rewrite(|new, id, node, operands, loc| {
        // A linear map with other users is kept: they need its own value.
        let alone = node.operands.iter().all(|operand| uses[operand.index()] == 1 || is_constant(&graph, *operand));
        let replaced = if alone { fuse(new, &node.op, &operands) } else { None };
        let (op, operands) = match replaced {
            Some((op, operand)) => {
                fused += 1;
                (op, vec![operand])
            }
            None => (node.op.clone(), operands),
        };
        let _ = id;
        new.push(op, operands, Some(node.ty.clone()), loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    cx.count("linear operations fused", fused);
    // Operands that were fused away are dead now.
    let graph = graph.rewrite(|new, _, node, operands, loc| {
        new.push(node.op.clone(), operands, Some(node.ty.clone()), loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    Ok(Ir::Tensor(graph))
}

fn is_constant(graph: &Graph<Tensor>, id: ValueId) -> bool {
    matches!(graph.node(id).op, TensorOp::Constant { .. })
}

/// A constant that is one number a column.
fn per_column(graph: &Graph<Tensor>, id: ValueId, columns: usize) -> Option<Vec<f64>> {
    let TensorOp::Constant { shape, f32, f64, .. } = &graph.node(id).op else { return None };
    let row_like = matches!(shape.as_slice(), [] | [_] | [1, _]);
    let values = match (f32, f64) {
        (Some(values), _) => values.iter().map(|&x| f64::from(x)).collect(),
        (_, Some(values)) => values.clone(),
        _ => return None,
    };
    match values.len() {
        _ if !row_like => None,
        1 => Some(vec![values[0]; columns]),
        len if len == columns => Some(values),
        _ => None,
    }
}

fn linear_of(graph: &Graph<Tensor>, id: ValueId) -> Option<(usize, &[f64], &[f64], ValueId)> {
    match (&graph.node(id).op, graph.node(id).operands.as_slice()) {
        (TensorOp::Linear { outputs, weights, bias }, [x]) => Some((*outputs, weights, bias, *x)),
        _ => None,
    }
}

fn fuse(new: &Graph<Tensor>, op: &TensorOp, operands: &[ValueId]) -> Option<(TensorOp, ValueId)> {
    match (op, operands) {
        (TensorOp::Binary { kind }, [a, b]) => {
            let (linear, constant, swapped) = match (linear_of(new, *a), linear_of(new, *b)) {
                (Some(linear), None) => (linear, *b, false),
                (None, Some(linear)) => (linear, *a, true),
                _ => return None,
            };
            let (outputs, weights, bias, x) = linear;
            let values = per_column(new, constant, outputs)?;
            // Factor of the map and new bias, per output.
            let rule = |bias: f64, c: f64| match (kind, swapped) {
                (BinaryKind::Add, _) => Some((1.0, bias + c)),
                (BinaryKind::Sub, false) => Some((1.0, bias - c)),
                (BinaryKind::Sub, true) => Some((-1.0, c - bias)),
                (BinaryKind::Mul, _) => Some((c, bias * c)),
                (BinaryKind::Div, false) if c != 0.0 => Some((1.0 / c, bias / c)),
                _ => None,
            };
            let scaled: Vec<(f64, f64)> = bias.iter().zip(&values).map(|(&b, &c)| rule(b, c)).collect::<Option<_>>()?;
            let columns = weights.len().checked_div(outputs)?;
            let weights =
                weights.chunks(columns.max(1)).zip(&scaled).flat_map(|(row, (f, _))| row.iter().map(move |w| w * f));
            let op = TensorOp::Linear {
                outputs,
                weights: weights.collect(),
                bias: scaled.iter().map(|(_, bias)| *bias).collect(),
            };
            Some((op, x))
        }
        (TensorOp::Linear { outputs, weights, bias }, [a]) => {
            let (inner_outputs, inner_weights, inner_bias, x) = linear_of(new, *a)?;
            let columns = inner_weights.len().checked_div(inner_outputs)?;
            let mut composed = Vec::with_capacity(outputs * columns);
            let mut new_bias = Vec::with_capacity(*outputs);
            for (row, bias) in weights.chunks(inner_outputs).zip(bias) {
                for column in 0..columns {
                    composed.push(row.iter().enumerate().map(|(i, w)| w * inner_weights[i * columns + column]).sum());
                }
                new_bias.push(bias + row.iter().zip(inner_bias).map(|(w, b)| w * b).sum::<f64>());
            }
            Some((TensorOp::Linear { outputs: *outputs, weights: composed, bias: new_bias }, x))
        }
        _ => None,
    }
}
