//! Diagrams to tasks: which products run together, in what order, in which buffers.
//!
//! Nodes are cut into tasks of about equal work, bottom-up; a node with users in several tasks becomes a task of its own.
//! Tasks that need each other's results run in successive phases. Within a task values live in scratch slots that are
//! freed after their last use, in depth-first order, so that few are alive at a time. The outcome depends on the circuit
//! alone, never on the machine.

use std::collections::BTreeMap;
use tacit_ir::diagram::{Atom, Diagram, Form as DiagramForm, Node};
use tacit_ir::plan::{Form, Phase, Plan, Slot, Step, Task};

/// Tasks a circuit is cut into, about: enough for the cores of a large machine, few enough to keep buffers small.
const TASKS: u64 = 64;

/// Where atoms of a diagram come from in the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wiring {
    /// `(feature, bit)` to selector.
    pub(crate) selectors: BTreeMap<(u32, u32), u32>,
    /// `(feature, cut)` to packed input and coefficient.
    pub(crate) thermometer: BTreeMap<(u32, u32), (u32, u32)>,
    /// N.
    pub(crate) polynomial_size: u32,
    /// log2 of the torus value of 1.
    pub(crate) log2_delta: u32,
    /// base_log * levels of the selectors.
    pub(crate) gadget_bits: u32,
}

/// Shared slots while a plan is built: reused once all phases that read them are over.
#[derive(Debug, Default)]
pub(crate) struct SharedSlots {
    count: u32,
    /// Slot and the last phase that reads it.
    busy: Vec<(u32, usize)>,
}

impl SharedSlots {
    /// A slot that no phase from `phase` on reads, kept until `last_read`.
    pub(crate) fn take(&mut self, phase: usize, last_read: usize) -> u32 {
        match self.busy.iter_mut().find(|(_, last)| *last < phase) {
            Some(entry) => {
                entry.1 = last_read;
                entry.0
            }
            None => {
                let slot = self.count;
                self.count += 1;
                self.busy.push((slot, last_read));
                slot
            }
        }
    }
}

/// Appends a diagram's tasks to a plan and returns the shared slot of its value.
pub(crate) fn add_diagram(plan: &mut Plan, shared: &mut SharedSlots, diagram: &Diagram, wiring: &Wiring) -> u32 {
    let owner = owners(diagram);
    let count = diagram.nodes.len();
    // Phase of each owner; the root sum comes after all it reads.
    let mut phase_of = vec![0usize; count];
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, node) in diagram.nodes.iter().enumerate() {
        let own = owner[index];
        members.entry(own).or_default().push(index);
        for id in node.forms().into_iter().flat_map(|form| form.nodes.keys()) {
            let other = owner[id.index()];
            // Owners come last among their members, so their phases are final here.
            if other != own {
                phase_of[own] = phase_of[own].max(phase_of[other] + 1);
            }
        }
    }
    let root_phase = diagram.root.nodes.keys().map(|id| phase_of[owner[id.index()]] + 1).max().unwrap_or(0);
    let mut last_read = phase_of.clone();
    for (index, node) in diagram.nodes.iter().enumerate() {
        for id in node.forms().into_iter().flat_map(|form| form.nodes.keys()) {
            let read = phase_of[owner[index]];
            last_read[id.index()] = last_read[id.index()].max(read);
        }
    }
    for id in diagram.root.nodes.keys() {
        last_read[id.index()] = root_phase;
    }
    while plan.phases.len() <= root_phase {
        plan.phases.push(Phase::default());
    }
    let mut by_phase: Vec<Vec<usize>> = vec![Vec::new(); root_phase + 1];
    for &own in members.keys() {
        by_phase[phase_of[own]].push(own);
    }
    let mut location: Vec<Option<Slot>> = vec![None; count];
    for (phase, owners) in by_phase.iter().enumerate() {
        for &own in owners {
            location[own] = Some(Slot::Shared(shared.take(phase, last_read[own])));
        }
        for &own in owners {
            let task = build_task(diagram, wiring, &members[&own], own, &mut location);
            plan.phases[phase].tasks.push(task);
        }
    }
    let out = shared.take(root_phase, usize::MAX);
    let step = Step::Sum { out: Slot::Shared(out), form: lower_form(&diagram.root, wiring, &location) };
    plan.phases[root_phase].tasks.push(Task { scratch: 0, steps: vec![step] });
    plan.shared = shared.count;
    out
}

/// The task each node belongs to, named by its last node.
fn owners(diagram: &Diagram) -> Vec<usize> {
    let count = diagram.nodes.len();
    let target = (diagram.products() / TASKS).max(4);
    let uses = diagram.use_counts();
    let mut weight = vec![0u64; count];
    let mut cut = vec![false; count];
    for (index, node) in diagram.nodes.iter().enumerate() {
        let mut children: Vec<usize> =
            node.forms().into_iter().flat_map(|form| form.nodes.keys().map(|id| id.index())).collect();
        children.sort_unstable();
        children.dedup();
        // Work shared with others is counted by whoever computes it.
        let below = children.into_iter().filter(|&child| !cut[child] && uses[child] <= 2).map(|child| weight[child]);
        weight[index] = node.products() + below.sum::<u64>();
        cut[index] = weight[index] >= target;
    }
    for id in diagram.root.nodes.keys() {
        cut[id.index()] = true;
    }
    // From the top: a node belongs to the one task that uses it, or is one.
    let mut owner: Vec<Option<usize>> = vec![None; count];
    let mut several = vec![false; count];
    for index in (0..count).rev() {
        let own = match owner[index] {
            Some(own) if !cut[index] && !several[index] => own,
            _ => index,
        };
        owner[index] = Some(own);
        for id in diagram.nodes[index].forms().into_iter().flat_map(|form| form.nodes.keys()) {
            match owner[id.index()] {
                Some(other) if other != own => several[id.index()] = true,
                _ => owner[id.index()] = Some(own),
            }
        }
    }
    owner.into_iter().enumerate().map(|(index, own)| own.unwrap_or(index)).collect()
}

fn build_task(
    diagram: &Diagram,
    wiring: &Wiring,
    members: &[usize],
    own: usize,
    location: &mut [Option<Slot>],
) -> Task {
    let mut pending: BTreeMap<usize, usize> = BTreeMap::new();
    let reads =
        |index: usize| diagram.nodes[index].forms().into_iter().flat_map(|form| form.nodes.keys().map(|id| id.index()));
    for &member in members {
        for child in reads(member) {
            *pending.entry(child).or_default() += 1;
        }
    }
    let mut task = Task::default();
    let mut free: Vec<u32> = Vec::new();
    for &member in members {
        let out = if member == own {
            location[own].unwrap_or(Slot::Shared(0))
        } else {
            Slot::Scratch(free.pop().unwrap_or_else(|| {
                task.scratch += 1;
                task.scratch - 1
            }))
        };
        let step = match &diagram.nodes[member] {
            Node::Mux { feature, bit, low, high } => Step::CMux {
                out,
                selector: wiring.selectors.get(&(*feature, *bit)).copied().unwrap_or(0),
                base: lower_form(low, wiring, location),
                difference: lower_form(&high.minus(low), wiring, location),
            },
            Node::Table { bits, values } => table_step(out, diagram.slots, bits, values, wiring),
            // `expand-bits` leaves none; choose-parameters has checked.
            Node::Switch { .. } => Step::Sum { out, form: Form::default() },
        };
        task.steps.push(step);
        location[member] = Some(out);
        for child in reads(member) {
            if let Some(left) = pending.get_mut(&child) {
                *left -= 1;
                if *left == 0
                    && let Some(Slot::Scratch(slot)) = location[child]
                {
                    free.push(slot);
                }
            }
        }
    }
    task
}

fn table_step(out: Slot, slots: u32, bits: &[(u32, u32)], values: &[DiagramForm], wiring: &Wiring) -> Step {
    let stride = slots.next_power_of_two();
    let mut table = Form::default();
    for (index, value) in values.iter().enumerate() {
        for (slot, value) in value.constants() {
            table.constant.push((index as u32 * stride + slot, torus(value, wiring.log2_delta)));
        }
    }
    let rotations = bits
        .iter()
        .enumerate()
        .map(|(position, bit)| (wiring.selectors.get(bit).copied().unwrap_or(0), stride << position))
        .collect();
    Step::Rotate { out, table, rotations }
}

fn torus(value: i64, log2_delta: u32) -> u64 {
    (value as u64).wrapping_shl(log2_delta)
}

fn lower_form(form: &DiagramForm, wiring: &Wiring, location: &[Option<Slot>]) -> Form {
    let mut out = Form::default();
    for (id, &weight) in &form.nodes {
        if let Some(slot) = location[id.index()] {
            out.slots.push((slot, weight));
        }
    }
    let n = wiring.polynomial_size;
    for (&(atom, slot), &weight) in &form.atoms {
        match atom {
            Atom::One => out.constant.push((slot, torus(weight, wiring.log2_delta))),
            Atom::AtLeast { feature, cut } => {
                if let Some(&(packed, position)) = wiring.thermometer.get(&(feature, cut)) {
                    out.packed.push((packed, (position + 2 * n - slot) % (2 * n), weight));
                }
            }
            Atom::Bit { feature, bit } => {
                if let Some(&selector) = wiring.selectors.get(&(feature, bit)) {
                    // The row's message is 2^(64 - gadget_bits); the output's unit is 2^log2_delta.
                    let scale = (wiring.log2_delta + wiring.gadget_bits).saturating_sub(64);
                    out.bits.push((selector, slot, weight.wrapping_shl(scale)));
                }
            }
        }
    }
    out
}
