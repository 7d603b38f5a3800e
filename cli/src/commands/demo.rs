//! `tacit demo`: an embedded XGBoost model, compiled and run encrypted beside the clear result.

use super::engine::encrypted_predictions;
use super::{row_bar, say};
use crate::data;
use std::collections::BTreeMap;
use std::time::Instant;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};

const MODEL: &[u8] = include_bytes!("../../../examples/breast_cancer_xgboost/model.onnx");
const ROWS: &[u8] = include_bytes!("../../../examples/breast_cancer_xgboost/x_test.npy");

pub(super) fn run(rows: usize, sagemaker: bool) -> Result<()> {
    if rows == 0 {
        return Err(Diagnostic::new(Code::OptionInvalid, "--rows 0: there is nothing to predict"));
    }
    if sagemaker {
        return super::demo_sagemaker::run(rows);
    }
    say("XGBoost, 20 trees of depth 3, on scikit-learn's breast cancer data");
    let start = Instant::now();
    let model = onnx::import(MODEL, &onnx::ImportLimits::default())?;
    let compiled =
        tacit_compiler::compile(model.clone(), &Options::default(), &BTreeMap::new(), &DriverOptions::default())?;
    say(format!("compiled in {:.0} ms", start.elapsed().as_secs_f64() * 1e3));
    say(super::inspect::text(&compiled.artifact)?);
    let codec = Codec::new(&compiled.artifact)?;
    let all = data::parse_npy(ROWS).map_err(|why| Diagnostic::internal(format!("the embedded rows: {why}")))?;
    let rows = rows.min(all.rows());
    let columns = all.columns();
    let some = TensorValue { shape: vec![rows, columns], data: all.data.pick(0..rows * columns) };
    let name = codec.inputs().first().map(|(name, _)| name.clone()).unwrap_or_default();
    let inputs = BTreeMap::from([(name, some)]);
    let clear = evaluate(&model, &inputs)?;
    let bar = row_bar(rows);
    let (evaluation, passed) = encrypted_predictions(&compiled.artifact, &codec, &inputs, &bar)?;
    bar.finish_and_clear();
    let encrypted = codec.decode(&evaluation.results, &passed)?;
    say("row  label clear/encrypted  probability of benign clear/encrypted");
    let labels =
        |values: &indexmap::IndexMap<String, TensorValue>, row: usize| match values.get("label").map(|v| &v.data) {
            Some(Data::I64(data)) => data.get(row).copied().unwrap_or(-1),
            _ => -1,
        };
    let score = |values: &indexmap::IndexMap<String, TensorValue>, row: usize| {
        let scores = values.get("probabilities").and_then(TensorValue::to_f64).unwrap_or_default();
        scores.get(row * 2 + 1).copied().unwrap_or(f64::NAN)
    };
    for row in 0..rows {
        say(format!(
            "{row:>3}  {} / {}                   {:.6} / {:.6}",
            labels(&clear, row),
            labels(&encrypted, row),
            score(&clear, row),
            score(&encrypted, row)
        ));
    }
    let timing = evaluation.medians();
    say(format!(
        "median per row: encrypt {:.2} ms, prepare {:.2} ms, run {:.2} ms, decrypt {:.2} ms",
        timing.encrypt_ms, timing.prepare_ms, timing.run_ms, timing.decrypt_ms
    ));
    say(format!("query {} bytes, result {} bytes, evaluation key none", timing.query_bytes, timing.result_bytes));
    Ok(())
}
