//! The negacyclic FFT: real polynomials modulo `X^N + 1` as N/2 complex values (Klemsa, "Fast and Error-Free Negacyclic
//! Integer Convolution using Extended Fourier Transform", 2021), on `tfhe-fft`'s unordered complex FFT.
//!
//! Products of transforms are transforms of products. The order of the values belongs to the plan: never mix values of
//! two plans. All loops are written for auto-vectorisation and compiled for the CPU at hand by `pulp`'s dispatch.

use aligned_vec::{ABox, avec};
use dyn_stack::{PodBuffer, PodStack, StackReq};
use pulp::{Arch, Simd, WithSimd};
use tfhe_fft::c64;
use tfhe_fft::ordered::FftAlgo;
use tfhe_fft::unordered::{Method, Plan};

/// 1.5 * 2^52: adding it to a small integer, in bits or in value, moves between integers and doubles. Unlike a cast this
/// vectorises without AVX-512.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const TWO_32: f64 = 4_294_967_296.0;
const TWO_51: f64 = TWO_32 * 524_288.0;
/// 2^-64.
const TORUS_UNIT: f64 = 1.0 / (TWO_32 * TWO_32);

/// A plan for polynomials of N coefficients. Cheap to share, not to make.
#[derive(Debug)]
pub struct Fft {
    plan: Plan,
    /// Real parts of `exp(i pi j / N)` for j below N/2. Real and imaginary parts are apart, so that loops vectorise.
    re: ABox<[f64]>,
    /// Imaginary parts.
    im: ABox<[f64]>,
}

/// Reused memory of the transforms; one per thread.
pub struct FftScratch(PodBuffer);

impl std::fmt::Debug for FftScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FftScratch")
    }
}

/// An integer of magnitude below 2^51 as a double.
#[inline(always)]
fn small_to_f64(value: i64) -> f64 {
    f64::from_bits(MAGIC.to_bits().wrapping_add(value as u64)) - MAGIC
}

/// A double of magnitude below 2^51 as the nearest integer.
#[inline(always)]
fn f64_to_small(value: f64) -> i64 {
    (value + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i64
}

/// The balanced representative of a torus value, rounded to 53 bits.
#[inline(always)]
fn torus_to_f64(value: u64) -> f64 {
    let high = small_to_f64((value as i64) >> 32);
    let low = small_to_f64((value & 0xffff_ffff) as i64);
    (high * TWO_32 + low) * TORUS_UNIT
}

/// The nearest torus value of a real number of turns.
#[inline(always)]
fn f64_to_torus(value: f64) -> u64 {
    let turn = (value - value.round_ties_even()) * TWO_32;
    let high = turn.round_ties_even();
    let low = (turn - high) * TWO_32;
    ((f64_to_small(high) as u64) << 32).wrapping_add(f64_to_small(low) as u64)
}

/// Which digit of a balanced gadget decomposition: digits lie in `[-B/2, B/2)`, and all together approximate a torus
/// value to within `B^-levels / 2`.
#[derive(Clone, Copy, Debug)]
pub struct Digit {
    offset: u64,
    up: u32,
    down: u32,
    bias: f64,
}

impl Digit {
    /// The digit of level `level` (1 is the most significant) in base `2^base_log` with `levels` levels;
    /// 1 <= level <= levels, base_log * levels <= 64, base_log <= 50.
    pub fn new(base_log: u32, levels: u32, level: u32) -> Self {
        // Half a unit of the last level rounds; half a base at this digit and at each below makes digits balanced.
        let position = |level: u32| 64 - base_log * level;
        let halves: u64 =
            (level..=levels).map(|below| 1u64 << (position(below) + base_log - 1)).fold(0, u64::wrapping_add);
        // Nothing is left out, and nothing to round, where the digits take all 64 bits.
        let rounding = position(levels).checked_sub(1).map_or(0, |bit| 1u64 << bit);
        let half_base = f64::from(base_log - 1).exp2();
        Digit {
            offset: halves.wrapping_add(rounding),
            up: base_log * (level - 1),
            down: 64 - base_log,
            bias: MAGIC + half_base,
        }
    }
}

impl Fft {
    /// A plan for polynomials of `size` coefficients, a power of two of at least 64.
    ///
    /// The algorithm is fixed by the size, not measured, so that results are the same bits on every run.
    ///
    /// # Panics
    ///
    /// When `size` is no power of two of at least 64.
    pub fn new(size: usize) -> Self {
        assert!(size.is_power_of_two() && size >= 64, "polynomial size {size}");
        let half = size / 2;
        let (base_algo, base_n) = (FftAlgo::Dit4, half.min(1024));
        let plan = Plan::new(half, Method::UserProvided { base_algo, base_n });
        let (mut re, mut im) = (avec![0.0; half].into_boxed_slice(), avec![0.0; half].into_boxed_slice());
        for (at, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
            (*im, *re) = (std::f64::consts::PI * at as f64 / size as f64).sin_cos();
        }
        Fft { plan, re, im }
    }

    /// Number of coefficients N.
    pub fn polynomial_size(&self) -> usize {
        2 * self.plan.fft_size()
    }

    /// Number of complex values of a transform, N/2.
    pub fn fourier_size(&self) -> usize {
        self.plan.fft_size()
    }

    /// Memory for transforms of this plan.
    pub fn scratch(&self) -> FftScratch {
        FftScratch(PodBuffer::new(self.plan.fft_scratch().and(StackReq::new_aligned::<c64>(0, 128))))
    }

    /// The transform of torus values taken as reals in `[-1/2, 1/2)`.
    pub fn forward_torus(&self, out: &mut [c64], values: &[u64], scratch: &mut FftScratch) {
        self.twisted(out, values, Turns);
        self.plan.fwd(out, PodStack::new(&mut scratch.0));
    }

    /// The transform of one digit of the balanced gadget decomposition of torus values.
    pub fn forward_digit(&self, out: &mut [c64], values: &[u64], digit: Digit, scratch: &mut FftScratch) {
        self.twisted(out, values, digit);
        self.plan.fwd(out, PodStack::new(&mut scratch.0));
    }

    /// The transform of integers times `2^-64`, so that products with transforms of integers are integers in units of
    /// the torus' last bit. Exact below 2^53.
    pub fn forward_units(&self, out: &mut [c64], values: &[i64], scratch: &mut FftScratch) {
        let (low, high) = values.split_at(values.len() / 2);
        for ((((out, low), high), re), im) in out.iter_mut().zip(low).zip(high).zip(self.re.iter()).zip(self.im.iter())
        {
            *out = c64 { re: *low as f64 * TORUS_UNIT, im: *high as f64 * TORUS_UNIT } * c64 { re: *re, im: *im };
        }
        self.plan.fwd(out, PodStack::new(&mut scratch.0));
    }

    fn twisted<M: ToF64>(&self, out: &mut [c64], values: &[u64], map: M) {
        Arch::new().dispatch(Twist { out, values, re: &self.re, im: &self.im, map });
    }

    /// Adds the inverse transform of `fourier`, in turns of the torus, to `out`, its value times `2^shift`; `fourier`
    /// is used as working memory.
    pub fn add_inverse(&self, out: &mut [u64], fourier: &mut [c64], shift: u32, scratch: &mut FftScratch) {
        self.untwisted(out, fourier, Exact { shift }, scratch);
    }

    /// As [`Fft::add_inverse`] without a shift, rounded to 51 bits of the torus: quicker, and far below the FFT's own error
    /// in products of digits and torus values.
    pub fn add_inverse_rounded(&self, out: &mut [u64], fourier: &mut [c64], scratch: &mut FftScratch) {
        self.untwisted(out, fourier, Rounded, scratch);
    }

    fn untwisted<M: ToTorus>(&self, out: &mut [u64], fourier: &mut [c64], map: M, scratch: &mut FftScratch) {
        self.plan.inv(fourier, PodStack::new(&mut scratch.0));
        Arch::new().dispatch(Untwist { out, fourier, re: &self.re, im: &self.im, map });
    }
}

// pulp compiles `with_simd` for the CPU's features; everything inside has to be inlined into it, so these are structs
// with `inline(always)` methods (a closure's body would be a function of its own, without the features).

/// How a forward transform reads a torus value.
trait ToF64: Copy {
    fn of(self, value: u64) -> f64;
}

#[derive(Clone, Copy)]
struct Turns;

impl ToF64 for Turns {
    #[inline(always)]
    fn of(self, value: u64) -> f64 {
        torus_to_f64(value)
    }
}

impl ToF64 for Digit {
    #[inline(always)]
    fn of(self, value: u64) -> f64 {
        f64::from_bits(MAGIC.to_bits() | value.wrapping_add(self.offset) << self.up >> self.down) - self.bias
    }
}

/// How a backward transform writes a number of turns.
trait ToTorus: Copy {
    fn of(self, turns: f64) -> u64;
}

#[derive(Clone, Copy)]
struct Exact {
    shift: u32,
}

impl ToTorus for Exact {
    #[inline(always)]
    fn of(self, turns: f64) -> u64 {
        f64_to_torus(turns) << self.shift
    }
}

#[derive(Clone, Copy)]
struct Rounded;

impl ToTorus for Rounded {
    #[inline(always)]
    fn of(self, turns: f64) -> u64 {
        // The lowest 51 bits of the double are the value's, modulo 1; those of MAGIC are zero.
        ((turns - turns.round_ties_even()) * TWO_51 + MAGIC).to_bits() << 13
    }
}

/// Complex values that a loop handles at once: enough to fill the widest vectors with a few of them.
pub(crate) const LANES: usize = 8;

struct Twist<'a, M> {
    out: &'a mut [c64],
    values: &'a [u64],
    re: &'a [f64],
    im: &'a [f64],
    map: M,
}

impl<M: ToF64> WithSimd for Twist<'_, M> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Twist { out, values, re, im, map } = self;
        let half = re.len();
        let (low, high) = values.split_at(half);
        // Equal lengths, known to the compiler, leave no bounds checks in the loop.
        let (out, high, im) = (&mut out[..half], &high[..half], &im[..half]);
        for j in 0..half {
            let (x, y) = (map.of(low[j]), map.of(high[j]));
            out[j].re = x * re[j] - y * im[j];
            out[j].im = x * im[j] + y * re[j];
        }
    }
}

struct Untwist<'a, M> {
    out: &'a mut [u64],
    fourier: &'a [c64],
    re: &'a [f64],
    im: &'a [f64],
    map: M,
}

impl<M: ToTorus> WithSimd for Untwist<'_, M> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Untwist { out, fourier, re, im, map } = self;
        let half = re.len();
        // A forward and a backward transform scale by N/2.
        let scale = 1.0 / half as f64;
        let (low, high) = out.split_at_mut(half);
        let (high, im, fourier) = (&mut high[..half], &im[..half], &fourier[..half]);
        for j in 0..half {
            let (x, y) = (fourier[j].re * scale, fourier[j].im * scale);
            let a = map.of(x * re[j] + y * im[j]);
            let b = map.of(y * re[j] - x * im[j]);
            low[j] = low[j].wrapping_add(a);
            high[j] = high[j].wrapping_add(b);
        }
    }
}

/// `out[i] += rows[i] * factor` pointwise, for each of the transforms that `out` and `rows` hold one after another;
/// with `fresh`, `out` is overwritten instead.
pub fn multiply_add(out: &mut [c64], rows: &[c64], factor: &[c64], fresh: bool) {
    struct Op<'a> {
        out: &'a mut [c64],
        rows: &'a [c64],
        factor: &'a [c64],
        fresh: bool,
    }
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let size = self.factor.len();
            let factor = S::as_simd_c64s(self.factor).0;
            for (out, row) in self.out.chunks_exact_mut(size).zip(self.rows.chunks_exact(size)) {
                let out = S::as_mut_simd_c64s(out).0;
                let row = S::as_simd_c64s(row).0;
                if self.fresh {
                    for ((out, row), factor) in out.iter_mut().zip(row).zip(factor) {
                        *out = simd.mul_c64s(*row, *factor);
                    }
                } else {
                    for ((out, row), factor) in out.iter_mut().zip(row).zip(factor) {
                        *out = simd.mul_add_c64s(*row, *factor, *out);
                    }
                }
            }
        }
    }
    Arch::new().dispatch(Op { out, rows, factor, fresh });
}

/// Interleaves transforms for [`dot`]: transform number `row` of `rows` goes to its places in `table`.
pub fn interleave(table: &mut [c64], transform: &[c64], row: usize, rows: usize) {
    let (transform, _) = transform.as_chunks::<LANES>();
    let (table, _) = table.as_chunks_mut::<LANES>();
    for (place, values) in table.iter_mut().skip(row).step_by(rows).zip(transform) {
        *place = *values;
    }
}

/// Distance between the transforms that [`dot`] reads: N/2 and a little, so that they do not fall on the same cache sets.
pub fn dot_stride(fourier_size: usize) -> usize {
    fourier_size + LANES
}

/// `out = sum_i factors[i] * table[i]` pointwise, where transform i of `factors` begins at `i * dot_stride(N/2)` and
/// `table` holds as many transforms as [`interleave`] wrote them, so that it is read straight through.
pub fn dot(out: &mut [c64], table: &[c64], factors: &[c64]) {
    struct Op<'a> {
        out: &'a mut [c64],
        table: &'a [c64],
        factors: &'a [c64],
    }
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Op { out, table, factors } = self;
            let stride = dot_stride(out.len());
            let rows = factors.len() / stride;
            let (first, rest) = factors.split_at(stride);
            let chunks = out.chunks_exact_mut(LANES).zip(table.chunks_exact(rows * LANES)).enumerate();
            for (chunk, (out, table)) in chunks {
                let (head, tail) = table.split_at(LANES);
                let first = S::as_simd_c64s(&first[chunk * LANES..][..LANES]).0;
                let out = S::as_mut_simd_c64s(out).0;
                for ((out, a), b) in out.iter_mut().zip(S::as_simd_c64s(head).0).zip(first) {
                    *out = simd.mul_c64s(*a, *b);
                }
                for (row, factor) in tail.chunks_exact(LANES).zip(rest.chunks_exact(stride)) {
                    let factor = S::as_simd_c64s(&factor[chunk * LANES..][..LANES]).0;
                    for ((out, a), b) in out.iter_mut().zip(S::as_simd_c64s(row).0).zip(factor) {
                        *out = simd.mul_add_c64s(*a, *b, *out);
                    }
                }
            }
        }
    }
    Arch::new().dispatch(Op { out, table, factors });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_exact_where_they_can_be() {
        for value in [0i64, 1, -1, 12345, -(1 << 50), (1 << 50) + 3] {
            assert_eq!(small_to_f64(value), value as f64);
            assert_eq!(f64_to_small(value as f64), value);
        }
        for value in [0u64, 1 << 63, 1 << 20, u64::MAX << 12, 0x1234_5678_9abc_d000] {
            assert_eq!(f64_to_torus(torus_to_f64(value)), value);
            let wrapped = f64_to_torus(torus_to_f64(value) + 1024.0);
            assert!((wrapped.wrapping_sub(value) as i64).unsigned_abs() <= 1 << 22);
            let rounded = Rounded.of(torus_to_f64(value) - 77.0);
            assert!((rounded.wrapping_sub(value) as i64).unsigned_abs() <= 1 << 19);
        }
    }

    #[test]
    fn digits_recompose() {
        for (base_log, levels) in [(23, 1), (15, 2), (7, 3), (21, 3), (31, 1), (1, 40)] {
            for value in [0u64, 1 << 63, u64::MAX, 0x7fff_ffff_ffff_ffff, 0x1234_5678_9abc_def0] {
                let mut sum = 0u64;
                for level in 1..=levels {
                    let digit = Digit::new(base_log, levels, level).of(value);
                    assert!(digit.abs() <= f64::from(base_log - 1).exp2());
                    sum = sum.wrapping_add((digit as i64 as u64) << (64 - base_log * level));
                }
                let error = (value.wrapping_sub(sum) as i64).unsigned_abs();
                assert!(error <= 1 << (63 - base_log * levels), "{base_log} {levels} {value:x} {error:x}");
            }
        }
    }

    #[test]
    fn product_by_a_monomial_rotates() {
        for size in [256, 512, 1024, 2048, 4096, 8192] {
            let fft = Fft::new(size);
            let mut scratch = fft.scratch();
            let values: Vec<u64> = (0..size as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let mut monomial = vec![0i64; size];
            monomial[3] = 1;
            let half = fft.fourier_size();
            let (mut a, mut b, mut c) =
                (vec![c64::default(); half], vec![c64::default(); half], vec![c64::default(); half]);
            fft.forward_torus(&mut a, &values, &mut scratch);
            fft.forward_units(&mut b, &monomial, &mut scratch);
            b.iter_mut().for_each(|z| *z *= TWO_32 * TWO_32);
            multiply_add(&mut c, &a, &b, true);
            let mut out = vec![0; size];
            fft.add_inverse(&mut out, &mut c, 0, &mut scratch);
            for at in 0..size {
                let expected = if at < 3 { values[at + size - 3].wrapping_neg() } else { values[at - 3] };
                assert!((out[at].wrapping_sub(expected) as i64).unsigned_abs() < 1 << 14, "{size} {at}");
            }
        }
    }
}
