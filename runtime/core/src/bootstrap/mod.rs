//! Programmable bootstrapping: keyswitch, modulus switch, blind rotation under block-binary keys, sample extraction.
//!
//! A vector of LWE ciphertexts is `count * (dimension + 1)` words of the 32-bit torus, mask then body, one after another.

mod key;
mod keyswitch;
mod rotation;

pub use key::{EvaluationKey, PartitionKey};
pub use rotation::BlindRotation;

use tacit_ir::params::GlweParams;

/// Ciphertexts that one pass over keys serves at most; 16 are no quicker.
const BATCH: usize = 8;
/// Bytes of their accumulators, at most, so that keys stay beside them in the second cache.
const BATCH_BYTES: usize = 256 << 10;

/// How many of `count` ciphertexts to rotate together: equal shares for all threads of the current rayon pool, none larger
/// than a batch.
pub(crate) fn batch_size(count: usize, glwe: &GlweParams) -> usize {
    let room = (BATCH_BYTES / (8 * glwe.ciphertext_len())).clamp(1, BATCH);
    let threads = rayon::current_num_threads().max(1);
    let rounds = count.div_ceil(threads * room).max(1);
    count.div_ceil(threads * rounds).max(1)
}

/// Coefficient `at` of a GLWE ciphertext as an LWE ciphertext under the flattened key, cut to 32 bits: `kN` masks and the
/// body.
pub fn sample_extract(glwe: &[u64], polynomial_size: usize, at: usize, out: &mut [u32]) {
    let (masks, body) = glwe.split_at(glwe.len() - polynomial_size);
    let round = |value: u64| (value.wrapping_add(1 << 31) >> 32) as u32;
    let (out, last) = out.split_at_mut(masks.len());
    for (mask, out) in masks.chunks_exact(polynomial_size).zip(out.chunks_exact_mut(polynomial_size)) {
        // Coefficient j of a * s is sum_(i<=j) a_(j-i) s_i - sum_(i>j) a_(N+j-i) s_i.
        let (low, high) = out.split_at_mut(at + 1);
        for (out, value) in low.iter_mut().zip(mask[..=at].iter().rev()) {
            *out = round(*value);
        }
        for (out, value) in high.iter_mut().zip(mask[at + 1..].iter().rev()) {
            *out = round(value.wrapping_neg());
        }
    }
    last[0] = round(body[at]);
}
