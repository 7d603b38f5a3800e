//! The variance of each result for one given input: the plan is walked backwards with the coefficient that every slot
//! contributes to the result (the adjoint method), so that what cancels or adds up coherently does so here too.

use super::sources::{constants, is_trivial, reduce, rotation_difference, trivial_digits};
use super::{ExternalProduct, external_product_parts, fft_of_trivial, fresh, result_rounding};
use crate::plan::{Form, Layout, Plan, Slot, Step, Task};
use std::collections::BTreeMap;

/// A polynomial with few terms: exponent below N to coefficient.
type Adjoint = BTreeMap<u32, f64>;

/// Something with fresh noise of its own that a plan may use more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Packed(u32),
    /// The body row of a level (from 1) of a selector's GGSW.
    Row(u32, u32),
}

/// The predicted variance of each result of a plan that [`check`](crate::interp::plan::check) accepts, for these
/// selector bits: external products with their actual bits, fresh noise of selectors and packed inputs with the weight
/// it really arrives with, and the rounding of the result. The same for all result slots of a ciphertext.
///
/// Takes time proportional to steps times results that depend on them.
pub fn for_input(plan: &Plan, layout: &Layout, selectors: &[bool]) -> Vec<f64> {
    let model = Model {
        layout,
        selectors,
        product: layout.gadget.map_or(ExternalProduct { rows: 0.0, decomposition: 0.0, fft: 0.0 }, |gadget| {
            external_product_parts(&layout.glwe, &gadget, fresh(layout))
        }),
    };
    plan.results.iter().map(|result| model.result(plan, *result)).collect()
}

struct Model<'a> {
    layout: &'a Layout,
    selectors: &'a [bool],
    product: ExternalProduct,
}

#[derive(Default)]
struct Walk {
    /// Variance of what is independent of everything else.
    variance: f64,
    /// Magnitude of deterministic rounding errors.
    bias: f64,
    fresh: BTreeMap<Source, Vec<f64>>,
    shared: Vec<Adjoint>,
    scratch: Vec<Adjoint>,
}

impl Walk {
    fn slot(&mut self, slot: Slot) -> &mut Adjoint {
        match slot {
            Slot::Shared(at) => &mut self.shared[at as usize],
            Slot::Scratch(at) => &mut self.scratch[at as usize],
        }
    }
}

fn squared(adjoint: &Adjoint) -> f64 {
    adjoint.values().map(|c| c * c).sum()
}

impl Model<'_> {
    fn n(&self) -> u32 {
        self.layout.glwe.polynomial_size
    }

    fn result(&self, plan: &Plan, result: u32) -> f64 {
        let mut walk = Walk { shared: vec![Adjoint::new(); plan.shared as usize], ..Walk::default() };
        walk.shared[result as usize].insert(0, 1.0);
        for task in plan.phases.iter().rev().flat_map(|phase| phase.tasks.iter().rev()) {
            self.task(&mut walk, task);
        }
        let fresh_norm: f64 = walk.fresh.values().flatten().map(|c| c * c).sum();
        walk.variance
            + fresh_norm * fresh(self.layout)
            + walk.bias.powi(2)
            + result_rounding(&self.layout.glwe, self.layout.result_bits)
    }

    fn task(&self, walk: &mut Walk, task: &Task) {
        // Scratch is private, so a task none of whose shared slots matters does not matter.
        let needed = |step: &Step| matches!(step.out(), Slot::Shared(at) if !walk.shared[at as usize].is_empty());
        if !task.steps.iter().any(needed) {
            return;
        }
        walk.scratch.clear();
        walk.scratch.resize(task.scratch as usize, Adjoint::new());
        for step in task.steps.iter().rev() {
            let adjoint = std::mem::take(walk.slot(step.out()));
            if adjoint.is_empty() {
                continue;
            }
            match step {
                Step::CMux { out: _, selector, base, difference } => {
                    let trivial = is_trivial(difference).then(|| constants(difference));
                    self.product(walk, &adjoint, *selector, trivial);
                    self.form(walk, &adjoint, base);
                    if self.selectors[*selector as usize] {
                        self.form(walk, &adjoint, difference);
                    }
                }
                Step::Rotate { out: _, table, rotations } => {
                    let mut adjoint = adjoint;
                    for (index, (selector, shift)) in rotations.iter().enumerate().rev() {
                        let trivial = (index == 0 && is_trivial(table))
                            .then(|| rotation_difference(&constants(table), *shift, self.n()));
                        self.product(walk, &adjoint, *selector, trivial);
                        if self.selectors[*selector as usize] {
                            adjoint = self.shifted(&adjoint, 2 * u64::from(self.n()) - u64::from(*shift), 1.0);
                        }
                    }
                    self.form(walk, &adjoint, table);
                }
                Step::Sum { out: _, form } => self.form(walk, &adjoint, form),
                Step::PolyMul { out: _, packed, polynomial } => {
                    for (exponent, coefficient) in &adjoint {
                        let terms = polynomial.iter().enumerate().map(|(at, &weight)| (at as u64, weight as f64));
                        self.add_fresh(walk, Source::Packed(*packed), u64::from(*exponent), *coefficient, terms);
                    }
                }
            }
        }
    }

    /// `adjoint * weight * X^shift`.
    fn shifted(&self, adjoint: &Adjoint, shift: u64, weight: f64) -> Adjoint {
        let mut out = Adjoint::new();
        for (exponent, coefficient) in adjoint {
            let (at, negative) = reduce(u64::from(*exponent) + shift, self.n());
            *out.entry(at).or_default() += if negative { -coefficient * weight } else { coefficient * weight };
        }
        out
    }

    fn add_fresh(
        &self,
        walk: &mut Walk,
        source: Source,
        shift: u64,
        weight: f64,
        terms: impl IntoIterator<Item = (u64, f64)>,
    ) {
        let n = self.n();
        let sum = walk.fresh.entry(source).or_insert_with(|| vec![0.0; n as usize]);
        for (exponent, coefficient) in terms {
            let (at, negative) = reduce(exponent + shift, n);
            sum[at as usize] += if negative { -coefficient * weight } else { coefficient * weight };
        }
    }

    fn form(&self, walk: &mut Walk, adjoint: &Adjoint, form: &Form) {
        let n = u64::from(self.n());
        let Form { slots, packed, bits, constant: _ } = form;
        for (slot, weight) in slots {
            let into = walk.slot(*slot);
            for (exponent, coefficient) in adjoint {
                *into.entry(*exponent).or_default() += coefficient * *weight as f64;
            }
            into.retain(|_, coefficient| *coefficient != 0.0);
        }
        for (exponent, coefficient) in adjoint {
            let term = [(u64::from(*exponent), *coefficient)];
            for (input, shift, weight) in packed {
                self.add_fresh(walk, Source::Packed(*input), 2 * n - u64::from(*shift), *weight as f64, term);
            }
            let last = self.layout.gadget.map_or(0, |gadget| gadget.levels);
            for (selector, shift, weight) in bits {
                self.add_fresh(walk, Source::Row(*selector, last), u64::from(*shift), *weight as f64, term);
            }
        }
    }

    /// One external product of a GLWE that looks uniform, or of a trivial one of these constants.
    fn product(&self, walk: &mut Walk, adjoint: &Adjoint, selector: u32, trivial: Option<BTreeMap<u32, u64>>) {
        let bit = self.selectors[selector as usize];
        let (Some(constants), Some(gadget)) = (trivial, self.layout.gadget) else {
            walk.variance += squared(adjoint) * self.product.total(bit);
            return;
        };
        let digits = trivial_digits(&constants, &gadget);
        walk.variance += squared(adjoint) * fft_of_trivial(&self.layout.glwe, &digits);
        if bit {
            walk.bias += adjoint.values().map(|c| c.abs()).sum::<f64>() * digits.error;
        }
        for (exponent, coefficient) in adjoint {
            for (level, at, digit) in &digits.digits {
                let term = [(u64::from(*at), *digit)];
                self.add_fresh(walk, Source::Row(selector, *level), u64::from(*exponent), *coefficient, term);
            }
        }
    }
}
