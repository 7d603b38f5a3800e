//! From a row of a query to ciphertexts ready for use: masks from the seed, bodies unpacked, selectors transformed.

use crate::circuit::Circuit;
use crate::external::{BlockProduct, Gadget, zeros};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tacit_ir::artifact::v1::{
    SEED_BYTES, packed_input_bytes, query_row_bytes, selector_bytes, small_body_bits, small_input_bytes,
    small_masks_start,
};
use tacit_ir::params::GlweParams;
use tacit_ir::plan::BLOCK;
use tacit_torus::exact::Digits;
use tacit_torus::fft::{Fft, FftScratch};
use tacit_torus::masks::MaskStream;
use tacit_torus::{ABox, bits, c64};

/// A row whose selectors and packed inputs are ready for [`Circuit::evaluate`].
#[derive(Debug)]
pub struct PreparedRow {
    /// GGSW ciphertexts, in the layout of [`Gadget::set`]; empty for selectors of blocks.
    pub(crate) selectors: Vec<ABox<[c64]>>,
    /// The GGSW ciphertexts of each block of selectors, by its first, in the layout of [`tacit_torus::blocks`].
    pub(crate) blocks: BTreeMap<u32, ABox<[f64]>>,
    /// Last-level body rows, as [`Circuit::bit_rows`] numbers them.
    pub(crate) bit_rows: Vec<ABox<[u64]>>,
    /// Packed inputs as GLWE ciphertexts.
    pub(crate) packed: Vec<ABox<[u64]>>,
    /// Inputs under a small key as GLWE ciphertexts.
    pub(crate) small: Vec<ABox<[u64]>>,
    /// Digits of the k+1 polynomials of packed inputs, as [`Circuit::digit_inputs`] numbers them.
    pub(crate) digits: Vec<Vec<Digits>>,
    pools: Pools,
}

/// Memory of dropped rows' selectors, for later rows: touching fresh memory costs more than filling it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    selectors: Pool<c64>,
    blocks: Pool<f64>,
}

/// Spare buffers of one length.
#[derive(Clone, Debug)]
struct Pool<T>(Arc<Mutex<Vec<ABox<[T]>>>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(Arc::default())
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of the length that all have; its contents are arbitrary.
    fn take(&self, len: usize) -> ABox<[T]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(|| zeros(len))
    }

    /// Takes back a row's buffers.
    fn give(&self, buffers: impl ExactSizeIterator<Item = ABox<[T]>>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Rows of many threads may end together; two rows' worth is enough to keep.
        let room = (2 * buffers.len()).saturating_sub(spare.len());
        spare.extend(buffers.filter(|buffer| !buffer.is_empty()).take(room));
    }
}

impl Drop for PreparedRow {
    fn drop(&mut self) {
        self.pools.selectors.give(self.selectors.drain(..));
        self.pools.blocks.give(std::mem::take(&mut self.blocks).into_values());
    }
}

/// Prepares one row of a query that [`Query::read`](crate::Query::read) checked, in parallel over its ciphertexts on the
/// current rayon pool. Missing bytes of a row of another length read as zeros.
pub fn prepare(circuit: &Circuit, row: &[u8]) -> PreparedRow {
    let row_part = |part: Range<usize>| row.get(part).unwrap_or_default();
    let seed = seed(row_part(0..SEED_BYTES));
    let units: Vec<(usize, &[u8])> =
        (0..circuit.units.len()).map(|unit| (unit, row_part(circuit.unit_bytes(unit)))).collect();
    let row = Row { circuit, masks: MaskStream::new(seed) };
    row.assemble(row.units(&units), row_part(circuit.unit_bytes(units.len())))
}

/// The seed that a row begins with.
pub(crate) fn seed(bytes: &[u8]) -> [u8; SEED_BYTES] {
    let mut seed = [0; SEED_BYTES];
    for (to, from) in seed.iter_mut().zip(bytes) {
        *to = *from;
    }
    seed
}

impl Circuit {
    /// Where the bodies of a unit lie in a row; those of the inputs follow the last unit.
    pub(crate) fn unit_bytes(&self, unit: usize) -> Range<usize> {
        let layout = self.layout();
        let start = |unit: usize| {
            let selector = self.units.get(unit).copied().unwrap_or(layout.selectors);
            SEED_BYTES + (u64::from(selector) * selector_bytes(layout)) as usize
        };
        let end = if unit < self.units.len() { start(unit + 1) } else { query_row_bytes(layout) as usize };
        start(unit)..end
    }
}

/// A transformed GGSW, and its last-level body row if forms read it.
type Selector = (ABox<[c64]>, Option<ABox<[u64]>>);

/// What a unit of a row, a selector or a block of them, is prepared to.
#[derive(Debug)]
pub(crate) enum Made {
    Selector(Selector),
    Block(ABox<[f64]>),
}

/// What turns the bodies of a row to ciphertexts.
pub(crate) struct Row<'a> {
    pub(crate) circuit: &'a Circuit,
    pub(crate) masks: MaskStream,
}

/// Working memory for seeded GGSW ciphertexts; one per thread.
pub(crate) struct Expansion<'a> {
    fft: &'a Fft,
    /// One GLWE ciphertext.
    glwe: ABox<[u64]>,
    bodies: ABox<[u64]>,
    fourier: ABox<[c64]>,
    scratch: FftScratch,
}

impl<'a> Expansion<'a> {
    pub(crate) fn new(glwe: &GlweParams, gadget: &Gadget, fft: &'a Fft) -> Self {
        let rows = gadget.rows(glwe);
        Expansion {
            fft,
            glwe: zeros(glwe.ciphertext_len()),
            bodies: zeros(rows * fft.polynomial_size()),
            fourier: zeros(fft.fourier_size()),
            scratch: fft.scratch(),
        }
    }

    /// The GGSW whose rows have the masks from number `first` on: bodies of `bits` bits unpacked, masks from the stream. `put` gets the transform of each
    /// polynomial with its row and column, `see` each row's number and its GLWE ciphertext.
    pub(crate) fn ggsw(
        &mut self,
        masks: &MaskStream,
        first: u64,
        (bodies, bits): (&[u8], u32),
        mut put: impl FnMut(&[c64], usize, usize),
        mut see: impl FnMut(usize, &[u64]),
    ) {
        let n = self.fft.polynomial_size();
        let mask_len = self.glwe.len() - n;
        bits::unpack(bodies, bits, &mut self.bodies);
        for (row, body) in self.bodies.chunks_exact(n).enumerate() {
            let (mask, last) = self.glwe.split_at_mut(mask_len);
            masks.fill((first + row as u64) * mask_len as u64, mask);
            last.copy_from_slice(body);
            for (column, poly) in self.glwe.chunks_exact(n).enumerate() {
                self.fft.forward_torus(&mut self.fourier, poly, &mut self.scratch);
                put(&self.fourier, row, column);
            }
            see(row, &self.glwe);
        }
    }
}

impl<'a> Row<'a> {
    /// Prepares units, each by its number and its bodies, in parallel on the current rayon pool.
    pub(crate) fn units(&self, units: &[(usize, &[u8])]) -> Vec<Made> {
        if rayon::current_num_threads() == 1 {
            return self.units_here(units);
        }
        let Some(fresh) = self.expansion() else { return Vec::new() };
        units.par_iter().map_init(fresh, |expansion, (unit, bodies)| self.unit(*unit, bodies, expansion)).collect()
    }

    /// As [`Row::units`], on the current thread.
    pub(crate) fn units_here(&self, units: &[(usize, &[u8])]) -> Vec<Made> {
        let Some(fresh) = self.expansion() else { return Vec::new() };
        let mut expansion = fresh();
        units.iter().map(|(unit, bodies)| self.unit(*unit, bodies, &mut expansion)).collect()
    }

    /// Makes working memory; `None` for circuits without selectors.
    fn expansion(&self) -> Option<impl Fn() -> Expansion<'a> + Sync + use<'a>> {
        let circuit = self.circuit;
        let gadget = circuit.gadget.as_ref()?;
        Some(move || Expansion::new(&circuit.layout().glwe, gadget, &circuit.fft))
    }

    fn unit(&self, unit: usize, bodies: &[u8], expansion: &mut Expansion<'_>) -> Made {
        let circuit = self.circuit;
        let first = circuit.units[unit];
        match (&circuit.blocks, &circuit.gadget) {
            (Some(blocks), _) if circuit.plan.network.block_of(first).is_some() => {
                Made::Block(self.block(blocks, first, bodies, expansion))
            }
            (_, Some(gadget)) => Made::Selector(self.selector(gadget, first, bodies, expansion)),
            (_, None) => Made::Selector((zeros(0), None)),
        }
    }

    /// The row of all its units and the bodies of its inputs.
    pub(crate) fn assemble(&self, units: Vec<Made>, inputs: &[u8]) -> PreparedRow {
        let circuit = self.circuit;
        let layout = circuit.layout();
        let mut selectors = Vec::with_capacity(layout.selectors as usize);
        let mut blocks = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for (first, made) in circuit.units.iter().zip(units) {
            match made {
                Made::Selector((ggsw, bit_row)) => {
                    selectors.push(ggsw);
                    kept.extend(bit_row.and_then(|bit_row| circuit.bit_rows.get(first).map(|at| (*at, bit_row))));
                }
                Made::Block(table) => {
                    blocks.insert(*first, table);
                    selectors.extend((0..BLOCK).map(|_| zeros(0)));
                }
            }
        }
        let packed: Vec<ABox<[u64]>> = (0..layout.packed_inputs).map(|input| self.packed(input, inputs)).collect();
        let digits = circuit.digit_inputs.keys().map(|(input, digit_bits)| {
            let mut scratch = circuit.fft.scratch();
            let polynomials = packed[*input as usize].chunks_exact(circuit.fft.polynomial_size());
            polynomials.map(|poly| Digits::new(&circuit.fft, poly, *digit_bits, &mut scratch)).collect()
        });
        let digits = digits.collect();
        let pools = circuit.pools.clone();
        let small = (0..layout.small_inputs).map(|input| self.small(input, inputs)).collect();
        PreparedRow { selectors, blocks, bit_rows: kept.into_values().collect(), packed, small, digits, pools }
    }

    /// One GGSW: its transform, and its last-level body row if forms read it.
    fn selector(&self, gadget: &Gadget, selector: u32, bodies: &[u8], expansion: &mut Expansion<'_>) -> Selector {
        let layout = self.circuit.layout();
        let mut ggsw = self.circuit.pools.selectors.take(gadget.fourier_len(&layout.glwe));
        let mut kept = None;
        let wanted = self.circuit.bit_rows.contains_key(&selector);
        let rows = gadget.rows(&layout.glwe);
        let put = |transform: &[c64], row, column| gadget.set(&mut ggsw, transform, row, column, rows);
        let first = u64::from(selector) * rows as u64;
        expansion.ggsw(&self.masks, first, (bodies, layout.body_bits), put, |row, glwe| {
            // Level matrices begin with the least significant level; the body row is the last of its matrix.
            if wanted && row == layout.glwe.dimension as usize {
                let mut copy = zeros(glwe.len());
                copy.copy_from_slice(glwe);
                kept = Some(copy);
            }
        });
        (ggsw, kept)
    }

    /// The GGSWs of a block of selectors.
    fn block(&self, blocks: &BlockProduct, first: u32, bodies: &[u8], expansion: &mut Expansion<'_>) -> ABox<[f64]> {
        let layout = self.circuit.layout();
        let stride = selector_bytes(layout);
        let mut table = self.circuit.pools.blocks.take(blocks.shape.table_len(self.circuit.fft.fourier_size()));
        for (index, selector) in (first..).take(BLOCK).enumerate() {
            let bodies = part(bodies, index as u64 * stride, stride);
            let put = |transform: &[c64], row, column| blocks.shape.set(&mut table, transform, index, row, column);
            let first = u64::from(selector) * blocks.shape.rows as u64;
            expansion.ggsw(&self.masks, first, (bodies, layout.body_bits), put, |_, _| {});
        }
        table
    }

    fn small(&self, input: u32, inputs: &[u8]) -> ABox<[u64]> {
        let layout = self.circuit.layout();
        let mask_len = layout.input_partition().map_or(0, |(_, params)| params.lwe.dimension as usize);
        let mask = small_masks_start(layout) + u64::from(input) * mask_len as u64;
        let stride = small_input_bytes(layout);
        let start = u64::from(layout.packed_inputs) * packed_input_bytes(layout) + u64::from(input) * stride;
        let bodies = (part(inputs, start, stride), small_body_bits(layout));
        self.input((mask, mask_len), bodies, layout.small_size() as usize)
    }

    fn packed(&self, input: u32, inputs: &[u8]) -> ABox<[u64]> {
        let layout = self.circuit.layout();
        let (mask_len, stride) = (layout.glwe.lwe_dimension() as usize, packed_input_bytes(layout));
        let rows = self.circuit.gadget.as_ref().map_or(0, |gadget| gadget.rows(&layout.glwe)) as u64;
        let mask = (u64::from(layout.selectors) * rows + u64::from(input)) * mask_len as u64;
        let bodies = (part(inputs, u64::from(input) * stride, stride), layout.body_bits);
        self.input((mask, mask_len), bodies, layout.glwe.polynomial_size as usize)
    }

    /// A GLWE ciphertext of `size` coefficients: masks from this word of the stream on, bodies of these many bits.
    fn input(&self, (mask, mask_len): (u64, usize), (bodies, bits): (&[u8], u32), size: usize) -> ABox<[u64]> {
        let mut glwe = zeros(mask_len + size);
        let (masks, body) = glwe.split_at_mut(mask_len);
        self.masks.fill(mask, masks);
        bits::unpack(bodies, bits, body);
        glwe
    }
}

/// So many of these bytes, from `start` on; none where they are not all there.
fn part(bytes: &[u8], start: u64, count: u64) -> &[u8] {
    bytes.get(start as usize..(start + count) as usize).unwrap_or_default()
}
