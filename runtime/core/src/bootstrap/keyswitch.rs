//! Keyswitches, many at a time: a product of a matrix of digits and the keyswitching key, in wrapping 32-bit integers.
//!
//! The key is read once for up to [`CHUNK`] ciphertexts, a tile of [`GROUP`] ciphertexts and [`PANEL`] columns at a time,
//! which the registers hold.

use super::EvaluationKey;
use crate::external::zeros;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use tacit_ir::params::{BootstrapParams, GadgetParams};
use tacit_ir::plan::Layout;
use tacit_torus::ABox;
use tacit_torus::masks::MaskStream;

/// Columns of a tile.
const PANEL: usize = 16;
/// Ciphertexts of a tile.
const GROUP: usize = 4;
/// Rows of the key whose digits stay in the first cache; kN is a multiple of it.
const ROWS: usize = 256;
/// Ciphertexts for which the key is read once.
const CHUNK: usize = 64;

type Tile = [[u32; PANEL]; GROUP];

/// A keyswitching key from the flattened GLWE key (kN dimensions) to the small key (n dimensions).
#[derive(Debug)]
pub(super) struct KeyswitchKey {
    gadget: GadgetParams,
    /// Words of a small ciphertext, n + 1.
    columns: usize,
    /// Row `level * kN + i` encrypts bit i of the large key at that level. [`ROWS`] rows after another, in them panel after
    /// panel, in it row after row; columns are padded with zeros to whole panels.
    table: ABox<[u32]>,
}

impl KeyswitchKey {
    /// Expands 32-bit bodies as they travel, bit after bit and in it level after level; masks are the top halves of the
    /// stream's words behind those of the bootstrapping key.
    pub(super) fn expand(
        layout: &Layout,
        params: &BootstrapParams,
        gadget: GadgetParams,
        masks: &MaskStream,
        bodies: &[u8],
    ) -> Self {
        let (n, dimension) = (params.lwe.dimension as usize, layout.glwe.lwe_dimension() as usize);
        let (columns, levels) = (n + 1, gadget.levels as usize);
        let panels = columns.div_ceil(PANEL);
        let ggsw_rows = u64::from(params.gadget.levels) * (u64::from(layout.glwe.dimension) + 1);
        let start = n as u64 * ggsw_rows * dimension as u64;
        let mut table: ABox<[u32]> = zeros(dimension * levels * panels * PANEL);
        table.par_chunks_exact_mut(ROWS * panels * PANEL).enumerate().for_each_init(
            || vec![0u64; n],
            |words, (part, table)| {
                for row in 0..ROWS {
                    let (level, bit) = ((part * ROWS + row) / dimension, (part * ROWS + row) % dimension);
                    let at = bit * levels + level;
                    masks.fill(start + (at * n) as u64, words);
                    let body = bodies.as_chunks::<4>().0.get(at).map_or(0, |body| u32::from_le_bytes(*body));
                    let values = words.iter().map(|word| (word >> 32) as u32).chain([body]);
                    for (column, value) in values.enumerate() {
                        table[(column / PANEL * ROWS + row) * PANEL + column % PANEL] = value;
                    }
                }
            },
        );
        KeyswitchKey { gadget, columns, table }
    }

    /// At most [`CHUNK`] ciphertexts of `input_len` words.
    fn chunk(&self, inputs: &[u32], input_len: usize, out: &mut [u32]) {
        let dimension = input_len - 1;
        let levels: Vec<Digit> = (1..=self.gadget.levels).map(|level| Digit::new(&self.gadget, level)).collect();
        let rows = dimension * levels.len();
        let groups = (inputs.len() / input_len).div_ceil(GROUP);
        let panels = self.columns.div_ceil(PANEL);
        // Digits of ROWS rows together; in them those of each group.
        let mut digits: ABox<[[u32; GROUP]]> = zeros(rows * groups);
        digits.par_chunks_exact_mut(ROWS * groups).enumerate().for_each(|(part, digits)| {
            let (level, first) = (part * ROWS / dimension, part * ROWS % dimension);
            for (group, digits) in digits.chunks_exact_mut(ROWS).enumerate() {
                for (lane, input) in inputs.chunks_exact(input_len).skip(group * GROUP).take(GROUP).enumerate() {
                    for (digit, mask) in digits.iter_mut().zip(&input[first..first + ROWS]) {
                        digit[lane] = levels[level].of(*mask) as u32;
                    }
                }
            }
        });
        let mut sums: Vec<Tile> = vec![[[0; PANEL]; GROUP]; panels * groups];
        let share = panels.div_ceil(rayon::current_num_threads().max(1));
        sums.par_chunks_mut(share * groups).enumerate().for_each(|(at, sums)| {
            let parts = digits.chunks_exact(ROWS * groups).zip(self.table.chunks_exact(ROWS * panels * PANEL));
            for (digits, table) in parts {
                let table = table.chunks_exact(ROWS * PANEL).skip(at * share);
                for (sums, table) in sums.chunks_exact_mut(groups).zip(table) {
                    for (sum, digits) in sums.iter_mut().zip(digits.chunks_exact(ROWS)) {
                        Arch::new().dispatch(Multiply { sum, digits, table });
                    }
                }
            }
        });
        for (at, (out, input)) in out.chunks_exact_mut(self.columns).zip(inputs.chunks_exact(input_len)).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                *out = sums[column / PANEL * groups + at / GROUP][at % GROUP][column % PANEL].wrapping_neg();
            }
            let body = &mut out[self.columns - 1];
            *body = body.wrapping_add(input[dimension]);
        }
    }
}

/// `sum[g] += sum_r digits[r][g] * table[r]`.
struct Multiply<'a> {
    sum: &'a mut Tile,
    digits: &'a [[u32; GROUP]],
    table: &'a [u32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Multiply { sum, digits, table } = self;
        let mut sums = *sum;
        let (table, _) = table.as_chunks::<PANEL>();
        for (digits, row) in digits.iter().zip(table) {
            for (sum, digit) in sums.iter_mut().zip(digits) {
                for (sum, key) in sum.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(digit.wrapping_mul(*key));
                }
            }
        }
        *sum = sums;
    }
}

impl EvaluationKey {
    /// Switches a vector from the flattened GLWE key (dimension kN) to the small key (dimension n). Without a
    /// keyswitching key the result is empty; plans are checked not to ask for it then.
    pub fn keyswitch(&self, vector: &[u32]) -> Vec<u32> {
        let Some(key) = &self.keyswitch else { return Vec::new() };
        let (from, to) = (self.layout.glwe.lwe_dimension() as usize + 1, key.columns);
        let mut out = vec![0u32; vector.len() / from * to];
        for (vector, out) in vector.chunks(CHUNK * from).zip(out.chunks_mut(CHUNK * to)) {
            key.chunk(vector, from, out);
        }
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
