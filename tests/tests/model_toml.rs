//! Models in TOML: every example written so compiles to the same circuit, mistakes are shown at their place, and the schema in
//! `spec/` is that of this version.

use std::collections::BTreeMap;
use std::path::Path;
use tacit::data;
use tacit_client::codec::Codec;
use tacit_compiler::compile;
use tacit_compiler::frontend::{onnx, toml};
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_tests::zoo::{cases, network_cases};
use tacit_tests::{examples, networks};

fn no_files(file: &str, _: Option<&str>) -> Result<TensorValue, Diagnostic> {
    Err(Diagnostic::new(Code::FileUnreadable, format!("{file} is not there")))
}

#[test]
fn every_example_written_in_toml_is_the_same_circuit() {
    for example in examples().iter().chain(&networks()) {
        let model = onnx::import(&example.model(), &onnx::ImportLimits::default()).unwrap();
        let read =
            toml::import(&toml::write(&model), &no_files).unwrap_or_else(|why| panic!("{}: {why}", example.name));
        let of_onnx = example.compile(&Options {
            input_bits: Some(3),
            weight_bits: Some(4),
            noise_share: Some(0.35),
            ..Options::default()
        });
        let calibration = example.folder.join("calibration.npy");
        let calibration = if calibration.exists() {
            data::read_inputs(&calibration, &onnx::inputs(&model)).unwrap()
        } else {
            BTreeMap::new()
        };
        let options =
            Options { input_bits: Some(3), weight_bits: Some(4), noise_share: Some(0.35), ..Options::default() };
        let of_toml = compile(read, &options, &calibration, &DriverOptions::default());
        assert_eq!(of_onnx.unwrap().artifact.digest, of_toml.unwrap().artifact.digest, "{}", example.name);
    }
}

/// Of every model of the zoo: the same circuit, or the same refusal.
#[test]
fn every_model_of_the_zoo_written_in_toml_is_the_same_circuit() {
    let options = Options { input_bits: Some(3), weight_bits: Some(4), noise_share: Some(0.35), ..Options::default() };
    let circuit = |model, calibration: &BTreeMap<String, TensorValue>| {
        let compiled = compile(model, &options, calibration, &DriverOptions::default());
        compiled.map(|own| own.artifact.digest).map_err(|why| why.code)
    };
    let all = cases().into_iter().map(|case| (case, BTreeMap::new()));
    let networks = network_cases().into_iter().map(|network| (network.case, network.calibration));
    let (mut same, mut failures) = (0, Vec::new());
    for (case, calibration) in all.chain(networks) {
        // What is not read is in no stage, so it cannot be written.
        let Ok(model) = onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()) else { continue };
        match toml::import(&toml::write(&model), &no_files) {
            Ok(read) if circuit(read.clone(), &calibration) == circuit(model, &calibration) => same += 1,
            Ok(_) => failures.push(format!("{}: another circuit", case.name)),
            Err(why) => failures.push(format!("{}: {why}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} models:\n{}", failures.len(), failures.join("\n"));
    assert!(same >= 860, "{same} models");
}

#[test]
fn a_model_with_categories_and_weight_files_predicts_as_scikit_learn_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/credit_scoring");
    let text = std::fs::read_to_string(folder.join("model.toml")).unwrap();
    let weights = data::read_npz(&folder.join("weights.npz")).unwrap();
    let model = toml::import(&text, &|_, array| Ok(weights[array.unwrap()].clone())).unwrap();
    let inputs = onnx::inputs(&model);
    let rows = data::read_inputs(&folder.join("x_test.csv"), &inputs).unwrap();
    let expected = data::read_npz(&folder.join("expected.npz")).unwrap();
    let float = evaluate(&model, &rows).unwrap();
    assert_eq!(float["decision"].data, expected["decision"].data);
    let difference = |a: &TensorValue, b: &TensorValue| {
        let pairs = a.to_f64().unwrap().into_iter().zip(b.to_f64().unwrap());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(difference(&float["probability"], &expected["probability"]) < 1e-5);
    let calibration = data::read_inputs(&folder.join("calibration.csv"), &inputs).unwrap();
    let options = Options { max_accuracy_loss: 0.01, ..Options::default() };
    let compiled = compile(model, &options, &calibration, &DriverOptions::default()).unwrap();
    let codec = Codec::new(&compiled.artifact).unwrap();
    let (evaluation, passed) =
        tacit::commands::encrypted_predictions(&compiled.artifact, &codec, &rows, &indicatif::ProgressBar::hidden())
            .unwrap();
    let found = codec.decode(&evaluation.results, &passed).unwrap();
    assert!(difference(&found["probability"], &expected["probability"]) < 0.06);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let model = |layer: &str| {
        format!("[[input]]\nname = \"x\"\ncolumns = 2\n\n[[layer]]\n{layer}\n\n[[output]]\nname = \"y\"\n")
    };
    for (text, marked, message) in [
        (model("op = \"linear\"\nwieghts = [[1.0, 2.0]]"), "op", "has no `weights`"),
        (model("op = \"linear\"\nweights = [[1.0, 2.0]]\nbiass = [0.0]"), "biass", "no key `biass`"),
        (model("op = \"linear\"\nweights = [[1.0, 2.0], [3.0]]"), "[[1.0, 2.0], [3.0]]", "different lengths"),
        (model("op = \"linear\"\nweights = [[1.0, 2.0, 3.0]]"), "[[1.0, 2.0, 3.0]]", "for 2 columns"),
        (model("op = \"linear\"\nweights = [[1.0, nan]]"), "[[1.0, nan]]", "a weight is NaN"),
        (model("op = \"linear\"\nweights = [[\"a\", \"b\"]]"), "[[\"a\", \"b\"]]", "weights are numbers"),
        (model("op = \"linear\"\nweights = { file = \"w.npy\" }"), "\"w.npy\"", "w.npy is not there"),
        (model("op = \"linar\""), "\"linar\"", "is no operation"),
        (model("op = \"clip\"\nlow = \"a\""), "\"a\"", "expected a number"),
        (model("op = \"clip\"\nlwo = 1.0"), "lwo", "no attribute `lwo`"),
        (model("op = \"activation\"\nkind = \"rleu\""), "\"rleu\"", "is no activation"),
        (model("op = \"add\"\ninputs = [\"x\", \"z\"]"), "[\"x\", \"z\"]", "no value `z`"),
        (model("op = \"tree_ensemble\"\ntrees = [[{ leaf = [1.0, 2.0] }]]"), "[1.0, 2.0]", "2 values for 1 targets"),
        ("[[input]]\nname = \"x\"\ntype = \"f31\"\n[[layer]]\nop = \"flatten\"".to_owned(), "\"f31\"", "is no type"),
        ("[[input]]\nname = 3\n[[layer]]\nop = \"flatten\"".to_owned(), "3", "is a text"),
        ("[[input]\nname = 3".to_owned(), "", ""),
        ("[inputs]\nname = 3".to_owned(), "inputs", "no key `inputs`"),
        (model("op = \"flatten\"\n[[output]]\nname = \"z\"\nlabels = [\"a\"]"), "[\"a\"]", "1 labels"),
    ] {
        let why = toml::import(&text, &no_files).unwrap_err();
        assert!(why.message.contains(message), "{text}\n{why}");
        let excerpt = why.excerpt.as_ref().unwrap_or_else(|| panic!("no place: {why}\n{text}"));
        assert_eq!(excerpt.source, text);
        assert!(
            marked.is_empty() || text[excerpt.span.clone()].starts_with(marked),
            "{why}: {}",
            &text[excerpt.span.clone()]
        );
    }
}

/// `TACIT_UPDATE_SPEC=1` writes the schema anew.
#[test]
fn the_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/model.schema.json");
    if std::env::var_os("TACIT_UPDATE_SPEC").is_some() {
        std::fs::write(&path, toml::schema()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == toml::schema(), "{} is out of date", path.display());
    serde_json::from_str::<serde_json::Value>(&found).unwrap();
}
