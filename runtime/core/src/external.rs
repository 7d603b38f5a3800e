//! The external product of a GGSW in the Fourier domain and a GLWE: the operation that nearly all time goes into.
//!
//! The same arithmetic as tfhe-rs' `add_external_product_assign`, `(k+1)(l+1)` FFTs, with one pass less over memory per
//! digit: decomposing, converting to double and twisting happen together. A test compares the two.

use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_torus::blocks::{BlockShape, Monomial, Monomials, block_product};
use tacit_torus::fft::{Digit, Fft, FftScratch, dot, dot_stride, interleave};
use tacit_torus::{ABox, AVec, c64};

/// What an external product of given parameters needs that does not change.
#[derive(Debug)]
pub struct Gadget {
    /// Digits in the order of the GGSW's level matrices: the least significant first.
    digits: Vec<Digit>,
}

/// Working memory of external products; one per thread.
#[derive(Debug)]
pub struct ProductScratch {
    /// The transformed digits.
    digits: ABox<[c64]>,
    /// One transformed output polynomial.
    sum: ABox<[c64]>,
}

/// `count` zeros, aligned to cache lines.
pub(crate) fn zeros<T: Copy + Default>(count: usize) -> ABox<[T]> {
    let mut values = AVec::with_capacity(0, count);
    values.resize(count, T::default());
    values.into_boxed_slice()
}

impl Gadget {
    /// For this decomposition.
    pub fn new(gadget: &GadgetParams) -> Self {
        let digit = |level| Digit::new(gadget.base_log, gadget.levels, level);
        Gadget { digits: (1..=gadget.levels).rev().map(digit).collect() }
    }

    /// Complex values of one GGSW: `levels * (k+1) * (k+1) * N/2`.
    pub fn fourier_len(&self, glwe: &GlweParams) -> usize {
        let size = glwe.dimension as usize + 1;
        self.digits.len() * size * size * glwe.polynomial_size as usize / 2
    }

    /// Digit polynomials of a GLWE: `levels * (k+1)`, which is also the number of rows of a GGSW.
    pub fn rows(&self, glwe: &GlweParams) -> usize {
        self.digits.len() * (glwe.dimension as usize + 1)
    }

    /// Working memory for these parameters.
    pub fn scratch(&self, glwe: &GlweParams) -> ProductScratch {
        let half = glwe.polynomial_size as usize / 2;
        ProductScratch { digits: zeros(dot_stride(half) * self.rows(glwe)), sum: zeros(half) }
    }

    /// Where polynomial `column` of the GGSW's rows goes in the layout that [`Gadget::add_product`] reads: the
    /// polynomials of one column of all rows together, [interleaved](interleave).
    pub fn set(&self, ggsw: &mut [c64], transform: &[c64], row: usize, column: usize, rows: usize) {
        let column_len = rows * transform.len();
        interleave(&mut ggsw[column * column_len..][..column_len], transform, row, rows);
    }

    /// The transforms of the digits of a GLWE, `dot_stride(N/2)` apart, in the order of the GGSW's rows.
    pub(crate) fn transform(&self, fft: &Fft, glwe: &[u64], digits: &mut [c64], scratch: &mut FftScratch) {
        let (n, half) = (fft.polynomial_size(), fft.fourier_size());
        let mut parts = digits.chunks_exact_mut(dot_stride(half));
        for digit in &self.digits {
            for (poly, part) in glwe.chunks_exact(n).zip(&mut parts) {
                fft.forward_digit(&mut part[..half], poly, *digit, scratch);
            }
        }
    }

    /// `out += ggsw [x] glwe`.
    pub fn add_product(
        &self,
        fft: &Fft,
        out: &mut [u64],
        ggsw: &[c64],
        glwe: &[u64],
        scratch: &mut ProductScratch,
        fft_scratch: &mut FftScratch,
    ) {
        let n = fft.polynomial_size();
        let ProductScratch { digits, sum } = scratch;
        self.transform(fft, glwe, digits, fft_scratch);
        let columns = ggsw.chunks_exact(ggsw.len() / (out.len() / n));
        for (poly, column) in out.chunks_exact_mut(n).zip(columns) {
            dot(sum, column, digits);
            fft.add_inverse_rounded(poly, sum, fft_scratch);
        }
    }
}

/// Products with the GGSWs of a block, at most one of which encrypts 1.
#[derive(Debug)]
pub(crate) struct BlockProduct {
    monomials: Monomials,
    /// How a block's table is laid out.
    pub(crate) shape: BlockShape,
}

/// Working memory of block products; one per thread.
#[derive(Debug)]
pub(crate) struct BlockScratch {
    digits: ABox<[c64]>,
    /// `X^a_i` of a block.
    monomials: Vec<Monomial>,
    /// Transforms of the polynomials of a block's product.
    sums: ABox<[c64]>,
}

impl BlockProduct {
    /// For blocks of this many GGSWs.
    pub(crate) fn new(fft: &Fft, glwe: &GlweParams, gadget: &Gadget, block: usize) -> Self {
        let shape = BlockShape { block, rows: gadget.rows(glwe), columns: glwe.dimension as usize + 1 };
        BlockProduct { monomials: Monomials::new(fft), shape }
    }

    /// Working memory.
    pub(crate) fn scratch(&self, fft: &Fft) -> BlockScratch {
        let stride = dot_stride(fft.fourier_size());
        BlockScratch {
            digits: zeros(stride * self.shape.rows),
            monomials: (0..self.shape.block).map(|_| self.monomials.monomial()).collect(),
            sums: zeros(stride * self.shape.columns),
        }
    }

    /// `glwe += sum_i (X^a_i - 1) GGSW_i [x] glwe`: with `GGSW_i` the one that encrypts 1, `X^a_i glwe`. Exponents are below 2N.
    #[expect(clippy::too_many_arguments, reason = "parts of a thread's workspace that are borrowed apart")]
    pub(crate) fn add(
        &self,
        fft: &Fft,
        gadget: &Gadget,
        glwe: &mut [u64],
        exponents: &[u32],
        table: &[f64],
        scratch: &mut BlockScratch,
        fft_scratch: &mut FftScratch,
    ) {
        if exponents.iter().all(|exponent| *exponent == 0) {
            return;
        }
        let BlockScratch { digits, monomials, sums } = scratch;
        gadget.transform(fft, glwe, digits, fft_scratch);
        for (exponent, monomial) in exponents.iter().zip(monomials.iter_mut()) {
            self.monomials.set(monomial, *exponent as usize);
        }
        block_product(sums, table, digits, monomials, self.shape);
        let (n, half) = (fft.polynomial_size(), fft.fourier_size());
        for (poly, sum) in glwe.chunks_exact_mut(n).zip(sums.chunks_exact_mut(dot_stride(half))) {
            fft.add_inverse_rounded(poly, &mut sum[..half], fft_scratch);
        }
    }
}
