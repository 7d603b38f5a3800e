//! quick
use dyn_stack::{PodBuffer, PodStack};
use std::time::Instant;
use tacit_ir::params::*;
use tacit_runtime::external::*;
use tacit_torus::c64;
use tacit_torus::fft::Fft;
use tfhe::core_crypto::prelude::*;

fn median(mut f: impl FnMut(usize), per: usize) -> f64 {
    let mut times = Vec::new();
    for _ in 0..60 {
        let t = Instant::now();
        for i in 0..per {
            f(i)
        }
        times.push(t.elapsed().as_secs_f64() * 1e6 / per as f64);
    }
    times.sort_by(f64::total_cmp);
    times[0]
}

fn main() {
    for (k, n) in [(1u32, 2048u32), (2, 1024), (4, 512), (8, 256), (3, 512), (5, 512), (6, 512), (7, 256), (3, 1024)] {
        for l in 1..=2u32 {
            let glwe = GlweParams::secure(k, n);
            let gp = GadgetParams { base_log: 14, levels: l };
            let g = Gadget::new(&gp);
            let fft = Fft::new(n as usize);
            let len = g.fourier_len(&glwe);
            let count = 100;
            let ggsws: Vec<c64> = (0..len * count)
                .map(|i| c64 { re: (i as f64 * 0.37).sin() * 0.5, im: (i as f64 * 0.11).cos() * 0.5 })
                .collect();
            let input: Vec<u64> =
                (0..glwe.ciphertext_len() as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let mut out = vec![0u64; input.len()];
            let mut ps = g.scratch(&glwe);
            let mut fs = fft.scratch();
            let hot = median(|_| g.add_product(&fft, &mut out, &ggsws[..len], &input, &mut ps, &mut fs), 100);
            let cold = median(
                |i| g.add_product(&fft, &mut out, &ggsws[i * len..(i + 1) * len], &input, &mut ps, &mut fs),
                100,
            );
            let mut out2 = vec![0u64; input.len()];
            let tf = tfhe::core_crypto::fft_impl::fft64::math::fft::Fft::new(PolynomialSize(n as usize));
            let tv = tf.as_view();
            let mut buf = PodBuffer::new(add_external_product_assign_mem_optimized_requirement::<u64>(
                GlweSize(k as usize + 1),
                PolynomialSize(n as usize),
                tv,
            ));
            let modulus = CiphertextModulus::new_native();
            let glwe_in = GlweCiphertext::from_container(&input[..], PolynomialSize(n as usize), modulus);
            let mut run = |i: usize| {
                let mut o = GlweCiphertext::from_container(&mut out2[..], PolynomialSize(n as usize), modulus);
                let gg = FourierGgswCiphertext::from_container(
                    &ggsws[i * len..(i + 1) * len],
                    GlweSize(k as usize + 1),
                    PolynomialSize(n as usize),
                    DecompositionBaseLog(14),
                    DecompositionLevelCount(l as usize),
                );
                add_external_product_assign_mem_optimized(&mut o, &gg, &glwe_in, tv, PodStack::new(&mut buf));
            };
            let thot = median(|_| run(0), 100);
            let tcold = median(|i| run(i), 100);
            println!("k={k} N={n} l={l}: own hot {hot:.1} cold {cold:.1}  tfhe hot {thot:.1} cold {tcold:.1}");
        }
    }
}
