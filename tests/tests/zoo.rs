//! Models of every family as skl2onnx writes them, and hand-made ones: imported, interpreted and compiled, against
//! onnxruntime's answers on rows that lie on, just below and just above thresholds.

use indexmap::IndexMap;
use std::collections::BTreeMap;
use tacit_client::codec::Codec;
use tacit_compiler::explain::explain;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::diag::Code;
use tacit_ir::graph::ValueId;
use tacit_ir::interp::{plan, tensor, tensor::TensorValue};
use tacit_ir::stage::tensor::TensorOp;
use tacit_tests::difference;
use tacit_tests::zoo::{Case, cases, network_cases, refusal};

/// Two classes have exactly equal scores on some rows; which one wins is then up to the noise. Scores are compared.
const TIES: &[&str] = &["xgb_rf_three"];

fn scale(values: &BTreeMap<String, TensorValue>) -> f64 {
    values
        .values()
        .filter_map(|v| v.to_f64())
        .flatten()
        .fold(1.0f64, |a, b| if b.is_finite() { a.max(b.abs()) } else { a })
}

/// Runs `check` on every case and reports all failures at once.
fn every(stages: &[&str], check: impl Fn(&Case) -> Result<(), String>) {
    let cases = cases();
    assert!(cases.len() >= 772, "{} models", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        match (check(case), refusal(&case.name, stages)) {
            (Ok(()), None) => {}
            (Err(why), Some(code)) if why.starts_with(code) => {}
            (Err(why), _) => failures.push(format!("{}: {why}", case.name)),
            (Ok(()), Some(_)) => failures.push(format!("{}: is no longer refused", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} of {} models:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn compare(found: &IndexMap<String, TensorValue>, case: &Case, floats: f64) -> Result<(), String> {
    let difference = difference(found, &case.expected);
    let limit = floats * scale(&case.expected);
    if difference.labels > 0 && !TIES.contains(&case.name.as_str()) || difference.floats > limit {
        return Err(format!("{difference:?}, floats may differ by {limit:e}"));
    }
    Ok(())
}

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    every(&["import"], |case| {
        let graph =
            onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()).map_err(|why| why.to_string())?;
        let found = tensor::evaluate(&graph, &case.inputs).map_err(|why| why.to_string())?;
        compare(&found, case, 1e-5)
    });
}

#[test]
fn compiled_circuits_equal_onnxruntime() {
    every(&["import", "compile"], |case| {
        let graph =
            onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default()).map_err(|why| why.to_string())?;
        let compiled = tacit_compiler::compile(graph, &Options::default(), &BTreeMap::new(), &DriverOptions::default())
            .map_err(|why| why.to_string())?;
        let codec = Codec::new(&compiled.artifact).map_err(|why| why.to_string())?;
        let (batch, case) = match codec.encode(&case.inputs) {
            // onnxruntime sends NaN somewhere even where a model was not trained with missing values; Tacit refuses it.
            Err(why) if why.code == Code::NanWithoutBranch => {
                let case = case.without_missing();
                (codec.encode(&case.inputs).map_err(|why| why.to_string())?, case)
            }
            batch => (batch.map_err(|why| why.to_string())?, case.clone()),
        };
        let circuit = compiled.artifact.plan.as_ref().unwrap();
        let layout = &codec.spec().layout;
        let results: Result<Vec<_>, _> =
            batch.rows.iter().map(|row| plan::evaluate(circuit, layout, &row.inputs())).collect();
        let found =
            codec.decode(&results.map_err(|why| why.to_string())?, &batch.passed).map_err(|why| why.to_string())?;
        compare(&found, &case, 2e-3)
    });
}

/// `explain` tells of every operation where it runs, and of a refused model why and where.
#[test]
fn explanations_tell_of_every_operation() {
    let networks = network_cases().into_iter().map(|network| network.case);
    let mut failures = Vec::new();
    for case in cases().into_iter().chain(networks) {
        let model = onnx::import(&std::fs::read(&case.path).unwrap(), &Default::default());
        let operations = model.as_ref().map_or(Vec::new(), |graph| {
            let computed =
                |id: &ValueId| !matches!(graph.node(*id).op, TensorOp::Input { .. } | TensorOp::Constant { .. });
            graph.values().filter(computed).map(|id| graph.loc(id).to_string()).collect()
        });
        let lines = model.and_then(|model| explain(model, &Options::default(), &BTreeMap::new()));
        match lines {
            Ok(lines) => {
                let missing = operations.iter().find(|place| !lines.iter().any(|line| line.place == **place));
                if let Some(place) = missing {
                    failures.push(format!("{}: nothing of {place}", case.name));
                } else if lines.iter().any(|line| line.how.is_empty())
                    || !lines.iter().any(|l| l.how.starts_with("enc"))
                {
                    failures.push(format!("{}: {lines:?}", case.name));
                }
            }
            Err(why) => {
                let expected = refusal(&case.name, &["import", "compile"]);
                let is_named = why.place.is_some() || !why.notes.is_empty();
                // What is unsupported is listed, each node with what could be done.
                let unsupported = why.code == Code::OpUnsupported;
                let is_advised =
                    |note: &String| note.split_once("): ").is_some_and(|(_, own)| own.contains([';', ':']));
                let is_helped = why.help.is_some() && (!unsupported || why.notes.iter().all(is_advised));
                if expected != Some(why.code.as_str()) || !is_named || !is_helped {
                    failures.push(format!("{}: {why}", case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} models:\n{}", failures.len(), failures.join("\n"));
}
