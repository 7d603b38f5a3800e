//! Every example, every row of its test split, encrypted under 128-bit parameters: labels equal onnxruntime's, scores are
//! within the asked precision.

use indicatif::ProgressBar;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::options::Options;
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
