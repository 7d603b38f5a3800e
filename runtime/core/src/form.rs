//! Linear forms over ciphertexts: wrapping multiply-adds over contiguous slices, compiled for the CPU at hand.

use pulp::{Arch, Simd, WithSimd};

/// A ciphertext in a form: its coefficients, `X^shift` with 0 <= shift < 2N, and a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term<'a> {
    pub(crate) from: &'a [u64],
    pub(crate) shift: usize,
    pub(crate) weight: u64,
}

/// `out = sum of terms`, polynomial after polynomial of `n` coefficients, so that `out` stays in the first cache.
pub(crate) fn sum(out: &mut [u64], terms: &[Term<'_>], n: usize) {
    Arch::new().dispatch(Sum { out, terms, n });
}

/// `out = X^shift * from - from`.
pub(crate) fn rotation_difference(out: &mut [u64], from: &[u64], shift: usize, n: usize) {
    let terms = [Term { from, shift, weight: 1 }, Term { from, shift: 0, weight: 1u64.wrapping_neg() }];
    sum(out, &terms, n);
}

struct Sum<'a> {
    out: &'a mut [u64],
    terms: &'a [Term<'a>],
    n: usize,
}

impl WithSimd for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Sum { out, terms, n } = self;
        for (index, out) in out.chunks_exact_mut(n).enumerate() {
            let at = index * n;
            let rest = match terms {
                [] => {
                    out.fill(0);
                    continue;
                }
                // The usual difference of two branches, in one pass.
                [Term { from: a, shift: 0, weight: 1 }, Term { from: b, shift: 0, weight: u64::MAX }, rest @ ..] => {
                    for ((out, a), b) in out.iter_mut().zip(&a[at..at + n]).zip(&b[at..at + n]) {
                        *out = a.wrapping_sub(*b);
                    }
                    rest
                }
                [first, rest @ ..] => {
                    set(out, &first.from[at..at + n], first.shift, first.weight);
                    rest
                }
            };
            for term in rest {
                add(out, &term.from[at..at + n], term.shift, term.weight);
            }
        }
    }
}

/// Splits `X^shift * from`: the part that moves up keeps its sign, the part that wraps changes it.
#[inline(always)]
fn parts(shift: usize, weight: u64, n: usize) -> (usize, u64) {
    if shift >= n { (shift - n, weight.wrapping_neg()) } else { (shift, weight) }
}

#[inline(always)]
fn set(out: &mut [u64], from: &[u64], shift: usize, weight: u64) {
    let (shift, weight) = parts(shift, weight, out.len());
    let (wrapped, kept) = out.split_at_mut(shift);
    let (low, high) = from.split_at(from.len() - shift);
    set_scaled(kept, low, weight);
    set_scaled(wrapped, high, weight.wrapping_neg());
}

#[inline(always)]
fn add(out: &mut [u64], from: &[u64], shift: usize, weight: u64) {
    let (shift, weight) = parts(shift, weight, out.len());
    let (wrapped, kept) = out.split_at_mut(shift);
    let (low, high) = from.split_at(from.len() - shift);
    add_scaled(kept, low, weight);
    add_scaled(wrapped, high, weight.wrapping_neg());
}

#[inline(always)]
fn set_scaled(out: &mut [u64], from: &[u64], weight: u64) {
    match weight {
        1 => out.copy_from_slice(from),
        u64::MAX => out.iter_mut().zip(from).for_each(|(out, from)| *out = from.wrapping_neg()),
        weight => out.iter_mut().zip(from).for_each(|(out, from)| *out = from.wrapping_mul(weight)),
    }
}

#[inline(always)]
fn add_scaled(out: &mut [u64], from: &[u64], weight: u64) {
    match weight {
        1 => out.iter_mut().zip(from).for_each(|(out, from)| *out = out.wrapping_add(*from)),
        u64::MAX => out.iter_mut().zip(from).for_each(|(out, from)| *out = out.wrapping_sub(*from)),
        weight => {
            out.iter_mut().zip(from).for_each(|(out, from)| *out = out.wrapping_add(from.wrapping_mul(weight)));
        }
    }
}
