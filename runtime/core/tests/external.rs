//! The external product is tfhe-rs' external product, up to the rounding of two different FFTs.

use dyn_stack::{PodBuffer, PodStack};
use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_runtime::external::Gadget;
use tacit_torus::c64;
use tacit_torus::fft::Fft;
use tfhe::core_crypto::prelude::{
    CiphertextModulus, DecompositionBaseLog, DecompositionLevelCount, Fft as TfheFft, FourierGgswCiphertext,
    GgswCiphertext, GlweCiphertext, GlweSize, PolynomialSize, add_external_product_assign_mem_optimized,
    add_external_product_assign_mem_optimized_requirement, convert_standard_ggsw_ciphertext_to_fourier,
};

fn words(count: usize, seed: u64) -> Vec<u64> {
    let mix = |at: u64| {
        let z = (at ^ at >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    (0..count as u64).map(|at| mix(mix(at.wrapping_add(seed << 32)).wrapping_add(seed))).collect()
}

#[test]
fn agrees_with_tfhe() {
    for (k, n, base_log, levels) in [(1, 2048, 23, 1), (4, 512, 15, 1), (2, 1024, 12, 3), (7, 256, 9, 2)] {
        let (size, poly, modulus) = (GlweSize(k + 1), PolynomialSize(n), CiphertextModulus::new_native());
        let params = GlweParams::secure(k as u32, n as u32);
        let gadget = Gadget::new(&GadgetParams { base_log: base_log as u32, levels: levels as u32 });
        let rows = gadget.rows(&params);
        let standard = words(rows * (k + 1) * n, 1);
        let mut input = words((k + 1) * n, 2);
        // A digit of exactly B/2 may also be -B/2 with a carry, and the two libraries choose differently. Digits of 2 or 3
        // modulo 4, also after a carry, are never B/2.
        for word in &mut input {
            for level in 1..=levels {
                let position = 64 - base_log * level;
                *word = *word & !(1 << position) | 2 << position;
            }
        }
        let start = words((k + 1) * n, 3);

        let (base, count) = (DecompositionBaseLog(base_log), DecompositionLevelCount(levels));
        let mut fourier = FourierGgswCiphertext::new(size, poly, base, count);
        let ggsw = GgswCiphertext::from_container(standard.as_slice(), size, poly, base, modulus);
        convert_standard_ggsw_ciphertext_to_fourier(&ggsw, &mut fourier);
        let tfhe_fft = TfheFft::new(poly);
        let requirement = add_external_product_assign_mem_optimized_requirement::<u64>(size, poly, tfhe_fft.as_view());
        let mut memory = PodBuffer::new(requirement);
        let mut expected = GlweCiphertext::from_container(start.clone(), poly, modulus);
        let glwe = GlweCiphertext::from_container(input.as_slice(), poly, modulus);
        let stack = PodStack::new(&mut memory);
        add_external_product_assign_mem_optimized(&mut expected, &fourier, &glwe, tfhe_fft.as_view(), stack);

        let fft = Fft::new(n);
        let mut scratch = fft.scratch();
        let mut own = vec![c64::default(); gadget.fourier_len(&params)];
        let mut transform = vec![c64::default(); fft.fourier_size()];
        for (at, polynomial) in standard.chunks_exact(n).enumerate() {
            fft.forward_torus(&mut transform, polynomial, &mut scratch);
            gadget.set(&mut own, &transform, at / (k + 1), at % (k + 1), rows);
        }
        let mut out = start;
        gadget.add_product(&fft, &mut out, &own, &input, &mut gadget.scratch(&params), &mut scratch);

        let worst =
            out.iter().zip(expected.into_container()).map(|(a, b)| (a.wrapping_sub(b) as i64).unsigned_abs()).max();
        // Rounding of the order of digits * 2^-53 * sqrt(rows * N), in units of 2^-64.
        let unit = f64::from(base_log as u32 + 13).exp2() * ((rows * n) as f64).sqrt();
        assert!((worst.unwrap_or(0) as f64) < unit, "k={k} N={n}: off by {worst:?}, allowed {unit}");
    }
}
