//! Decryption of results.

use crate::encrypt::MaskProduct;
use crate::key::ClientKey;
use tacit_ir::artifact::v1::{BatchHeader, lwe_result_bytes, result_bytes, result_row_bytes};
use tacit_ir::artifact::{Kind, SectionId, View, decode};
use tacit_ir::diag::Result;
use tacit_torus::bits;

/// With more slots than this a product through the FFT beats one inner product per slot.
const FEW_SLOTS: usize = 4;

/// Decrypts a result file: rows x results x slots, torus values with their noise.
///
/// # Errors
///
/// Those of [`View::read`], `OtherCircuit` and `NotConformant`.
pub fn decrypt(key: &ClientKey, bytes: &[u8]) -> Result<Vec<Vec<Vec<u64>>>> {
    let layout = &key.layout;
    let file = View::read(bytes, &[Kind::Result], Kind::Result.default_limit())?;
    file.check_circuit(&key.digest)?;
    let header: BatchHeader = decode(file.section(SectionId::HEADER)?)?;
    let rows = file.section(SectionId::ROWS)?;
    let row_bytes = result_row_bytes(layout);
    header.check(layout, row_bytes, rows.len())?;
    let mut decryptor = Decryptor::new(key);
    let rows = rows.chunks_exact(row_bytes as usize);
    Ok(rows
        .map(|mut row| {
            let results = layout.result_slots.iter().map(|slots| {
                let (ciphertext, rest) = row.split_at(result_bytes(layout, *slots) as usize);
                row = rest;
                decryptor.result(ciphertext, *slots as usize)
            });
            let mut all: Vec<Vec<u64>> = results.collect();
            for values in &layout.lwe_results {
                let (ciphertexts, rest) = row.split_at(lwe_result_bytes(layout, *values) as usize);
                row = rest;
                all.push(decryptor.values(ciphertexts, *values as usize));
            }
            all
        })
        .collect())
}

struct Decryptor<'a> {
    key: &'a ClientKey,
    coefficients: Vec<u64>,
    product: Vec<u64>,
}

impl<'a> Decryptor<'a> {
    fn new(key: &'a ClientKey) -> Self {
        Decryptor { key, coefficients: Vec::new(), product: vec![0; key.fft.polynomial_size()] }
    }

    fn result(&mut self, ciphertext: &[u8], slots: usize) -> Vec<u64> {
        let masks = self.key.bits.len();
        self.coefficients.resize(masks + slots, 0);
        bits::unpack(ciphertext, self.key.layout.result_bits, &mut self.coefficients);
        self.product.fill(0);
        if slots <= FEW_SLOTS {
            self.few(slots)
        } else {
            self.many()
        }
        let bodies = self.coefficients[masks..].iter();
        bodies.zip(&self.product).map(|(body, product)| body.wrapping_sub(*product)).collect()
    }

    /// LWE ciphertexts under the flattened key.
    fn values(&mut self, ciphertexts: &[u8], values: usize) -> Vec<u64> {
        let width = self.key.bits.len() + 1;
        self.coefficients.resize(width * values, 0);
        bits::unpack(ciphertexts, self.key.layout.result_bits, &mut self.coefficients);
        let value = |ciphertext: &[u64]| {
            let (masks, body) = ciphertext.split_at(width - 1);
            let product = masks.iter().zip(self.key.bits.iter());
            let product = product.fold(0u64, |sum, (mask, bit)| sum.wrapping_add(mask.wrapping_mul(u64::from(*bit))));
            body[0].wrapping_sub(product)
        };
        self.coefficients.chunks_exact(width).map(value).collect()
    }

    /// Coefficient j of a mask times its key polynomial is `sum_(i<=j) a_(j-i) s_i - sum_(i>j) a_(N+j-i) s_i`.
    fn few(&mut self, slots: usize) {
        let n = self.product.len();
        for (mask, key) in self.coefficients.chunks_exact(n).zip(self.key.bits.chunks_exact(n)) {
            for (slot, product) in self.product[..slots].iter_mut().enumerate() {
                let (low, high) = key.split_at(slot + 1);
                let kept = low.iter().zip(mask[..=slot].iter().rev());
                let wrapped = high.iter().zip(mask[slot + 1..].iter().rev());
                let sum = |sum: u64, (bit, value): (&u8, &u64)| sum.wrapping_add(u64::from(*bit).wrapping_mul(*value));
                *product = product.wrapping_add(kept.fold(0, sum)).wrapping_sub(wrapped.fold(0, sum));
            }
        }
    }

    fn many(&mut self) {
        let key = self.key;
        let masks = &self.coefficients[..key.bits.len()];
        MaskProduct::new(&key.fft).add(&key.fft, &key.fourier, masks, &mut self.product);
    }
}
