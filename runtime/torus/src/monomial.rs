//! Transforms of `X^a - 1`, made without an FFT: a transform's values are those at the roots of `X^N + 1`, so that of `X^a`
//! are powers of the roots.

use crate::fft::Fft;
use aligned_vec::{ABox, avec};
use pulp::{Arch, Simd, WithSimd};
use tfhe_fft::c64;

/// Values that share one factor of their root.
const RUN: usize = 32;

/// The roots in the order of one plan's transforms.
#[derive(Debug)]
pub struct Monomials {
    /// `exp(i pi e / N)` for e below 2N.
    roots: ABox<[c64]>,
    /// The exponent of the root of each run's first value.
    starts: Vec<u32>,
    /// Exponents of a run's roots, less that of its first value: the same in all runs.
    steps: [u32; RUN],
}

impl Monomials {
    /// For the transforms of a plan.
    ///
    /// # Panics
    ///
    /// When the plan's order is not made of equal runs; it is for all sizes that are tested here.
    pub fn new(fft: &Fft) -> Self {
        let n = fft.polynomial_size();
        let mut roots = avec![c64::default(); 2 * n].into_boxed_slice();
        for (e, root) in roots.iter_mut().enumerate() {
            (root.im, root.re) = (std::f64::consts::PI * e as f64 / n as f64).sin_cos();
        }
        // The transform of X shows which root each value belongs to.
        let mut x = vec![0i64; n];
        x[1] = 1;
        let mut transform = vec![c64::default(); fft.fourier_size()];
        fft.forward_units(&mut transform, &x, &mut fft.scratch());
        let exponent = |value: &c64| {
            let turns = value.im.atan2(value.re) / std::f64::consts::TAU * (2 * n) as f64;
            (turns.round() as i64).rem_euclid(2 * n as i64) as u32
        };
        let exponents: Vec<u32> = transform.iter().map(exponent).collect();
        let less = |a: u32, b: u32| (a + 2 * n as u32 - b) % (2 * n as u32);
        let mut steps = [0; RUN];
        for (step, e) in steps.iter_mut().zip(&exponents) {
            *step = less(*e, exponents[0]);
        }
        let (runs, rest) = exponents.as_chunks::<RUN>();
        let same = |run: &[u32; RUN]| run.iter().zip(&steps).all(|(e, step)| less(*e, run[0]) == *step);
        assert!(rest.is_empty() && runs.iter().all(same), "the plan's order is not made of equal runs");
        Monomials { roots, starts: runs.iter().map(|run| run[0]).collect(), steps }
    }

    /// Writes the transform of `X^exponent - 1`; 0 <= exponent < 2N.
    pub fn minus_one(&self, exponent: u32, out: &mut [c64]) {
        let mask = self.roots.len() - 1;
        let root = |e: u32| self.roots[(e as usize * exponent as usize) & mask];
        let run = self.steps.map(root);
        Arch::new().dispatch(Fill { run: &run, starts: &self.starts, root, out });
    }
}

struct Fill<'a, R> {
    run: &'a [c64; RUN],
    starts: &'a [u32],
    root: R,
    out: &'a mut [c64],
}

impl<R: Fn(u32) -> c64> WithSimd for Fill<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Fill { run, starts, root, out } = self;
        let run = S::as_simd_c64s(run).0;
        let minus_one = simd.splat_c64s(c64 { re: -1.0, im: 0.0 });
        for (out, start) in out.chunks_exact_mut(RUN).zip(starts) {
            let start = simd.splat_c64s(root(*start));
            for (out, value) in S::as_mut_simd_c64s(out).0.iter_mut().zip(run) {
                *out = simd.mul_add_c64s(*value, start, minus_one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_of_monomials_are_those_of_the_fft() {
        for n in [128, 256, 512, 1024, 2048, 4096] {
            let fft = Fft::new(n);
            let monomials = Monomials::new(&fft);
            let (mut own, mut expected) =
                (vec![c64::default(); fft.fourier_size()], vec![c64::default(); fft.fourier_size()]);
            for exponent in [0, 1, 17, n - 1, n, n + 5, 2 * n - 1] {
                let mut polynomial = vec![0i64; n];
                polynomial[0] = -1;
                polynomial[exponent % n] += if exponent < n { 1 } else { -1 };
                fft.forward_units(&mut expected, &polynomial, &mut fft.scratch());
                monomials.minus_one(exponent as u32, &mut own);
                for (a, b) in own.iter().zip(&expected) {
                    let b = b * 64f64.exp2();
                    assert!((a - b).norm() < 1e-12 * n as f64, "{n} {exponent} {a} {b}");
                }
            }
        }
    }
}
