//! Keyswitches, many at a time: a product of a matrix of digits and the keyswitching key, in wrapping 32-bit integers.
//!
//! The key is read once for up to [`CHUNK`] ciphertexts, a tile of [`GROUP`] ciphertexts and [`PANEL`] columns at a time,
//! which the registers hold. Digits have at most 16 bits, and a word of the key is taken apart into two halves of 16, so that
//! one instruction of x86 (`vpmaddwd`) multiplies and adds the halves of two rows.

use super::PartitionKey;
use crate::external::zeros;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use tacit_ir::params::{GadgetParams, GlweParams, LweParams};
use tacit_torus::ABox;
use tacit_torus::masks::MaskStream;

/// Columns of a tile.
const PANEL: usize = 8;
/// Ciphertexts of a tile.
const GROUP: usize = 4;
/// Pairs of rows of the key whose digits stay in the first cache; kN is a multiple of twice it.
const PAIRS: usize = 128;
/// Ciphertexts for which the key is read once.
const CHUNK: usize = 64;

/// Two 16-bit numbers, that of the first row of a pair in the low half.
type Pair = u32;

/// For each ciphertext the sums of low halves, and those of high ones.
type Tile = [[[u32; PANEL]; 2]; GROUP];

/// A keyswitching key from the flattened GLWE key (kN dimensions) to the small key (n dimensions).
#[derive(Debug)]
pub(super) struct KeyswitchKey {
    gadget: GadgetParams,
    /// Words of a small ciphertext, n + 1.
    columns: usize,
    /// Row `level * kN + i` encrypts bit i of the large key at that level. [`PAIRS`] pairs of rows after another, in them panel
    /// after panel, in it pair after pair: the low halves of the panel's columns, then the high ones. Columns are padded with
    /// zeros to whole panels.
    table: ABox<[[Pair; PANEL]]>,
}

impl KeyswitchKey {
    /// Expands 32-bit bodies as they travel, bit after bit and in it level after level; masks are the top halves of the
    /// stream's words from `first_word` on.
    pub(super) fn expand(
        glwe: &GlweParams,
        lwe: &LweParams,
        gadget: GadgetParams,
        masks: &MaskStream,
        first_word: u64,
        bodies: &[u8],
    ) -> Self {
        let (n, dimension) = (lwe.dimension as usize, glwe.lwe_dimension() as usize);
        let (columns, levels) = (n + 1, gadget.levels as usize);
        let panels = columns.div_ceil(PANEL);
        let mut table: ABox<[[Pair; PANEL]]> = zeros(dimension * levels * panels);
        table.par_chunks_exact_mut(2 * PAIRS * panels).enumerate().for_each_init(
            || vec![0u64; n],
            |words, (part, table)| {
                for row in 0..2 * PAIRS {
                    let (level, bit) = ((part * 2 * PAIRS + row) / dimension, (part * 2 * PAIRS + row) % dimension);
                    let at = bit * levels + level;
                    masks.fill(first_word + (at * n) as u64, words);
                    let body = bodies.as_chunks::<4>().0.get(at).map_or(0, |body| u32::from_le_bytes(*body));
                    let values = words.iter().map(|word| (word >> 32) as u32).chain([body]);
                    for (column, value) in values.enumerate() {
                        let first = 2 * (column / PANEL * PAIRS + row / 2);
                        for (half, place) in halves(value).into_iter().zip(&mut table[first..first + 2]) {
                            place[column % PANEL] |= u32::from(half) << (16 * (row % 2));
                        }
                    }
                }
            },
        );
        KeyswitchKey { gadget, columns, table }
    }

    /// Bytes of its table.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val::<[_]>(&self.table)
    }

    /// At most [`CHUNK`] ciphertexts of `input_len` words.
    fn chunk(&self, inputs: &[u32], input_len: usize, out: &mut [u32]) {
        let dimension = input_len - 1;
        let levels: Vec<Digit> = (1..=self.gadget.levels).map(|level| Digit::new(&self.gadget, level)).collect();
        let pairs = dimension * levels.len() / 2;
        let groups = (inputs.len() / input_len).div_ceil(GROUP);
        let panels = self.columns.div_ceil(PANEL);
        // Digits of PAIRS pairs of rows together; in them those of each group.
        let mut digits: ABox<[[Pair; GROUP]]> = zeros(pairs * groups);
        digits.par_chunks_exact_mut(PAIRS * groups).enumerate().for_each(|(part, digits)| {
            let (level, first) = (part * 2 * PAIRS / dimension, part * 2 * PAIRS % dimension);
            for (group, digits) in digits.chunks_exact_mut(PAIRS).enumerate() {
                for (lane, input) in inputs.chunks_exact(input_len).skip(group * GROUP).take(GROUP).enumerate() {
                    let masks = input[first..first + 2 * PAIRS].as_chunks::<2>().0;
                    for (digit, mask) in digits.iter_mut().zip(masks) {
                        let [low, high] = mask.map(|mask| levels[level].of(mask) as u32);
                        digit[lane] = low & 0xffff | high << 16;
                    }
                }
            }
        });
        let mut sums: Vec<Tile> = vec![[[[0; PANEL]; 2]; GROUP]; panels * groups];
        let share = panels.div_ceil(rayon::current_num_threads().max(1));
        sums.par_chunks_mut(share * groups).enumerate().for_each(|(at, sums)| {
            let parts = digits.chunks_exact(PAIRS * groups).zip(self.table.chunks_exact(2 * PAIRS * panels));
            for (digits, table) in parts {
                let table = table.chunks_exact(2 * PAIRS).skip(at * share);
                for (sums, table) in sums.chunks_exact_mut(groups).zip(table) {
                    for (sum, digits) in sums.iter_mut().zip(digits.chunks_exact(PAIRS)) {
                        add_products(sum, digits, table);
                    }
                }
            }
        });
        for (at, (out, input)) in out.chunks_exact_mut(self.columns).zip(inputs.chunks_exact(input_len)).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let [low, high] = &sums[column / PANEL * groups + at / GROUP][at % GROUP];
                *out = low[column % PANEL].wrapping_add(high[column % PANEL] << 16).wrapping_neg();
            }
            let body = &mut out[self.columns - 1];
            *body = body.wrapping_add(input[dimension]);
        }
    }
}

/// The halves of a word, so that `low + 2^16 high` is the word when both are signed.
fn halves(word: u32) -> [u16; 2] {
    let low = word as u16;
    let high = word.wrapping_sub(low as i16 as u32) >> 16;
    [low, high as u16]
}

/// `sum[g][half] += sum_p digits[p][g] * table[p][half]`, where a product of two pairs is the sum of the products of their
/// numbers.
fn add_products(sum: &mut Tile, digits: &[[Pair; GROUP]], table: &[[Pair; PANEL]]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, AddProducts { simd, sum, digits, table });
    }
    for (digits, halves) in digits.iter().zip(table.as_chunks::<2>().0) {
        for (sum, digit) in sum.iter_mut().zip(digits) {
            for (sum, keys) in sum.iter_mut().zip(halves) {
                for (sum, key) in sum.iter_mut().zip(keys) {
                    let product = |half: fn(u32) -> i32| half(*digit).wrapping_mul(half(*key)) as u32;
                    let both = product(|pair| i32::from(pair as i16)).wrapping_add(product(|pair| pair as i32 >> 16));
                    *sum = sum.wrapping_add(both);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct AddProducts<'a> {
    simd: pulp::x86::V3,
    sum: &'a mut Tile,
    digits: &'a [[Pair; GROUP]],
    table: &'a [[Pair; PANEL]],
}

#[cfg(target_arch = "x86_64")]
impl WithSimd for AddProducts<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AddProducts { simd, sum, digits, table } = self;
        let avx2 = simd.avx2;
        // No closures or iterators over the accumulators: what keeps them in registers is that their places are constants.
        let mut sums = [simd.splat_u32s(0); 2 * GROUP].map(pulp::cast);
        for (digits, halves) in digits.iter().zip(table.as_chunks::<2>().0) {
            let keys: [std::arch::x86_64::__m256i; 2] = [pulp::cast(halves[0]), pulp::cast(halves[1])];
            for group in 0..GROUP {
                let digit = pulp::cast(simd.splat_u32s(digits[group]));
                for half in 0..2 {
                    let product = avx2._mm256_madd_epi16(digit, keys[half]);
                    sums[2 * group + half] = avx2._mm256_add_epi32(sums[2 * group + half], product);
                }
            }
        }
        for (sum, added) in sum.as_flattened_mut().iter_mut().zip(sums) {
            let added: [u32; PANEL] = pulp::cast(added);
            for (sum, added) in sum.iter_mut().zip(added) {
                *sum = sum.wrapping_add(added);
            }
        }
    }
}

impl PartitionKey {
    /// Switches a vector from the flattened GLWE key (dimension kN) to the small key (dimension n). Without a
    /// keyswitching key the result is empty; plans are checked not to ask for it then.
    pub fn keyswitch(&self, vector: &[u32]) -> Vec<u32> {
        let Some(key) = &self.keyswitch else { return Vec::new() };
        let (from, to) = (self.glwe.lwe_dimension() as usize + 1, key.columns);
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
    /// The digit of level `level` (1 is the most significant); the decomposition takes at most 31 bits, a digit at most 15.
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

    /// On this CPU's instructions and without them.
    #[test]
    fn products_of_pairs_are_those_of_words() {
        let word = |at: usize| (at as u32).wrapping_mul(2_654_435_761).rotate_left(7);
        let digit = |at: usize| (word(at) >> 17) as i32 - (1 << 14);
        let digits: Vec<[Pair; GROUP]> = (0..PAIRS)
            .map(|pair| {
                std::array::from_fn(|g| digit(pair * 8 + g) as u32 & 0xffff | (digit(pair * 8 + 4 + g) as u32) << 16)
            })
            .collect();
        let key = |row: usize, column: usize| word(row * PANEL + column + 77);
        let half = |pair: usize, column: usize, half: usize| {
            let [low, high] = [0, 1].map(|row| u32::from(halves(key(2 * pair + row, column))[half]));
            low | high << 16
        };
        let table: Vec<[Pair; PANEL]> =
            (0..2 * PAIRS).map(|at| std::array::from_fn(|column| half(at / 2, column, at % 2))).collect();
        let mut sum: Tile = [[[0; PANEL]; 2]; GROUP];
        add_products(&mut sum, &digits, &table);
        for (group, [low, high]) in sum.iter().enumerate() {
            for column in 0..PANEL {
                let term =
                    |row: usize| (digit(row / 2 * 8 + row % 2 * 4 + group) as u32).wrapping_mul(key(row, column));
                let expected = (0..2 * PAIRS).map(term).fold(0, u32::wrapping_add);
                assert_eq!(low[column].wrapping_add(high[column] << 16), expected);
            }
        }
    }

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
