//! What primitives cost: microseconds on one core, and bytes on the wire.
//!
//! Constants are fitted to `cargo bench -p tacit-runtime --bench primitives` on a 2-core AMD EPYC with AVX-512; they rank
//! parameter sets, and predictions are printed beside measurements.

use crate::params::{GadgetParams, GlweParams};
use crate::plan::Layout;

/// Nanoseconds of one N log2 N step of the FFTs of an external product.
const FFT_NS: f64 = 0.115;
/// Nanoseconds of one complex multiply-add of an external product, per N.
const POINTWISE_NS: f64 = 0.17;
/// Nanoseconds per coefficient of a ciphertext that a form term reads and adds.
const TERM_NS: f64 = 0.12;
/// Nanoseconds of expanding and transforming one coefficient of a selector.
const PREPARE_NS: f64 = 1.3;
/// Nanoseconds of encrypting one coefficient of a selector (masks times key), per mask coefficient.
const ENCRYPT_NS: f64 = 2.6;

/// Microseconds of one external product.
pub fn external_product_us(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    let (k, n, l) = (f64::from(glwe.dimension), f64::from(glwe.polynomial_size), f64::from(gadget.levels));
    (FFT_NS * (k + 1.0) * (l + 1.0) * n * n.log2() + POINTWISE_NS * (k + 1.0).powi(2) * l * n) / 1000.0
}

/// Microseconds of one scaled ciphertext added into a form.
pub fn form_term_us(glwe: &GlweParams) -> f64 {
    TERM_NS * glwe.ciphertext_len() as f64 / 1000.0
}

/// Microseconds the server spends on one selector before it can be used.
pub fn prepare_selector_us(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    let rows = (f64::from(glwe.dimension) + 1.0) * f64::from(gadget.levels);
    PREPARE_NS * rows * glwe.ciphertext_len() as f64 / 1000.0
}

/// Microseconds the client spends on encrypting one selector.
pub fn encrypt_selector_us(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    let rows = (f64::from(glwe.dimension) + 1.0) * f64::from(gadget.levels);
    ENCRYPT_NS * rows * glwe.ciphertext_len() as f64 / 1000.0
}

/// Bytes of `count` body coefficients of `bits` bits each.
pub fn packed_bytes(count: u64, bits: u32) -> u64 {
    (count * u64::from(bits)).div_ceil(8)
}

/// Bytes of one row of a query, its seed included.
pub fn query_row_bytes(layout: &Layout) -> u64 {
    let n = u64::from(layout.glwe.polynomial_size);
    let rows = layout.gadget.map_or(0, |gadget| u64::from(layout.glwe.dimension + 1) * u64::from(gadget.levels));
    let selector_coefficients = u64::from(layout.selectors) * rows * n;
    16 + packed_bytes(selector_coefficients + u64::from(layout.packed_inputs) * n, layout.body_bits)
}

/// Bytes of one row of a result.
pub fn result_row_bytes(layout: &Layout) -> u64 {
    let mask = u64::from(layout.glwe.lwe_dimension());
    layout.result_slots.iter().map(|&slots| packed_bytes(mask + u64::from(slots), layout.result_bits)).sum()
}
