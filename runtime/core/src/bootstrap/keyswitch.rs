//! Keyswitches, many at a time: a product of a matrix of digits and the keyswitching key, read once a batch.

use super::EvaluationKey;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use tacit_ir::params::GadgetParams;

/// Ciphertexts that one pass over the key serves: their sums stay in the second cache.
const BATCH: usize = 32;

impl EvaluationKey {
    /// Switches a vector from the flattened GLWE key (dimension kN) to the small key (dimension n). Without a
    /// keyswitching key the result is empty; plans are checked not to ask for it then.
    pub fn keyswitch(&self, vector: &[u32]) -> Vec<u32> {
        let Some(gadget) = self.params.keyswitch else { return Vec::new() };
        let (from, to) = (self.layout.glwe.lwe_dimension() as usize + 1, self.params.lwe.dimension as usize + 1);
        let count = vector.len() / from;
        let mut out = vec![0u32; count * to];
        let digits: Vec<Digit> = (1..=gadget.levels).map(|level| Digit::new(&gadget, level)).collect();
        let batch = count.div_ceil(rayon::current_num_threads()).clamp(1, BATCH);
        out.par_chunks_mut(batch * to).zip(vector.par_chunks(batch * from)).for_each(|(out, vector)| {
            for (out, ciphertext) in out.chunks_exact_mut(to).zip(vector.chunks_exact(from)) {
                out[to - 1] = ciphertext[from - 1];
            }
            let rows = self.keyswitch.chunks_exact(to * digits.len()).take(from - 1);
            for (at, rows) in rows.enumerate() {
                for (digit, row) in digits.iter().zip(rows.chunks_exact(to)) {
                    for (out, ciphertext) in out.chunks_exact_mut(to).zip(vector.chunks_exact(from)) {
                        subtract(out, row, digit.of(ciphertext[at]) as u32);
                    }
                }
            }
        });
        out
    }
}

/// One digit of a balanced decomposition of 32-bit torus values.
struct Digit {
    offset: u32,
    up: u32,
    down: u32,
    half_base: i32,
}

impl Digit {
    /// The digit of level `level` (1 is the most significant); the decomposition takes at most 31 bits.
    fn new(gadget: &GadgetParams, level: u32) -> Self {
        let GadgetParams { base_log, levels } = *gadget;
        // Half a unit of the last level rounds; half a base at this digit and at each below makes digits balanced.
        let position = |level: u32| 32 - base_log * level;
        let halves = (level..=levels).fold(0u32, |sum, below| sum.wrapping_add(1 << (position(below) + base_log - 1)));
        let rounding = position(levels).checked_sub(1).map_or(0, |bit| 1u32 << bit);
        Digit {
            offset: halves.wrapping_add(rounding),
            up: base_log * (level - 1),
            down: 32 - base_log,
            half_base: 1 << (base_log - 1),
        }
    }

    #[inline]
    fn of(&self, value: u32) -> i32 {
        (value.wrapping_add(self.offset) << self.up >> self.down) as i32 - self.half_base
    }
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
                    let digit = Digit::new(&GadgetParams { base_log, levels }, level).of(value);
                    assert!(digit.unsigned_abs() <= 1 << (base_log - 1));
                    sum = sum.wrapping_add((digit as u32) << (32 - base_log * level));
                }
                let error = (value.wrapping_sub(sum) as i32).unsigned_abs();
                assert!(error <= 1 << (31 - base_log * levels), "{base_log} {levels} {value:x} {error:x}");
            }
        }
    }
}
