//! Writes `spec/zoo.md`: for each model of the zoo and each example how it runs, whether it agrees with onnxruntime, what it costs:
//! `cargo bench -p tacit-tests --bench zoo`.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use indexmap::IndexMap;
use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_compiler::{Compiled, compile};
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_tests::zoo::{NetworkCase, cases, network_cases};
use tacit_tests::{examples, networks};

/// How far results are from onnxruntime's: as shares within one and two units of the last quantization, and the largest.
fn units(errors: &[f64], unit: f64) -> String {
    let within = |units: f64| errors.iter().filter(|error| **error <= (units + 0.001) * unit).count();
    let percent = |units: f64| format!("{:.1} %", 100.0 * within(units) as f64 / errors.len().max(1) as f64);
    let largest = errors.iter().fold(0.0f64, |a, b| a.max(*b)) / unit;
    format!("{} | {} | {largest:.1}", percent(1.0), percent(2.0))
}

/// A quantized network in units of its last quantization: the integer stage, and the circuit without and with noise.
fn quantized(case: &NetworkCase, compiled: &Compiled, unit: f64) -> Result<String, Diagnostic> {
    let codec = Codec::new(&compiled.artifact)?;
    let integers = codec.in_integers(&compiled.artifact, &case.case.inputs)?;
    let batch = codec.encode(&case.case.inputs)?;
    let layout = &codec.spec().layout;
    let plan = compiled.artifact.plan.as_ref().ok_or_else(|| Diagnostic::internal("no plan"))?;
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
    let clear = batch.rows.iter().map(|row| plan::simulate(plan, layout, &row.inputs(), None));
    let clear = codec.decode(&clear.collect::<Result<Vec<_>, _>>()?, &batch.passed)?;
    let noisy = batch.rows.iter().map(|row| plan::simulate(plan, layout, &row.inputs(), Some(&mut draw)));
    let noisy = codec.decode(&noisy.collect::<Result<Vec<_>, _>>()?, &batch.passed)?;
    let [integers, clear, noisy] = [integers, clear, noisy].map(|found| units(&case.errors(&found), unit));
    let size = layout.glwe.polynomial_size;
    Ok(format!("| {} | {integers} | {size} | {clear} | {noisy} |", case.case.name))
}

/// Rows that are evaluated encrypted, at most.
const ENCRYPTED: usize = 10;

type Values = BTreeMap<String, TensorValue>;

/// The class of each row: the first output of labels, or the place of the greatest of several scores; none for regressions.
fn classes(outputs: &Values) -> Option<Vec<String>> {
    for value in outputs.values() {
        match &value.data {
            Data::I64(labels) => return Some(labels.iter().map(i64::to_string).collect()),
            Data::Str(labels) => return Some(labels.clone()),
            _ => {}
        }
    }
    let scores = outputs.values().next()?;
    let columns = scores.columns();
    let values = scores.to_f64()?;
    let best = |row: &[f64]| (0..columns).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0).to_string();
    (columns > 1).then(|| values.chunks(columns).map(best).collect())
}

/// Rows whose class agrees, or the error of scores over their range.
fn agreement(found: &IndexMap<String, TensorValue>, expected: &Values, rows: usize) -> String {
    let found: Values = found.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if let (Some(a), Some(b)) = (classes(&found), classes(expected)) {
        let agreed = a.iter().zip(b.iter().take(rows)).filter(|(a, b)| a == b).count();
        return format!("{agreed} of {}", a.len());
    }
    let flat = |values: &Values| values.values().filter_map(TensorValue::to_f64).flatten().collect::<Vec<f64>>();
    let (a, b) = (flat(&found), flat(expected));
    let (low, high) = b.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    let error = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    format!("error {:.1e} of range", error / (high - low).max(f64::MIN_POSITIVE))
}

fn first(values: &Values, rows: usize) -> Values {
    let cut = |value: &TensorValue| {
        let (rows, width) = (rows.min(value.rows()), value.columns());
        let shape = std::iter::once(rows).chain(value.shape.iter().skip(1).copied()).collect();
        TensorValue { shape, data: value.data.pick(0..rows * width) }
    };
    values.iter().map(|(name, value)| (name.clone(), cut(value))).collect()
}

/// Regimes and what they do.
fn regimes(compiled: &Compiled) -> String {
    let counts = compiled.artifact.plan.as_ref().map(|plan| plan.counts()).unwrap_or_default();
    let mut parts = Vec::new();
    if counts.polynomial_products > 0 {
        parts.push("R0".to_owned());
    }
    let products = counts.external_products + counts.block_products;
    if products > 0 {
        parts.push(format!("R1: {products} products"));
    }
    if counts.bootstraps > 0 {
        parts.push(format!("R2: {} bootstraps", counts.bootstraps));
    }
    // What thermometers or clear tables decide takes no product.
    if parts.is_empty() { "R1: no product".to_owned() } else { parts.join(", ") }
}

fn line(
    name: &str,
    compiled: &Compiled,
    inputs: &Values,
    expected: &Values,
    seconds: f64,
) -> Result<String, Diagnostic> {
    let codec = Codec::new(&compiled.artifact)?;
    let batch = codec.encode(inputs)?;
    let layout = &codec.spec().layout;
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
    let plan = compiled.artifact.plan.as_ref().ok_or_else(|| Diagnostic::internal("no plan"))?;
    let simulated = batch.rows.iter().map(|row| plan::simulate(plan, layout, &row.inputs(), Some(&mut draw)));
    let simulated = codec.decode(&simulated.collect::<Result<Vec<_>, _>>()?, &batch.passed)?;
    let own = first(inputs, ENCRYPTED);
    let (evaluation, passed) = encrypted_predictions(&compiled.artifact, &codec, &own, &ProgressBar::hidden())?;
    let found = codec.decode(&evaluation.results, &passed)?;
    let times = evaluation.medians();
    let rows = batch.rows.len();
    Ok(format!(
        "| {name} | {} | {} | {} | {:.2} s | {:.2} ms | {:.1} | {:.1} | {:.1} |",
        regimes(compiled),
        agreement(&simulated, expected, rows),
        agreement(&found, &first(expected, ENCRYPTED), ENCRYPTED),
        seconds,
        times.run_ms,
        times.query_bytes as f64 / 1e3,
        times.result_bytes as f64 / 1e3,
        times.evaluation_key_bytes as f64 / 1e6,
    ))
}

fn refused(name: &str, why: &Diagnostic) -> String {
    let note = why.notes.first().map_or(String::new(), |note| format!(": {note}"));
    let text = format!("{}{note}", why.message).replace('|', "/");
    let short: String = text.chars().take(110).collect();
    format!("| {name} | refused, {}: {short} | | | | | | | |", why.code)
}

fn main() {
    let mut lines = Vec::new();
    for example in examples().iter().chain(&networks()) {
        let start = Instant::now();
        let compiled = example.compile(&Options::default()).expect("an example compiles");
        let seconds = start.elapsed().as_secs_f64();
        let inputs = example.inputs(&Codec::new(&compiled.artifact).expect("a fresh artifact")).expect("test rows");
        let row = line(&example.name, &compiled, &inputs, &example.expected, seconds);
        lines.push(row.unwrap_or_else(|why| refused(&example.name, &why)));
        println!("{}", lines.last().map_or("", String::as_str));
    }
    for case in cases().into_iter().filter(|case| !case.path.components().any(|part| part.as_os_str() == "wide")) {
        let start = Instant::now();
        let bytes = std::fs::read(&case.path).expect("a model");
        let compiled = onnx::import(&bytes, &Default::default())
            .and_then(|graph| compile(graph, &Options::default(), &BTreeMap::new(), &DriverOptions::default()));
        let seconds = start.elapsed().as_secs_f64();
        let row = compiled.and_then(|compiled| {
            let missing = |why: &Diagnostic| why.code == Code::NanWithoutBranch;
            match line(&case.name, &compiled, &case.inputs, &case.expected, seconds) {
                // Of models without a branch for missing values.
                Err(why) if missing(&why) => {
                    let case = case.without_missing();
                    line(&case.name, &compiled, &case.inputs, &case.expected, seconds)
                }
                row => row,
            }
        });
        lines.push(row.unwrap_or_else(|why| refused(&case.name, &why)));
        println!("{}", lines.last().map_or("", String::as_str));
    }
    let mut integers = Vec::new();
    for network in network_cases() {
        let NetworkCase { case, unit, .. } = &network;
        let start = Instant::now();
        let compiled = network.compile().map(|(compiled, _)| compiled);
        let seconds = start.elapsed().as_secs_f64();
        if let (Ok(compiled), Some(unit)) = (&compiled, unit) {
            integers.push(quantized(&network, compiled, *unit).expect("an own artifact"));
        }
        let row = compiled.and_then(|compiled| line(&case.name, &compiled, &case.inputs, &case.expected, seconds));
        lines.push(row.unwrap_or_else(|why| refused(&case.name, &why)));
        println!("{}", lines.last().map_or("", String::as_str));
    }
    let mut out = String::from(
        "# The zoo\n\nWritten by `cargo bench -p tacit-tests --bench zoo`: the examples, and one model of every family in `tests/zoo/models` (with rows\non, just below and just above thresholds), and the networks of `tests/zoo/networks` by torch's two exporters (`_script`, `_dynamo`),\nonnxruntime's static quantizer (`_qdq_`, `_qop_`), torch's fake quantization and Brevitas. `simulated`: rows whose class is onnxruntime's, or the largest error of scores over\ntheir range, with the predicted noise drawn, on all rows; `encrypted`: on the first ten. Times of a row on two threads; query and\nresult in KB, evaluation key in MB. `tests/tests/zoo.rs` and `zoo_networks.rs` hold all models to\nonnxruntime's answers, in clear and with drawn noise.\n\n| model | regime | simulated | encrypted | compile | run | query | result | key |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for line in &lines {
        let _ = writeln!(out, "{line}");
    }
    out.push_str(
        "\n## Quantized networks\n\nHow far outputs on all test rows are from onnxruntime's without graph optimizations, in units of the last quantization: shares\nwithin one unit and within two, and the largest. `spec/quantized.md` says why they differ.\n\n| model | integers: 1 | 2 | most | N | circuit: 1 | 2 | most | with noise: 1 | 2 | most |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for line in &integers {
        let _ = writeln!(out, "{line}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/zoo.md");
    let temporary = path.with_extension("md.new");
    std::fs::write(&temporary, out).and_then(|()| std::fs::rename(&temporary, &path)).expect("spec/zoo.md is writable");
}
