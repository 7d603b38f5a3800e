//! `drop-cuts`: forget boundaries that no test and no thermometer term uses, and renumber the codes.
//!
//! Grid encodings keep all their boundaries: which of them the model uses is what they hide.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use crate::options::Encoding;
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::diagram::{Atom, Diagram, Form, Node};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::circuit::{Circuit, CircuitOp};
use tacit_ir::stage::quant::{CodedFeature, Missing};

pub(super) static INFO: PassInfo = PassInfo {
    name: "drop-cuts",
    summary: "forget boundaries that nothing tests",
    from: &[StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    if cx.options.encoding == Encoding::Grid || cx.options.protect_model {
        return Ok(Ir::Circuit(graph));
    }
    let mut maps: BTreeMap<ValueId, Vec<BTreeMap<u32, u32>>> = BTreeMap::new();
    let mut dropped = 0;
    let graph = graph.rewrite(|new, id, node, operands, loc| {
        let op = match &node.op {
            CircuitOp::Codes { value, single, features, selectors } if selectors.is_empty() => {
                let used = used_cuts(&graph, id);
                let mut kept = Vec::with_capacity(features.len());
                let mut map = Vec::with_capacity(features.len());
                for (feature, coded) in features.iter().enumerate() {
                    let (coded_kept, cuts) = keep(coded, used.get(&(feature as u32)));
                    dropped += (coded.boundaries.len() - coded_kept.boundaries.len()) as u64;
                    kept.push(coded_kept);
                    map.push(cuts);
                }
                maps.insert(id, map);
                CircuitOp::Codes {
                    value: value.clone(),
                    single: *single,
                    features: kept.into(),
                    selectors: selectors.clone(),
                }
            }
            CircuitOp::Decide { log2_delta, diagram } => {
                let map = node.operands.first().and_then(|codes| maps.get(codes));
                match map {
                    None => node.op.clone(),
                    Some(map) => CircuitOp::Decide { log2_delta: *log2_delta, diagram: renumber(diagram, map)? },
                }
            }
            other => other.clone(),
        };
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    cx.count("unused boundaries", dropped);
    Ok(Ir::Circuit(graph))
}

fn used_cuts(graph: &Graph<Circuit>, codes: ValueId) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut used: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for id in graph.values() {
        let node = graph.node(id);
        let CircuitOp::Decide { log2_delta: _, diagram } = &node.op else { continue };
        if node.operands.first() != Some(&codes) {
            continue;
        }
        for node in &diagram.nodes {
            if let Node::Switch { feature, cuts, branches: _ } = node {
                used.entry(*feature).or_default().extend(cuts);
            }
        }
        for form in diagram.nodes.iter().flat_map(Node::forms).chain([&diagram.root]) {
            for (atom, _) in form.atoms.keys() {
                if let Atom::AtLeast { feature, cut } = atom {
                    used.entry(*feature).or_default().insert(*cut);
                }
            }
        }
    }
    used
}

/// The feature with only the used boundaries, and the new number of each used cut.
fn keep(coded: &CodedFeature, used: Option<&BTreeSet<u32>>) -> (CodedFeature, BTreeMap<u32, u32>) {
    let none = BTreeSet::new();
    let used = used.unwrap_or(&none);
    // The code of a missing value keeps its place at its end.
    let first = if coded.missing == Missing::Low { 2 } else { 1 };
    let mut map = BTreeMap::new();
    let mut boundaries = Vec::new();
    if coded.missing == Missing::Low {
        map.insert(1, 1);
    }
    for (at, &boundary) in coded.boundaries.iter().enumerate() {
        let cut = at as u32 + first;
        if used.contains(&cut) {
            map.insert(cut, boundaries.len() as u32 + first);
            boundaries.push(boundary);
        }
    }
    if coded.missing == Missing::High {
        map.insert(coded.largest(), boundaries.len() as u32 + first);
    }
    (CodedFeature { column: coded.column, boundaries, missing: coded.missing }, map)
}

fn renumber(diagram: &Diagram, map: &[BTreeMap<u32, u32>]) -> Result<Diagram> {
    let new_cut = |feature: u32, cut: u32| {
        let cut = map.get(feature as usize).and_then(|map| map.get(&cut)).copied();
        cut.ok_or_else(|| Diagnostic::internal("drop-cuts lost a cut"))
    };
    let form = |form: &Form| -> Result<Form> {
        let mut out = Form { atoms: BTreeMap::new(), nodes: form.nodes.clone() };
        for (&(atom, slot), &weight) in &form.atoms {
            let atom = match atom {
                Atom::AtLeast { feature, cut } => Atom::AtLeast { feature, cut: new_cut(feature, cut)? },
                other @ (Atom::One | Atom::Bit { .. }) => other,
            };
            out.add_atom(atom, slot, weight);
        }
        Ok(out)
    };
    let mut diagram = diagram.clone();
    for node in &mut diagram.nodes {
        if let Node::Switch { feature, cuts, branches: _ } = node {
            for cut in cuts.iter_mut() {
                *cut = new_cut(*feature, *cut)?;
            }
        }
        for old in node.forms_mut() {
            *old = form(old)?;
        }
    }
    diagram.root = form(&diagram.root)?;
    Ok(diagram)
}
