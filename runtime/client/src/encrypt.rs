//! Encryption of rows: seeded GGSW ciphertexts of bits and seeded GLWE ciphertexts of messages, of which only the bodies
//! travel, rounded to the layout's `body_bits`.

use crate::EncodedRow;
use crate::key::ClientKey;
use crate::random::{Noise, public_seed, system_bytes};
use rayon::prelude::*;
use tacit_ir::artifact::v1::{
    BatchHeader, MAX_ROWS, packed_input_bytes, query_row_bytes, selector_bytes, small_body_bits, small_input_bytes,
    small_masks_start,
};
use tacit_ir::artifact::{Container, Kind, SectionId, encode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::params::GadgetParams;
use tacit_torus::exact::{Digits, Sum};
use tacit_torus::fft::{Fft, FftScratch};
use tacit_torus::masks::MaskStream;
use tacit_torus::{AVec, bits, c64};
use zeroize::{Zeroize, Zeroizing};

/// Width of the mask's digits in products with the key: a binary key of dimension up to 2^15 has a norm below 2^8, far
/// from the limit of [`tacit_torus::exact::digit_bits`].
const DIGIT_BITS: u32 = 32;

/// Encrypts rows into a query file, each under a fresh seed and fresh noise, in parallel over ciphertexts on the current
/// rayon pool. Twice the same rows give different files.
///
/// # Errors
///
/// [`Code::NotConformant`] when a row does not fit the key's layout, or there is no row or too many.
pub fn encrypt(key: &ClientKey, rows: &[EncodedRow]) -> Result<Vec<u8>> {
    let layout = &key.layout;
    let count = u32::try_from(rows.len()).ok().filter(|count| (1..=MAX_ROWS).contains(count));
    let count = count.ok_or_else(|| {
        Diagnostic::new(Code::NotConformant, format!("{} rows; between 1 and {MAX_ROWS} are possible", rows.len()))
    })?;
    let mut out = Vec::with_capacity(rows.len() * query_row_bytes(layout) as usize);
    for (index, row) in rows.iter().enumerate() {
        let n = layout.glwe.polynomial_size as usize;
        if row.selectors.len() != layout.selectors as usize
            || row.packed.len() != layout.packed_inputs as usize
            || row.packed.iter().any(|message| message.len() != n)
            || row.small.len() != layout.small_inputs as usize
            || row.small.iter().any(|message| message.len() != layout.small_size() as usize)
        {
            return Err(Diagnostic::new(Code::NotConformant, format!("row {index} does not fit the circuit's layout")));
        }
        encrypt_row(key, row, &mut out);
    }
    let header = BatchHeader { rows: count, layout: layout.clone() };
    let sections = vec![(SectionId::HEADER, encode(&header)?), (SectionId::ROWS, out)];
    Ok(Container { kind: Kind::Query, digest: key.digest, sections }.write())
}

fn encrypt_row(key: &ClientKey, row: &EncodedRow, out: &mut Vec<u8>) {
    let layout = &key.layout;
    let seed = public_seed();
    let noise_key = system_bytes();
    out.extend_from_slice(&seed);
    let start = out.len();
    out.resize(start + query_row_bytes(layout) as usize - seed.len(), 0);
    let bodies = &mut out[start..];
    let selector_stride = selector_bytes(layout) as usize;
    let (selectors, rest) = bodies.split_at_mut(selector_stride * row.selectors.len());
    let (packed, small) = rest.split_at_mut(packed_input_bytes(layout) as usize * row.packed.len());
    let fresh = || Encryptor::new(key, MaskStream::new(seed), &noise_key);
    let selector = |encryptor: &mut Encryptor<'_>, (index, (place, bit)): (usize, (&mut [u8], &bool))| {
        encryptor.selector(index, *bit, place);
    };
    let input = |encryptor: &mut Encryptor<'_>, (index, (place, message)): (usize, (&mut [u8], &Vec<u64>))| {
        encryptor.packed(index, message, place);
    };
    // A selector is 0 bytes long only where there is none.
    let selectors = selectors.par_chunks_exact_mut(selector_stride.max(1)).zip(&row.selectors).enumerate();
    let packed = packed.par_chunks_exact_mut(packed_input_bytes(layout) as usize).zip(&row.packed).enumerate();
    selectors.for_each_init(fresh, selector);
    packed.for_each_init(fresh, input);
    small_inputs(key, row, seed, &noise_key, small);
}

/// Encrypts the inputs under a small key: GLWE ciphertexts whose key polynomials are the small key cut in pieces.
fn small_inputs(key: &ClientKey, row: &EncodedRow, seed: [u8; 16], noise_key: &[u8; 32], out: &mut [u8]) {
    let layout = &key.layout;
    let (Some(fft), Some((_, params))) = (&key.small_fft, layout.input_partition()) else { return };
    let masks = MaskStream::new(seed);
    let mut mask = vec![0u64; params.lwe.dimension as usize];
    let mut product = MaskProduct::new(fft);
    let std = (64.0 + params.lwe.log2_std).exp2();
    let before = u64::from(layout.selectors) + u64::from(layout.packed_inputs);
    for (at, (message, place)) in
        row.small.iter().zip(out.chunks_exact_mut(small_input_bytes(layout).max(1) as usize)).enumerate()
    {
        masks.fill(small_masks_start(layout) + (at * mask.len()) as u64, &mut mask);
        let mut body = Zeroizing::new(message.clone());
        product.add(fft, &key.small_fourier, &mask, &mut body);
        Noise::new(noise_key, before + at as u64).add_gaussian(&mut body, std);
        let mut packed = Vec::with_capacity(place.len());
        bits::pack(&body, small_body_bits(layout), &mut packed);
        place.copy_from_slice(&packed);
    }
}

/// Encrypts the ciphertexts of one row.
pub(crate) struct Encryptor<'a> {
    key: &'a ClientKey,
    masks: MaskStream,
    noise_key: &'a [u8; 32],
    std: f64,
    mask: Vec<u64>,
    body: Zeroizing<Vec<u64>>,
    product: MaskProduct,
    packed: Vec<u8>,
}

/// Working memory for products of masks and a key.
pub(crate) struct MaskProduct {
    digits: Digits,
    sum: Sum,
    scratch: FftScratch,
}

impl MaskProduct {
    pub(crate) fn new(fft: &Fft) -> Self {
        let mut scratch = fft.scratch();
        let digits = Digits::new(fft, &vec![0; fft.polynomial_size()], DIGIT_BITS, &mut scratch);
        MaskProduct { digits, sum: Sum::new(fft, DIGIT_BITS), scratch }
    }

    /// `body += <mask, key>`, the key given by the transforms of its polynomials.
    pub(crate) fn add(&mut self, fft: &Fft, key: &[AVec<c64>], mask: &[u64], body: &mut [u64]) {
        for (mask, key) in mask.chunks_exact(fft.polynomial_size()).zip(key) {
            self.digits.set(fft, mask, &mut self.scratch);
            self.sum.add(&self.digits, key);
        }
        self.sum.finish(fft, body, &mut self.scratch);
    }
}

impl Drop for MaskProduct {
    fn drop(&mut self) {
        self.sum.zeroize();
    }
}

impl<'a> Encryptor<'a> {
    pub(crate) fn new(key: &'a ClientKey, masks: MaskStream, noise_key: &'a [u8; 32]) -> Self {
        let n = key.fft.polynomial_size();
        Encryptor {
            key,
            masks,
            noise_key,
            std: (64.0 + key.layout.glwe.log2_std).exp2(),
            mask: vec![0; key.bits.len()],
            body: Zeroizing::new(vec![0; n]),
            product: MaskProduct::new(&key.fft),
            packed: Vec::new(),
        }
    }

    /// Adds `<mask, key> + noise` to the body, the mask being number `index` of the row.
    fn hide(&mut self, index: u64, noise: &mut Noise) {
        self.masks.fill(index * self.mask.len() as u64, &mut self.mask);
        self.product.add(&self.key.fft, &self.key.fourier, &self.mask, &mut self.body);
        noise.add_gaussian(&mut self.body, self.std);
    }

    /// A GGSW of a bit in tfhe's convention: level matrices from the least significant level; in the matrix of level j,
    /// row i < k encrypts `-bit * key_i / B^j`, the last row `bit / B^j`.
    fn selector(&mut self, selector: usize, bit: bool, out: &mut [u8]) {
        let layout = &self.key.layout;
        let Some(gadget) = layout.gadget else { return };
        let rows = gadget.levels as usize * (layout.glwe.dimension as usize + 1);
        let all = self.ggsw(&gadget, selector * rows, selector as u64, bit);
        self.packed.clear();
        bits::pack(&all, layout.body_bits, &mut self.packed);
        out.copy_from_slice(&self.packed);
    }

    /// The bodies of a GGSW of a bit, with the masks from number `first` and the noise stream `stream`.
    pub(crate) fn ggsw(&mut self, gadget: &GadgetParams, first: usize, stream: u64, bit: bool) -> Zeroizing<Vec<u64>> {
        let n = self.key.fft.polynomial_size();
        let k = self.key.layout.glwe.dimension as usize;
        let rows = gadget.levels as usize * (k + 1);
        let mut noise = Noise::new(self.noise_key, stream);
        let mut all = Zeroizing::new(Vec::with_capacity(rows * n));
        for level in (1..=gadget.levels).rev() {
            let scale = u64::from(bit) << (64 - gadget.base_log * level);
            for row in 0..=k {
                if row < k {
                    let minus = scale.wrapping_neg();
                    for (body, key) in self.body.iter_mut().zip(&self.key.bits[row * n..]) {
                        *body = u64::from(*key).wrapping_mul(minus);
                    }
                } else {
                    self.body.fill(0);
                    self.body[0] = scale;
                }
                let index = first + all.len() / n;
                self.hide(index as u64, &mut noise);
                all.extend_from_slice(&self.body);
            }
        }
        all
    }

    /// A GLWE of a message polynomial.
    fn packed(&mut self, input: usize, message: &[u64], out: &mut [u8]) {
        let layout = &self.key.layout;
        let rows = layout.gadget.map_or(0, |gadget| u64::from(gadget.levels) * (u64::from(layout.glwe.dimension) + 1));
        let selectors = u64::from(layout.selectors);
        let mut noise = Noise::new(self.noise_key, selectors + input as u64);
        self.body.copy_from_slice(message);
        self.hide(selectors * rows + input as u64, &mut noise);
        self.packed.clear();
        bits::pack(&self.body, layout.body_bits, &mut self.packed);
        out.copy_from_slice(&self.packed);
    }
}
