//! Noise of look-ups: rotations by selectors, keyswitches, modulus switches, blind rotations. Variances are fractions of the
//! squared torus.

use super::{ExternalProduct, external_product_parts, rounding};
use crate::params::{BootstrapParams, GadgetParams, GlweParams, LweParams};
use crate::plan::BLOCK;
use crate::stage::circuit::network::Turns;

/// What the FFT adds for one bit of a block, over what it adds in one external product.
const BLOCK_FFT: f64 = 3.2;

/// The largest variance of a table rotated by selectors, over their bits: external products by the single ones, block
/// products by the others.
pub fn rotations(glwe: &GlweParams, gadget: &GadgetParams, turns: Turns) -> f64 {
    let parts = external_product_parts(glwe, gadget, glwe.variance());
    let Turns { blocks, singles } = turns;
    let bits = f64::from(blocks) * BLOCK as f64;
    // As the factor is at most 1 + 3d/N, and the largest distances of all blocks together are at most 2N, which is as far
    // as a table can be turned.
    let most = |bits: f64| (4.0 * bits).min(bits + 6.0 * bits / f64::from(blocks.max(1)));
    let block =
        block_bit(&parts, most(bits) / bits.max(1.0), false) * bits + most(f64::from(blocks)) * parts.decomposition;
    f64::from(singles) * parts.total(true) + block + lwe_rounding(glwe)
}

/// Variance of a table rotated by bits of selectors that are known.
pub fn known_rotations(glwe: &GlweParams, gadget: &GadgetParams, rotations: impl IntoIterator<Item = Rotation>) -> f64 {
    let parts = external_product_parts(glwe, gadget, glwe.variance());
    let one = |Rotation { shift, in_block, bit }| {
        if in_block { block_bit(&parts, shift_factor(shift, glwe.polynomial_size), bit) } else { parts.total(bit) }
    };
    rotations.into_iter().map(one).sum::<f64>() + lwe_rounding(glwe)
}

/// A rotation by one bit of a selector.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// By how much, below 2N, when the bit is 1.
    pub shift: u32,
    /// Whether its selector is one of a block.
    pub in_block: bool,
    /// The bit.
    pub bit: bool,
}

/// What one bit of a block adds, as in [`blind_rotation`], when its [`shift_factor`] is known.
fn block_bit(parts: &ExternalProduct, factor: f64, bit: bool) -> f64 {
    2.0 * parts.rows + 0.5 * factor * BLOCK_FFT * parts.fft + if bit { factor * parts.decomposition } else { 0.0 }
}

/// What a factor `X^a - 1` multiplies the variance of errors of masks by: 2 for a random shift a.
///
/// The errors e of masks meet the key s, and coefficients `d` apart of `e s` are correlated, for the bits of a binary key are
/// 1/2 on average: the key's negacyclic autocorrelation is `(N - 2d) / 4`, and `N / 2` at 0. So `(X^a - 1) e s` has
/// `2 - (1 - 2d/N) = 1 + 2d/N` times the variance of `e s`, with d the distance of a to a multiple of 2N, and 4 at N.
fn shift_factor(shift: u32, n: u32) -> f64 {
    let distance = shift.min((2 * n).saturating_sub(shift));
    if distance == n { 4.0 } else { 1.0 + 2.0 * f64::from(distance) / f64::from(n) }
}

/// Variance of cutting an LWE ciphertext under the flattened GLWE key to 32 bits: `(1 + kN/2) 2^-64 / 12`.
pub fn lwe_rounding(glwe: &GlweParams) -> f64 {
    rounding(32) * (1.0 + f64::from(glwe.lwe_dimension()) / 2.0)
}

/// Variance that a keyswitch from the flattened GLWE key to the small key adds: `kN l (B^2+2)/12` times the variance of the
/// key, and `kN/2 B^(-2l)/12` for what the decomposition leaves out (half of the binary key's bits are 1).
pub fn keyswitch(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let Some(gadget) = params.keyswitch else { return 0.0 };
    let dimension = f64::from(glwe.lwe_dimension());
    let base = f64::from(gadget.base_log).exp2();
    let digits = dimension * f64::from(gadget.levels) * (base * base + 2.0) / 12.0;
    // Bodies and masks of the key have 32 bits.
    let rows = params.lwe.variance() + rounding(32) * (1.0 + f64::from(params.lwe.dimension) * params.lwe.density());
    digits * rows + rounding(gadget.base_log * gadget.levels) * dimension / 2.0
}

/// Variance of rounding masks and body to multiples of `t/2N`, for t results of a rotation, when the mean of the rounding's
/// effect is added to the body first: `t^2 (1 + n p (1-p)) / (12 (2N)^2)` with p the share of key bits that are 1.
pub fn modulus_switch(glwe: &GlweParams, lwe: &LweParams, results: u32) -> f64 {
    let p = lwe.density();
    let step = f64::from(results) / (2.0 * f64::from(glwe.polynomial_size));
    step * step / 12.0 * (1.0 + f64::from(lwe.dimension) * p * (1.0 - p))
}

/// Variance at the argument of a bootstrap's table, as a fraction of the squared torus: the argument's own, the keyswitch's
/// (unless under the small key), and the modulus switch's.
pub fn argument(glwe: &GlweParams, params: &BootstrapParams, own: f64, small: bool, results: u32) -> f64 {
    let keyswitch = if small { 0.0 } else { keyswitch(glwe, params) };
    own + keyswitch + modulus_switch(glwe, &params.lwe, results)
}

/// Variance of the output of a blind rotation under a block-binary key.
///
/// In a block the accumulator is decomposed once, and `sum_i (X^a_i - 1) GGSW(s_i)` applied to it: each of the block's GGSWs
/// contributes its rows' noise through a factor `X^a - 1`, which doubles it; the decomposition's rounding arrives where
/// one of the bits is 1, doubled too. The FFT's part is fitted (`spec/noise.md`). Block 1 differs: there `X^a - 1` is applied before the decomposition.
pub fn blind_rotation(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let (own, through_key) = rotation_parts(glwe, params);
    own + through_key
}

/// Variance that each of several results of one blind rotation counts with in a sum of them, whatever the weights.
///
/// Results are neighbouring coefficients of one accumulator. The noise of rows is independent from coefficient to
/// coefficient; errors of masks meet the binary key, whose autocorrelation is 1/2 (`shift_factor` above), so the part that arrives
/// through the key is correlated by up to 1/2. A sum of t values correlated by r has at most `1 + (t-1) r` times the variance
/// of independent ones.
pub fn result_in_sums(glwe: &GlweParams, params: &BootstrapParams, results: u32) -> f64 {
    let (own, through_key) = rotation_parts(glwe, params);
    own + through_key * (1.0 + 0.5 * (f64::from(results) - 1.0))
}

/// The noise of a blind rotation that is independent between coefficients, and that which arrives through the key.
pub fn rotation_parts(glwe: &GlweParams, params: &BootstrapParams) -> (f64, f64) {
    let lwe = &params.lwe;
    let parts =
        external_product_parts(glwe, &params.gadget, glwe.variance() + rounding(super::body_bits(glwe.log2_std)));
    let bits = f64::from(lwe.dimension);
    let ones = bits * lwe.density();
    let through_key = bits * BLOCK_FFT * parts.fft + 2.0 * ones * parts.decomposition + lwe_rounding(glwe);
    (2.0 * bits * parts.rows, through_key)
}
