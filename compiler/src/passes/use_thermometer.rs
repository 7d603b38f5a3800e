//! `use-thermometer`: a test whose branches are constants is linear in the feature's thermometer ciphertext.
//!
//! `v_0 + sum_j (v_j - v_(j-1)) * [code >= c_j]` needs no external product. In a full binary tree this frees the lowest
//! level, more than half of the nodes. Branches may hold thermometer terms of the same feature; within a branch's
//! interval each is a smaller thermometer term.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Atom, Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "use-thermometer",
    summary: "replace tests with clear branches by thermometer terms",
    from: &[StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    if !cx.options.thermometer {
        return Ok(ir);
    }
    each_diagram(ir, cx, |diagram, cx| {
        let mut replaced = 0;
        let diagram = diagram.rebuild(|builder, _, node| match node {
            Node::Switch { feature, cuts, branches } if branches.iter().all(|form| depends_only_on(form, feature)) => {
                replaced += 1;
                linear(feature, &cuts, &branches)
            }
            other => builder.add(other),
        });
        cx.count("one-feature subtrees from the thermometer", replaced);
        Ok(diagram)
    })
}

fn depends_only_on(form: &Form, wanted: u32) -> bool {
    form.nodes.is_empty()
        && form.atoms.keys().all(|(atom, _)| match atom {
            Atom::One => true,
            Atom::AtLeast { feature, cut: _ } => *feature == wanted,
            Atom::Bit { .. } => false,
        })
}

/// The switch as a sum of thermometer terms. Within a branch's interval [from, to), `[code >= c]` is 1 for c <= from, 0
/// for c >= to, and else a step inside the interval, which must be undone at its end.
fn linear(feature: u32, cuts: &[u32], branches: &[Form]) -> Form {
    let mut out = Form::default();
    for (position, branch) in branches.iter().enumerate() {
        let from = if position == 0 { 0 } else { cuts[position - 1] };
        let to = cuts.get(position).copied();
        for (&(atom, slot), &weight) in &branch.atoms {
            let start = match atom {
                Atom::AtLeast { cut, .. } => cut.max(from),
                Atom::One | Atom::Bit { .. } => from,
            };
            if to.is_some_and(|to| start >= to) {
                continue;
            }
            let step = |at: u32| if at == 0 { Atom::One } else { Atom::AtLeast { feature, cut: at } };
            out.add_atom(step(start), slot, weight);
            if let Some(to) = to {
                out.add_atom(step(to), slot, weight.wrapping_neg());
            }
        }
    }
    out
}
