//! `tacit train`: compiles inside a SageMaker training job, whose files lie below one folder.
//!
//! Channels `model`, `calibration` and `calibration-labels` hold the inputs, hyperparameters are compile options. The server's
//! part goes to `model`, the client's part and the reports to `output/data`: SageMaker makes two archives of them, for two kinds
//! of readers.

use super::{compile, inspect, options, report, say};
use crate::args::Train;
use crate::files;
use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Names of the metrics, each printed as `tacit:NAME=VALUE;`.
pub(super) const METRICS: &[&str] = &[
    "compile_seconds",
    "predicted_run_ms",
    "query_bytes",
    "result_bytes",
    "evaluation_key_bytes",
    "external_products",
    "bootstraps",
    "log2_noise",
];
/// Characters of the failure file that SageMaker shows.
const FAILURE_CHARS: usize = 1024;

/// What a job makes.
struct Outputs {
    server: Vec<u8>,
    client: Vec<u8>,
    summary: Value,
    page: String,
    text: String,
}

pub(super) fn run(args: &Train) -> Result<()> {
    let ending = Arc::new(Mutex::new(false));
    stop_when_told(args.folder.clone(), Arc::clone(&ending));
    let outputs = compiled(&args.folder);
    // From here on a signal comes too late.
    let mut ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
    *ending = true;
    let done = outputs.and_then(|outputs| outputs.write(&args.folder));
    if let Err(why) = &done {
        tell(&args.folder, why);
    }
    done
}

/// Writes the file that SageMaker shows.
fn tell(folder: &Path, why: &Diagnostic) {
    let text: String = why.to_string().chars().take(FAILURE_CHARS).collect();
    let folder = folder.join("output");
    // The error itself is what matters; it is printed, too.
    let _ = std::fs::create_dir_all(&folder);
    let _ = files::write(&folder.join("failure"), text.as_bytes());
}

/// Ends the process on SIGTERM, which the first process of a container would not hear otherwise. Outputs are written whole, all
/// of them or none.
fn stop_when_told(folder: PathBuf, ending: Arc<Mutex<bool>>) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        let told = runtime.block_on(async { signal(SignalKind::terminate()).ok()?.recv().await });
        let ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none() || *ending {
            return;
        }
        let why = Diagnostic::new(Code::JobStopped, "the job was told to end (SIGTERM) while it compiled")
            .help("start it again, with a longer MaxRuntimeInSeconds where that was the reason");
        tell(&folder, &why);
        let _ = crate::render::fail(why);
        #[allow(clippy::exit, reason = "the thread that compiles cannot be interrupted otherwise")]
        std::process::exit(1);
    });
}

fn compiled(folder: &Path) -> Result<Outputs> {
    let start = Instant::now();
    let settings = hyperparameters(&folder.join("input/config/hyperparameters.json"))?;
    let data = folder.join("input/data");
    let (model, _unpacked) = model_file(&data.join("model"))?;
    let rows = |channel: &str| -> Result<Option<PathBuf>> {
        let channel = data.join(channel);
        channel.is_dir().then(|| only_file(&channel, &["npy", "npz", "csv", "parquet"])).transpose()
    };
    let (calibration, labels) = (rows("calibration")?, rows("calibration-labels")?);
    let read = |model: &Path| options::read(Some(model), &[], &settings);
    let calibration = (calibration.as_deref(), labels.as_deref());
    let artifact = compile::from_files(&model, read, calibration, &DriverOptions::default())?.artifact;
    let bytes = artifact.to_bytes()?.len() as u64;
    let server = artifact.server_part().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?;
    let mut summary = inspect::summary(&artifact)?;
    summary["compile_seconds"] = start.elapsed().as_secs_f64().into();
    Ok(Outputs {
        server: server.to_bytes()?,
        client: artifact.client_part().to_bytes()?,
        summary,
        page: report::html(&artifact, bytes)?,
        text: inspect::text(&artifact)?,
    })
}

impl Outputs {
    fn write(&self, folder: &Path) -> Result<()> {
        let output = folder.join("output/data");
        write(&folder.join("model"), "server.tacit", &self.server)?;
        write(&output, "client.tacit", &self.client)?;
        write(&output, "summary.json", format!("{:#}\n", self.summary).as_bytes())?;
        write(&output, "report.html", self.page.as_bytes())?;
        say(&self.text);
        for name in METRICS {
            say(format!("tacit:{name}={};", metric(&self.summary[*name])));
        }
        Ok(())
    }
}

/// The number of a metric; of several the greatest.
fn metric(value: &Value) -> f64 {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max),
        value => value.as_f64().unwrap_or_default(),
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|why| {
        Diagnostic::new(Code::OutputUnwritable, format!("cannot be made: {why}")).at(folder.display().to_string())
    })?;
    files::write(&folder.join(name), bytes)
}

/// Hyperparameters as settings of compile options. SageMaker passes texts; some of its tools encode values as JSON before, so
/// what is JSON inside a text is taken as that. No file means no hyperparameters.
fn hyperparameters(path: &Path) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let invalid = |why: String| Diagnostic::new(Code::OptionInvalid, why).at(path.display().to_string());
    let object: Map<String, Value> =
        serde_json::from_str(&files::read_text(path)?).map_err(|why| invalid(format!("is no JSON object: {why}")))?;
    // Names that begin so are those of SageMaker's own tools.
    let own = object.into_iter().filter(|(name, _)| !name.starts_with("sagemaker_"));
    Ok(own.map(|(name, value)| format!("{}={}", name.replace('_', "-"), decoded(value))).collect())
}

/// The value inside up to two layers of JSON.
fn decoded(value: Value) -> Value {
    let within = |value: Value| match &value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    };
    within(within(value))
}

/// The model of a channel, and the folder that an archive was unpacked to.
fn model_file(channel: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    let archives = files_with(channel, &["gz", "tgz"])?;
    let ([archive], []) = (archives.as_slice(), files_with(channel, &["onnx", "toml"])?.as_slice()) else {
        return Ok((only_file(channel, &["onnx", "toml"])?, None));
    };
    let failed = |why: std::io::Error| {
        Diagnostic::new(Code::FileUnreadable, format!("cannot be unpacked: {why}"))
            .at(archive.display().to_string())
            .help("the channel `model` takes an .onnx or .toml file, or a .tar.gz with one")
    };
    let folder = tempfile::tempdir().map_err(failed)?;
    tar::Archive::new(GzDecoder::new(files::open(archive)?)).unpack(folder.path()).map_err(failed)?;
    let model = only_file(folder.path(), &["onnx", "toml"])?;
    Ok((model, Some(folder)))
}

/// The only file of a folder with one of these extensions.
fn only_file(folder: &Path, extensions: &[&str]) -> Result<PathBuf> {
    let mut found = files_with(folder, extensions)?;
    match (found.pop(), found.len()) {
        (Some(file), 0) => Ok(file),
        (last, _) => {
            let names: Vec<String> = found.iter().chain(&last).map(|path| path.display().to_string()).collect();
            let message = match names.is_empty() {
                true => format!("has no file that ends in .{}", extensions.join(" or .")),
                false => format!("has several: {}", names.join(", ")),
            };
            Err(Diagnostic::new(Code::FileUnreadable, message)
                .at(folder.display().to_string())
                .help("give each channel, in File mode, one such file"))
        }
    }
}

fn files_with(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|why| {
        Diagnostic::new(Code::FileUnreadable, format!("cannot be read: {why}"))
            .at(folder.display().to_string())
            .help("give the job a channel of that name, in File mode")
    })?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let wanted = |path: &PathBuf| {
        path.is_file()
            && path.extension().is_some_and(|own| extensions.iter().any(|wanted| own.eq_ignore_ascii_case(wanted)))
    };
    paths.retain(wanted);
    paths.sort();
    Ok(paths)
}
