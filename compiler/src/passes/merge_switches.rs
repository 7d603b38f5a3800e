//! `merge-switches`: tests of one feature that always occur together become one test, across trees.
//!
//! A sum of two switches over the same feature is one switch over the union of their cuts whose branches are sums. Two
//! nodes may merge when every form that holds one holds the other with the same weight; then the merged test costs at
//! most what the two cost, and a block of codes that both cut costs once. Merging the roots of an ensemble makes their
//! children occur together, so the pass goes on until nothing merges.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use std::collections::BTreeMap;
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Diagram, Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "merge-switches",
    summary: "merge tests of one feature that always occur together, across trees",
    from: &[StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let mut diagram = diagram.clone();
        loop {
            let merged = merge_once(&mut diagram);
            if merged == 0 {
                return Ok(diagram.compact());
            }
            cx.count("tests merged across trees", merged);
        }
    })
}

/// Where a node occurs: `(form, weight)`, forms numbered through all nodes, the root last.
type Occurrences = Vec<(usize, i64)>;

fn merge_once(diagram: &mut Diagram) -> u64 {
    let mut occurrences: Vec<Occurrences> = vec![Vec::new(); diagram.nodes.len()];
    let forms = diagram.nodes.iter().flat_map(Node::forms).chain([&diagram.root]);
    for (number, form) in forms.enumerate() {
        for (id, &weight) in &form.nodes {
            occurrences[id.index()].push((number, weight));
        }
    }
    let mut groups: BTreeMap<(u32, &Occurrences), Vec<usize>> = BTreeMap::new();
    for (index, node) in diagram.nodes.iter().enumerate() {
        if let Node::Switch { feature, .. } = node
            && !occurrences[index].is_empty()
        {
            groups.entry((*feature, &occurrences[index])).or_default().push(index);
        }
    }
    let groups: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    let mut merged = 0;
    let mut gone: Vec<bool> = vec![false; diagram.nodes.len()];
    for group in &groups {
        // The node that comes last takes the sum: all children come before it, and no user does.
        let Some((&last, others)) = group.split_last() else { continue };
        let sum = group.iter().filter_map(|&index| match &diagram.nodes[index] {
            Node::Switch { feature, cuts, branches } => Some((*feature, cuts.clone(), branches.clone())),
            Node::Mux { .. } | Node::Table { .. } => None,
        });
        let Some((feature, cuts, branches)) = sum.reduce(add_switches) else { continue };
        diagram.nodes[last] = Node::Switch { feature, cuts, branches };
        for &other in others {
            gone[other] = true;
        }
        merged += others.len() as u64;
    }
    if merged > 0 {
        let strip = |form: &mut Form| form.nodes.retain(|id, _| !gone[id.index()]);
        diagram.nodes.iter_mut().flat_map(Node::forms_mut).for_each(strip);
        strip(&mut diagram.root);
        // A user may stand between the members of a group, so the order must be made anew.
        *diagram = diagram.compact();
    }
    merged
}

fn add_switches(
    (feature, cuts, branches): (u32, Vec<u32>, Vec<Form>),
    (_, other_cuts, other_branches): (u32, Vec<u32>, Vec<Form>),
) -> (u32, Vec<u32>, Vec<Form>) {
    let mut union: Vec<u32> = cuts.iter().chain(&other_cuts).copied().collect();
    union.sort_unstable();
    union.dedup();
    let at = |cuts: &[u32], branches: &[Form], code: u32| branches[cuts.partition_point(|&cut| cut <= code)].clone();
    let starts = std::iter::once(0).chain(union.iter().copied());
    let sums = starts.map(|code| {
        let mut form = at(&cuts, &branches, code);
        form.add(&at(&other_cuts, &other_branches, code), 1);
        form
    });
    let sums = sums.collect();
    (feature, union, sums)
}
