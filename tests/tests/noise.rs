//! The noise model against measurement, for each kind of step and for whole plans.

mod support;

use support::*;
use tacit_client::ClientKey;
use tacit_ir::noise;
use tacit_ir::plan::{Layout, Plan};
use tacit_runtime::Circuit;

/// Measured and predicted variance over `rows` fresh encryptions under fresh keys, all slots of the result. Errors of one
/// row's slots are not independent (they share digits and rows of a GGSW), so rows are what counts.
fn measure(layout: &Layout, plan: &Plan, rows: usize) -> (f64, f64, f64) {
    let mut rng = rng();
    let circuit = Circuit::new(layout.clone(), plan.clone(), DIGEST).unwrap();
    let bound = noise::bound(plan, layout)[0];
    let (mut measured, mut predicted, mut samples) = (0.0, 0.0, 0);
    for _ in 0..rows {
        let key = ClientKey::generate(layout, DIGEST).unwrap();
        let row = row(layout, &mut rng);
        let one = noise::for_input(plan, layout, &row.selectors)[0];
        assert!(one <= bound * (1.0 + 1e-9), "variance {one:e} for an input is over the bound {bound:e}");
        for error in &errors(&circuit, &key, &row)[0] {
            measured += error * error;
            predicted += one;
            samples += 1;
        }
    }
    assert!(samples >= 1000);
    (measured / samples as f64, predicted / samples as f64, bound)
}

#[test]
fn every_step_is_as_noisy_as_predicted() {
    let mut wrong = Vec::new();
    for layout in layouts() {
        for (name, plan) in step_plans(&layout) {
            let (measured, predicted, bound) = measure(&layout, &plan, 200);
            let shape = (layout.glwe.dimension, layout.glwe.polynomial_size);
            let ratio = measured / predicted;
            let line =
                format!("{shape:?} {name}: measured/predicted {ratio:.2}, bound/predicted {:.2}", bound / predicted);
            if !(0.5..2.0).contains(&ratio) {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rounding_of_bodies_and_results_is_counted() {
    let mut layout = layout(4, 512, 15, 1);
    let plans = step_plans(&layout);
    let (_, plan) = &plans[0];
    // So coarse that rounding is nearly all the noise.
    layout.body_bits = 40;
    let (measured, predicted, _) = measure(&layout, plan, 200);
    assert!((0.5..2.0).contains(&(measured / predicted)), "bodies: {measured:e} {predicted:e}");
    layout.result_bits = 30;
    let (measured, predicted, _) = measure(&layout, plan, 200);
    assert!((0.5..2.0).contains(&(measured / predicted)), "result: {measured:e} {predicted:e}");
}

#[test]
fn products_of_a_digit_that_fills_the_double_are_as_noisy_as_predicted() {
    // Here the noise of the FFT is what counts: a large base and next to no noise in the rows.
    let layout = layout(1, 4096, 30, 1);
    let plans = step_plans(&layout);
    for (name, plan) in &plans[2..6] {
        let (measured, predicted, _) = measure(&layout, plan, 100);
        let ratio = measured / predicted;
        assert!((0.5..2.0).contains(&ratio), "{name}: {ratio:.2}");
    }
}

#[test]
fn failure_probability_is_the_gaussian_tail() {
    let five = noise::failure_probability(1e-6, 5e-3);
    assert!((five / 5.733e-7 - 1.0).abs() < 1e-3);
    let sigmas = noise::sigmas_for_failure(40.0);
    let failure = noise::failure_probability(1.0, sigmas);
    assert!(failure <= (-40f64).exp2() && failure > (-41f64).exp2());
}
