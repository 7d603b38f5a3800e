//! `expand-bits`: a multiway test becomes choices by selector bits, one external product each.
//!
//! From the most significant bit down, a block of codes is one choice between its halves, unless both give the same form.
//! Patterns that no code has are free: a half without codes takes the other half's form. What both halves share is moved
//! above the choice, and equal choices are made once.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed, share_nodes::hoist_common};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::diagram::{Builder, Diagram, Form, Node, SelectorCode};
use tacit_ir::graph::Graph;
use tacit_ir::stage::circuit::{Circuit, CircuitOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "expand-bits",
    summary: "expand tests into choices by selector bits",
    from: &[StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    let graph = graph.rewrite(|new: &mut Graph<Circuit>, _, node, operands, loc| {
        let op = match &node.op {
            CircuitOp::Decide { log2_delta, diagram } => {
                let selectors = operands.first().map(|id| new.node(*id).op.clone());
                let Some(CircuitOp::Codes { selectors, .. }) = selectors else {
                    return Err(Diagnostic::internal("a diagram without codes"));
                };
                let selectors: Vec<SelectorCode> = selectors.iter().map(|record| record.code()).collect();
                if selectors.is_empty() && diagram.nodes.iter().any(|node| matches!(node, Node::Switch { .. })) {
                    return Err(super::requires("expand-bits", "assign-codes"));
                }
                let (diagram, shared) = expand(diagram, &selectors);
                cx.count("nodes shared", shared);
                CircuitOp::Decide { log2_delta: *log2_delta, diagram }
            }
            other => other.clone(),
        };
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    Ok(Ir::Circuit(graph))
}

/// All switches as muxes; also the number of choices that were there already.
pub(super) fn expand(diagram: &Diagram, selectors: &[SelectorCode]) -> (Diagram, u64) {
    let mut shared = 0;
    let expanded = diagram.rebuild(|builder, _, node| match node {
        Node::Switch { feature, cuts, branches } => {
            let code = &selectors[feature as usize];
            // Which branch each interval of the selector code takes.
            let starts = std::iter::once(0).chain(code.cuts.iter().copied());
            let arms: Vec<(u32, usize)> = starts
                .zip(&code.patterns)
                .map(|(start, &pattern)| (pattern, cuts.partition_point(|&cut| cut <= start)))
                .collect();
            let mut expander = Expander { builder, feature, branches: &branches, shared: &mut shared };
            expander.block(&arms, code.bits)
        }
        other => builder.add_shared(other).0,
    });
    (expanded, shared)
}

struct Expander<'a> {
    builder: &'a mut Builder,
    feature: u32,
    branches: &'a [Form],
    shared: &'a mut u64,
}

impl Expander<'_> {
    /// The form of a block of patterns that agree above the lowest `bits` bits; never empty.
    fn block(&mut self, arms: &[(u32, usize)], bits: u32) -> Form {
        let first = arms.first().map_or(0, |arm| arm.1);
        if bits == 0 || arms.iter().all(|arm| self.branches[arm.1] == self.branches[first]) {
            return self.branches[first].clone();
        }
        let bit = bits - 1;
        let (low, high) = arms.split_at(arms.partition_point(|arm| arm.0 >> bit & 1 == 0));
        if low.is_empty() || high.is_empty() {
            return self.block(arms, bit);
        }
        let (low, high) = (self.block(low, bit), self.block(high, bit));
        if low == high {
            return low;
        }
        let mut node = Node::Mux { feature: self.feature, bit, low, high };
        let common = hoist_common(&mut node);
        let (mut form, known) = self.builder.add_shared(node);
        *self.shared += u64::from(known);
        form.add(&common, 1);
        form
    }
}
