//! `lower-to-circuit`: integers to ciphertexts; trees to `decide`, linear maps to `polymul`.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use tacit_ir::diag::{Code, Diagnostic, Result};
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
    let circuit: Graph<Circuit> = graph.rewrite(|new, _, node, operands, loc| {
        let op = match &node.op {
            QuantOp::Codes { value, single, features } => CircuitOp::Codes {
                value: value.clone(),
                single: *single,
                features: features.clone(),
                selectors: Vec::new().into(),
            },
            QuantOp::Reals { value, columns } => CircuitOp::Reals { value: value.clone(), columns: *columns },
            QuantOp::Trees { diagram } => {
                counts.0 += 1;
                let ranges = diagram.ranges();
                let widest = ranges.iter().map(|&(low, high)| high.saturating_sub(low)).max().unwrap_or(0);
                CircuitOp::Decide { log2_delta: log2_delta(widest)?, diagram: diagram.clone() }
            }
            QuantOp::Linear { outputs, weights } => {
                counts.1 += 1;
                CircuitOp::Polymul { outputs: *outputs, weights: weights.clone() }
            }
            QuantOp::Dequantize { step, offset, exact } => {
                CircuitOp::Extract { step: step.clone(), offset: offset.clone(), exact: *exact }
            }
        };
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    cx.count("decision diagrams (regime R1)", counts.0);
    cx.count("packed linear maps (regime R0)", counts.1);
    Ok(Ir::Circuit(circuit))
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
