//! What primitives cost: microseconds on one core, and bytes on the wire.
//!
//! The shapes of the formulas are those of the algorithms; the constants are fitted to
//! `cargo bench -p tacit-runtime --bench primitives`, `--bench bootstrap` and `-p tacit-client --bench encryption` (one thread of a 2-core AMD
//! EPYC with AVX2 and without AVX-512). They rank parameter sets; predictions are printed beside measurements.

use crate::params::{BootstrapParams, GadgetParams, GlweParams};
use crate::plan::{Layout, Plan};

pub use crate::artifact::v1::{packed_bytes, packed_input_bytes, query_row_bytes, result_row_bytes, selector_bytes};

/// Nanoseconds of one N log2 N step of the FFTs of an external product, conversions included.
const FFT_NS: f64 = 0.136;
/// Nanoseconds of one complex multiply-add of an external product, per N. With the selector in the second cache it is
/// 0.29, streamed from memory 0.7; circuits have more selectors than the cache holds and use some of them often.
const POINTWISE_NS: f64 = 0.5;
/// Nanoseconds of one N log2 N step of the FFTs of a blind rotation, conversions included.
const ROTATION_FFT_NS: f64 = 0.152;
/// Nanoseconds of one complex multiply-add of a blind rotation, per N, with the key read once for a batch.
const ROTATION_POINTWISE_NS: f64 = 0.19;
/// Nanoseconds of one 32-bit multiply-add of a batched keyswitch.
const KEYSWITCH_NS: f64 = 0.044;
/// Nanoseconds per coefficient of a ciphertext that a form term reads and adds.
const TERM_NS: f64 = 0.23;
/// Nanoseconds of expanding and transforming one coefficient of a selector.
const PREPARE_NS: f64 = 4.3;
/// Nanoseconds of encrypting one coefficient of a selector (masks times key), per mask coefficient.
const ENCRYPT_NS: f64 = 10.0;
/// Nanoseconds of one N log2 N step of a dense product by a clear polynomial, per digit and polynomial.
const DENSE_NS: f64 = 0.2;

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

/// Microseconds of one blind rotation, in a batch that reads the key once for several ciphertexts: for each block of key
/// bits `(k+1)(l+1)` FFTs, and pointwise products with each bit's GGSW and with the digits.
pub fn bootstrap_us(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let n = f64::from(glwe.polynomial_size);
    let (size, levels) = (f64::from(glwe.dimension) + 1.0, f64::from(params.gadget.levels));
    let block = f64::from(params.lwe.block);
    let ffts = size * (levels + 1.0) * ROTATION_FFT_NS * n * n.log2();
    let products = (block + 1.0) * size * size * levels * ROTATION_POINTWISE_NS * n;
    f64::from(params.lwe.dimension) / block * (ffts + products) / 1000.0
}

/// Microseconds of one keyswitch from the flattened GLWE key to the small key, in a batch.
pub fn keyswitch_us(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let levels = params.keyswitch.map_or(0.0, |gadget| f64::from(gadget.levels));
    KEYSWITCH_NS * f64::from(glwe.lwe_dimension()) * levels * (f64::from(params.lwe.dimension) + 1.0) / 1000.0
}

/// Predicted microseconds of one row of a plan on one core, preparing its selectors included.
pub fn plan_us(layout: &Layout, plan: &Plan) -> f64 {
    let counts = plan.counts();
    let glwe = &layout.glwe;
    let gadget = layout.gadget.map_or(0.0, |gadget| {
        counts.external_products as f64 * external_product_us(glwe, &gadget)
            + f64::from(layout.selectors) * prepare_selector_us(glwe, &gadget)
    });
    let bootstraps = layout.bootstrap.map_or(0.0, |params| {
        counts.bootstraps as f64 * bootstrap_us(glwe, &params) + counts.keyswitches as f64 * keyswitch_us(glwe, &params)
    });
    gadget + bootstraps + counts.form_terms as f64 * form_term_us(glwe)
}

/// Microseconds of one dense product of a packed input and a clear polynomial, when the ciphertext is cut into this many
/// digits (two for norms of the polynomial below 2^14, four below 2^30).
pub fn polynomial_product_us(glwe: &GlweParams, digits: u32) -> f64 {
    let n = f64::from(glwe.polynomial_size);
    DENSE_NS * f64::from(digits) * (f64::from(glwe.dimension) + 1.0) * n * n.log2() / 1000.0
}
