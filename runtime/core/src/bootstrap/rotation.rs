//! Blind rotation under a block-binary key (Lee, Min, Seo, Song, "Faster TFHE bootstrapping with block binary keys",
//! AsiaCCS 2023).
//!
//! At most one bit of a block is 1, so the whole block multiplies the accumulator by `1 + sum_i s_i (X^a_i - 1)`: it is
//! decomposed and transformed once a block, and the sum of the block's products is transformed back once. The key is
//! streamed once for a batch of ciphertexts.

use super::{PartitionKey, batch_size, sample_extract};
use crate::external::{BlockProduct, Gadget, zeros};
use rayon::prelude::*;
use tacit_ir::params::{BootstrapParams, GlweParams};
use tacit_torus::ABox;
use tacit_torus::fft::Fft;

/// What blind rotations of given parameters need that does not change.
#[derive(Debug)]
pub struct BlindRotation {
    pub(super) fft: Fft,
    pub(super) gadget: Gadget,
    pub(super) blocks: BlockProduct,
    /// The share of key bits that are 1.
    density: f64,
}

impl BlindRotation {
    pub(super) fn new(glwe: &GlweParams, params: &BootstrapParams) -> Self {
        let fft = Fft::new(glwe.polynomial_size as usize);
        let gadget = Gadget::new(&params.gadget);
        let blocks = BlockProduct::new(&fft, glwe, &gadget, params.lwe.block as usize);
        BlindRotation { blocks, gadget, density: params.lwe.density(), fft }
    }

    /// Rounds a ciphertext under the small key to multiples of `results/2N`, in units of `1/2N`. The expected effect of the
    /// masks' rounding is added to the body first, which leaves only its deviation.
    fn modulus_switch(&self, lwe: &[u32], results: u32, out: &mut [u32]) {
        let double = 2 * self.fft.polynomial_size() as u32 / results;
        let drop = u32::BITS - double.trailing_zeros();
        let half = 1u32 << (drop - 1);
        let (masks, body) = lwe.split_at(lwe.len() - 1);
        let mut expected = 0i64;
        for (out, mask) in out.iter_mut().zip(masks) {
            let rounded = mask.wrapping_add(half) >> drop;
            expected += i64::from(mask.wrapping_sub(rounded << drop) as i32);
            *out = (rounded & (double - 1)) * results;
        }
        let mean = (expected as f64 * self.density).round() as i64 as u32;
        out[masks.len()] = ((body[0].wrapping_sub(mean).wrapping_add(half) >> drop) & (double - 1)) * results;
    }
}

impl PartitionKey {
    /// Bootstraps a vector under the small key: element e becomes the `results` entries from `phase_e` on of
    /// `tables[table[e]]`, a polynomial of N torus values (negated beyond half a turn), as LWE ciphertexts under the flattened
    /// GLWE key; phases are rounded to multiples of `results`, a power of two. In parallel over batches on the current rayon
    /// pool.
    pub fn bootstrap(&self, vector: &[u32], results: u32, tables: &[Vec<u32>], table: &[u32]) -> Vec<u32> {
        let from = self.params.lwe.dimension as usize + 1;
        let to = (self.glwe.lwe_dimension() as usize + 1) * results as usize;
        let count = vector.len() / from;
        let mut out = vec![0u32; count * to];
        let batch = batch_size(count, &self.glwe);
        out.par_chunks_mut(batch * to)
            .zip(vector.par_chunks(batch * from))
            .zip(table.par_chunks(batch))
            .for_each(|((out, vector), table)| self.rotate_batch(vector, results, tables, table, out));
        out
    }

    fn rotate_batch(&self, vector: &[u32], results: u32, tables: &[Vec<u32>], table: &[u32], out: &mut [u32]) {
        let rotation = &self.rotation;
        let glwe = &self.glwe;
        let n = glwe.polynomial_size as usize;
        let from = self.params.lwe.dimension as usize + 1;
        let to = glwe.lwe_dimension() as usize + 1;
        let mut scratch = rotation.blocks.scratch(&rotation.fft);
        let mut fft_scratch = rotation.fft.scratch();
        let count = table.len();
        let mut exponents = vec![0u32; count * from];
        let mut accs: ABox<[u64]> = zeros(count * glwe.ciphertext_len());
        for (((lwe, exponents), acc), table) in vector
            .chunks_exact(from)
            .zip(exponents.chunks_exact_mut(from))
            .zip(accs.chunks_exact_mut(glwe.ciphertext_len()))
            .zip(table)
        {
            rotation.modulus_switch(lwe, results, exponents);
            let body = &mut acc[to - 1..];
            // X^-b times the table: entry b arrives in coefficient 0.
            let by = exponents[from - 1] as usize;
            for (at, value) in tables[*table as usize].iter().enumerate() {
                let place = (at + 2 * n - by) % (2 * n);
                let value = u64::from(*value) << 32;
                if place < n { body[place] = value } else { body[place - n] = value.wrapping_neg() }
            }
        }
        let block = rotation.blocks.shape.block;
        for (at, table) in self.blocks.iter().enumerate() {
            for (acc, exponents) in accs.chunks_exact_mut(glwe.ciphertext_len()).zip(exponents.chunks_exact(from)) {
                let exponents = &exponents[at * block..][..block];
                let BlindRotation { fft, gadget, blocks, .. } = rotation;
                blocks.add(fft, gadget, acc, exponents, table, &mut scratch, &mut fft_scratch);
            }
        }
        let all = to * results as usize;
        for (acc, out) in accs.chunks_exact(glwe.ciphertext_len()).zip(out.chunks_exact_mut(all)) {
            for (at, out) in out.chunks_exact_mut(to).enumerate() {
                sample_extract(acc, n, at, out);
            }
        }
    }
}
