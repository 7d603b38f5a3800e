//! Keyswitches, many at a time: a product of a matrix of digits and the keyswitching key, read once a batch.

use super::EvaluationKey;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Ciphertexts that one pass over the key serves: their sums stay in the second cache.
const BATCH: usize = 32;

impl EvaluationKey {
    /// Switches a vector from the flattened GLWE key (dimension kN) to the small key (dimension n). Without a
    /// keyswitching key the result is empty; plans are checked not to ask for it then.
    pub fn keyswitch(&self, vector: &[u32]) -> Vec<u32> {
        let Some(gadget) = self.keyswitch_gadget else { return Vec::new() };
        let (from, to) = (self.layout.glwe.lwe_dimension() as usize + 1, self.params.lwe.dimension as usize + 1);
        let count = vector.len() / from;
        let mut out = vec![0u32; count * to];
        let batch = count.div_ceil(rayon::current_num_threads()).clamp(1, BATCH);
        out.par_chunks_mut(batch * to).zip(vector.par_chunks(batch * from)).for_each(|(out, vector)| {
            for (out, ciphertext) in out.chunks_exact_mut(to).zip(vector.chunks_exact(from)) {
                out[to - 1] = ciphertext[from - 1];
            }
            let levels = gadget.levels as usize;
            let rows = self.keyswitch.chunks_exact(to * levels).take(from - 1);
            for (at, rows) in rows.enumerate() {
                for (level, row) in rows.chunks_exact(to).enumerate() {
                    for (out, ciphertext) in out.chunks_exact_mut(to).zip(vector.chunks_exact(from)) {
                        let digit = digit(ciphertext[at], gadget.base_log, gadget.levels, level as u32 + 1);
                        subtract(out, row, digit as u32);
                    }
                }
            }
        });
        out
    }
}

/// Digit of level `level` (1 is the most significant) of a balanced decomposition rounded to `base_log * levels` bits.
fn digit(value: u32, base_log: u32, levels: u32, level: u32) -> i32 {
    let position = |level: u32| 32 - base_log * level;
    let halves = (level..=levels).fold(0u32, |sum, below| sum.wrapping_add(1 << (position(below) + base_log - 1)));
    let rounding = position(levels).checked_sub(1).map_or(0, |bit| 1u32 << bit);
    let moved = value.wrapping_add(halves).wrapping_add(rounding);
    ((moved << (base_log * (level - 1))) >> (32 - base_log)) as i32 - (1 << (base_log - 1))
}

/// `out -= digit * row`.
fn subtract(out: &mut [u32], row: &[u32], digit: u32) {
    struct Op<'a>(&'a mut [u32], &'a [u32], u32);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _simd: S) {
            let Op(out, row, digit) = self;
            for (out, value) in out.iter_mut().zip(row) {
                *out = out.wrapping_sub(value.wrapping_mul(digit));
            }
        }
    }
    Arch::new().dispatch(Op(out, row, digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_recompose() {
        for (base_log, levels) in [(2, 6), (3, 5), (4, 4), (8, 2), (1, 16)] {
            for value in [0u32, 1 << 31, u32::MAX, 0x1234_5678, 0x7fff_ffff] {
                let mut sum = 0u32;
                for level in 1..=levels {
                    let digit = digit(value, base_log, levels, level);
                    assert!(digit.unsigned_abs() <= 1 << (base_log - 1));
                    sum = sum.wrapping_add((digit as u32) << (32 - base_log * level));
                }
                let error = (value.wrapping_sub(sum) as i32).unsigned_abs();
                assert!(error <= 1 << (31 - base_log * levels), "{base_log} {levels} {value:x} {error:x}");
            }
        }
    }
}
