//! The noise model. Every quantity is a variance as a fraction of the squared torus (the torus has circumference 1),
//! and holds for each coefficient of a message polynomial.
//!
//! The formulas are those of Concrete's and tfhe-rs' noise model for binary keys (Chillotti, Joye, Ligier, Orfila, Tap,
//! "CONCRETE: Concrete Operates oN Ciphertexts Rapidly by Extending TfhE", WAHC 2020; tfhe-rs 1.8.2
//! `commons::noise_formulas`); `tests/tests/noise.rs` measures each of them. On whole plans there are two answers:
//! [`for_input`], the variance for one given input, and [`bound`], a sound bound over all inputs.

use crate::params::{GadgetParams, GlweParams};
use crate::plan::Layout;

pub mod bootstrap;
mod bound;
mod for_input;
mod sources;

pub use bound::{bound, slots};
pub use for_input::for_input;

/// Variance of rounding to `bits` bits: uniform over `2^-bits` of the torus, `2^(-2*bits) / 12`. Zero at 64 bits, which
/// is the whole word.
pub fn rounding(bits: u32) -> f64 {
    if bits >= 64 { 0.0 } else { (-2.0 * f64::from(bits)).exp2() / 12.0 }
}

/// Variance of a row of a selector or of a packed input as the server sees it: fresh noise, and the body rounded to
/// the `body_bits` that travel.
pub fn fresh(layout: &Layout) -> f64 {
    layout.glwe.variance() + rounding(layout.body_bits)
}

/// Largest variance that one external product (CMux) with a GGSW of fresh noise adds, over both values of its bit.
pub fn external_product(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    external_product_parts(glwe, gadget, glwe.variance()).total(true)
}

/// What one external product with a GGSW of a bit adds to the noise, by cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExternalProduct {
    /// The noise of the GGSW's rows, times the digits of the decomposition: `l(k+1)N * E[digit^2] * var_row`.
    pub rows: f64,
    /// What the decomposition rounds away, times the bit: nothing when the bit is 0.
    pub decomposition: f64,
    /// Rounding of the double-precision FFT.
    pub fft: f64,
}

impl ExternalProduct {
    /// The sum for this value of the GGSW's bit.
    pub fn total(&self, bit: bool) -> f64 {
        self.rows + self.fft + if bit { self.decomposition } else { 0.0 }
    }
}

/// The noise of one external product whose GGSW rows have variance `row_variance`, for a GLWE that looks uniform.
///
/// Digits are uniform in `[-B/2, B/2]`, so their mean square is `(B^2 + 2) / 12`. The decomposition rounds each of
/// the k masks and the body to `B^-l`, uniformly; half of the kN binary key coefficients are 1, so the rounding's
/// share is `B^(-2l) / 12 * (1 + kN/2)`.
pub fn external_product_parts(glwe: &GlweParams, gadget: &GadgetParams, row_variance: f64) -> ExternalProduct {
    let (k, n) = (f64::from(glwe.dimension), f64::from(glwe.polynomial_size));
    let levels = f64::from(gadget.levels);
    let base = f64::from(gadget.base_log).exp2();
    let digits = levels * (k + 1.0) * n * (base * base + 2.0) / 12.0;
    ExternalProduct {
        rows: digits * row_variance,
        decomposition: rounding(gadget.base_log * gadget.levels) * (1.0 + k * n / 2.0),
        fft: 12.5 * fft_of_digits(glwe, digits),
    }
}

/// Variance by the double-precision FFT of one external product whose digits have this sum of squares, but for a factor that
/// is fitted to measurement (`spec/noise.md`): 12.5 for a ciphertext that looks uniform.
///
/// Each of the k+1 output polynomials sums products of a digit and a torus value (mean square 1/12), each with an error
/// of the order of `2^-53`; the errors of the k masks meet the key (`1 + kN/2`).
fn fft_of_digits(glwe: &GlweParams, squared_digits: f64) -> f64 {
    let key_factor = 1.0 + f64::from(glwe.lwe_dimension()) / 2.0;
    squared_digits / 12.0 * (-106f64).exp2() * key_factor
}

/// The same of the product with a trivial ciphertext. Equal coefficients meet equal rounding errors, which then add up: a
/// polynomial with one value everywhere measures 52 times what one with a few coefficients does.
fn fft_of_trivial(glwe: &GlweParams, digits: &sources::TrivialDigits) -> f64 {
    let filled = digits.filled as f64 / f64::from(glwe.polynomial_size);
    6.0 * (1.0 + 51.0 * filled) * fft_of_digits(glwe, sources::squared_norm(digits))
}

/// Variance of a ciphertext of this variance times a clear integer polynomial of this squared 2-norm. The product
/// itself is exact: the runtime splits operands until the FFT rounds to the right integers.
pub fn polynomial_product(_glwe: &GlweParams, variance: f64, squared_norm: f64) -> f64 {
    variance * squared_norm
}

/// Variance by rounding a result's masks and body to `result_bits`: `(1 + kN/2) * 2^(-2r) / 12`.
pub fn result_rounding(glwe: &GlweParams, result_bits: u32) -> f64 {
    rounding(result_bits) * (1.0 + f64::from(glwe.lwe_dimension()) / 2.0)
}

/// Probability that Gaussian noise of this variance exceeds `half_gap` (a fraction of the torus) in magnitude:
/// `erfc(half_gap / (std * sqrt 2))`.
pub fn failure_probability(variance: f64, half_gap: f64) -> f64 {
    if variance <= 0.0 {
        return 0.0;
    }
    libm::erfc(half_gap / (2.0 * variance).sqrt())
}

/// The least x with P(|Z| > x) <= 2^-bits for a standard normal Z.
///
/// From the bound of the tail, P(|Z| > x) < sqrt(2/pi) e^(-x^2/2) / x, solved by bisection.
pub fn sigmas_for_failure(bits: f64) -> f64 {
    let log2_tail =
        |x: f64| (2.0 / std::f64::consts::PI).sqrt().log2() - x.log2() - x * x / 2.0 * std::f64::consts::LOG2_E;
    let (mut low, mut high) = (0.5, 64.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if log2_tail(middle) > -bits {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Bits of a body to keep so that cutting the rest adds at most 1/64 of the fresh variance.
pub fn body_bits(log2_std: f64) -> u32 {
    // Rounding to b bits has a standard deviation of 2^-b/sqrt(12); an eighth of 2^log2_std needs b = 3 - 1.79 - log2_std.
    let bits = (-log2_std + 3.0 - 0.5 * 12f64.log2()).ceil();
    (bits as u32).clamp(8, 64)
}
