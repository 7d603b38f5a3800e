//! `merge-siblings`: a test whose neighbouring branches are equal does not need the cut between them.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "merge-siblings",
    summary: "drop cuts between equal branches",
    from: &[StageName::Quant, StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let mut merged = 0;
        let diagram = diagram.rebuild(|builder, _, node| match simplified(node, &mut merged) {
            Ok(node) => builder.add(node),
            Err(form) => form,
        });
        cx.count("cuts between equal branches", merged);
        Ok(diagram)
    })
}

/// The node without cuts between equal branches, or the one form that is left.
pub(super) fn simplified(node: Node, merged: &mut u64) -> std::result::Result<Node, Form> {
    match node {
        Node::Switch { feature, cuts, branches } => {
            let mut new_cuts = Vec::with_capacity(cuts.len());
            let mut new_branches: Vec<Form> = Vec::with_capacity(branches.len());
            for (position, branch) in branches.into_iter().enumerate() {
                match new_branches.last() {
                    Some(last) if *last == branch => *merged += 1,
                    last => {
                        if last.is_some() {
                            new_cuts.push(cuts[position - 1]);
                        }
                        new_branches.push(branch);
                    }
                }
            }
            match (new_cuts.is_empty(), new_branches.pop()) {
                (true, Some(only)) => Err(only),
                (_, last) => {
                    new_branches.extend(last);
                    Ok(Node::Switch { feature, cuts: new_cuts, branches: new_branches })
                }
            }
        }
        Node::Mux { feature: _, bit: _, low, high } if low == high => {
            *merged += 1;
            Err(low)
        }
        other @ (Node::Mux { .. } | Node::Table { .. }) => Ok(other),
    }
}
