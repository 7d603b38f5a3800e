//! `tacit predict`: the whole round trip, in clear, simulated or encrypted.

use super::engine::{Timing, encrypted_predictions, in_pool};
use super::{load_server, row_bar, say};
use crate::args::{Mode, Predict};
use crate::{data, files};
use indexmap::IndexMap;
use rand::Rng;
use rand_distr::{Distribution, Normal, StandardNormal};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;
use tacit_client::codec::Codec;
use tacit_ir::artifact::Artifact;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::interp::network::Draw;
use tacit_ir::interp::{plan, tensor::TensorValue};
use tacit_ir::noise;

pub(super) fn run(args: &Predict) -> Result<()> {
    let artifact = load_server(&args.artifact)?;
    let codec = Codec::new(&artifact)?;
    let inputs = data::read_inputs(&args.input, &codec.inputs())?;
    let (outputs, timing, rows) = in_pool(args.threads, || predict(&artifact, &codec, &inputs, args.mode))??;
    if let Some(path) = &args.output {
        files::write(path, &data::npz_bytes(&outputs)?)?;
    }
    if args.json {
        say(format!(
            "{:#}",
            json!({
                "rows": rows,
                "mode": format!("{:?}", args.mode).to_lowercase(),
                "encrypt_ms": timing.encrypt_ms,
                "prepare_ms": timing.prepare_ms,
                "run_ms": timing.run_ms,
                "decrypt_ms": timing.decrypt_ms,
                "query_bytes": timing.query_bytes,
                "result_bytes": timing.result_bytes,
                "evaluation_key_bytes": timing.evaluation_key_bytes,
                "outputs": outputs.iter().map(|(name, v)| json!({"name": name, "shape": v.shape})).collect::<Vec<_>>(),
            })
        ));
        return Ok(());
    }
    for (name, value) in &outputs {
        say(format!("{name}: {} {:?}", value.data.element().as_str(), value.shape));
    }
    if args.mode == Mode::Encrypted {
        say(format!(
            "{rows} rows; median per row: encrypt {:.2} ms, prepare {:.2} ms, run {:.2} ms, decrypt {:.2} ms; query {} bytes, result {} bytes",
            timing.encrypt_ms,
            timing.prepare_ms,
            timing.run_ms,
            timing.decrypt_ms,
            timing.query_bytes,
            timing.result_bytes
        ));
    }
    Ok(())
}

type Predicted = (IndexMap<String, TensorValue>, Timing, usize);

fn predict(
    artifact: &Artifact,
    codec: &Codec,
    inputs: &BTreeMap<String, TensorValue>,
    mode: Mode,
) -> Result<Predicted> {
    if mode == Mode::Encrypted {
        let bar = row_bar(0);
        let (evaluation, passed) = encrypted_predictions(artifact, codec, inputs, &bar)?;
        bar.finish_and_clear();
        let outputs = codec.decode(&evaluation.results, &passed)?;
        return Ok((outputs, evaluation.medians(), evaluation.timings.len()));
    }
    let start = Instant::now();
    if mode == Mode::Integers {
        let outputs = codec.in_integers(artifact, inputs)?;
        let rows = inputs.values().next().map_or(0, TensorValue::rows);
        let run_ms = start.elapsed().as_secs_f64() * 1e3 / rows.max(1) as f64;
        return Ok((outputs, Timing { run_ms, ..Timing::default() }, rows));
    }
    let batch = codec.encode(inputs)?;
    let plan = artifact.plan.as_ref().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?;
    let layout = &artifact.client.layout;
    let mut results = Vec::with_capacity(batch.rows.len());
    let mut rng = rand::rng();
    for row in &batch.rows {
        let draw: &mut Draw<'_> = &mut |std| std * rng.sample::<f64, _>(StandardNormal);
        let mut result = plan::simulate(plan, layout, &row.inputs(), (mode == Mode::Simulate).then_some(draw))?;
        if mode == Mode::Simulate {
            add_noise(&mut result, &noise::for_input(plan, layout, &row.selectors))?;
        }
        results.push(result);
    }
    let run_ms = start.elapsed().as_secs_f64() * 1e3 / batch.rows.len().max(1) as f64;
    let outputs = codec.decode(&results, &batch.passed)?;
    Ok((outputs, Timing { run_ms, ..Timing::default() }, batch.rows.len()))
}

/// Draws the predicted noise of each result; the same integers as the encrypted run otherwise.
fn add_noise(result: &mut [Vec<u64>], variances: &[f64]) -> Result<()> {
    let mut rng = rand::rng();
    for (slots, variance) in result.iter_mut().zip(variances) {
        let normal = Normal::new(0.0, variance.sqrt()).map_err(|why| Diagnostic::internal(why.to_string()))?;
        for slot in slots {
            let turns: f64 = normal.sample(&mut rng);
            *slot = slot.wrapping_add((turns * 64f64.exp2()) as i64 as u64);
        }
    }
    Ok(())
}
