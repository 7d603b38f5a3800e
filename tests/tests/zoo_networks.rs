//! Small networks as torch's exporters, onnxruntime's quantizer and Brevitas write them, against onnxruntime's answers (without its
//! graph optimizations): the float interpreter, the integer stage, and the circuit with its predicted noise drawn.
#![allow(clippy::print_stdout, reason = "how far each network is off, with --nocapture")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_ir::graph::Graph;
use tacit_ir::interp::{plan, tensor};
use tacit_ir::stage::tensor::Tensor;
use tacit_tests::zoo::{NetworkCase, flat, network_cases, refusal};

/// One unit of the last quantization.
fn limit(case: &NetworkCase, unit: f64) -> f64 {
    unit * if MIDWAY.contains(&case.case.name.as_str()) { 3.001 } else { 1.001 }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { f64::max(a, *b) })
}

fn import(case: &NetworkCase) -> Result<Graph<Tensor>, String> {
    let bytes = std::fs::read(&case.case.path).unwrap();
    onnx::import(&bytes, &Default::default()).map_err(|why| why.to_string())
}

/// Runs `check` on every network, on all cores, and reports all failures at once.
fn every(stages: &[&str], check: impl Fn(&NetworkCase) -> Result<String, String> + Sync) {
    let cases = network_cases();
    assert!(cases.len() >= 120, "{} networks", cases.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = &case.case.name;
            match (check(case), refusal(name, stages)) {
                (Ok(note), None) => println!("{name}: {note}"),
                (Err(why), Some(code)) if why.starts_with(code) => {}
                (Err(why), _) => failures.lock().unwrap().push(format!("{name}: {why}")),
                (Ok(_), Some(_)) => failures.lock().unwrap().push(format!("{name}: is no longer refused")),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} networks:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    every(&["import"], |case| {
        let found = tensor::evaluate(&import(case)?, &case.case.inputs).map_err(|why| why.to_string())?;
        let scale = largest(&flat(&case.case.expected)).max(1.0);
        let limit = case.unit.map_or(2e-5 * scale, |unit| limit(case, unit));
        let error = largest(&case.errors(&found));
        if error <= limit { Ok(format!("{error:e}")) } else { Err(format!("differs by {error:e} of {limit:e}")) }
    });
}

/// Means of quantized values often lie midway between two integers, and which one they are rounded to is up to the order of
/// float sums: onnxruntime's own levels of optimization differ by two units on this one.
const MIDWAY: &[&str] = &["cnn_average_pool_qdq_u8_channel"];

/// The integer stage of quantized networks is within one unit of the last quantization on every output of every row; circuits
/// with drawn noise give the class of the float model on 17 rows of 20 (the models are far from sure), with outputs about as near as
/// was asked.
#[test]
fn integers_are_exact_and_simulated_circuits_agree() {
    every(&["import", "compile"], |case| {
        let (compiled, allowed) = case.compile().map_err(|why| why.to_string())?;
        let codec = Codec::new(&compiled.artifact).map_err(|why| why.to_string())?;
        let mut note = String::new();
        if let Some(unit) = case.unit {
            let found = codec.in_integers(&compiled.artifact, &case.case.inputs).map_err(|why| why.to_string())?;
            let own = case.errors(&found);
            let off = own.iter().filter(|error| **error > 0.5 * unit).count();
            note = format!("{off} of {} off, at most by {:.3} units; ", own.len(), largest(&own) / unit);
            if largest(&own) > limit(case, unit) {
                return Err(format!("{note}more than one unit"));
            }
        }
        let batch = codec.encode(&case.case.inputs).map_err(|why| why.to_string())?;
        let (circuit, layout) = (compiled.artifact.plan.as_ref().unwrap(), &compiled.artifact.client.layout);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let results: Result<Vec<_>, _> =
            batch.rows.iter().map(|row| plan::simulate(circuit, layout, &row.inputs(), Some(&mut draw))).collect();
        let found =
            codec.decode(&results.map_err(|why| why.to_string())?, &batch.passed).map_err(|why| why.to_string())?;
        let (own, expected) = (case.errors(&found), flat(&case.case.expected));
        let rows = batch.rows.len();
        let width = expected.len() / rows;
        let found = flat(&found);
        let best = |row: &[f64]| (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let agreed = found.chunks(width).zip(expected.chunks(width)).filter(|(a, b)| best(a) == best(b)).count();
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        let deviation =
            |values: &mut dyn Iterator<Item = f64>| (values.map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
        let error = deviation(&mut own.iter().copied()) / deviation(&mut expected.iter().map(|x| x - mean));
        note += &format!("simulated {agreed} of {rows}, error {error:.4} of the outputs' deviation");
        if agreed * 20 >= rows * 17 && error <= 2.0 * allowed { Ok(note) } else { Err(note) }
    });
}
