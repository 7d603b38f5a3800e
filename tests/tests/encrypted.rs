//! Every example, every row of its test split, encrypted under 128-bit parameters: labels equal onnxruntime's, scores are
//! within the asked precision.

use indicatif::ProgressBar;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::options::Options;
use tacit_tests::zoo::{Case, network_cases};
use tacit_tests::{difference, examples};

#[test]
fn every_test_row_of_every_example() {
    let mut rows = 0;
    for example in examples() {
        let compiled = example.compile(&Options::default()).unwrap();
        assert!(compiled.artifact.client.layout.glwe.is_secure());
        let codec = Codec::new(&compiled.artifact).unwrap();
        let inputs = example.inputs(&codec).unwrap();
        let (evaluation, passed) =
            encrypted_predictions(&compiled.artifact, &codec, &inputs, &ProgressBar::hidden()).unwrap();
        let outputs = codec.decode(&evaluation.results, &passed).unwrap();
        let difference = difference(&outputs, &example.expected);
        assert_eq!(difference.labels, 0, "{}: labels differ", example.name);
        let scores = example.expected.values().filter(|v| v.shape.len() == 2).filter_map(|v| v.to_f64()).flatten();
        let scale = scores.fold(1.0f64, |a, b| a.max(b.abs()));
        assert!(difference.floats <= 2e-3 * scale, "{}: {difference:?} at scale {scale}", example.name);
        rows += evaluation.results.len();
    }
    assert!(rows > 1000, "{rows} rows");
}

/// Trees, linear models and a model of their scores in one circuit: whole stacks, as scikit-learn trains them.
#[test]
fn stacks_of_models_in_one_circuit() {
    for (name, bootstraps) in [("stacking_line_two", false), ("stacking_rest", true)] {
        let network = network_cases().into_iter().find(|network| network.case.name == name).unwrap();
        let (compiled, _) = network.compile().unwrap();
        let layout = &compiled.artifact.client.layout;
        assert!(layout.glwe.is_secure());
        let plan = compiled.artifact.plan.as_ref().unwrap();
        assert!(plan.network.reads_slots(), "{name}: nothing reads the trees");
        assert_eq!(plan.counts().bootstraps > 0, bootstraps, "{name}");
        let codec = Codec::new(&compiled.artifact).unwrap();
        let Case { inputs, expected, .. } = &network.case;
        let (evaluation, passed) =
            encrypted_predictions(&compiled.artifact, &codec, inputs, &ProgressBar::hidden()).unwrap();
        let outputs = codec.decode(&evaluation.results, &passed).unwrap();
        let wrong = difference(&outputs, expected).labels;
        assert!(wrong * 10 <= evaluation.results.len(), "{name}: {wrong} labels of {}", evaluation.results.len());
    }
}
