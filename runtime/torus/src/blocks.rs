//! Pointwise work of block-binary blind rotation (Lee, Min, Seo, Song, "Faster TFHE bootstrapping with block binary keys",
//! AsiaCCS 2023): `sum_i (X^(a_i) - 1) * (GGSW_i x digits)` over the keys of a block, in one pass over the key.

use crate::fft::Fft;
use aligned_vec::{ABox, avec};
use pulp::{Arch, Simd, WithSimd};
use tfhe_fft::c64;

/// Values of a transform whose exponents differ from each other's by the same steps everywhere.
const SPAN: usize = 32;

/// What monomials look like in the Fourier domain of one plan.
#[derive(Debug)]
pub struct Monomials {
    /// `exp(i pi t / N)` for t below 2N.
    roots: ABox<[c64]>,
    /// Value j of the transform of X is root number `first[j / SPAN] + step[j % SPAN]`.
    first: Vec<usize>,
    step: [usize; SPAN],
}

/// The factors of `X^a`: value j of its transform is `high[j / SPAN] * low[j % SPAN]`.
#[derive(Debug)]
pub struct Monomial {
    high: Vec<c64>,
    /// Real parts, then imaginary parts, in vectors of the CPU's width, as [`split`] orders them.
    low: [f64; 2 * SPAN],
}

impl Monomials {
    /// For polynomials of this plan.
    pub fn new(fft: &Fft) -> Self {
        let n = fft.polynomial_size();
        let root = |t: usize| {
            let (im, re) = (std::f64::consts::PI * t as f64 / n as f64).sin_cos();
            c64 { re, im }
        };
        let mut roots = avec![c64::default(); 2 * n].into_boxed_slice();
        roots.iter_mut().enumerate().for_each(|(t, value)| *value = root(t));
        // The plan's order is read off the transform of X.
        let mut x = vec![0i64; n];
        x[1] = 1 << 62;
        let mut transform = vec![c64::default(); fft.fourier_size()];
        fft.forward_units(&mut transform, &x, &mut fft.scratch());
        let turns = |z: &c64| (z.im.atan2(z.re) / std::f64::consts::PI * n as f64).round() as isize;
        let exponents: Vec<usize> = transform.iter().map(|z| turns(z).rem_euclid(2 * n as isize) as usize).collect();
        let first: Vec<usize> = exponents.iter().step_by(SPAN).copied().collect();
        let step = std::array::from_fn(|at| (exponents[at] + 2 * n - exponents[0]) % (2 * n));
        Monomials { roots, first, step }
    }

    /// Memory for a monomial.
    pub fn monomial(&self) -> Monomial {
        Monomial { high: vec![c64::default(); self.first.len()], low: [0.0; 2 * SPAN] }
    }

    /// Sets `out` to `X^exponent`, an exponent below 2N.
    pub fn set(&self, out: &mut Monomial, exponent: usize) {
        let mask = self.roots.len() - 1;
        for (value, first) in out.high.iter_mut().zip(&self.first) {
            *value = self.roots[(exponent * first) & mask];
        }
        let low: [c64; SPAN] = std::array::from_fn(|at| self.roots[(exponent * self.step[at]) & mask]);
        Arch::new().dispatch(Split { table: &mut out.low, transform: &low, place: 0, transforms: 1 });
    }
}

/// Where the transform of polynomial `column` of row `row` of the GGSW of key `index` of a block goes in the block's `table`.
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    /// Keys of a block, at most 3.
    pub block: usize,
    /// Rows of a GGSW, `levels * (k+1)`.
    pub rows: usize,
    /// Polynomials of a row, k+1, from 2 to 5.
    pub columns: usize,
}

impl BlockShape {
    /// Transforms of a block's table.
    pub fn transforms(&self) -> usize {
        self.block * self.rows * self.columns
    }

    /// Values of a block's table for transforms of `fourier_size` values.
    pub fn table_len(&self, fourier_size: usize) -> usize {
        2 * self.transforms() * fourier_size
    }

    /// Writes one transform to its places in a block's table. The order is that of this CPU's vectors: a table is no format.
    pub fn set(&self, table: &mut [f64], transform: &[c64], index: usize, row: usize, column: usize) {
        let place = (row * self.columns + column) * self.block + index;
        Arch::new().dispatch(Split { table, transform, place, transforms: self.transforms() });
    }
}

/// A vector of real parts and one of imaginary parts, from as many complex values in memory.
#[inline(always)]
fn split<S: Simd>(simd: S, values: &[S::f64s]) -> [S::f64s; 2] {
    simd.deinterleave_shfl_f64s([values[0], values[1]])
}

/// Writes a transform as transform number `place` of those that `table` interleaves, vector after vector.
struct Split<'a> {
    table: &'a mut [f64],
    transform: &'a [c64],
    place: usize,
    transforms: usize,
}

impl WithSimd for Split<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Split { table, transform, place, transforms } = self;
        let (table, transform) = (S::as_mut_simd_f64s(table).0, S::as_simd_f64s(bytemuck::cast_slice(transform)).0);
        for (table, values) in table.chunks_exact_mut(2 * transforms).zip(transform.chunks_exact(2)) {
            table[2 * place..2 * place + 2].copy_from_slice(&split(simd, values));
        }
    }
}

/// `out[c] = sum_i (monomial_i - 1) * sum_r table[r][c][i] * digits[r]` pointwise. Transform r of `digits` begins at
/// `r * dot_stride(N/2)`, and so do those of `out`; `monomials` has as many as the shape's block. Does nothing for a shape
/// outside the limits of [`BlockShape`].
pub fn block_product(out: &mut [c64], table: &[f64], digits: &[c64], monomials: &[Monomial], shape: BlockShape) {
    let BlockShape { block, rows, columns } = shape;
    let (out, digits) = (bytemuck::cast_slice_mut(out), bytemuck::cast_slice(digits));
    macro_rules! run {
        ($($block:literal x $columns:literal),*) => {
            match (block, columns) {
                $(($block, $columns) => {
                    if let Ok(monomials) = monomials.try_into() {
                        Arch::new().dispatch(Product::<$block, $columns> { out, table, digits, monomials, rows });
                    }
                })*
                _ => {}
            }
        };
    }
    run!(1 x 2, 2 x 2, 3 x 2, 1 x 3, 2 x 3, 3 x 3, 1 x 4, 2 x 4, 3 x 4, 1 x 5, 2 x 5, 3 x 5);
}

struct Product<'a, const BLOCK: usize, const COLUMNS: usize> {
    out: &'a mut [f64],
    table: &'a [f64],
    digits: &'a [f64],
    monomials: &'a [Monomial; BLOCK],
    rows: usize,
}

impl<const BLOCK: usize, const COLUMNS: usize> WithSimd for Product<'_, BLOCK, COLUMNS> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { out, table, digits, monomials, rows } = self;
        // Two vectors, real and imaginary parts, are a place; so many places have the same high factor.
        let per_span = S::as_simd_f64s(&monomials[0].low).0.len() / 2;
        let (out, _) = S::as_mut_simd_f64s(out).0.as_chunks_mut::<2>();
        let (digits, _) = S::as_simd_f64s(digits).0.as_chunks::<2>();
        let (table, _) = S::as_simd_f64s(table).0.as_chunks::<2>();
        let (out_stride, stride) = (out.len() / COLUMNS, digits.len() / rows);
        let (zero, one) = (simd.splat_f64s(0.0), simd.splat_f64s(1.0));
        // No closures here: they would be compiled without the CPU's features.
        let mut places = table.chunks_exact(BLOCK * COLUMNS * rows);
        for span in 0..places.len() / per_span {
            let mut highs = [[zero; 2]; BLOCK];
            for (high, monomial) in highs.iter_mut().zip(monomials) {
                let value = monomial.high[span];
                *high = [simd.splat_f64s(value.re), simd.splat_f64s(value.im)];
            }
            for (within, table) in (&mut places).take(per_span).enumerate() {
                let place = span * per_span + within;
                let mut factors = [[zero; 2]; BLOCK];
                for ((factor, high), monomial) in factors.iter_mut().zip(&highs).zip(monomials) {
                    let (low, _) = S::as_simd_f64s(&monomial.low).0.as_chunks::<2>();
                    let [re, im] = multiply(simd, *high, low[within]);
                    *factor = [simd.sub_f64s(re, one), im];
                }
                let mut sums = [[zero; 2]; COLUMNS];
                let (table, _) = table.as_chunks::<BLOCK>();
                let (table, _) = table.as_chunks::<COLUMNS>();
                for (table, digit) in table.iter().zip(digits[place..].iter().step_by(stride)) {
                    let digit = split(simd, digit);
                    for (sum, keys) in sums.iter_mut().zip(table) {
                        let mut key = multiply(simd, factors[0], keys[0]);
                        for (factor, value) in factors[1..].iter().zip(&keys[1..]) {
                            key = multiply_add(simd, *factor, *value, key);
                        }
                        *sum = multiply_add(simd, digit, key, *sum);
                    }
                }
                for (out, sum) in out[place..].iter_mut().step_by(out_stride).zip(sums) {
                    *out = simd.interleave_shfl_f64s(sum);
                }
            }
        }
    }
}

#[inline(always)]
fn multiply<S: Simd>(simd: S, [a, b]: [S::f64s; 2], [x, y]: [S::f64s; 2]) -> [S::f64s; 2] {
    let re = simd.mul_add_f64s(a, x, simd.neg_f64s(simd.mul_f64s(b, y)));
    [re, simd.mul_add_f64s(a, y, simd.mul_f64s(b, x))]
}

#[inline(always)]
fn multiply_add<S: Simd>(simd: S, [a, b]: [S::f64s; 2], [x, y]: [S::f64s; 2], [re, im]: [S::f64s; 2]) -> [S::f64s; 2] {
    // `re - b*y` as `re + (-b)*y`: the compiler makes one fused instruction of it.
    let re = simd.mul_add_f64s(simd.neg_f64s(b), y, simd.mul_add_f64s(a, x, re));
    [re, simd.mul_add_f64s(b, x, simd.mul_add_f64s(a, y, im))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fft::dot_stride;

    /// The transform that the factors stand for: a product of one key of ones and digits of ones, and 1.
    fn values(monomial: &Monomial, half: usize) -> Vec<c64> {
        let shape = BlockShape { block: 1, rows: 1, columns: 2 };
        let ones = vec![c64 { re: 1.0, im: 0.0 }; dot_stride(half)];
        let (mut table, mut out) = (vec![0.0; shape.table_len(half)], vec![c64::default(); 2 * dot_stride(half)]);
        shape.set(&mut table, &ones[..half], 0, 0, 0);
        let monomial = Monomial { high: monomial.high.clone(), low: monomial.low };
        block_product(&mut out, &table, &ones, &[monomial], shape);
        out[..half].iter().map(|value| value + 1.0).collect()
    }

    #[test]
    fn monomials_have_the_order_of_the_plan() {
        for size in [256, 512, 1024, 2048, 4096, 8192] {
            let fft = Fft::new(size);
            let monomials = Monomials::new(&fft);
            let mut monomial = monomials.monomial();
            for exponent in [0, 1, 2, 77, size - 1, size, size + 5, 2 * size - 1] {
                monomials.set(&mut monomial, exponent);
                let factors = values(&monomial, fft.fourier_size());
                let mut poly = vec![0i64; size];
                poly[exponent % size] = if exponent >= size { -(1 << 62) } else { 1 << 62 };
                let mut transform = vec![c64::default(); fft.fourier_size()];
                fft.forward_units(&mut transform, &poly, &mut fft.scratch());
                for (at, value) in transform.iter().enumerate() {
                    let difference = factors[at] - value * 4.0;
                    assert!(difference.norm() < 1e-11, "{size} {exponent} {at}");
                }
            }
        }
    }

    #[test]
    fn block_products_are_sums_of_rotated_products() {
        let fft = Fft::new(256);
        let (half, stride) = (fft.fourier_size(), dot_stride(fft.fourier_size()));
        let monomials = Monomials::new(&fft);
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / 1e7 - 0.5
        };
        for block in 1..=3 {
            for (rows, columns) in [(2, 2), (3, 3), (6, 3), (8, 4), (5, 5)] {
                let shape = BlockShape { block, rows, columns };
                let mut draw =
                    |count: usize| -> Vec<c64> { (0..count).map(|_| c64 { re: random(), im: random() }).collect() };
                let keys = draw(shape.transforms() * half);
                let digits = draw(rows * stride);
                let mut table = vec![0.0; shape.table_len(half)];
                let at = |i: usize, r: usize, c: usize| ((i * rows + r) * columns + c) * half;
                let mut powers: Vec<Monomial> = (0..block).map(|_| monomials.monomial()).collect();
                for i in 0..block {
                    monomials.set(&mut powers[i], 100 * i + 3);
                    for r in 0..rows {
                        for c in 0..columns {
                            shape.set(&mut table, &keys[at(i, r, c)..][..half], i, r, c);
                        }
                    }
                }
                let mut out = vec![c64::default(); columns * stride];
                block_product(&mut out, &table, &digits, &powers, shape);
                let factors: Vec<Vec<c64>> = powers.iter().map(|power| values(power, half)).collect();
                for c in 0..columns {
                    for j in 0..half {
                        let mut sum = c64::default();
                        for (i, values) in factors.iter().enumerate() {
                            let factor = values[j] - 1.0;
                            for r in 0..rows {
                                sum += factor * keys[at(i, r, c) + j] * digits[r * stride + j];
                            }
                        }
                        assert!((out[c * stride + j] - sum).norm() < 1e-9);
                    }
                }
            }
        }
    }
}
