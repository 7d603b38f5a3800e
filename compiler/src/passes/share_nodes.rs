//! `share-nodes`: equal nodes, within a tree and across trees, become one (hash-consing).
//!
//! What all branches of a node have in common is moved above it first, so that nodes that differ only in a common term
//! are found equal too.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram, merge_siblings::simplified};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "share-nodes",
    summary: "hoist what all branches share, then make equal nodes one",
    from: &[StageName::Quant, StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let (mut shared, mut merged) = (0, 0);
        let diagram = diagram.rebuild(|builder, _, node| {
            let mut node = match simplified(node, &mut merged) {
                Ok(node) => node,
                Err(form) => return form,
            };
            let common = hoist_common(&mut node);
            let (mut form, known) = builder.add_shared(node);
            shared += u64::from(known);
            form.add(&common, 1);
            form
        });
        cx.count("nodes shared", shared);
        cx.count("cuts between equal branches", merged);
        Ok(diagram)
    })
}

/// Takes the terms that are equal in all branches out of a switch or mux.
pub(super) fn hoist_common(node: &mut Node) -> Form {
    if matches!(node, Node::Table { .. }) {
        return Form::default();
    }
    let mut forms = node.forms_mut();
    let mut common = Form::default();
    let Some((first, others)) = forms.split_first() else {
        return common;
    };
    for (id, weight) in &first.nodes {
        if others.iter().all(|form| form.nodes.get(id) == Some(weight)) {
            common.nodes.insert(*id, *weight);
        }
    }
    for (key, weight) in &first.atoms {
        if others.iter().all(|form| form.atoms.get(key) == Some(weight)) {
            common.atoms.insert(*key, *weight);
        }
    }
    if common != Form::default() {
        for form in &mut forms {
            form.add(&common, -1);
        }
    }
    common
}
