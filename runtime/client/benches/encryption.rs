//! Time of encrypting one selector, one thread, as a table beside `tacit_ir::cost`: the least of many repetitions.
//! `cargo bench -p tacit-client --bench encryption`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::{Duration, Instant};
use tacit_client::{ClientKey, EncodedRow, encrypt};
use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_ir::plan::Layout;
use tacit_ir::{cost, noise};

fn main() {
    const SELECTORS: u32 = 32;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    println!("{:>8} {:>2} | us per selector, model | bytes per selector", "k x N", "l");
    for (k, n) in [(1, 2048), (2, 1024), (4, 512), (8, 256), (3, 512), (7, 256), (5, 512), (3, 1024)] {
        for levels in 1..=3 {
            let glwe = GlweParams::secure(k, n);
            let gadget = GadgetParams { base_log: 24 / levels, levels };
            let layout = Layout {
                glwe,
                gadget: Some(gadget),
                selectors: SELECTORS,
                packed_inputs: 0,
                body_bits: noise::body_bits(glwe.log2_std),
                result_slots: vec![1],
                result_bits: 32,
                partitions: vec![],
                small_inputs: 0,
                lwe_results: vec![],
            };
            let key = ClientKey::generate(&layout, [0; 32]).expect("secure parameters");
            let row = EncodedRow {
                selectors: (0..SELECTORS).map(|bit| bit % 2 == 0).collect(),
                packed: Vec::new(),
                small: Vec::new(),
            };
            let (start, mut least) = (Instant::now(), f64::INFINITY);
            while start.elapsed() < Duration::from_millis(250) {
                let one = Instant::now();
                let query = pool.install(|| encrypt(&key, std::slice::from_ref(&row)));
                least = least.min(one.elapsed().as_secs_f64() * 1e6 / f64::from(SELECTORS));
                std::hint::black_box(query).expect("the row fits the layout");
            }
            let model = cost::CostProfile::default().encrypt_selector_us(&glwe, &gadget);
            println!(
                "{:>8} {levels:>2} | {least:8.1} {model:8.1} | {}",
                format!("{k}x{n}"),
                cost::selector_bytes(&layout)
            );
        }
    }
}
