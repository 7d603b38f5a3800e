//! `fuse-switches`: nested tests of one feature become one multiway test.
//!
//! A branch that is a test of the same feature (and has no other user) is replaced by that test's own branches, cut to
//! the interval of the branch.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "fuse-switches",
    summary: "make nested tests of one feature one multiway test",
    from: &[StageName::Quant, StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let uses = diagram.use_counts();
        let mut fused = 0;
        // What each new node is, so that a parent can look into its children.
        let mut made: Vec<Option<(Node, usize)>> = Vec::new();
        let diagram = diagram.rebuild(|builder, id, node| {
            let node = match node {
                Node::Switch { feature, cuts, branches } => fuse(feature, &cuts, &branches, &made, &mut fused),
                other @ (Node::Mux { .. } | Node::Table { .. }) => other,
            };
            made.push(Some((node.clone(), uses[id.index()])));
            builder.add(node)
        });
        cx.count("nested tests fused", fused);
        Ok(diagram)
    })
}

fn fuse(feature: u32, cuts: &[u32], branches: &[Form], made: &[Option<(Node, usize)>], fused: &mut u64) -> Node {
    let mut new_cuts = Vec::new();
    let mut new_branches: Vec<Form> = Vec::new();
    for (position, branch) in branches.iter().enumerate() {
        let from = if position == 0 { 0 } else { cuts[position - 1] };
        let to = cuts.get(position).copied().unwrap_or(u32::MAX);
        let inner = branch.nodes.iter().find_map(|(id, &weight)| match made.get(id.index()) {
            Some(Some((Node::Switch { feature: inner, cuts, branches }, 1))) if *inner == feature => {
                Some((*id, weight, cuts, branches))
            }
            _ => None,
        });
        let mut start = |at: u32, form: Form| {
            if !new_branches.is_empty() {
                new_cuts.push(at);
            }
            new_branches.push(form);
        };
        let Some((id, weight, inner_cuts, inner_branches)) = inner else {
            start(from, branch.clone());
            continue;
        };
        *fused += 1;
        let mut rest = branch.clone();
        rest.nodes.remove(&id);
        for (inner_position, inner_branch) in inner_branches.iter().enumerate() {
            let inner_from = if inner_position == 0 { 0 } else { inner_cuts[inner_position - 1] };
            let inner_to = inner_cuts.get(inner_position).copied().unwrap_or(u32::MAX);
            if inner_to > from && inner_from < to {
                let mut form = rest.clone();
                form.add(inner_branch, weight);
                start(inner_from.max(from), form);
            }
        }
    }
    Node::Switch { feature, cuts: new_cuts, branches: new_branches }
}
