//! Noise of look-ups: rotations by selectors, keyswitches, modulus switches, blind rotations. Variances are fractions of the
//! squared torus.

use super::{external_product, external_product_parts, rounding};
use crate::params::{BootstrapParams, GadgetParams, GlweParams};
use crate::plan::BLOCK;
use crate::stage::circuit::network::Turns;

/// What the FFT adds for one bit of a block, over what it adds in one external product.
const BLOCK_FFT: f64 = 3.2;

/// Variance of a table rotated by selectors: each single one is an external product; a block is as in [`blind_rotation`],
/// with one of its bits 1.
pub fn rotations(glwe: &GlweParams, gadget: &GadgetParams, turns: Turns) -> f64 {
    let parts = external_product_parts(glwe, gadget, glwe.variance());
    let block = BLOCK as f64 * (2.0 * parts.rows + BLOCK_FFT * parts.fft) + 2.0 * parts.decomposition;
    f64::from(turns.singles) * external_product(glwe, gadget) + f64::from(turns.blocks) * block + lwe_rounding(glwe)
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

/// Variance of rounding masks and body to multiples of 1/2N when the mean of the rounding's effect is added to the body
/// first: `(1 + n p (1-p)) / (12 (2N)^2)` with p the share of key bits that are 1.
pub fn modulus_switch(glwe: &GlweParams, lwe: &crate::params::LweParams) -> f64 {
    let p = lwe.density();
    let step = 1.0 / (2.0 * f64::from(glwe.polynomial_size));
    step * step / 12.0 * (1.0 + f64::from(lwe.dimension) * p * (1.0 - p))
}

/// Variance at the argument of a bootstrap's table, as a fraction of the squared torus: the argument's own, the keyswitch's
/// (unless under the small key), and the modulus switch's.
pub fn argument(glwe: &GlweParams, params: &BootstrapParams, own: f64, small: bool) -> f64 {
    let keyswitch = if small { 0.0 } else { keyswitch(glwe, params) };
    own + keyswitch + modulus_switch(glwe, &params.lwe)
}

/// Variance of the output of a blind rotation under a block-binary key.
///
/// In a block the accumulator is decomposed once, and `sum_i (X^a_i - 1) GGSW(s_i)` applied to it: each of the block's GGSWs
/// contributes its rows' noise through a factor `X^a - 1`, which doubles it; the decomposition's rounding arrives where
/// one of the bits is 1, doubled too. The FFT's part is fitted (`spec/noise.md`). Block 1 differs: there `X^a - 1` is applied before the decomposition.
pub fn blind_rotation(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let lwe = &params.lwe;
    let parts =
        external_product_parts(glwe, &params.gadget, glwe.variance() + rounding(super::body_bits(glwe.log2_std)));
    let bits = f64::from(lwe.dimension);
    let ones = bits * lwe.density();
    bits * (2.0 * parts.rows + BLOCK_FFT * parts.fft) + 2.0 * ones * parts.decomposition + lwe_rounding(glwe)
}
