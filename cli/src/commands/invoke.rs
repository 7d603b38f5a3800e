//! `tacit invoke`: the client's round trip through a server.

use super::roles::read_key;
use super::{load, row_bar, say};
use crate::args::Invoke;
use crate::{data, files};
use indexmap::IndexMap;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tacit_client::codec::{Codec, EncodedBatch};
use tacit_client::remote::{
    AsyncEndpoint, AsyncSettings, Container, Folder, Http, Job, JobId, KeySection, Patience, Progress, RunSettings,
    Service, check_address, hex, rows_per_request,
};
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_ir::artifact::v1::{BatchHeader, evaluation_key_bytes, query_row_bytes};
use tacit_ir::artifact::{Artifact, Kind, SectionId, View, decode, sha256};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::TensorValue;

/// Predicted time of a request on one core: short enough to lose little with it, and far from the limits on real machines.
const AT_ONCE: Duration = Duration::from_secs(60);
const ASYNCHRONOUS: Duration = Duration::from_secs(600);

/// What is sent, and what its results are made of.
enum Work {
    /// Rows to encrypt.
    Rows { key: Box<ClientKey>, codec: Box<Codec>, batch: EncodedBatch },
    /// A query file as it is.
    Query { file: Vec<u8>, rows: usize },
}

pub(super) fn run(args: &Invoke) -> Result<()> {
    let start = Instant::now();
    let artifact = load(&args.artifact)?;
    let (work, id) = prepare(args, &artifact)?;
    let key = evaluation_key(args, &artifact)?.map(Arc::new);
    let key_name = key.as_ref().map(|key| key.sha256);
    let service = service(args, key, &id)?;
    let rows = match (args.rows_per_request, &work) {
        (Some(0), _) => {
            return Err(Diagnostic::new(Code::OptionInvalid, "--rows-per-request 0: a request needs a row"));
        }
        (_, Work::Query { rows, .. }) => *rows,
        (Some(rows), _) => rows,
        (None, _) => {
            let target = if args.endpoint.is_some() && !args.realtime { ASYNCHRONOUS } else { AT_ONCE };
            rows_per_request(artifact.row_us, query_row_bytes(&artifact.client.layout), service.query_limit(), target)
        }
    };
    let mut job = Job::open(&job_folder(&args.output), id, rows, args.restart)?;
    let requests = job.parts();
    let settings = RunSettings {
        in_flight: args.in_flight,
        attempts: 3,
        deadline: Duration::from_secs(args.deadline),
        key: key_name,
    };
    let bar = row_bar(id.rows);
    let mut query = |range: std::ops::Range<usize>| match &work {
        Work::Query { file, .. } => Ok(file.clone()),
        Work::Rows { key, batch, .. } => encrypt(key, batch.rows.get(range).unwrap_or_default()),
    };
    let ran = job.run(&*service, &settings, &mut query, &mut |progress| bar.set_position(progress.rows_done as u64));
    if ran.is_err() && job.is_untouched() {
        job.remove()?;
        return ran.map(drop);
    }
    let (results, progress) = ran?;
    bar.finish_and_clear();
    let decrypting = Instant::now();
    let outputs = match &work {
        Work::Query { .. } => {
            files::write(&args.output, results.first().map_or(&[][..], Vec::as_slice))?;
            IndexMap::new()
        }
        Work::Rows { key, codec, batch } => {
            let mut rows = Vec::with_capacity(id.rows);
            for result in &results {
                rows.extend(decrypt(key, result)?);
            }
            let outputs = codec.decode(&rows, &batch.passed)?;
            files::write(&args.output, &data::npz_bytes(&outputs)?)?;
            outputs
        }
    };
    let decrypt_ms = decrypting.elapsed().as_secs_f64() * 1e3;
    job.remove()?;
    let total_ms = start.elapsed().as_secs_f64() * 1e3;
    report(args, &*service, &progress, &outputs, [requests as f64, decrypt_ms, total_ms]);
    Ok(())
}

fn report(
    args: &Invoke,
    service: &dyn Service,
    progress: &Progress,
    outputs: &IndexMap<String, TensorValue>,
    [parts, decrypt_ms, total_ms]: [f64; 3],
) {
    if args.json {
        let outputs: Vec<_> = outputs.iter().map(|(name, v)| json!({"name": name, "shape": v.shape})).collect();
        return say(format!(
            "{:#}",
            json!({
                "service": service.name(),
                "rows": progress.rows_done,
                "rows_resumed": progress.rows_resumed,
                "parts": parts as u64,
                "requests": progress.requests,
                "requests_repeated": progress.repeated,
                "key_bytes": progress.key_bytes,
                "query_bytes": progress.query_bytes,
                "result_bytes": progress.result_bytes,
                "encrypt_ms": progress.encrypt_ms,
                "send_ms": progress.send_ms,
                "wait_ms": progress.wait_ms,
                "decrypt_ms": decrypt_ms,
                "total_ms": total_ms,
                "output": args.output.display().to_string(),
                "outputs": outputs,
            })
        ));
    }
    for (name, value) in outputs {
        say(format!("{name}: {} {:?}", value.data.element().as_str(), value.shape));
    }
    let resumed = match progress.rows_resumed {
        0 => String::new(),
        rows => format!(" ({rows} of an earlier run)"),
    };
    say(format!(
        "wrote {}: {} rows{resumed} in {} requests; encrypt {:.1} ms, send {:.1} ms, wait {:.1} ms, decrypt {decrypt_ms:.1} ms; key {} bytes, queries {} bytes, results {} bytes",
        args.output.display(),
        progress.rows_done,
        progress.requests,
        progress.encrypt_ms,
        progress.send_ms,
        progress.wait_ms,
        progress.key_bytes,
        progress.query_bytes,
        progress.result_bytes
    ));
}

/// The folder of an unfinished job.
fn job_folder(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".job");
    name.into()
}

fn prepare(args: &Invoke, artifact: &Artifact) -> Result<(Work, JobId)> {
    let circuit = artifact.digest;
    if let Some(path) = &args.query {
        let file = files::read(path)?;
        let rows = query_rows(&file, artifact).map_err(|why| files::within(why, path))?;
        let id = JobId { circuit, client_key: [0; 32], input: sha256(&[&file]), rows };
        return Ok((Work::Query { file, rows }, id));
    }
    // Clap asks for both where no query is given.
    let (Some(key), Some(input)) = (&args.key, &args.input) else {
        return Err(Diagnostic::new(Code::OptionInvalid, "--key and --input, or --query, are needed"));
    };
    let key = read_key(artifact, key, args.passphrase_file.as_deref())?;
    let codec = Codec::new(artifact)?;
    let inputs = data::read_inputs(input, &codec.inputs())?;
    let batch = codec.encode(&inputs).map_err(|why| files::within(why, input))?;
    let id = JobId {
        circuit,
        client_key: key.fingerprint(),
        input: sha256(&[&files::read(input)?]),
        rows: batch.rows.len(),
    };
    Ok((Work::Rows { key: Box::new(key), codec: Box::new(codec), batch }, id))
}

fn query_rows(file: &[u8], artifact: &Artifact) -> Result<usize> {
    let view = View::read(file, &[Kind::Query], Kind::Query.default_limit())?;
    view.check_circuit(&artifact.digest)?;
    let header: BatchHeader = decode(view.section(SectionId::HEADER)?)?;
    let rows = view.section(SectionId::ROWS)?;
    header.check(&artifact.client.layout, query_row_bytes(&artifact.client.layout), rows.len())?;
    Ok(header.rows as usize)
}

/// The key section, where the circuit needs one.
fn evaluation_key(args: &Invoke, artifact: &Artifact) -> Result<Option<KeySection>> {
    if evaluation_key_bytes(&artifact.client.layout) == 0 {
        return match &args.evaluation_key {
            None => Ok(None),
            Some(path) => Err(Diagnostic::new(Code::OptionInvalid, "the circuit needs no evaluation key")
                .at(path.display().to_string())
                .help("leave --evaluation-key out")),
        };
    }
    let beside = || args.key.as_ref().map(|key| key.with_file_name("evaluation.key")).filter(|path| path.exists());
    let path = args.evaluation_key.clone().or_else(beside).ok_or_else(|| {
        Diagnostic::new(Code::EvaluationKeyMissing, "the circuit bootstraps: the server needs an evaluation key")
            .help("give the key that `tacit keygen` wrote with --evaluation-key")
    })?;
    KeySection::new(files::read(&path)?, artifact.digest).map(Some).map_err(|why| files::within(why, &path))
}

fn service(args: &Invoke, key: Option<Arc<KeySection>>, id: &JobId) -> Result<Box<dyn Service>> {
    let timeout = Duration::from_secs(args.timeout);
    let patience = Patience { retries: args.retries, answer: timeout, busy: Duration::from_secs(args.deadline) };
    let http = Http::new(patience);
    let Some(endpoint) = &args.endpoint else {
        let url = args.url.as_deref().unwrap_or_default();
        check_address(url)?;
        return Ok(Box::new(Container::new(http, url, key)));
    };
    [&args.sagemaker_endpoint, &args.s3_endpoint].into_iter().flatten().try_for_each(|url| match url {
        folder if folder.starts_with("file://") => Ok(()),
        url => check_address(url),
    })?;
    // Names become parts of paths and of addresses.
    let client = args.client_id.clone().unwrap_or_else(|| hex(&id.client_key[..8]));
    check_name("--endpoint", endpoint, 63, "")?;
    check_name("--client-id", &client, 64, "")?;
    check_name("--bucket", args.bucket.as_deref().unwrap_or("none"), 63, "")?;
    if !args.prefix.is_empty() {
        check_name("--prefix", &args.prefix, 256, "/")?;
    }
    let settings = AsyncSettings {
        url: args.sagemaker_endpoint.clone().unwrap_or_default(),
        endpoint: endpoint.clone(),
        bucket: args.bucket.clone().unwrap_or_default(),
        prefix: match args.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        },
        client,
        ttl: Duration::from_secs(args.ttl),
        timeout,
        inline: args.inline,
    };
    let folder = args.s3_endpoint.as_deref().and_then(|url| url.strip_prefix("file://"));
    match (folder, &args.sagemaker_endpoint) {
        (Some(folder), Some(_)) => {
            Ok(Box::new(AsyncEndpoint::new(http, None, Box::new(Folder::new(folder)), settings, key)))
        }
        (Some(_), None) => {
            let why = "a folder in place of S3 needs a stand-in for SageMaker that reads it";
            Err(Diagnostic::new(Code::OptionInvalid, why).help("give its address with --sagemaker-endpoint"))
        }
        (None, _) => amazon(args, http, patience, settings, key),
    }
}

#[cfg(feature = "aws")]
fn amazon(
    args: &Invoke,
    http: Http,
    patience: Patience,
    mut settings: AsyncSettings,
    key: Option<Arc<KeySection>>,
) -> Result<Box<dyn Service>> {
    use tacit_client::remote::aws::{Account, RealTime, S3};
    let account = Account::new(args.region.as_deref())?;
    if settings.url.is_empty() {
        settings.url = account.address("SAGEMAKER_RUNTIME", "runtime.sagemaker");
    }
    let sign = Box::new(account.signer("sagemaker"));
    if args.realtime {
        return Ok(Box::new(RealTime::new(http, sign, &settings.url, &settings.endpoint, key)));
    }
    let store = Box::new(S3::new(Http::new(patience), &account, args.s3_endpoint.as_deref()));
    Ok(Box::new(AsyncEndpoint::new(http, Some(sign), store, settings, key)))
}

#[cfg(not(feature = "aws"))]
fn amazon(_: &Invoke, _: Http, _: Patience, _: AsyncSettings, _: Option<Arc<KeySection>>) -> Result<Box<dyn Service>> {
    Err(Diagnostic::new(Code::OptionInvalid, "this build of tacit knows no S3 and no SageMaker")
        .at("--endpoint")
        .help("build it with `cargo install --path cli --features aws`"))
}

fn check_name(option: &str, name: &str, most: usize, more: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c);
    if !name.is_empty() && name.len() <= most && name.chars().all(known) && !name.contains("..") {
        return Ok(());
    }
    Err(Diagnostic::new(Code::OptionInvalid, format!("{option} `{name}` is no name"))
        .help(format!("use at most {most} letters, digits and -_.{more}")))
}
