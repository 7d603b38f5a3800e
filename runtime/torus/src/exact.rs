//! Exact negacyclic products of a torus polynomial and an integer polynomial.
//!
//! A double holds 53 bits, a torus value has 64: one operand is cut into balanced digits of w bits, each digit
//! polynomial is multiplied in double precision, and every product is rounded to the integers it must be. For a digit
//! polynomial and an integer polynomial p the coefficients of the product stay near `2^w * |p|_2`, and the FFT's error
//! near `2^(w - 53) * |p|_2` times a small factor that grows with log N; with [`digit_bits`] the error's standard
//! deviation stays below 2^-5, so a wrong rounding (an error of 1/2) lies beyond 16 standard deviations.

use crate::fft::{Digit, Fft, FftScratch, multiply_add};
use aligned_vec::{ABox, avec};
use tfhe_fft::c64;
use zeroize::Zeroize;

/// Bits of a digit for a multiplier of this squared 2-norm: 32, 16 or 8; `None` when even 8 are too many.
pub fn digit_bits(squared_norm: f64) -> Option<u32> {
    let norm_bits = 0.5 * squared_norm.max(1.0).log2();
    [32u32, 16, 8].into_iter().find(|bits| f64::from(*bits) + norm_bits <= 46.0)
}

/// The transforms of the balanced digits of one polynomial, least significant first.
#[derive(Clone, Debug)]
pub struct Digits {
    bits: u32,
    fourier: ABox<[c64]>,
}

impl Digits {
    /// Transforms a polynomial cut into digits of `bits` bits (8, 16 or 32).
    pub fn new(fft: &Fft, values: &[u64], bits: u32, scratch: &mut FftScratch) -> Self {
        let half = fft.fourier_size();
        let mut fourier = avec![c64::default(); half * (64 / bits) as usize].into_boxed_slice();
        let mut digits = Digits { bits, fourier: avec![].into_boxed_slice() };
        digits.write(fft, &mut fourier, values, scratch);
        digits.fourier = fourier;
        digits
    }

    fn write(&self, fft: &Fft, fourier: &mut [c64], values: &[u64], scratch: &mut FftScratch) {
        let bits = self.bits;
        for (index, part) in (0u32..).zip(fourier.chunks_exact_mut(fft.fourier_size())) {
            let levels = 64 / bits;
            fft.forward_digit(part, values, Digit::new(bits, levels, levels - index), scratch);
        }
    }

    /// Replaces the polynomial, keeping the memory.
    pub fn set(&mut self, fft: &Fft, values: &[u64], scratch: &mut FftScratch) {
        let mut fourier = std::mem::replace(&mut self.fourier, avec![].into_boxed_slice());
        self.write(fft, &mut fourier, values, scratch);
        self.fourier = fourier;
    }

    /// Bits of a digit.
    pub fn bits(&self) -> u32 {
        self.bits
    }
}

/// A sum of exact products, in the Fourier domain.
#[derive(Clone, Debug)]
pub struct Sum {
    bits: u32,
    fresh: bool,
    fourier: ABox<[c64]>,
}

impl Sum {
    /// An empty sum of products with digits of `bits` bits.
    pub fn new(fft: &Fft, bits: u32) -> Self {
        let fourier = avec![c64::default(); fft.fourier_size() * (64 / bits) as usize].into_boxed_slice();
        Sum { bits, fresh: true, fourier }
    }

    /// Adds `digits * multiplier`, the multiplier transformed by [`Fft::forward_units`].
    pub fn add(&mut self, digits: &Digits, multiplier: &[c64]) {
        multiply_add(&mut self.fourier, &digits.fourier, multiplier, self.fresh);
        self.fresh = false;
    }

    /// Adds the sum to `out` and empties it.
    pub fn finish(&mut self, fft: &Fft, out: &mut [u64], scratch: &mut FftScratch) {
        if !self.fresh {
            for (index, part) in (0u32..).zip(self.fourier.chunks_exact_mut(fft.fourier_size())) {
                fft.add_inverse(out, part, index * self.bits, scratch);
            }
        }
        self.fresh = true;
    }
}

impl Zeroize for Sum {
    fn zeroize(&mut self) {
        for value in self.fourier.iter_mut() {
            value.re.zeroize();
            value.im.zeroize();
        }
        self.fresh = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schoolbook(a: &[u64], p: &[i64]) -> Vec<u64> {
        let n = a.len();
        let mut out = vec![0u64; n];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in p.iter().enumerate() {
                let product = x.wrapping_mul(*y as u64);
                if i + j < n {
                    out[i + j] = out[i + j].wrapping_add(product);
                } else {
                    out[i + j - n] = out[i + j - n].wrapping_sub(product);
                }
            }
        }
        out
    }

    #[test]
    fn products_are_exact() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) << 32 | (state.rotate_left(17) >> 32)
        };
        for size in [256, 512, 2048] {
            let fft = Fft::new(size);
            let mut scratch = fft.scratch();
            for magnitude_bits in [1, 8, 20, 30] {
                let values: Vec<u64> = (0..size).map(|_| random()).collect();
                let multiplier: Vec<i64> = (0..size).map(|_| random() as i64 >> (63 - magnitude_bits)).collect();
                let squared: f64 = multiplier.iter().map(|m| (*m as f64).powi(2)).sum();
                let Some(bits) = digit_bits(squared) else { panic!("norm 2^{}", squared.log2() / 2.0) };
                let digits = Digits::new(&fft, &values, bits, &mut scratch);
                let mut transformed = vec![c64::default(); fft.fourier_size()];
                fft.forward_units(&mut transformed, &multiplier, &mut scratch);
                let mut sum = Sum::new(&fft, bits);
                sum.add(&digits, &transformed);
                sum.add(&digits, &transformed);
                let mut out = vec![0; size];
                sum.finish(&fft, &mut out, &mut scratch);
                let expected: Vec<u64> =
                    schoolbook(&values, &multiplier).iter().map(|value| value.wrapping_mul(2)).collect();
                assert_eq!(out, expected, "{size} {magnitude_bits} {bits}");
            }
        }
    }
}
