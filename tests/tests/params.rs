//! Parameters as data agree with the constants of the tfhe crate.

use tacit_ir::params::{BLOCK_KEY_ESTIMATES, GlweParams, LweParams, minimal_block_log2_std, minimal_log2_std};
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

/// The rows of the table in spec/security.md that has this heading, as numbers.
fn table(heading: &str) -> Vec<Vec<f64>> {
    let spec = include_str!("../../spec/security.md");
    let (_, rest) = spec.split_once(heading).expect("the table's heading");
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    let numbers = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().parse().unwrap()).collect();
    rows.map(numbers).collect()
}

#[test]
fn block_keys_are_estimated_at_every_dimension() {
    let rows = table("Blocks of three");
    assert_eq!(rows.len(), BLOCK_KEY_ESTIMATES.len());
    for (row, (dimension, primal, dual)) in rows.iter().zip(BLOCK_KEY_ESTIMATES) {
        let [n, log2_std, in_spec @ .., dual_in_spec] = &row[..] else { panic!("{row:?}") };
        assert_eq!(*n, f64::from(dimension));
        assert!((log2_std - minimal_block_log2_std(*n)).abs() < 0.0051, "{row:?}");
        // Meeting in the middle is never cheaper than the other primal attack.
        assert_eq!(in_spec[0], in_spec.iter().copied().fold(f64::INFINITY, f64::min));
        assert_eq!((in_spec[0], *dual_in_spec), (primal, dual));
        assert!(primal >= 128.0 && dual >= 128.0);
    }
    // What the compiler tries (choose_network_parameters.rs).
    for dimension in (600..=1200).step_by(24).chain([768, 960, 1152]) {
        assert!(rows.iter().any(|row| row[0] == f64::from(dimension)), "{dimension}");
        let key = LweParams::secure(dimension, 3);
        assert!(key.is_secure() && key.estimated_bits() >= Some(128.0));
        assert!(!LweParams { log2_std: key.log2_std - 0.01, ..key }.is_secure());
        assert_eq!(LweParams { log2_std: key.log2_std - 0.01, ..key }.estimated_bits(), None);
    }
    let bits = |dimension| LweParams::secure(dimension, 3).estimated_bits().unwrap();
    assert_eq!(bits(777), bits(768).min(bits(792)));
    assert_eq!(LweParams::secure(1281, 3).estimated_bits(), None);
    assert_eq!(LweParams::secure(768, 1).estimated_bits(), None);
}
