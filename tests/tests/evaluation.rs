//! Encrypted evaluation agrees with the clear interpreter, for each kind of step, and does not depend on threads.

mod support;

use std::sync::Arc;
use support::*;
use tacit_client::{ClientKey, encrypt};
use tacit_ir::noise;
use tacit_ir::plan::{Form, Phase, Plan, Slot, Step};
use tacit_runtime::{ArrivingQuery, Circuit, Piece, Query, ResultWriter, prepare};

#[test]
fn every_step_agrees_with_the_clear_interpreter() {
    let mut rng = rng();
    for layout in layouts() {
        let key = ClientKey::generate(&layout, DIGEST).unwrap();
        for (name, plan) in step_plans(&layout) {
            let circuit = Circuit::new(layout.clone(), plan, DIGEST).unwrap();
            for _ in 0..3 {
                let row = row(&layout, &mut rng);
                let predicted = noise::for_input(circuit.plan(), &layout, &row.selectors)[0].sqrt();
                let worst = errors(&circuit, &key, &row)[0].iter().fold(0f64, |worst, error| worst.max(error.abs()));
                let shape = (layout.glwe.dimension, layout.glwe.polynomial_size);
                assert!(worst < 8.0 * predicted, "{name} {shape:?}: off by {worst:e}, predicted {predicted:e}");
            }
        }
    }
}

/// Several phases, tasks that share, scratch reuse and several results of few slots.
fn wide_plan() -> Plan {
    let pick = |out, selector, input: u32| Step::CMux {
        out,
        selector,
        base: packed(&[(input, 0, 1)]),
        difference: Form { packed: vec![(1, 3, 1), (input, 0, -1)], constant: vec![(0, 1 << 58)], ..Form::default() },
    };
    let first = (0..5).map(|at| {
        task(
            1,
            vec![
                pick(Slot::Scratch(0), at, at % 2),
                Step::Sum { out: Slot::Shared(at), form: slots(&[(Slot::Scratch(0), 1)]) },
            ],
        )
    });
    let both = |out, selector, a, b| Step::CMux {
        out,
        selector,
        base: slots(&[(Slot::Shared(a), 1)]),
        difference: slots(&[(Slot::Shared(b), 1), (Slot::Shared(a), -1)]),
    };
    let second = vec![task(0, vec![both(Slot::Shared(5), 5, 0, 1)]), task(0, vec![both(Slot::Shared(6), 0, 2, 3)])];
    let third = vec![task(
        0,
        vec![Step::Sum {
            out: Slot::Shared(7),
            form: slots(&[(Slot::Shared(5), 1), (Slot::Shared(6), -3), (Slot::Shared(4), 2)]),
        }],
    )];
    let phases = vec![Phase { tasks: first.collect() }, Phase { tasks: second }, Phase { tasks: third }];
    Plan { shared: 8, phases, results: vec![7, 5], ..Plan::default() }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let mut layout = layout(4, 512, 15, 1);
    layout.result_slots = vec![3, 512];
    layout.result_bits = 40;
    let key = ClientKey::generate(&layout, DIGEST).unwrap();
    let circuit = Circuit::new(layout.clone(), wide_plan(), DIGEST).unwrap();
    let mut rng = rng();
    let rows = [row(&layout, &mut rng), row(&layout, &mut rng)];
    let query = encrypt(&key, &rows).unwrap();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tacit_runtime::run(&circuit, &query, None).unwrap())
    };
    let one = with_threads(1);
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(2));
    // Step by step, as the command line does.
    let mut writer = ResultWriter::new(&circuit, 2);
    for row in Query::read(&circuit, &query).unwrap().rows() {
        writer.push(&circuit.evaluate(&prepare(&circuit, row), None).unwrap());
    }
    assert_eq!(one, writer.finish().unwrap());
    let decrypted = tacit_client::decrypt(&key, &one).unwrap();
    assert_eq!(
        decrypted.iter().map(|row| row.iter().map(Vec::len).collect()).collect::<Vec<Vec<_>>>(),
        [[3, 512], [3, 512]]
    );
    for (row, decrypted) in rows.iter().zip(&decrypted) {
        let expected = tacit_ir::interp::plan::evaluate(circuit.plan(), &layout, &row.inputs()).unwrap();
        let variances = noise::for_input(circuit.plan(), &layout, &row.selectors);
        for ((got, want), variance) in decrypted.iter().zip(&expected).zip(variances) {
            for (got, want) in got.iter().zip(want) {
                let error = got.wrapping_sub(*want) as i64 as f64 * (-64f64).exp2();
                assert!(error.abs() < 8.0 * variance.sqrt());
            }
        }
    }
}

#[test]
fn a_query_that_is_prepared_while_it_arrives_gives_the_same_bits() {
    // Selectors of 55 KB: a row of three pieces, of which the last has no time to be prepared ahead.
    let mut layout = layout(1, 2048, 15, 2);
    layout.result_slots = vec![3, 512];
    let key = ClientKey::generate(&layout, DIGEST).unwrap();
    let circuit = Arc::new(Circuit::new(layout.clone(), wide_plan(), DIGEST).unwrap());
    let mut rng = rng();
    let query = encrypt(&key, &[row(&layout, &mut rng), row(&layout, &mut rng)]).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let expected = pool.install(|| tacit_runtime::run(&circuit, &query, None).unwrap());
    // Which of the pieces of the first row are prepared ahead, and where.
    let never: fn(usize, Arc<Piece>) = |_, _| ();
    let here: fn(usize, Arc<Piece>) = |_, piece| piece.prepare();
    let second: fn(usize, Arc<Piece>) = |number, piece| (0..2 * number).for_each(|_| piece.prepare());
    let beside: fn(usize, Arc<Piece>) = |_, piece| drop(std::thread::spawn(move || piece.prepare()));
    for ready in [never, here, second, beside] {
        for chunk in [query.len(), 1 << 16, 1009] {
            let mut arriving = ArrivingQuery::new(Arc::clone(&circuit), 2, query.len() as u64).unwrap();
            let mut pieces = 0;
            for part in query.chunks(chunk) {
                let each = |piece| {
                    ready(pieces, piece);
                    pieces += 1;
                };
                arriving.push(part, each).unwrap();
            }
            assert_eq!(pieces, 2);
            let rows = arriving.finish().unwrap();
            let result = pool.install(|| {
                let mut writer = ResultWriter::new(&circuit, 2);
                for row in rows {
                    writer.push(&circuit.evaluate(&row.prepare(), None).unwrap());
                }
                writer.finish().unwrap()
            });
            assert!(result == expected, "in chunks of {chunk}");
        }
    }
}

#[test]
fn a_query_hides_its_bits_and_is_fresh_each_time() {
    let layout = layout(1, 2048, 23, 1);
    let key = ClientKey::generate(&layout, DIGEST).unwrap();
    let mut rng = rng();
    let row = row(&layout, &mut rng);
    let (a, b) = (encrypt(&key, std::slice::from_ref(&row)).unwrap(), encrypt(&key, &[row]).unwrap());
    let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
    assert!(differing as f64 > 0.98 * a.len() as f64, "{differing} of {} bytes differ", a.len());
}
