//! Whole round trips on this machine, timed role by role.

use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::time::Instant;
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_ir::artifact::Artifact;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::TensorValue;
use tacit_runtime::{Circuit, EvaluationKey, Query, ResultWriter, prepare};

/// Milliseconds and bytes of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Encryption on the client.
    pub encrypt_ms: f64,
    /// Expanding the query's seeds and transforming its selectors on the server.
    pub prepare_ms: f64,
    /// Evaluation on the server.
    pub run_ms: f64,
    /// Decryption on the client.
    pub decrypt_ms: f64,
    /// The query.
    pub query_bytes: usize,
    /// The result.
    pub result_bytes: usize,
    /// The evaluation key, once for all rows; 0 where the circuit needs none.
    pub evaluation_key_bytes: usize,
}

/// Decoded outputs and the median time of each part.
#[derive(Debug)]
pub struct Evaluation {
    /// Decrypted results: rows x results x slots.
    pub results: Vec<Vec<Vec<u64>>>,
    /// Per row.
    pub timings: Vec<Timing>,
}

impl Evaluation {
    /// Medians over rows.
    pub fn medians(&self) -> Timing {
        let median = |part: fn(&Timing) -> f64| {
            let mut values: Vec<f64> = self.timings.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        Timing {
            encrypt_ms: median(|t| t.encrypt_ms),
            prepare_ms: median(|t| t.prepare_ms),
            run_ms: median(|t| t.run_ms),
            decrypt_ms: median(|t| t.decrypt_ms),
            query_bytes: self.timings.first().map_or(0, |t| t.query_bytes),
            result_bytes: self.timings.first().map_or(0, |t| t.result_bytes),
            evaluation_key_bytes: self.timings.first().map_or(0, |t| t.evaluation_key_bytes),
        }
    }
}

/// Runs on a pool of this many threads; all cores by default.
///
/// # Errors
/// [`Code::OptionInvalid`] for no threads.
pub(super) fn in_pool<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T> {
    if threads == Some(0) {
        return Err(Diagnostic::new(Code::OptionInvalid, "--threads 0: at least one thread is needed"));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
    let pool = pool.map_err(|why| Diagnostic::internal(format!("cannot start threads: {why}")))?;
    Ok(pool.install(work))
}

/// Encrypts, evaluates and decrypts every row under a fresh key, through the same bytes that would travel.
///
/// # Errors
/// Those of encoding and of the runtime.
pub fn encrypted_predictions(
    artifact: &Artifact,
    codec: &Codec,
    inputs: &BTreeMap<String, TensorValue>,
    bar: &ProgressBar,
) -> Result<(Evaluation, BTreeMap<String, TensorValue>)> {
    let plan = artifact.plan.clone().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?;
    let layout = artifact.client.layout.clone();
    let circuit = Circuit::new(layout.clone(), plan, artifact.digest)?;
    let key = ClientKey::generate(&layout, artifact.digest)?;
    let evaluation_key = key.evaluation_key()?;
    let evaluation_key_bytes = evaluation_key.as_ref().map_or(0, Vec::len);
    let server_key =
        evaluation_key.map(|bytes| EvaluationKey::from_bytes(&bytes, &layout, &artifact.digest)).transpose()?;
    let batch = codec.encode(inputs)?;
    let mut evaluation = Evaluation { results: Vec::new(), timings: Vec::new() };
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    bar.set_length(batch.rows.len() as u64);
    for row in &batch.rows {
        let mut timing = Timing { evaluation_key_bytes, ..Timing::default() };
        let start = Instant::now();
        let query = encrypt(&key, std::slice::from_ref(row))?;
        timing.encrypt_ms = milliseconds(start);
        timing.query_bytes = query.len();
        let start = Instant::now();
        let parsed = Query::read(&circuit, &query)?;
        let prepared = parsed.rows().next().map(|row| prepare(&circuit, row));
        let prepared = prepared.ok_or_else(|| Diagnostic::internal("a query without rows"))?;
        timing.prepare_ms = milliseconds(start);
        let start = Instant::now();
        let ciphertexts = circuit.evaluate(&prepared, server_key.as_ref())?;
        timing.run_ms = milliseconds(start);
        let mut writer = ResultWriter::new(&circuit, 1);
        writer.push(&ciphertexts);
        let result = writer.finish()?;
        timing.result_bytes = result.len();
        let start = Instant::now();
        let decrypted = decrypt(&key, &result)?;
        timing.decrypt_ms = milliseconds(start);
        evaluation.results.extend(decrypted);
        evaluation.timings.push(timing);
        bar.inc(1);
    }
    Ok((evaluation, batch.passed))
}
