//! Every example, every test row: the float interpreter equals onnxruntime, and so does the compiled circuit on clear
//! integers within the asked precision.

use std::collections::BTreeMap;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_ir::interp::plan;
use tacit_tests::{difference, examples};

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    let all = examples();
    assert!(all.len() >= 10, "{} examples", all.len());
    for example in all {
        let difference = example.interpreted_difference();
        assert_eq!(difference.labels, 0, "{}", example.name);
        let scale = example.scale();
        assert!(difference.floats <= 2e-6 * scale, "{}: {difference:?} at scale {scale}", example.name);
    }
}

#[test]
fn the_circuit_on_clear_integers_equals_onnxruntime() {
    for example in examples() {
        let compiled = example.compile(&Options::default()).unwrap();
        let codec = Codec::new(&compiled.artifact).unwrap();
        let batch = codec.encode(&example.inputs(&codec).unwrap()).unwrap();
        let circuit = compiled.artifact.plan.as_ref().unwrap();
        let layout = &codec.spec().layout;
        let results: Vec<Vec<Vec<u64>>> =
            batch.rows.iter().map(|row| plan::evaluate(circuit, layout, &row.inputs()).unwrap()).collect();
        let outputs = codec.decode(&results, &batch.passed).unwrap();
        let difference = difference(&outputs, &example.expected);
        assert_eq!(difference.labels, 0, "{}", example.name);
        let scale = example.scale();
        // Scores pass through a softmax or logistic at most; the sum itself is within 2^-12 of its range.
        assert!(difference.floats <= 2e-3 * scale, "{}: {difference:?} at scale {scale}", example.name);
    }
}

/// A grid moves thresholds to quantiles of the calibration rows: nearly all labels stay, and no threshold reaches the client.
#[test]
fn a_protected_model_shows_no_threshold() {
    use tacit_compiler::{compile, passes::DriverOptions};
    use tacit_ir::artifact::Encoder;
    let example = examples().into_iter().find(|example| example.name == "breast_cancer_xgboost").unwrap();
    let graph = onnx::import(&example.model(), &onnx::ImportLimits::default()).unwrap();
    let open = example.compile(&Options::default()).unwrap();
    let inputs = example.inputs(&Codec::new(&open.artifact).unwrap()).unwrap();
    let options = Options { protect_model: true, grid_bits: 6, ..Options::default() };
    let closed = compile(graph, &options, &inputs, &DriverOptions::default()).unwrap();
    let boundaries = |artifact: &tacit_ir::artifact::Artifact| -> Vec<u64> {
        let all = artifact.client.encoders.iter().flat_map(|encoder| match encoder {
            Encoder::Codes { columns, .. } => columns.iter().flat_map(|c| c.boundaries.clone()).collect(),
            Encoder::Reals { .. } => Vec::new(),
        });
        all.map(f64::to_bits).collect()
    };
    let values: std::collections::BTreeSet<u64> =
        inputs.values().flat_map(|value| value.to_f64().unwrap()).map(f64::to_bits).collect();
    // Every edge is a value of the calibration rows.
    assert!(boundaries(&closed.artifact).iter().all(|edge| values.contains(edge)));
    assert!(!boundaries(&open.artifact).iter().all(|edge| values.contains(edge)));
    let codec = Codec::new(&closed.artifact).unwrap();
    let batch = codec.encode(&inputs).unwrap();
    let circuit = closed.artifact.plan.as_ref().unwrap();
    let rows = batch.rows.iter();
    let results = rows.map(|row| plan::evaluate(circuit, &codec.spec().layout, &row.inputs()).unwrap());
    let outputs = codec.decode(&results.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    let difference = difference(&outputs, &example.expected);
    assert!(difference.labels * 20 <= batch.rows.len(), "{difference:?} of {} rows", batch.rows.len());
}
