//! A sound upper bound, over all inputs, of each result's variance: the plan is walked forwards once.
//!
//! For every slot three things are kept. `total`: a bound of its variance, along the worst path (a CMux is the larger
//! of its two branches plus one product). `private`: the share of it that nothing else in the plan can also contain.
//! `shared`: for each *source* (a product used by several steps, a row of a selector, a coefficient of a packed input)
//! the largest magnitude with which it can arrive. A form adds the totals of its terms and, for the sources that
//! several of its terms contain, the covariance: `sum_s var_s * ((sum_i |w_i| c_is)^2 - sum_i (w_i c_is)^2)`. That is
//! sound because different sources are independent, and never more than `(sum_i |w_i| std_i)^2`, which is used
//! instead when it is less or when a slot contains too many sources to keep.

use super::sources::{TrivialDigits, constants, is_trivial, rotation_difference, squared_norm, trivial_digits};
use super::{ExternalProduct, external_product_parts, fft_of_trivial, fresh, result_rounding};
use crate::plan::{Form, Layout, Plan, Slot, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Sources kept per slot; with more, the slot is added coherently to whatever else has sources.
const MAX_SOURCES: usize = 512;

/// A sound bound, over all inputs, of the variance of each result of a plan that
/// [`check`](crate::interp::plan::check) accepts, the rounding of the result included.
pub fn bound(plan: &Plan, layout: &Layout) -> Vec<f64> {
    let slots = slots(plan, layout);
    let rounding = result_rounding(&layout.glwe, layout.result_bits);
    plan.results.iter().map(|slot| slots[*slot as usize] + rounding).collect()
}

/// The same of each shared slot when the plan has run, without rounding.
pub fn slots(plan: &Plan, layout: &Layout) -> Vec<f64> {
    let mut analysis = Analysis::new(plan, layout);
    for phase in &plan.phases {
        for task in &phase.tasks {
            analysis.scratch.clear();
            analysis.scratch.resize(task.scratch as usize, State::default());
            for step in &task.steps {
                analysis.step(step);
            }
        }
    }
    analysis.shared.iter().map(|slot| slot.total).collect()
}

#[derive(Clone, Debug)]
struct State {
    total: f64,
    private: f64,
    /// Source to largest magnitude, sorted by source; `None` when there are too many.
    shared: Option<Vec<(u32, f64)>>,
}

impl Default for State {
    fn default() -> Self {
        State { total: 0.0, private: 0.0, shared: Some(Vec::new()) }
    }
}

/// Fresh noise, by where it comes from. Positions (shifts) of one input are independent of each other as long as
/// nothing multiplies them by a polynomial or rotates them by an unknown amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fresh {
    Packed(u32, u32),
    Row(u32, u32),
    /// Deterministic rounding errors of trivial ciphertexts, which may all have the same sign.
    Bias,
}

#[derive(Clone, Copy, Debug)]
enum FreshUse {
    /// Used by one step only.
    Private,
    Source(u32),
}

struct Analysis<'a> {
    layout: &'a Layout,
    fresh_variance: f64,
    product: ExternalProduct,
    /// Steps that read the value that each step writes, in step order.
    uses: Vec<u32>,
    next_step: usize,
    fresh: BTreeMap<Fresh, FreshUse>,
    coarse: Coarse,
    /// Variance of each source.
    sources: Vec<f64>,
    shared: Vec<State>,
    scratch: Vec<State>,
    /// For each source, while a form is summed: `(sum |w|c, sum (wc)^2)`.
    sums: Vec<(f64, f64)>,
}

/// Inputs whose positions cannot be told apart.
#[derive(Default)]
struct Coarse {
    all: bool,
    packed: BTreeSet<u32>,
    selectors: BTreeSet<u32>,
}

impl Coarse {
    fn of(plan: &Plan) -> Coarse {
        let mut coarse = Coarse::default();
        for step in plan.phases.iter().flat_map(|phase| &phase.tasks).flat_map(|task| &task.steps) {
            match step {
                Step::CMux { out: _, selector, base: _, difference } => {
                    if is_trivial(difference) {
                        coarse.selectors.insert(*selector);
                    }
                }
                Step::Rotate { out: _, table, rotations } => {
                    if !is_trivial(table) {
                        coarse.all |= !rotations.is_empty();
                    } else if let Some((selector, _)) = rotations.first() {
                        coarse.selectors.insert(*selector);
                        // What the first product adds is rotated by the later ones.
                    }
                }
                Step::Sum { .. } => {}
                Step::PolyMul { out: _, packed, polynomial: _ } => {
                    coarse.packed.insert(*packed);
                }
            }
        }
        coarse
    }
    fn packed(&self, input: u32, shift: u32, n: u32) -> Fresh {
        let known = !self.all && !self.packed.contains(&input);
        Fresh::Packed(input, if known { shift % n } else { 0 })
    }
    fn row(&self, selector: u32, shift: u32, n: u32) -> Fresh {
        let known = !self.all && !self.selectors.contains(&selector);
        Fresh::Row(selector, if known { shift % n } else { 0 })
    }
}

/// One ciphertext of a form.
struct Term<'a> {
    weight: f64,
    total: f64,
    private: f64,
    shared: Option<&'a [(u32, f64)]>,
}

impl<'a> Analysis<'a> {
    fn new(plan: &Plan, layout: &'a Layout) -> Self {
        let mut analysis = Analysis {
            layout,
            fresh_variance: fresh(layout),
            product: layout.gadget.map_or(ExternalProduct { rows: 0.0, decomposition: 0.0, fft: 0.0 }, |gadget| {
                external_product_parts(&layout.glwe, &gadget, fresh(layout))
            }),
            uses: Vec::new(),
            next_step: 0,
            fresh: BTreeMap::new(),
            coarse: Coarse::of(plan),
            sources: Vec::new(),
            shared: vec![State::default(); plan.shared as usize],
            scratch: Vec::new(),
            sums: Vec::new(),
        };
        analysis.count_uses(plan);
        analysis
    }

    fn n(&self) -> u32 {
        self.layout.glwe.polynomial_size
    }

    /// Counts the steps that read each written value and each fresh source.
    fn count_uses(&mut self, plan: &Plan) {
        let n = self.n();
        let mut fresh_uses: BTreeMap<Fresh, u32> = BTreeMap::new();
        let mut shared_writer = vec![usize::MAX; plan.shared as usize];
        for task in plan.phases.iter().flat_map(|phase| &phase.tasks) {
            let mut scratch_writer = vec![usize::MAX; task.scratch as usize];
            for step in &task.steps {
                let mut read: BTreeSet<usize> = BTreeSet::new();
                let mut met: BTreeSet<Fresh> = BTreeSet::new();
                for form in step.forms() {
                    for (slot, _) in &form.slots {
                        read.insert(match slot {
                            Slot::Shared(at) => shared_writer[*at as usize],
                            Slot::Scratch(at) => scratch_writer[*at as usize],
                        });
                    }
                    met.extend(form.packed.iter().map(|(input, shift, _)| self.coarse.packed(*input, *shift, n)));
                    met.extend(form.bits.iter().map(|(selector, shift, _)| self.coarse.row(*selector, *shift, n)));
                }
                match step {
                    Step::CMux { out: _, selector, base: _, difference } if is_trivial(difference) => {
                        met.extend([self.coarse.row(*selector, 0, n), Fresh::Bias]);
                    }
                    Step::Rotate { out: _, table, rotations } if is_trivial(table) => {
                        let first = rotations.first().map(|(selector, _)| self.coarse.row(*selector, 0, n));
                        met.extend(first.into_iter().chain([Fresh::Bias]));
                    }
                    Step::PolyMul { out: _, packed, polynomial: _ } => {
                        met.insert(self.coarse.packed(*packed, 0, n));
                    }
                    Step::CMux { .. } | Step::Rotate { .. } | Step::Sum { .. } => {}
                }
                for writer in read {
                    if let Some(count) = self.uses.get_mut(writer) {
                        *count += 1;
                    }
                }
                for source in met {
                    *fresh_uses.entry(source).or_default() += 1;
                }
                match step.out() {
                    Slot::Shared(at) => shared_writer[at as usize] = self.uses.len(),
                    Slot::Scratch(at) => scratch_writer[at as usize] = self.uses.len(),
                }
                self.uses.push(0);
            }
        }
        for (source, count) in fresh_uses {
            let known = match (count, source) {
                (1, Fresh::Packed(..) | Fresh::Row(..)) => FreshUse::Private,
                (_, Fresh::Packed(..) | Fresh::Row(..)) => FreshUse::Source(self.new_source(self.fresh_variance)),
                (_, Fresh::Bias) => FreshUse::Source(self.new_source(1.0)),
            };
            self.fresh.insert(source, known);
        }
    }

    fn new_source(&mut self, variance: f64) -> u32 {
        self.sources.push(variance);
        self.sums.push((0.0, 0.0));
        self.sources.len() as u32 - 1
    }

    fn step(&mut self, step: &Step) {
        let index = self.next_step;
        self.next_step += 1;
        let mut state = match step {
            Step::CMux { out: _, selector, base, difference } => {
                let trivial = is_trivial(difference).then(|| constants(difference));
                let zero = self.form(&[base]);
                let one = self.form(&[base, difference]);
                let (trivial_terms, added_zero, added_one) = self.product(*selector, trivial);
                let chosen = State {
                    total: (zero.total + added_zero).max(one.total + added_one),
                    private: (zero.private + added_zero).max(one.private + added_one),
                    shared: larger(zero.shared, one.shared),
                };
                self.with_fresh(chosen, &trivial_terms)
            }
            Step::Rotate { out: _, table, rotations } => {
                let mut state = self.form(&[table]);
                for (position, (selector, shift)) in rotations.iter().enumerate() {
                    let trivial = (position == 0 && is_trivial(table))
                        .then(|| rotation_difference(&constants(table), *shift, self.n()));
                    let (trivial_terms, _, added) = self.product(*selector, trivial);
                    state.total += added;
                    state.private += added;
                    state = self.with_fresh(state, &trivial_terms);
                }
                state
            }
            Step::Sum { out: _, form } => self.form(&[form]),
            Step::PolyMul { out: _, packed, polynomial } => {
                let norm = polynomial.iter().map(|&weight| (weight as f64).powi(2)).sum::<f64>().sqrt();
                let source = self.coarse.packed(*packed, 0, self.n());
                self.with_fresh(State::default(), &[(source, norm)])
            }
        };
        if self.uses.get(index).is_some_and(|uses| *uses > 1) {
            let source = self.new_source(state.private);
            state.private = 0.0;
            if let Some(shared) = &mut state.shared {
                // Sources are numbered in order, so the newest is the last.
                shared.push((source, 1.0));
            }
        }
        if state.shared.as_ref().is_some_and(|shared| shared.len() > MAX_SOURCES) {
            state.shared = None;
        }
        match step.out() {
            Slot::Shared(at) => self.shared[at as usize] = state,
            Slot::Scratch(at) => self.scratch[at as usize] = state,
        }
    }

    /// A product's noise: fresh terms of a trivial input, and the independent variance when the bit is 0 and 1.
    fn product(&self, selector: u32, trivial: Option<BTreeMap<u32, u64>>) -> (Vec<(Fresh, f64)>, f64, f64) {
        let (Some(constants), Some(gadget)) = (trivial, self.layout.gadget) else {
            return (Vec::new(), self.product.total(false), self.product.total(true));
        };
        let digits: TrivialDigits = trivial_digits(&constants, &gadget);
        let norm = squared_norm(&digits);
        let fft = fft_of_trivial(&self.layout.glwe, &digits);
        let mut terms = vec![(self.coarse.row(selector, 0, self.n()), norm.sqrt())];
        if digits.error > 0.0 {
            terms.push((Fresh::Bias, digits.error));
        }
        (terms, fft, fft)
    }

    /// A state with fresh noise of these magnitudes added, coherently with what it already contains of it.
    fn with_fresh(&mut self, state: State, terms: &[(Fresh, f64)]) -> State {
        if terms.is_empty() {
            return state;
        }
        let State { total, private, shared } = state;
        let own = Term { weight: 1.0, total, private, shared: shared.as_deref() };
        let mut fresh_sources = Vec::with_capacity(terms.len());
        let mut privates = Vec::with_capacity(terms.len());
        for (source, magnitude) in terms {
            match self.fresh.get(source) {
                Some(FreshUse::Source(id)) => fresh_sources.push([(*id, *magnitude)]),
                Some(FreshUse::Private) | None => privates.push(magnitude.powi(2) * self.fresh_variance),
            }
        }
        let mut all = vec![own];
        all.extend(fresh_sources.iter().map(|entry| Term {
            weight: 1.0,
            total: entry[0].1.powi(2) * self.sources[entry[0].0 as usize],
            private: 0.0,
            shared: Some(entry.as_slice()),
        }));
        all.extend(privates.iter().map(|&variance| Term {
            weight: 1.0,
            total: variance,
            private: variance,
            shared: Some(&[]),
        }));
        combine(&all, &self.sources, &mut self.sums)
    }

    /// The sum of forms, with equal terms merged before anything is squared.
    fn form(&mut self, forms: &[&Form]) -> State {
        let n = self.n();
        let mut slots: BTreeMap<(bool, u32), f64> = BTreeMap::new();
        let mut fresh: BTreeMap<Fresh, BTreeMap<u32, f64>> = BTreeMap::new();
        for form in forms {
            let Form { slots: own, packed, bits, constant: _ } = form;
            for (slot, weight) in own {
                let key = match slot {
                    Slot::Shared(at) => (true, *at),
                    Slot::Scratch(at) => (false, *at),
                };
                *slots.entry(key).or_default() += *weight as f64;
            }
            let mut add = |source: Fresh, shift: u32, weight: i64| {
                // X^N = -1: a shift of N more flips the sign.
                let signed = if shift >= n { -(weight as f64) } else { weight as f64 };
                *fresh.entry(source).or_default().entry(shift % n).or_default() += signed;
            };
            for (input, shift, weight) in packed {
                add(self.coarse.packed(*input, *shift, n), *shift, *weight);
            }
            for (selector, shift, weight) in bits {
                add(self.coarse.row(*selector, *shift, n), *shift, *weight);
            }
        }
        let entries: Vec<(Fresh, f64)> = fresh
            .into_iter()
            .map(|(source, shifts)| (source, shifts.values().map(|weight| weight.abs()).sum()))
            .collect();
        let terms: Vec<Term<'_>> = slots
            .iter()
            .filter(|(_, weight)| **weight != 0.0)
            .map(|((shared, at), weight)| {
                let state = if *shared { &self.shared[*at as usize] } else { &self.scratch[*at as usize] };
                let State { total, private, shared } = state;
                Term { weight: weight.abs(), total: *total, private: *private, shared: shared.as_deref() }
            })
            .collect();
        let state = combine(&terms, &self.sources, &mut self.sums);
        self.with_fresh(state, &entries)
    }
}

/// Elementwise maximum: whatever the bit is, the magnitudes are those of one branch.
fn larger(a: Option<Vec<(u32, f64)>>, b: Option<Vec<(u32, f64)>>) -> Option<Vec<(u32, f64)>> {
    let (a, b) = (a?, b?);
    let mut out: Vec<(u32, f64)> = Vec::with_capacity(a.len().max(b.len()));
    let mut left = a.into_iter().peekable();
    let mut right = b.into_iter().peekable();
    loop {
        match (left.peek(), right.peek()) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                out.push((x.0, x.1.max(y.1)));
                left.next();
                right.next();
            }
            (Some(x), Some(y)) if x.0 < y.0 => {
                out.push(*x);
                left.next();
            }
            (Some(x), None) => {
                out.push(*x);
                left.next();
            }
            (_, Some(y)) => {
                out.push(*y);
                right.next();
            }
            (None, None) => return Some(out),
        }
    }
}

/// Adds weighted terms; `sums` is all zeros before and after.
fn combine(terms: &[Term<'_>], sources: &[f64], sums: &mut [(f64, f64)]) -> State {
    let mut touched: Vec<u32> = Vec::new();
    let (mut squares, mut coherent, mut private) = (0.0, 0.0, 0.0);
    // Terms that contain untracked sources, and all that could share one with them, are added coherently.
    let (mut alone, mut mixed) = (0.0, 0.0);
    for term in terms {
        let Term { weight, total, private: own, shared } = term;
        squares += weight * weight * total;
        coherent += weight * total.sqrt();
        private += weight * weight * own;
        match shared {
            Some([]) => alone += weight * weight * total,
            Some(_) | None => mixed += weight * total.sqrt(),
        }
        for (source, magnitude) in shared.iter().flat_map(|shared| shared.iter()) {
            let sum = &mut sums[*source as usize];
            if *sum == (0.0, 0.0) {
                touched.push(*source);
            }
            let amount = weight * magnitude;
            sum.0 += amount;
            sum.1 += amount * amount;
        }
    }
    touched.sort_unstable();
    let mut cross = 0.0;
    let mut shared = Vec::with_capacity(touched.len());
    for source in touched {
        let sum = std::mem::take(&mut sums[source as usize]);
        cross += sources[source as usize] * (sum.0 * sum.0 - sum.1).max(0.0);
        if sum.0 > 0.0 {
            shared.push((source, sum.0));
        }
    }
    if terms.iter().all(|term| term.shared.is_some()) {
        State { total: (squares + cross).min(coherent * coherent), private, shared: Some(shared) }
    } else {
        State { total: alone + mixed * mixed, private, shared: None }
    }
}
