//! Times of the primitives, one thread, as a table: what `tacit_ir::cost` is fitted to.
//!
//! Each figure is the least of many short repetitions (so that other work on the machine disturbs it little), over a set
//! of ciphertexts that does not fit the caches (`cold`) and over one that does (`hot`). Run with
//! `cargo bench -p tacit-runtime --bench primitives`; a shape such as `4x512` as an argument restricts it.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::{Duration, Instant};
use tacit_ir::artifact::v1::query_row_bytes;
use tacit_ir::cost::CostProfile;
use tacit_ir::noise;
use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_ir::plan::{Form, Layout, Phase, Plan, Slot, Step, Task};
use tacit_runtime::{Circuit, PreparedRow, prepare};

/// Least microseconds of `work` over repetitions for about a quarter of a second.
fn least(mut work: impl FnMut()) -> f64 {
    let (start, mut least) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < Duration::from_millis(250) {
        let one = Instant::now();
        work();
        least = least.min(one.elapsed().as_secs_f64() * 1e6);
    }
    least
}

fn layout(glwe: GlweParams, levels: u32) -> Layout {
    Layout {
        glwe,
        gadget: Some(GadgetParams { base_log: 24 / levels, levels }),
        selectors: 64,
        packed_inputs: 1,
        body_bits: noise::body_bits(glwe.log2_std),
        result_slots: vec![1],
        result_bits: 32,
        partitions: vec![],
        small_inputs: 0,
        lwe_results: vec![],
    }
}

fn circuit(layout: &Layout, scratch: u32, steps: Vec<Step>) -> Circuit {
    let task = Task { scratch, steps };
    let plan = Plan { shared: 1, phases: vec![Phase { tasks: vec![task] }], results: vec![0], ..Plan::default() };
    Circuit::new(layout.clone(), plan, [0; 32]).expect("the plan is well-formed")
}

/// A chain of 64 CMuxes, on one selector or on all of them, each with the usual forms.
fn chain(layout: &Layout, selectors: u32) -> Circuit {
    let input =
        |at: u32| Step::Sum { out: Slot::Scratch(at), form: Form { packed: vec![(0, at, 1)], ..Form::default() } };
    let mut steps = vec![input(0), input(1)];
    for at in 0..64 {
        let (from, to) = (if at == 0 { 0 } else { 2 + (at + 1) % 2 }, 2 + at % 2);
        steps.push(Step::CMux {
            out: if at == 63 { Slot::Shared(0) } else { Slot::Scratch(to) },
            selector: at % selectors,
            base: Form { slots: vec![(Slot::Scratch(from), 1)], ..Form::default() },
            difference: Form { slots: vec![(Slot::Scratch(1), 1), (Slot::Scratch(from), -1)], ..Form::default() },
        });
    }
    circuit(layout, 4, steps)
}

fn evaluate_us(circuit: &Circuit, row: &PreparedRow) -> f64 {
    least(|| {
        let _ = std::hint::black_box(circuit.evaluate(row, None));
    })
}

fn main() {
    let only: Option<String> = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    let cost = CostProfile::default();
    println!("microseconds, one thread; `model` is tacit_ir::cost");
    println!("{:>8} {:>2} | cmux hot  cold model | prepare model | term  model | polymul", "k x N", "l");
    let shapes = [
        (1, 2048),
        (2, 1024),
        (4, 512),
        (8, 256),
        (3, 512),
        (6, 256),
        (7, 256),
        (5, 512),
        (10, 256),
        (6, 512),
        (3, 1024),
    ];
    for (k, n) in shapes {
        let name = format!("{k}x{n}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let glwe = GlweParams::secure(k, n);
        for levels in 1..=3 {
            let layout = layout(glwe, levels);
            let gadget = layout.gadget.expect("set above");
            // A row of arbitrary bytes takes as long as an encrypted one.
            let bytes: Vec<u8> =
                (0..query_row_bytes(&layout)).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
            pool.install(|| {
                let circuits = (chain(&layout, 1), chain(&layout, 64));
                let row = prepare(&circuits.0, &bytes);
                let (hot, cold) = (evaluate_us(&circuits.0, &row) / 64.0, evaluate_us(&circuits.1, &row) / 64.0);
                let model = cost.external_product_us(&glwe, &gadget) + 2.0 * cost.form_term_us(&glwe);
                let prepared = least(|| {
                    std::hint::black_box(prepare(&circuits.0, &bytes));
                }) / 64.0;
                let prepare_model = cost.prepare_selector_us(&glwe, &gadget);
                let (terms, dense) = if levels == 1 {
                    let form = Form { packed: (0..64).map(|at| (0, 17 * at % (2 * n), 3)).collect(), ..Form::default() };
                    let terms = circuit(&layout, 0, vec![Step::Sum { out: Slot::Shared(0), form }]);
                    let polynomial = (0..i64::from(n)).map(|at| at % 201 - 100).collect();
                    let dense = circuit(&layout, 0, vec![Step::PolyMul { out: Slot::Shared(0), packed: 0, polynomial }]);
                    (evaluate_us(&terms, &row) / 64.0, evaluate_us(&dense, &prepare(&dense, &bytes)))
                } else {
                    (f64::NAN, f64::NAN)
                };
                println!(
                    "{name:>8} {levels:>2} | {hot:8.1} {cold:5.1} {model:5.1} | {prepared:7.1} {prepare_model:5.1} | {terms:5.2} {:5.2} | {dense:6.1}",
                    cost.form_term_us(&glwe)
                );
            });
        }
    }
}
