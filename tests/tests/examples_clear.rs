//! Every example, every test row: the float interpreter equals onnxruntime, and so does the compiled circuit on clear
//! integers within the asked precision.

use std::collections::BTreeMap;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_ir::interp::{plan, tensor};
use tacit_tests::{difference, examples};

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    let all = examples();
    assert!(all.len() >= 10, "{} examples", all.len());
    for example in all {
        let graph = onnx::import(&example.model(), &onnx::ImportLimits::default()).unwrap();
        let compiled = example.compile(&Options::default()).unwrap();
        let inputs = example.inputs(&Codec::new(&compiled.artifact).unwrap()).unwrap();
        let outputs = tensor::evaluate(&graph, &inputs).unwrap();
        let difference = difference(&outputs, &example.expected);
        assert_eq!(difference.labels, 0, "{}", example.name);
        let scale = example.expected.values().filter_map(|v| v.to_f64()).flatten().fold(1.0f64, |a, b| a.max(b.abs()));
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
        let results: Vec<Vec<Vec<u64>>> = batch
            .rows
            .iter()
            .map(|row| plan::evaluate(circuit, layout, &row.selectors, &row.packed).unwrap())
            .collect();
        let outputs = codec.decode(&results, &BTreeMap::new()).unwrap();
        let difference = difference(&outputs, &example.expected);
        assert_eq!(difference.labels, 0, "{}", example.name);
        let scale = example.expected.values().filter_map(|v| v.to_f64()).flatten().fold(1.0f64, |a, b| a.max(b.abs()));
        // Scores pass through a softmax or logistic at most; the sum itself is within 2^-12 of its range.
        assert!(difference.floats <= 2e-3 * scale, "{}: {difference:?} at scale {scale}", example.name);
    }
}
