//! What both analyses share: the digits of a trivial ciphertext, and the fresh noise that a form meets.

use crate::params::GadgetParams;
use crate::plan::Form;
use std::collections::BTreeMap;

/// Whether a form has no ciphertext in it: then it is a trivial GLWE, whose masks are zero and whose digits are known.
pub(super) fn is_trivial(form: &Form) -> bool {
    let Form { slots, packed, bits, constant: _ } = form;
    slots.is_empty() && packed.is_empty() && bits.is_empty()
}

/// The constants of a form as a polynomial: coefficient to torus value.
pub(super) fn constants(form: &Form) -> BTreeMap<u32, u64> {
    let mut out: BTreeMap<u32, u64> = BTreeMap::new();
    for (coefficient, value) in &form.constant {
        let sum = out.entry(*coefficient).or_default();
        *sum = sum.wrapping_add(*value);
    }
    out
}

/// `(X^-shift - 1)` times a polynomial of size `n`.
pub(super) fn rotation_difference(poly: &BTreeMap<u32, u64>, shift: u32, n: u32) -> BTreeMap<u32, u64> {
    let mut out: BTreeMap<u32, u64> = BTreeMap::new();
    for (coefficient, value) in poly {
        // X^-shift = X^(2N - shift).
        let (at, negative) = reduce(u64::from(*coefficient) + 2 * u64::from(n) - u64::from(shift), n);
        let moved = if negative { value.wrapping_neg() } else { *value };
        let sum = out.entry(at).or_default();
        *sum = sum.wrapping_add(moved);
        let sum = out.entry(*coefficient).or_default();
        *sum = sum.wrapping_sub(*value);
    }
    out
}

/// `X^exponent` in `Z[X]/(X^N + 1)`: the exponent below N, and whether the sign flips.
pub(super) fn reduce(exponent: u64, n: u32) -> (u32, bool) {
    let exponent = exponent % (2 * u64::from(n));
    if exponent >= u64::from(n) { ((exponent - u64::from(n)) as u32, true) } else { (exponent as u32, false) }
}

/// The balanced decomposition of a trivial ciphertext's body, as the runtime's decomposer makes it.
pub(super) struct TrivialDigits {
    /// `(level from 1, coefficient, digit)`, digits that are not zero.
    pub(super) digits: Vec<(u32, u32, f64)>,
    /// Coefficients with a digit that is not zero.
    pub(super) filled: usize,
    /// Largest magnitude of what the decomposition rounds away, as a fraction of the torus.
    pub(super) error: f64,
}

/// Decomposes each coefficient into `levels` digits in `[-B/2, B/2]`.
pub(super) fn trivial_digits(poly: &BTreeMap<u32, u64>, gadget: &GadgetParams) -> TrivialDigits {
    let GadgetParams { base_log, levels } = *gadget;
    let kept = base_log * levels;
    let mut digits = Vec::new();
    let mut filled = 0;
    let mut error: f64 = 0.0;
    for (&coefficient, &value) in poly {
        let dropped = 64 - kept;
        let half = if dropped == 0 { 0 } else { 1u64 << (dropped - 1) };
        let rounded = value.wrapping_add(half) >> dropped;
        let lost = value.wrapping_sub(rounded << dropped) as i64;
        error = error.max((lost as f64).abs() * (-64f64).exp2());
        // Least significant digit first; a digit above B/2 borrows from the next.
        let mut rest = rounded;
        let before = digits.len();
        for level in (1..=levels).rev() {
            let mask = (1u64 << base_log) - 1;
            let mut digit = (rest & mask) as i64;
            rest >>= base_log;
            if digit > 1i64 << (base_log - 1) {
                digit -= 1i64 << base_log;
                rest += 1;
            }
            if digit != 0 {
                digits.push((level, coefficient, digit as f64));
            }
        }
        filled += usize::from(digits.len() > before);
    }
    TrivialDigits { digits, filled, error }
}

/// The sum of squares of the digits.
pub(super) fn squared_norm(digits: &TrivialDigits) -> f64 {
    digits.digits.iter().map(|(_, _, digit)| digit * digit).sum()
}
