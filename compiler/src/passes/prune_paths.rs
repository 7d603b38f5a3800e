//! `prune-paths`: use what a path already knows of a feature.
//!
//! Below a test of a feature its code lies in an interval; tests that the interval decides are replaced by their branch,
//! and cuts outside it are dropped. Leaves no path reaches disappear. Nodes with several users are kept as they are: each
//! user would know something else.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use std::collections::BTreeMap;
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Builder, Diagram, Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "prune-paths",
    summary: "drop tests and leaves that the path above them decides",
    from: &[StageName::Quant, StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let mut pruner = Pruner {
            diagram,
            uses: diagram.use_counts(),
            builder: Builder::default(),
            shared: BTreeMap::new(),
            dropped: 0,
        };
        let root = pruner.form(&diagram.root, &mut BTreeMap::new());
        cx.count("cuts pruned", pruner.dropped);
        Ok(pruner.builder.finish(diagram.slots, root))
    })
}

/// Per feature, the codes a path allows, both ends included.
type Known = BTreeMap<u32, (u32, u32)>;

struct Pruner<'a> {
    diagram: &'a Diagram,
    uses: Vec<usize>,
    builder: Builder,
    shared: BTreeMap<usize, Form>,
    dropped: u64,
}

impl Pruner<'_> {
    fn form(&mut self, form: &Form, known: &mut Known) -> Form {
        let mut out = Form { atoms: form.atoms.clone(), nodes: BTreeMap::new() };
        for (id, &weight) in &form.nodes {
            let replaced = if self.uses[id.index()] > 1 {
                match self.shared.get(&id.index()) {
                    Some(form) => form.clone(),
                    None => {
                        let form = self.node(id.index(), &mut BTreeMap::new());
                        self.shared.insert(id.index(), form.clone());
                        form
                    }
                }
            } else {
                self.node(id.index(), known)
            };
            out.add(&replaced, weight);
        }
        out
    }

    fn node(&mut self, index: usize, known: &mut Known) -> Form {
        match &self.diagram.nodes[index] {
            Node::Switch { feature, cuts, branches } => {
                let before = known.get(feature).copied();
                let (low, high) = before.unwrap_or((0, u32::MAX));
                let mut new_cuts = Vec::new();
                let mut new_branches = Vec::new();
                for (position, branch) in branches.iter().enumerate() {
                    let from = if position == 0 { 0 } else { cuts[position - 1] };
                    let to = cuts.get(position).map_or(u32::MAX, |&cut| cut - 1);
                    if to < low || from > high {
                        self.dropped += 1;
                        continue;
                    }
                    if !new_branches.is_empty() {
                        new_cuts.push(from);
                    }
                    known.insert(*feature, (from.max(low), to.min(high)));
                    new_branches.push(self.form(branch, known));
                }
                match before {
                    Some(before) => known.insert(*feature, before),
                    None => known.remove(feature),
                };
                if new_cuts.is_empty() {
                    new_branches.pop().unwrap_or_default()
                } else {
                    self.builder.add(Node::Switch { feature: *feature, cuts: new_cuts, branches: new_branches })
                }
            }
            Node::Mux { feature, bit, low, high } => {
                let (low, high) = (self.form(low, known), self.form(high, known));
                self.builder.add(Node::Mux { feature: *feature, bit: *bit, low, high })
            }
            table @ Node::Table { .. } => self.builder.add(table.clone()),
        }
    }
}
