//! The verifier: what is written of types, ranges and noise must follow from the operations.

use std::collections::BTreeMap;
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::{DriverOptions, parse_ir, verify};
use tacit_ir::artifact::{Artifact, Kind};
use tacit_ir::diag::Code;

const MODEL: &[u8] = include_bytes!("../../examples/iris_decision_tree/model.onnx");

fn compiled() -> Artifact {
    let model = onnx::import(MODEL, &onnx::ImportLimits::default()).unwrap();
    compile(model, &Options::default(), &BTreeMap::new(), &DriverOptions::default()).unwrap().artifact
}

fn stage<'a>(artifact: &'a Artifact, name: &str) -> &'a str {
    &artifact.text.iter().find(|(stage, _)| stage == name).unwrap().1
}

/// Adds one to the last digit behind the first `before`; gives the text and the line.
fn tampered(text: &str, before: &str) -> (String, usize) {
    let at = text.find(before).unwrap() + before.len();
    let digit = at + text[at..].find(|c: char| c.is_ascii_digit()).unwrap();
    let changed =
        if &text[digit..=digit] == "9" { "8".to_owned() } else { (text.as_bytes()[digit] - b'0' + 1).to_string() };
    (format!("{}{changed}{}", &text[..digit], &text[digit + 1..]), text[..at].matches('\n').count() + 1)
}

#[test]
fn tampered_types_ranges_and_noise_are_found_by_line() {
    let artifact = compiled();
    for (name, before) in [
        ("tensor", " : f32[?, "),
        ("quant", ": codes["),
        ("quant", ": int["),
        ("circuit", "bits["),
        ("circuit", "range["),
        ("circuit", "noise[2^-"),
        ("circuit", ": result<"),
    ] {
        let text = stage(&artifact, name);
        verify(&parse_ir(text).unwrap()).unwrap();
        // The last of its kind: inputs have the type that is written.
        let from = text.rfind(before).unwrap();
        let (tail, line) = tampered(&text[from..], before);
        let line = line + text[..from].matches('\n').count();
        let why = parse_ir(&format!("{}{tail}", &text[..from])).unwrap_err();
        assert_eq!(why.code, Code::IrInvalid, "{name} {before}: {why}");
        // A node of many lines is named by its first.
        let found: usize = why.place.as_ref().and_then(|p| p.strip_prefix("line ")?.parse().ok()).unwrap();
        assert!(found <= line && text.lines().nth(found - 1).is_some_and(|l| l.contains(" = ")), "{before}: {why}");
    }
}

#[test]
fn an_artifact_with_tampered_text_or_noise_is_not_read() {
    let sound = compiled();
    let code = |artifact: &Artifact| {
        Artifact::from_bytes(&artifact.to_bytes().unwrap(), Kind::Artifact.default_limit()).map_err(|why| why.code)
    };
    assert!(code(&sound).is_ok());
    let mut text = sound.clone();
    let circuit = text.text.iter_mut().find(|(stage, _)| stage == "circuit").unwrap();
    circuit.1 = tampered(&circuit.1, "range[").0;
    assert_eq!(code(&text).unwrap_err(), Code::NotConformant);
    let mut noise = sound.clone();
    noise.report.as_mut().unwrap().log2_noise[0] -= 1.0;
    assert_eq!(code(&noise).unwrap_err(), Code::NotConformant);
    let mut stage = sound;
    stage.text[0].0 = "other".to_owned();
    assert_eq!(code(&stage).unwrap_err(), Code::NotConformant);
}
