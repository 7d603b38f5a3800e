//! Parameters as data agree with the constants of the tfhe crate.

use tacit_ir::params::{GlweParams, minimal_log2_std};
use tfhe::core_crypto::commons::noise_formulas::secure_noise::minimal_glwe_variance_for_132_bits_security_gaussian;
use tfhe::core_crypto::prelude::{GlweDimension, PolynomialSize};

#[test]
fn the_security_curve_is_that_of_tfhe() {
    for n in [256usize, 512, 1024, 2048, 4096] {
        for k in 1..=16 {
            if k * n > 8192 {
                continue;
            }
            let modulus = 64f64.exp2();
            let variance =
                minimal_glwe_variance_for_132_bits_security_gaussian(GlweDimension(k), PolynomialSize(n), modulus);
            let ours = minimal_log2_std((k * n) as f64);
            assert!((ours - 0.5 * variance.0.log2()).abs() < 1e-9, "k={k} N={n}");
            let params = GlweParams::secure(k as u32, n as u32);
            assert!(params.is_secure());
            assert!((params.variance() / variance.0 - 1.0).abs() < 1e-9);
            let weaker = GlweParams { log2_std: params.log2_std - 0.01, ..params };
            assert!(!weaker.is_secure());
        }
    }
}
