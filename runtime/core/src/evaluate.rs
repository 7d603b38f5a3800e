//! Runs a plan: phases in order, the tasks of a phase in parallel, steps in order.
//!
//! Buffers belong to a workspace that is kept for the next row; inside a task none is allocated. Every slot is written by
//! computing into a spare buffer and swapping it in, so a step may read what it overwrites. No task of a phase reads what
//! another one of it writes, so that nobody waits for a slot's lock.

use crate::bootstrap::EvaluationKey;
use crate::circuit::Circuit;
use crate::external::{BlockScratch, ProductScratch, zeros};
use crate::form::{self, Term};
use crate::phases::run_phases;
use crate::prepare::PreparedRow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use tacit_ir::diag::Result;
use tacit_ir::plan::{BLOCK, Form, Slot, Step, Task};
use tacit_torus::ABox;
use tacit_torus::exact;
use tacit_torus::fft::FftScratch;

pub(crate) type Buffer = ABox<[u64]>;

/// The result ciphertexts of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Ciphertexts {
    glwe: Vec<Buffer>,
    lwe: Vec<Vec<u32>>,
}

impl Ciphertexts {
    /// Whole GLWE ciphertexts, k masks and the body, N coefficients each, in the order of the plan's results.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.glwe.iter().map(|buffer| &**buffer)
    }

    /// The network's results: LWE ciphertexts on the 32-bit torus, kN masks and the body each, one after another.
    pub fn lwe(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.lwe.iter().map(Vec::as_slice)
    }
}

/// Memory for evaluations, kept between rows.
#[derive(Debug, Default)]
pub(crate) struct WorkspacePool {
    shared: Mutex<Vec<Vec<RwLock<Buffer>>>>,
    threads: Mutex<Vec<ThreadSpace>>,
}

/// A table of N torus values, and `(selector, shift)` of the rotations that its entries go through.
pub(crate) struct TurnedTable<'a> {
    pub(crate) table: &'a [u32],
    pub(crate) rotations: &'a [(u32, u32)],
}

/// What one thread needs while it runs a task.
struct ThreadSpace {
    scratch: Vec<Buffer>,
    /// The value being computed.
    value: Buffer,
    difference: Buffer,
    terms: Vec<Term<'static>>,
    product: Option<ProductScratch>,
    block: Option<BlockScratch>,
    sums: BTreeMap<u32, exact::Sum>,
    fft: FftScratch,
}

impl std::fmt::Debug for ThreadSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ThreadSpace")
    }
}

fn take<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give<T>(pool: &Mutex<Vec<T>>, value: T) {
    pool.lock().unwrap_or_else(PoisonError::into_inner).push(value);
}

pub(crate) fn read(slot: &RwLock<Buffer>) -> RwLockReadGuard<'_, Buffer> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadSpace {
    fn new(circuit: &Circuit) -> Self {
        let glwe = &circuit.layout().glwe;
        ThreadSpace {
            scratch: Vec::new(),
            value: zeros(glwe.ciphertext_len()),
            difference: zeros(glwe.ciphertext_len()),
            terms: Vec::new(),
            product: circuit.gadget.as_ref().map(|gadget| gadget.scratch(glwe)),
            block: circuit.blocks.as_ref().map(|blocks| blocks.scratch(&circuit.fft)),
            sums: BTreeMap::new(),
            fft: circuit.fft.scratch(),
        }
    }
}

/// An empty vector of terms of any lifetime that keeps its memory.
fn recycle<'to>(mut terms: Vec<Term<'_>>) -> Vec<Term<'to>> {
    terms.clear();
    // An empty vector mapped in place keeps its allocation.
    terms.into_iter().map(|_| Term { from: &[], shift: 0, weight: 0 }).collect()
}

impl Circuit {
    /// Evaluates the plan on a prepared row, in parallel over tasks when the current rayon pool has several threads. The
    /// result's bits do not depend on the number of threads.
    ///
    /// # Errors
    ///
    /// `EvaluationKeyMissing` when the plan bootstraps and no key is given; `OtherCircuit` for another circuit's key.
    pub fn evaluate(&self, row: &PreparedRow, key: Option<&EvaluationKey>) -> Result<Ciphertexts> {
        let len = self.layout().glwe.ciphertext_len();
        let mut shared = take(&self.workspaces.shared).unwrap_or_default();
        shared.resize_with(self.plan.shared as usize, || RwLock::new(zeros(len)));
        let lengths: Vec<usize> = self.plan.phases.iter().map(|phase| phase.tasks.len()).collect();
        run_phases(
            &lengths,
            || take(&self.workspaces.threads).unwrap_or_else(|| ThreadSpace::new(self)),
            |space, phase, task| {
                let first = self.first_polynomial[phase][task];
                self.task(&self.plan.phases[phase].tasks[task], first, row, &shared, space);
            },
            |space| give(&self.workspaces.threads, space),
        );
        let results = self.plan.results.iter().map(|slot| read(&shared[*slot as usize]).clone()).collect();
        let lwe = self.network(row, &shared, key);
        give(&self.workspaces.shared, shared);
        Ok(Ciphertexts { glwe: results, lwe: lwe? })
    }

    /// Multiplies `value` by `X^-shift` for each `(selector, shift)` whose selector's bit is 1.
    fn rotate_by(
        &self,
        row: &PreparedRow,
        rotations: &[(u32, u32)],
        value: &mut [u64],
        difference: &mut [u64],
        product: &mut Option<ProductScratch>,
        fft: &mut FftScratch,
    ) {
        let n = self.fft.polynomial_size();
        let (Some(gadget), Some(product)) = (&self.gadget, product.as_mut()) else { return };
        for (selector, shift) in rotations {
            form::rotation_difference(difference, value, 2 * n - *shift as usize, n);
            gadget.add_product(&self.fft, value, &row.selectors[*selector as usize], difference, product, fft);
        }
    }

    /// Turns a value by the first rotation left if it is by this selector.
    fn turn_by_selector(
        &self,
        row: &PreparedRow,
        next: u32,
        rest: &mut &[(u32, u32)],
        value: &mut [u64],
        space: &mut ThreadSpace,
    ) {
        let Some((rotation, after)) = rest.split_first().filter(|(rotation, _)| rotation.0 == next) else { return };
        let ThreadSpace { difference, product, fft, .. } = space;
        self.rotate_by(row, std::slice::from_ref(rotation), value, difference, product, fft);
        *rest = after;
    }

    /// Turns a value by the first rotations left that are by selectors of this block.
    fn turn_by_block(
        &self,
        row: &PreparedRow,
        first: u32,
        rest: &mut &[(u32, u32)],
        value: &mut [u64],
        space: &mut ThreadSpace,
    ) {
        let mut exponents = [0; BLOCK];
        while let Some((&(selector, shift), after)) = rest.split_first() {
            let Some(exponent) = exponents.get_mut(selector.wrapping_sub(first) as usize) else { break };
            *exponent = 2 * self.fft.polynomial_size() as u32 - shift;
            *rest = after;
        }
        let ThreadSpace { block, fft, .. } = space;
        if let (Some(blocks), Some(gadget), Some(scratch)) = (&self.blocks, &self.gadget, block) {
            let table = row.blocks.get(&first).map_or(&[][..], |table| table);
            blocks.add(&self.fft, gadget, value, &exponents, table, scratch, fft);
        }
    }

    /// Rotates tables of torus values, each by its selectors, all of them together so that a selector is read once for
    /// those that use it next; `use_value` gets the number of each table and its GLWE ciphertext.
    pub(crate) fn rotate_tables(
        &self,
        row: &PreparedRow,
        tables: &[TurnedTable<'_>],
        mut use_value: impl FnMut(usize, &[u64]),
    ) {
        let glwe = &self.layout().glwe;
        let (n, len) = (self.fft.polynomial_size(), glwe.ciphertext_len());
        let mut space = take(&self.workspaces.threads).unwrap_or_else(|| ThreadSpace::new(self));
        let mut values = zeros(len * tables.len());
        for (value, TurnedTable { table, .. }) in values.chunks_exact_mut(len).zip(tables) {
            for (to, value) in value[len - n..].iter_mut().zip(*table) {
                *to = u64::from(*value) << 32;
            }
        }
        let mut rest: Vec<&[(u32, u32)]> = tables.iter().map(|own| own.rotations).collect();
        while let Some(next) = rest.iter().filter_map(|rest| Some(rest.first()?.0)).min() {
            let block = self.plan.network.block_of(next);
            for (value, rest) in values.chunks_exact_mut(len).zip(&mut rest) {
                match block {
                    Some(first) => self.turn_by_block(row, first, rest, value, &mut space),
                    None => self.turn_by_selector(row, next, rest, value, &mut space),
                }
            }
        }
        for (at, value) in values.chunks_exact(len).enumerate() {
            use_value(at, value);
        }
        give(&self.workspaces.threads, space);
    }

    fn task(
        &self,
        task: &Task,
        first_polynomial: usize,
        row: &PreparedRow,
        shared: &[RwLock<Buffer>],
        space: &mut ThreadSpace,
    ) {
        let (n, len) = (self.fft.polynomial_size(), self.layout().glwe.ciphertext_len());
        let ThreadSpace { scratch, value, difference, terms, product, block: _, sums, fft } = space;
        if scratch.len() < task.scratch as usize {
            scratch.resize_with(task.scratch as usize, || zeros(len));
        }
        let mut polynomial_index = first_polynomial;
        for step in &task.steps {
            let slots = Slots { circuit: self, row, shared, scratch };
            match step {
                Step::CMux { out: _, selector, base, difference: form } => {
                    slots.form(difference, form, terms, n);
                    slots.form(value, base, terms, n);
                    if let (Some(gadget), Some(product)) = (&self.gadget, product.as_mut()) {
                        let ggsw = &row.selectors[*selector as usize];
                        gadget.add_product(&self.fft, value, ggsw, difference, product, fft);
                    }
                }
                Step::Rotate { out: _, table, rotations } => {
                    slots.form(value, table, terms, n);
                    self.rotate_by(row, rotations, value, difference, product, fft);
                }
                Step::Sum { out: _, form } => slots.form(value, form, terms, n),
                Step::PolyMul { out: _, packed, polynomial: _ } => {
                    let multiplier = &self.polynomials[polynomial_index];
                    polynomial_index += 1;
                    let digits = &row.digits[self.digit_inputs[&(*packed, multiplier.digit_bits)]];
                    let bits = multiplier.digit_bits;
                    let sum = sums.entry(bits).or_insert_with(|| exact::Sum::new(&self.fft, bits));
                    value.fill(0);
                    for (out, digits) in value.chunks_exact_mut(n).zip(digits) {
                        sum.add(digits, &multiplier.fourier);
                        sum.finish(&self.fft, out, fft);
                    }
                }
            }
            match step.out() {
                Slot::Scratch(at) => std::mem::swap(&mut scratch[at as usize], value),
                Slot::Shared(at) => {
                    let mut slot = shared[at as usize].write().unwrap_or_else(PoisonError::into_inner);
                    std::mem::swap(&mut *slot, value);
                }
            }
        }
    }
}

struct Slots<'a> {
    circuit: &'a Circuit,
    row: &'a PreparedRow,
    shared: &'a [RwLock<Buffer>],
    scratch: &'a [Buffer],
}

impl Slots<'_> {
    fn form(&self, out: &mut [u64], form: &Form, memory: &mut Vec<Term<'static>>, n: usize) {
        let Form { slots, packed, bits, constant } = form;
        let in_shared = slots.iter().filter_map(|(slot, weight)| match slot {
            Slot::Shared(at) => Some((read(&self.shared[*at as usize]), *weight)),
            Slot::Scratch(_) => None,
        });
        let in_shared: Vec<_> = in_shared.collect();
        let mut terms = recycle(std::mem::take(memory));
        terms.extend(in_shared.iter().map(|(from, weight)| Term { from, shift: 0, weight: *weight as u64 }));
        terms.extend(slots.iter().filter_map(|(slot, weight)| match slot {
            Slot::Scratch(at) => Some(Term { from: &self.scratch[*at as usize], shift: 0, weight: *weight as u64 }),
            Slot::Shared(_) => None,
        }));
        terms.extend(packed.iter().map(|(input, shift, weight)| Term {
            from: &self.row.packed[*input as usize],
            shift: (2 * n - *shift as usize) % (2 * n),
            weight: *weight as u64,
        }));
        terms.extend(bits.iter().map(|(selector, shift, weight)| Term {
            from: &self.row.bit_rows[self.circuit.bit_rows[selector]],
            shift: *shift as usize,
            weight: *weight as u64,
        }));
        form::sum(out, &terms, n);
        let body = out.len() - n;
        for (coefficient, value) in constant {
            let at = &mut out[body + *coefficient as usize];
            *at = at.wrapping_add(*value);
        }
        *memory = recycle(terms);
    }
}
