//! `tacit demo --sagemaker`: an embedded network behind a stand-in for SageMaker's asynchronous front, all on this machine.

use super::{row_bar, say, spinner};
use crate::data;
use flate2::read::GzDecoder;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tacit_bundle::deployment;
use tacit_client::codec::Codec;
use tacit_client::remote::{
    AsyncEndpoint, AsyncSettings, Folder, Http, Job, JobId, KeySection, Patience, Progress, RunSettings, Store, hex,
};
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_gateway::{Gateway, Settings as GatewaySettings};
use tacit_ir::artifact::{Artifact, Kind, sha256};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_server::{Running, Server, Settings as ServerSettings};

const MODEL: &[u8] = include_bytes!("../../../examples/breast_cancer_residual_mlp/model.onnx");
const CALIBRATION: &[u8] = include_bytes!("../../../examples/breast_cancer_residual_mlp/calibration.npy");
const ROWS: &[u8] = include_bytes!("../../../examples/breast_cancer_residual_mlp/x_test.npy");
const BUCKET: &str = "demo";
const MODELS: &str = "demo-models";
const CLIENT: &str = "alice";
const ENDPOINT: &str = "breast-cancer";

/// Prints what a step did, and its milliseconds.
fn step(start: Instant, what: impl std::fmt::Display) {
    say(format!("{:>9.1} ms  {what}", start.elapsed().as_secs_f64() * 1e3));
}

fn rows_of(bytes: &[u8]) -> Result<TensorValue> {
    data::parse_npy(bytes).map_err(|why| Diagnostic::internal(format!("the embedded rows: {why}")))
}

fn io(what: &str, why: &std::io::Error) -> Diagnostic {
    Diagnostic::new(Code::OutputUnwritable, format!("{what}: {why}"))
}

pub(super) fn run(rows: usize) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|why| io("a temporary folder", &why))?;
    say(
        "A residual network on scikit-learn's breast cancer data, behind SageMaker's asynchronous protocol on this machine",
    );

    let start = Instant::now();
    let bar = spinner("compiling");
    let model = onnx::import(MODEL, &onnx::ImportLimits::default())?;
    let name = onnx::inputs(&model).first().map(|(name, _)| name.clone()).unwrap_or_default();
    let calibration = BTreeMap::from([(name.clone(), rows_of(CALIBRATION)?)]);
    let compiled =
        tacit_compiler::compile(model.clone(), &Options::default(), &calibration, &DriverOptions::default())?;
    let artifact = compiled.artifact;
    bar.finish_and_clear();
    let part =
        artifact.server_part().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?.to_bytes()?;
    let client = artifact.client_part().to_bytes()?;
    step(start, format!("compile: server part {} bytes, client part {} bytes (no weights)", part.len(), client.len()));

    // The files of `tacit bundle`, at the places that its scripts bring them to.
    let start = Instant::now();
    let store = Folder::new(folder.path().join("s3"));
    let objects = deployment::objects(&artifact.digest, &part, None)?;
    let model_at = format!("s3://{MODELS}/{}", objects.model_key);
    let client_at = format!("s3://{BUCKET}/{}", objects.client_key);
    store.put(&model_at, &[&objects.model])?;
    store.put(&client_at, &[&client])?;
    step(start, format!("bundle: {model_at} for the endpoint, {client_at} for clients"));

    let start = Instant::now();
    let model_folder = folder.path().join("model");
    unpack(&fetch(&store, &model_at)?, &model_folder)?;
    let server = serve(&model_folder)?;
    step(start, format!("deploy: the container has unpacked its model and answers /ping at {}", server.address()));

    let start = Instant::now();
    let gateway = Gateway::start(GatewaySettings {
        address: ([127, 0, 0, 1], 0).into(),
        container: format!("http://{}", server.address()),
        store: Arc::new(store.clone()),
        output: format!("s3://{BUCKET}/results"),
        failure: format!("s3://{BUCKET}/failures"),
        instances: 1,
    })
    .map_err(|why| Diagnostic::new(Code::ServerFailed, format!("the gateway cannot listen: {why}")))?;
    step(start, format!("endpoint: {} stands in for SageMaker, a folder for S3", gateway.url()));

    let start = Instant::now();
    // From here on the client has what it was given, and no weights.
    let artifact = Artifact::from_bytes(&fetch(&store, &client_at)?, Kind::ClientArtifact.default_limit())?;
    let key = ClientKey::generate(&artifact.client.layout, artifact.digest)?;
    let section = key.evaluation_key()?.map(|file| KeySection::new(file, artifact.digest)).transpose()?.map(Arc::new);
    let key_bytes = section.as_ref().map_or(0, |section| section.bytes());
    step(start, format!("keygen: the secret key stays here; evaluation key {key_bytes} bytes"));

    let start = Instant::now();
    let codec = Codec::new(&artifact)?;
    let all = rows_of(ROWS)?;
    let (rows, columns) = (rows.min(all.rows()), all.columns());
    let some = TensorValue { shape: vec![rows, columns], data: all.data.pick(0..rows * columns) };
    let inputs = BTreeMap::from([(name, some)]);
    let batch = codec.encode(&inputs)?;
    let settings = AsyncSettings {
        url: gateway.url(),
        endpoint: ENDPOINT.to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: String::new(),
        client: CLIENT.to_owned(),
        ttl: Duration::from_secs(3600),
        timeout: Duration::from_secs(3600),
        inline: false,
    };
    let run = RunSettings {
        in_flight: 8,
        attempts: 3,
        deadline: Duration::from_secs(3600),
        key: section.as_ref().map(|section| section.sha256),
    };
    let endpoint =
        AsyncEndpoint::new(Http::new(Patience::default()), None, Box::new(store.clone()), settings, section.clone());
    let id = JobId { circuit: artifact.digest, client_key: key.fingerprint(), input: sha256(&[ROWS]), rows };
    let mut job = Job::open(&folder.path().join("job"), id, rows.div_ceil(2), false)?;
    let bar = row_bar(rows);
    let mut query = |range: std::ops::Range<usize>| encrypt(&key, batch.rows.get(range).unwrap_or_default());
    let (results, progress) =
        job.run(&endpoint, &run, &mut query, &mut |progress| bar.set_position(progress.rows_done as u64))?;
    bar.finish_and_clear();
    let Progress { requests, query_bytes, result_bytes, encrypt_ms, send_ms, wait_ms, .. } = progress;
    step(start, format!("invoke: {rows} rows in {requests} requests"));
    say(format!("              key uploaded once to keys/{CLIENT}/: {} bytes", progress.key_bytes));
    say(format!(
        "              encrypted in {encrypt_ms:.1} ms, sent in {send_ms:.1} ms: {query_bytes} bytes of queries"
    ));
    say(format!("              results after {wait_ms:.1} ms: {result_bytes} bytes"));
    if let Some(section) = &section {
        let stored = store.has(&format!("s3://{BUCKET}/keys/{CLIENT}/{}", hex(&section.sha256)))?;
        say(format!("              the next run {} the key again", if stored { "does not send" } else { "sends" }));
    }

    let start = Instant::now();
    let mut decrypted = Vec::with_capacity(rows);
    for result in &results {
        decrypted.extend(decrypt(&key, result)?);
    }
    let outputs = codec.decode(&decrypted, &batch.passed)?;
    step(start, "decrypt");
    server.stop()?;
    compare(&evaluate(&model, &inputs)?, &outputs, rows);
    Ok(())
}

fn fetch(store: &Folder, location: &str) -> Result<Vec<u8>> {
    store.get(location)?.ok_or_else(|| Diagnostic::internal(format!("{location} is gone")))
}

/// Unpacks a model's archive, as SageMaker does before it starts a container.
fn unpack(archive: &[u8], folder: &Path) -> Result<()> {
    fs::create_dir(folder)
        .and_then(|()| tar::Archive::new(GzDecoder::new(archive)).unpack(folder))
        .map_err(|why| io("the model", &why))
}

/// Starts a server of a folder's artifact and waits until its self-test has passed.
fn serve(folder: &Path) -> Result<Running> {
    let settings = ServerSettings {
        address: ([127, 0, 0, 1], 0).into(),
        artifact: folder.to_owned(),
        data: folder.join("none"),
        ..ServerSettings::default()
    };
    let server = Server::bind(settings)?.start()?;
    let http = Http::new(Patience::default());
    let url = format!("http://{}/ping", server.address());
    let bar = spinner("starting the server");
    let ping = tacit_client::remote::Call::get(&url, &[503]);
    let reply = http.call(&ping, None)?;
    bar.finish_and_clear();
    if reply.is_ok() {
        return Ok(server);
    }
    server.stop()?;
    Err(Diagnostic::new(Code::ServerFailed, format!("the server answers {} to /ping", reply.status)))
}

/// Labels and scores side by side.
fn compare(clear: &IndexMap<String, TensorValue>, encrypted: &IndexMap<String, TensorValue>, rows: usize) {
    for (name, clear) in clear {
        let Some(encrypted) = encrypted.get(name) else { continue };
        match (&clear.data, &encrypted.data) {
            (Data::I64(a), Data::I64(b)) => {
                let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
                say(format!("{name}: {equal} of {rows} rows as in clear: {b:?}"));
            }
            _ => {
                let (a, b) = (clear.to_f64().unwrap_or_default(), encrypted.to_f64().unwrap_or_default());
                let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                say(format!("{name}: at most {largest:.4} from the clear values"));
            }
        }
    }
}
