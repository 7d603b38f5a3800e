//! Models of every family as skl2onnx writes them, and hand-made ones: imported, interpreted and compiled, against
//! onnxruntime's answers on rows that lie on, just below and just above thresholds.

use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::interp::{plan, tensor, tensor::TensorValue};
use tacit_tests::difference;

/// Models that are refused, with the code: nothing else may be.
const REFUSED: &[(&str, &str)] = &[];

struct Case {
    name: String,
    inputs: BTreeMap<String, TensorValue>,
    expected: BTreeMap<String, TensorValue>,
    path: PathBuf,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/models");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "onnx"));
    paths.sort();
    let case = |path: PathBuf| {
        let arrays = tacit::data::read_npz(&path.with_extension("npz")).unwrap();
        let part = |prefix: &str| {
            let own =
                arrays.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())));
            own.collect()
        };
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Case { name, inputs: part("in:"), expected: part("out:"), path }
    };
    paths.into_iter().map(case).collect()
}

fn scale(values: &BTreeMap<String, TensorValue>) -> f64 {
    values
        .values()
        .filter_map(|v| v.to_f64())
        .flatten()
        .fold(1.0f64, |a, b| if b.is_finite() { a.max(b.abs()) } else { a })
}

/// Runs `check` on every case and reports all failures at once.
fn every(check: impl Fn(&Case) -> Result<(), String>) {
    let cases = cases();
    assert!(cases.len() >= 70, "{} models", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        match (check(case), REFUSED.iter().find(|(name, _)| *name == case.name)) {
            (Ok(()), None) => {}
            (Err(why), Some((_, code))) if why.starts_with(code) => {}
            (Err(why), _) => failures.push(format!("{}: {why}", case.name)),
            (Ok(()), Some(_)) => failures.push(format!("{}: is no longer refused", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} of {} models:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn compare(found: &IndexMap<String, TensorValue>, case: &Case, floats: f64) -> Result<(), String> {
    let difference = difference(found, &case.expected);
    let limit = floats * scale(&case.expected);
    if difference.labels > 0 || difference.floats > limit {
        return Err(format!("{difference:?}, floats may differ by {limit:e}"));
    }
    Ok(())
}

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    every(|case| {
        let graph =
            onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()).map_err(|why| why.to_string())?;
        let found = tensor::evaluate(&graph, &case.inputs).map_err(|why| why.to_string())?;
        compare(&found, case, 1e-5)
    });
}

#[test]
fn compiled_circuits_equal_onnxruntime() {
    every(|case| {
        let graph =
            onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()).map_err(|why| why.to_string())?;
        let compiled = tacit_compiler::compile(graph, &Options::default(), &BTreeMap::new(), &DriverOptions::default())
            .map_err(|why| why.to_string())?;
        let codec = Codec::new(&compiled.artifact).map_err(|why| why.to_string())?;
        let batch = codec.encode(&case.inputs).map_err(|why| why.to_string())?;
        let circuit = compiled.artifact.plan.as_ref().unwrap();
        let layout = &codec.spec().layout;
        let results: Result<Vec<_>, _> =
            batch.rows.iter().map(|row| plan::evaluate(circuit, layout, &row.selectors, &row.packed)).collect();
        let found =
            codec.decode(&results.map_err(|why| why.to_string())?, &batch.passed).map_err(|why| why.to_string())?;
        compare(&found, case, 2e-3)
    });
}
