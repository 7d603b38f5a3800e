//! `rotate-tables`: trees over few features become one table, looked up by rotation.
//!
//! When the selector bits of a set of features fit in the coefficients of one polynomial, every function of these
//! features, so also the sum of all trees over them, costs one external product per bit. The pass takes groups of root
//! terms whose features lie in one set, as long as their choices would cost more than the set has bits.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed, expand_bits::expand};
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Atom, Diagram, Form, Node, NodeId, SelectorCode};
use tacit_ir::graph::Graph;
use tacit_ir::stage::circuit::{Circuit, CircuitOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "rotate-tables",
    summary: "evaluate groups of trees over few features as one rotated table",
    from: &[StageName::Circuit],
    to: None,
};

/// log2 of the coefficients a table may take: the smallest polynomial size that the parameter search tries.
const TABLE_BITS: u32 = 9;

/// Groups are tried for sets of at most this many features, made from the root terms' own sets.
const MAX_ROOT_TERMS: usize = 400;

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    if !cx.options.tables {
        return Ok(Ir::Circuit(graph));
    }
    let graph = graph.rewrite(|new: &mut Graph<Circuit>, _, node, operands, loc| {
        let selectors = operands.first().map(|id| new.node(*id).op.clone());
        let op = match (&node.op, selectors) {
            (CircuitOp::Decide { log2_delta, diagram }, Some(CircuitOp::Codes { selectors, .. }))
                if !selectors.is_empty() =>
            {
                let selectors: Vec<SelectorCode> = selectors.iter().map(|record| record.code()).collect();
                let mut diagram = diagram.clone();
                while let Some((smaller, saved)) = best_table(&diagram, &selectors) {
                    cx.count("tables by rotation", 1);
                    cx.count("products saved by tables", saved);
                    diagram = smaller;
                }
                CircuitOp::Decide { log2_delta: *log2_delta, diagram }
            }
            (other, _) => other.clone(),
        };
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    Ok(Ir::Circuit(graph))
}

/// The diagram with the most profitable group of root terms as a table, and the products that saves.
fn best_table(diagram: &Diagram, selectors: &[SelectorCode]) -> Option<(Diagram, u64)> {
    if diagram.root.nodes.len() > MAX_ROOT_TERMS {
        return None;
    }
    let supports = supports(diagram, selectors);
    let slot_bits = diagram.slots.next_power_of_two().trailing_zeros();
    let bits_of = |set: &BTreeSet<u32>| set.iter().map(|&f| selectors[f as usize].bits).sum::<u32>();
    let fits = |set: &BTreeSet<u32>| bits_of(set) + slot_bits <= TABLE_BITS;
    let terms: Vec<NodeId> = diagram
        .root
        .nodes
        .keys()
        .copied()
        .filter(|id| !matches!(diagram.nodes[id.index()], Node::Table { .. }))
        .filter(|id| supports[id.index()].as_ref().is_some_and(&fits))
        .collect();
    let mut sets: BTreeSet<BTreeSet<u32>> = BTreeSet::new();
    for (position, a) in terms.iter().enumerate() {
        for b in &terms[position..] {
            if let (Some(a), Some(b)) = (&supports[a.index()], &supports[b.index()]) {
                let union: BTreeSet<u32> = a | b;
                if fits(&union) {
                    sets.insert(union);
                }
            }
        }
    }
    let whole = product_count(diagram, selectors);
    let mut best: Option<(Diagram, u64)> = None;
    for set in sets {
        let group: Vec<NodeId> = terms
            .iter()
            .copied()
            .filter(|id| supports[id.index()].as_ref().is_some_and(|support| support.is_subset(&set)))
            .collect();
        let candidate = with_table(diagram, selectors, &set, &group);
        let count = product_count(&candidate, selectors);
        if count < whole && best.as_ref().is_none_or(|(_, saved)| whole - count > *saved) {
            best = Some((candidate, whole - count));
        }
    }
    best
}

/// The features each node depends on; `None` where the selector bits do not tell apart what a thermometer term does, and
/// for nodes that are tables or choices already.
fn supports(diagram: &Diagram, selectors: &[SelectorCode]) -> Vec<Option<BTreeSet<u32>>> {
    let mut out: Vec<Option<BTreeSet<u32>>> = Vec::with_capacity(diagram.nodes.len());
    for node in &diagram.nodes {
        let mut set = Some(BTreeSet::new());
        if let (Node::Switch { feature, .. }, Some(set)) = (node, &mut set) {
            set.insert(*feature);
        }
        for form in node.forms() {
            let below = form.nodes.keys().map(|id| out[id.index()].clone());
            let atoms = form.atoms.keys().map(|(atom, _)| match atom {
                Atom::One => Some(BTreeSet::new()),
                Atom::AtLeast { feature, cut } => {
                    let known = selectors[*feature as usize].cuts.contains(cut);
                    known.then(|| BTreeSet::from([*feature]))
                }
                Atom::Bit { .. } => None,
            });
            for more in below.chain(atoms) {
                set = set.zip(more).map(|(a, b)| &a | &b);
            }
        }
        if !matches!(node, Node::Switch { .. }) {
            set = None;
        }
        out.push(set.filter(|set| set.len() <= 12));
    }
    out
}

/// Products of the expanded diagram.
fn product_count(diagram: &Diagram, selectors: &[SelectorCode]) -> u64 {
    expand(diagram, selectors).0.products()
}

fn with_table(diagram: &Diagram, selectors: &[SelectorCode], set: &BTreeSet<u32>, group: &[NodeId]) -> Diagram {
    let bits: Vec<(u32, u32)> =
        set.iter().flat_map(|&feature| (0..selectors[feature as usize].bits).map(move |bit| (feature, bit))).collect();
    let mut part = diagram.clone();
    let mut table_root = Form::default();
    for id in group {
        if let Some(weight) = part.root.nodes.remove(id) {
            table_root.add_node(*id, weight);
        }
    }
    let table = Diagram { slots: diagram.slots, nodes: diagram.nodes.clone(), root: table_root }.compact();
    // For each pattern, a code that has it; patterns without a code are never asked for.
    let code_of: BTreeMap<u32, BTreeMap<u32, u32>> = set
        .iter()
        .map(|&feature| {
            let code = &selectors[feature as usize];
            let starts = std::iter::once(0).chain(code.cuts.iter().copied());
            (feature, code.patterns.iter().copied().zip(starts).collect())
        })
        .collect();
    let features = set.iter().next_back().map_or(0, |&last| last as usize + 1);
    let value = |index: usize| {
        let mut patterns: BTreeMap<u32, u32> = BTreeMap::new();
        for (position, &(feature, bit)) in bits.iter().enumerate() {
            *patterns.entry(feature).or_default() |= ((index >> position & 1) as u32) << bit;
        }
        let mut codes = vec![0; features];
        for (feature, pattern) in patterns {
            codes[feature as usize] = *code_of.get(&feature)?.get(&pattern)?;
        }
        let values = table.evaluate(&codes, selectors);
        Some(Form::constant(values.into_iter().enumerate().map(|(slot, value)| (slot as u32, value))))
    };
    let values = (0..1usize << bits.len()).map(|index| value(index).unwrap_or_default()).collect();
    let id = NodeId(part.nodes.len() as u32);
    part.nodes.push(Node::Table { bits, values });
    part.root.add_node(id, 1);
    part.compact()
}
