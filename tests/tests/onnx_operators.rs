//! Each ONNX operator between two encrypted maps: the float interpreter against onnxruntime, the quantized circuit against
//! that on 40 rows, and its encrypted evaluation on eight.

use indicatif::ProgressBar;
use rayon::prelude::*;
use std::collections::BTreeMap;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_tests::difference;
use tacit_tests::operators::cases;
use tacit_tests::zoo::Case;

/// Rows of each model that are for tests; the others are for calibration.
const TESTED: usize = 40;
/// And encrypted.
const ENCRYPTED: usize = 8;

/// Steps, whose values may come out on the other side of one: the share of values that has to be right is smaller.
const STEPS: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "Cast",
    "CastLike",
    "Ceil",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "Less",
    "LessOrEqual",
    "Mod",
    "Not",
    "OneHot",
    "Or",
    "QuantizeLinear",
    "Round",
    "Sign",
    "ThresholdedRelu",
    "Shrink",
    "Where",
    "Xor",
];

fn rows(values: &BTreeMap<String, TensorValue>, range: std::ops::Range<usize>) -> BTreeMap<String, TensorValue> {
    let cut = |value: &TensorValue| {
        let width = value.columns();
        let shape = [range.len()].into_iter().chain(value.shape.iter().skip(1).copied()).collect();
        TensorValue { shape, data: value.data.pick(range.start * width..range.end * width) }
    };
    values.iter().map(|(name, value)| (name.clone(), cut(value))).collect()
}

/// The share of values whose error is at most so much.
fn share(found: &TensorValue, expected: &TensorValue, allowed: f64) -> f64 {
    let (found, expected) = (found.to_f64().unwrap(), expected.to_f64().unwrap());
    let good = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() <= allowed).count();
    good as f64 / expected.len() as f64
}

fn check(case: &Case) -> Result<(), String> {
    let text = |why: tacit_ir::diag::Diagnostic| why.to_string();
    let model = onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()).map_err(text)?;
    let float = evaluate(&model, &case.inputs).map_err(text)?;
    let off = difference(&float, &case.expected).floats;
    if off > 1e-5 * case.expected["y"].to_f64().unwrap().iter().fold(1.0f64, |a, b| a.max(b.abs())) {
        return Err(format!("the interpreter differs from onnxruntime by {off}"));
    }
    let options = Options {
        input_bits: Some(6),
        weight_bits: Some(6),
        noise_share: Some(0.05),
        head: Some(tacit_compiler::options::HeadRule::Pairs),
        ..Options::default()
    };
    let all = case.inputs["x"].rows();
    let calibration = rows(&case.inputs, 0..all - TESTED);
    let compiled = compile(model, &options, &calibration, &DriverOptions::default()).map_err(text)?;
    let artifact = &compiled.artifact;
    let layout = &artifact.client.layout;
    assert!(layout.glwe.is_secure() && layout.partitions.iter().all(|params| params.lwe.is_secure()));
    let codec = Codec::new(artifact).map_err(text)?;
    if codec.needs_inputs_to_decode() {
        return Err("a value goes around the server".to_owned());
    }
    let (inputs, expected) = (rows(&case.inputs, all - TESTED..all), rows(&case.expected, all - TESTED..all));
    let batch = codec.encode(&inputs).map_err(text)?;
    let circuit = artifact.plan.as_ref().unwrap();
    let simulate = |row: &tacit_client::EncodedRow| plan::simulate(circuit, layout, &row.inputs(), None);
    let clear = batch.rows.iter().map(simulate).collect::<Result<Vec<_>, _>>().map_err(text)?;
    let clear = codec.decode(&clear, &batch.passed).map_err(text)?;
    let operator = case.name.split('_').next().unwrap();
    let wanted = if STEPS.contains(&operator) { 0.8 } else { 0.95 };
    let values = case.expected["y"].to_f64().unwrap();
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    let found = share(&clear["y"], &expected["y"], 0.1 * (high - low));
    if found < wanted {
        return Err(format!("in clear {found} of the values are right"));
    }
    // Against the clear circuit: what encryption adds.
    let few = rows(&inputs, 0..ENCRYPTED);
    let (evaluation, passed) = encrypted_predictions(artifact, &codec, &few, &ProgressBar::hidden()).map_err(text)?;
    let encrypted = codec.decode(&evaluation.results, &passed).map_err(text)?;
    let of_clear = rows(&clear.into_iter().collect(), 0..ENCRYPTED);
    let found = share(&encrypted["y"], &of_clear["y"], 0.2 * (high - low));
    if found < wanted - 0.2 {
        return Err(format!("encrypted {found} of the values are right"));
    }
    Ok(())
}

#[test]
fn each_operator_runs_encrypted() {
    let cases = cases();
    assert!(cases.len() >= 127, "{} models", cases.len());
    let failures: Vec<String> =
        cases.par_iter().filter_map(|case| check(case).err().map(|why| format!("{}: {why}", case.name))).collect();
    assert!(failures.is_empty(), "{} of {} operators:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
