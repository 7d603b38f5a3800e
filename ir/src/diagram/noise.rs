//! A sound bound of a diagram's output noise over all inputs.

use super::{Atom, Diagram, Form};
use crate::noise;
use crate::params::{GadgetParams, GlweParams};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::BTreeSet;

/// Shared nodes tracked per node before the analysis assumes the worst.
const TRACKED: usize = 256;

/// What is known of a node's noise, in units of its sources: external products add independent variances along the chosen
/// path; fresh noise of what the client sent may be used many times and is bounded by the sum of absolute weights.
#[derive(Clone, Copy, Debug, Default)]
struct Bound {
    products: f64,
    thermometer: f64,
    bits: f64,
}

impl Bound {
    fn max(self, other: Bound) -> Bound {
        Bound {
            products: self.products.max(other.products),
            thermometer: self.thermometer.max(other.thermometer),
            bits: self.bits.max(other.bits),
        }
    }
}

/// How a diagram's output noise depends on parameters: found once, evaluated for every candidate of a search.
#[derive(Clone, Copy, Debug)]
pub struct NoiseProfile(Bound);

impl NoiseProfile {
    /// Whether the diagram uses the body rows of selectors.
    pub fn reads_bits(&self) -> bool {
        self.0.bits > 0.0
    }

    /// Variance bound of every output coefficient as a fraction of the squared torus.
    pub fn variance(&self, glwe: &GlweParams, gadget: Option<&GadgetParams>, log2_delta: u32) -> f64 {
        let product = gadget.map_or(0.0, |gadget| noise::external_product(glwe, gadget));
        // A bit atom is the last-level row of a GGSW, whose message is 2^(64 - base_log*levels).
        let bit_scale = gadget.map_or(0.0, |g| f64::from(log2_delta + g.base_log * g.levels) - 64.0).exp2();
        let Bound { products, thermometer, bits } = self.0;
        products * product + glwe.variance() * (thermometer + bits * bit_scale).powi(2)
    }
}

impl Diagram {
    /// Variance bound of every output coefficient as a fraction of the squared torus: see [`Diagram::noise_profile`].
    pub fn noise_bound(&self, glwe: &GlweParams, gadget: Option<&GadgetParams>, log2_delta: u32) -> f64 {
        self.noise_profile().variance(glwe, gadget, log2_delta)
    }

    /// The bound of the output noise over all inputs, for diagrams of `mux` and `table` nodes; a `switch` counts as one
    /// product, which is only an estimate until `expand-bits` replaced it.
    ///
    /// A chosen branch keeps its own noise (the difference cancels the other), so a mux is the larger of its branches
    /// plus one product. Terms of a sum add as independent where dominators show that they share no product, else
    /// coherently.
    pub fn noise_profile(&self) -> NoiseProfile {
        let shared = self.shared_reach();
        let mut bounds: Vec<Bound> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let branches = node.forms().into_iter().map(|form| form_bound(form, &bounds, &shared));
            let mut chosen = branches.reduce(Bound::max).unwrap_or_default();
            chosen.products += node.products() as f64;
            bounds.push(chosen);
        }
        NoiseProfile(form_bound(&self.root, &bounds, &shared))
    }

    /// For each node, the nodes below it that also hang on something outside it; `None` when there are too many.
    fn shared_reach(&self) -> Vec<Option<BTreeSet<usize>>> {
        let count = self.nodes.len();
        let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(count + 1, count * 2);
        for _ in 0..=count {
            graph.add_node(());
        }
        for (user, form) in
            self.nodes.iter().enumerate().flat_map(|(i, node)| node.forms().into_iter().map(move |form| (i, form)))
        {
            for id in form.nodes.keys() {
                graph.update_edge(NodeIndex::new(user), NodeIndex::new(id.index()), ());
            }
        }
        for id in self.root.nodes.keys() {
            graph.update_edge(NodeIndex::new(count), NodeIndex::new(id.index()), ());
        }
        let dominators = petgraph::algo::dominators::simple_fast(&graph, NodeIndex::new(count));
        let uses = self.use_counts();
        let mut reach: Vec<Option<BTreeSet<usize>>> = Vec::with_capacity(count);
        for (index, node) in self.nodes.iter().enumerate() {
            let mut own = Some(BTreeSet::new());
            for id in node.forms().into_iter().flat_map(|form| form.nodes.keys()) {
                match (&mut own, &reach[id.index()]) {
                    (Some(set), Some(below)) => {
                        set.extend(below.iter().copied());
                        if uses[id.index()] > 1 {
                            set.insert(id.index());
                        }
                    }
                    _ => own = None,
                }
            }
            if let Some(set) = &mut own {
                set.retain(|&below| {
                    dominators.immediate_dominator(NodeIndex::new(below)) != Some(NodeIndex::new(index))
                });
            }
            reach.push(own.filter(|set| set.len() <= TRACKED));
        }
        reach
    }
}

fn form_bound(form: &Form, bounds: &[Bound], shared: &[Option<BTreeSet<usize>>]) -> Bound {
    let mut seen = BTreeSet::new();
    let mut independent = true;
    let mut coherent = 0.0;
    let mut sum = Bound::default();
    for (id, &weight) in &form.nodes {
        let bound = bounds[id.index()];
        let weight = (weight as f64).abs();
        sum.products += weight.powi(2) * bound.products;
        coherent += weight * bound.products.sqrt();
        sum.thermometer += weight * bound.thermometer;
        sum.bits += weight * bound.bits;
        match &shared[id.index()] {
            Some(set) => independent &= set.iter().all(|&below| seen.insert(below)) && seen.insert(id.index()),
            None => independent &= form.nodes.len() == 1,
        }
    }
    for (&(atom, _), &weight) in &form.atoms {
        match atom {
            Atom::One => {}
            Atom::AtLeast { .. } => sum.thermometer += (weight as f64).abs(),
            Atom::Bit { .. } => sum.bits += (weight as f64).abs(),
        }
    }
    if !independent {
        sum.products = coherent * coherent;
    }
    sum
}
