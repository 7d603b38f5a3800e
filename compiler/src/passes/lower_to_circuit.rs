//! `lower-to-circuit`: integers to ciphertexts; trees to `decide`, linear maps to `polymul`.

use super::lower_network::{Lowered, Places};
use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Atom, Diagram};
use tacit_ir::graph::Graph;
use tacit_ir::stage::circuit::{Circuit, CircuitOp};
use tacit_ir::stage::quant::QuantOp;

pub(super) static INFO: PassInfo = PassInfo {
    name: "lower-to-circuit",
    summary: "choose the regime of every operation and its place on the torus",
    from: &[StageName::Quant],
    to: Some(StageName::Circuit),
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Quant(graph) = ir else { return Ok(ir) };
    let mut counts = (0, 0);
    let mut shifts: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    let mut places = Places::of(&graph);
    let circuit: Graph<Circuit> = graph.rewrite(|new, id, node, mut operands, loc| {
        let op = match &node.op {
            QuantOp::Codes { value, single, features } => CircuitOp::Codes {
                value: value.clone(),
                single: *single,
                features: features.clone(),
                selectors: places.selectors(&graph, id, features).into(),
            },
            QuantOp::Reals { value, columns } => CircuitOp::Reals { value: value.clone(), columns: *columns },
            QuantOp::Trees { diagram } => {
                counts.0 += 1;
                if let Some(log2_delta) = places.log2_delta(id) {
                    let op = CircuitOp::Decide { log2_delta, diagram: diagram.clone() };
                    let sums = new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))?;
                    let op = CircuitOp::SampleExtract { log2_delta };
                    return new.push(op, vec![sums], None, loc.clone()).map_err(|why| ill_typed(&why));
                }
                let (diagram, middles) = centred(diagram);
                let widest = diagram.ranges().iter().map(|&(low, high)| high.saturating_sub(low)).max().unwrap_or(0);
                // Operands are numbered in the new graph.
                shifts.insert(new.values().count(), middles);
                CircuitOp::Decide { log2_delta: log2_delta(widest)?, diagram }
            }
            QuantOp::Affine { .. } | QuantOp::Lookup { .. } => match places.lower(&graph, new, id, &operands)? {
                Lowered::TakenIn(stand_in) => return Ok(stand_in),
                Lowered::Op(op, own) => {
                    operands = own;
                    *op
                }
            },
            QuantOp::Linear { outputs, weights } => {
                counts.1 += 1;
                CircuitOp::Polymul { outputs: *outputs, weights: weights.clone() }
            }
            QuantOp::Dequantize { step, offset, exact } => {
                let mut offset = offset.clone();
                let middles = operands.first().and_then(|operand| shifts.get(&operand.index()));
                for ((offset, step), middle) in offset.iter_mut().zip(step).zip(middles.into_iter().flatten()) {
                    *offset += step * *middle as f64;
                }
                CircuitOp::Extract { step: step.clone(), offset, exact: *exact }
            }
        };
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    cx.count("decision diagrams (regime R1)", counts.0);
    cx.count("packed linear maps (regime R0)", counts.1);
    Ok(Ir::Circuit(circuit))
}

/// The diagram with every output's range centred on zero, and what was taken from each output. Ranges have tightened since
/// the integers were chosen, and an integer beyond half the torus would be read back with the wrong sign.
fn centred(diagram: &Diagram) -> (Diagram, Vec<i64>) {
    let middles: Vec<i64> = diagram.ranges().iter().map(|&(low, high)| low + (high - low) / 2).collect();
    let mut diagram = diagram.clone();
    for (slot, middle) in (0..).zip(&middles) {
        diagram.root.add_atom(Atom::One, slot, -middle);
    }
    (diagram, middles)
}

/// The largest power of two such that the range takes at most 63/64 of the torus: the rest keeps noise from wrapping an
/// extreme value around.
fn log2_delta(width: i64) -> Result<u32> {
    let needed = ((width as f64 + 1.0) * 64.0 / 63.0).log2().ceil();
    if needed > 40.0 {
        return Err(Diagnostic::new(Code::CircuitTooLarge, format!("outputs need 2^{needed} steps"))
            .help("ask for less precision: --set precision-bits=8"));
    }
    Ok(64 - needed.max(1.0) as u32)
}
