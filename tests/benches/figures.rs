//! The figures of every example, and how they grow: `cargo bench -p tacit-tests --bench figures [-- growth]`.
//!
//! Medians over rows; the external product is measured in the same run, on the same parameters.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeMap;
use std::time::Instant;
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, encrypt};
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::artifact::Artifact;
use tacit_ir::attr::Many;
use tacit_ir::graph::{Graph, Loc};
use tacit_ir::plan::Layout;
use tacit_ir::stage::tensor::{Aggregate, Element, Mode, Tensor, TensorOp, TensorType};
use tacit_runtime::external::Gadget;
use tacit_runtime::{Circuit, PreparedRow, Query, prepare};
use tacit_tests::examples;
use tacit_tests::timing::{median, median_ms, ms, peak_mb, pool, reset_peak};
use tacit_torus::c64;
use tacit_torus::fft::Fft;

/// Rows timed per example.
const ROWS: usize = 15;

fn main() {
    if std::env::args().any(|arg| arg == "growth") {
        growth();
        return;
    }
    println!(
        "{:<30} {:>6} {:>5} {:>12} {:>8} {:>8} {:>6} {:>8} {:>7} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "example",
        "prods",
        "bits",
        "k,N,B,l",
        "EP us",
        "run ms",
        "ratio",
        "run2 ms",
        "speedup",
        "prep ms",
        "enc us/b",
        "query B",
        "result B",
        "compile s"
    );
    for example in examples() {
        let start = Instant::now();
        let compiled = example.compile(&Options::default()).expect("examples compile");
        let compile = start.elapsed().as_secs_f64();
        let codec = Codec::new(&compiled.artifact).expect("a fresh artifact");
        let inputs = example.inputs(&codec).expect("the test rows");
        let figures = measure(&compiled.artifact, &codec, &inputs);
        print(&example.name, &compiled.artifact, &figures, compile);
    }
}

struct Figures {
    product_us: f64,
    run_ms: f64,
    run2_ms: f64,
    /// Time on one thread less a millisecond, over that of the products alone; the aim is 1.15.
    ratio: f64,
    /// Time on one thread over that on two.
    speedup: f64,
    prepare_ms: f64,
    encrypt_ms: f64,
    query_bytes: usize,
}

fn measure(
    artifact: &Artifact,
    codec: &Codec,
    inputs: &BTreeMap<String, tacit_ir::interp::tensor::TensorValue>,
) -> Figures {
    let layout = artifact.client.layout.clone();
    let plan = artifact.plan.clone().expect("a whole artifact");
    let circuit = Circuit::new(layout.clone(), plan, artifact.digest).expect("a checked plan");
    let key = ClientKey::generate(&layout, artifact.digest).expect("a key");
    let batch = codec.encode(inputs).expect("test rows encode");
    let (one, two) = (pool(1), pool(2));
    let mut figures = [const { Vec::new() }; 5];
    let (mut ratios, mut speedups) = (Vec::new(), Vec::new());
    let products = circuit.plan().counts().external_products as f64;
    let mut query_bytes = 0;
    for row in batch.rows.iter().cycle().take(ROWS) {
        let start = Instant::now();
        let query = one.install(|| encrypt(&key, std::slice::from_ref(row))).expect("encryption");
        figures[0].push(ms(start));
        query_bytes = query.len();
        let parsed = Query::read(&circuit, &query).expect("a fresh query");
        let bytes = parsed.rows().next().expect("one row");
        let start = Instant::now();
        let prepared = one.install(|| prepare(&circuit, bytes));
        figures[1].push(ms(start));
        let run_ms = one.install(|| evaluation_ms(&circuit, &prepared));
        let run2_ms = two.install(|| evaluation_ms(&circuit, &prepared));
        let product_us = product_us(&layout);
        figures[2].push(run_ms);
        figures[3].push(run2_ms);
        figures[4].push(product_us);
        // Paired, as the machine's speed changes from row to row.
        speedups.push(run_ms / run2_ms);
        ratios.push((run_ms - 1.0).max(0.0) / (products * product_us / 1e3));
    }
    let [encrypt_ms, prepare_ms, run_ms, run2_ms, product_us] = figures.map(median);
    let (ratio, speedup) = (median(ratios), median(speedups));
    Figures { product_us, run_ms, run2_ms, ratio, speedup, prepare_ms, encrypt_ms, query_bytes }
}

fn evaluation_ms(circuit: &Circuit, row: &PreparedRow) -> f64 {
    median_ms(7, || drop(circuit.evaluate(row, None)))
}

/// Microseconds of one external product, median of 200 over GGSWs as many as fit a circuit's working set.
fn product_us(layout: &Layout) -> f64 {
    let Some(params) = &layout.gadget else { return f64::NAN };
    let fft = Fft::new(layout.glwe.polynomial_size as usize);
    let gadget = Gadget::new(params);
    let ggsws: Vec<Vec<c64>> = (0..layout.selectors.clamp(1, 64))
        .map(|s| {
            (0..gadget.fourier_len(&layout.glwe)).map(|i| c64::new((i + s as usize) as f64 * 1e-3, -0.5)).collect()
        })
        .collect();
    let glwe: Vec<u64> =
        (0..layout.glwe.ciphertext_len() as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let mut out = vec![0u64; glwe.len()];
    let (mut scratch, mut fft_scratch) = (gadget.scratch(&layout.glwe), fft.scratch());
    let mut times = Vec::with_capacity(200);
    for i in 0..200 {
        let start = Instant::now();
        gadget.add_product(&fft, &mut out, &ggsws[i % ggsws.len()], &glwe, &mut scratch, &mut fft_scratch);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::hint::black_box(&out);
    median(times)
}

fn print(name: &str, artifact: &Artifact, figures: &Figures, compile: f64) {
    let layout = &artifact.client.layout;
    let products = artifact.plan.as_ref().map_or(0, |plan| plan.counts().external_products);
    let gadget = layout.gadget.map_or((0, 0), |g| (g.base_log, g.levels));
    println!(
        "{:<30} {:>6} {:>5} {:>12} {:>8.2} {:>8.3} {:>6.2} {:>8.3} {:>7.2} {:>8.2} {:>8.1} {:>9} {:>9} {:>9.2}",
        name,
        products,
        layout.selectors,
        format!("{},{},{},{}", layout.glwe.dimension, layout.glwe.polynomial_size, gadget.0, gadget.1),
        figures.product_us,
        figures.run_ms,
        figures.ratio,
        figures.run2_ms,
        figures.speedup,
        figures.prepare_ms,
        figures.encrypt_ms * 1e3 / f64::from(layout.selectors.max(1)),
        figures.query_bytes,
        tacit_ir::artifact::v1::result_row_bytes(layout),
        compile,
    );
}

/// Random full forests over thirty features with 32 thresholds each, as a histogram booster makes them.
fn growth() {
    println!(
        "{:<20} {:>9} {:>6} {:>9} {:>9} {:>9} {:>10} {:>10}",
        "forest", "products", "bits", "compile s", "run ms", "run2 ms", "slots MB", "peak MB"
    );
    for depth in [4u32, 6, 8] {
        for trees in [10usize, 100, 500] {
            reset_peak();
            let start = Instant::now();
            let compiled = tacit_compiler::compile(
                forest(trees, depth),
                &Options::default(),
                &BTreeMap::new(),
                &DriverOptions::default(),
            );
            let compile = start.elapsed().as_secs_f64();
            let compiled = match compiled {
                Ok(compiled) => compiled,
                Err(why) => {
                    println!("{trees} x {depth}: {why}");
                    continue;
                }
            };
            let artifact = &compiled.artifact;
            let codec = Codec::new(artifact).expect("a fresh artifact");
            let row: Vec<f32> = (0..30).map(|i| (i as f32 * 0.37).fract()).collect();
            let inputs =
                BTreeMap::from([("x".to_owned(), tacit_ir::interp::tensor::TensorValue::f32(vec![1, 30], row))]);
            let batch = codec.encode(&inputs).expect("a row");
            let layout = artifact.client.layout.clone();
            let plan = artifact.plan.clone().expect("a plan");
            let counts = plan.counts();
            let slots = f64::from(plan.shared) * layout.glwe.ciphertext_len() as f64 * 8e-6;
            let circuit = Circuit::new(layout.clone(), plan, artifact.digest).expect("a checked plan");
            let key = ClientKey::generate(&layout, artifact.digest).expect("a key");
            let query = encrypt(&key, &batch.rows).expect("encryption");
            let parsed = Query::read(&circuit, &query).expect("a query");
            let prepared = prepare(&circuit, parsed.rows().next().expect("a row"));
            let timed = |threads: usize| pool(threads).install(|| evaluation_ms(&circuit, &prepared));
            println!(
                "{:<20} {:>9} {:>6} {:>9.2} {:>9.1} {:>9.1} {:>10.1} {:>10.0}",
                format!("{trees} trees depth {depth}"),
                counts.external_products,
                layout.selectors,
                compile,
                timed(1),
                timed(2),
                slots,
                peak_mb(),
            );
        }
    }
}

fn forest(trees: usize, depth: u32) -> Graph<Tensor> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let (mut feature, mut mode, mut threshold) = (Vec::new(), Vec::new(), Vec::new());
    let (mut on_true, mut on_false, mut leaf_target, mut leaf_weight) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut roots = Vec::new();
    for _ in 0..trees {
        let root = mode.len();
        roots.push(root);
        let inner = (1usize << depth) - 1;
        for node in 0..2 * inner + 1 {
            if node < inner {
                feature.push(next() % 30);
                mode.push(Mode::Leq);
                threshold.push(f64::from((1 + next() % 32) as f32 / 33.0));
                on_true.push(root + 2 * node + 1);
                on_false.push(root + 2 * node + 2);
            } else {
                feature.push(0);
                mode.push(Mode::Leaf);
                threshold.push(0.0);
                on_true.push(leaf_target.len());
                leaf_target.push(0);
                leaf_weight.push((next() % 2001) as f64 / 1000.0 - 1.0 + 1e-5 * (next() % 97) as f64);
                on_false.push(leaf_target.len());
            }
        }
    }
    let mut graph = Graph::new("forest");
    let input = TensorOp::Input { name: "x".to_owned() };
    let x = graph.push(input, vec![], Some(TensorType::rows(Element::F32, 30)), Loc::Unknown).expect("an input");
    let op = TensorOp::TreeEnsemble {
        targets: 1,
        aggregate: Aggregate::Sum,
        single: true,
        base: Vec::new(),
        roots,
        feature,
        mode: Many(mode),
        threshold,
        on_true,
        on_false,
        missing_true: Vec::new(),
        sets: Many(Vec::new()),
        leaf_target,
        leaf_weight,
    };
    let y = graph.push(op, vec![x], None, Loc::Unknown).expect("a forest");
    graph.output("y", y);
    graph
}
