//! The folders of deployments, one kind for each target.

use crate::archive::{Entry, gzip, tar};
use crate::image::{self, Built, Image};
use crate::instances::{self, Prediction, Prices};
use crate::program::{self, Architecture};
use crate::sagemaker::{self, Mode};
use askama::Template;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tacit_ir::artifact::{Artifact, CircuitDigest, v1};
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// What a deployment of a circuit is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The compiled circuit.
    pub artifact: &'a Artifact,
    /// Name of what is deployed: lower-case letters, digits and hyphens.
    pub name: &'a str,
    /// The statically linked server.
    pub program: &'a [u8],
    /// The server artifact's file.
    pub server: Vec<u8>,
    /// The client artifact's file.
    pub client: Vec<u8>,
    /// The evaluation key of the only client, for the server to hold.
    pub evaluation_key: Option<Vec<u8>>,
    /// The security card, a page.
    pub card: String,
    /// What primitives cost where the circuit will run.
    pub cost: CostProfile,
    /// Whether that was measured there; the built-in costs otherwise.
    pub measured: bool,
    /// What instances cost.
    pub prices: Prices,
}

/// A deployment, to be written.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its files.
    pub entries: Vec<Entry>,
    /// What is known of it.
    pub summary: Value,
    /// What the user should know before deploying.
    pub warnings: Vec<String>,
}

/// The program's place in images.
const BIN: &str = "usr/local/bin";
/// What the server's package and program are called.
const SERVER: &str = "tacit-server";
/// The same of the compiler, which training jobs run.
const COMPILER: &str = "tacit";
/// Where a server looks for its model.
const MODEL_FOLDER: &str = "opt/ml/model";
const VERSION: &str = env!("CARGO_PKG_VERSION");

macro_rules! page {
    ($(#[$doc:meta])* $Name:ident, $path:literal, { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Template)]
        #[template(path = $path, escape = "none")]
        struct $Name<'a> { $($field: $ty),* }
    };
}

page!(Dockerfile, "Dockerfile", { labels: &'a BTreeMap<String, String>, entrypoint: &'a str, command: &'a str });
page!(PushScript, "push.sh", { name: &'a str, tag: &'a str, reference: &'a str });
page!(DeployScript, "deploy.sh", { name: &'a str, model_key: &'a str, client_key: &'a str, endpoint: bool });
page!(ClientScript, "client.sh", { name: &'a str, realtime: bool });
page!(TransformScript, "transform.sh", { name: &'a str, instance_type: &'a str });
page!(SagemakerReadme, "sagemaker.md", {
    name: &'a str,
    mode: &'a str,
    async_: bool,
    batch: bool,
    realtime: bool,
    image_size: String,
    image_compressed: String,
    model_size: String,
    pinned: bool,
    facts: &'a Facts,
    warnings: &'a [String],
    priced: &'a str,
    predictions: &'a [PredictionRow],
});
page!(DockerReadme, "docker.md", { name: &'a str, facts: &'a Facts, memory: u64 });
page!(Compose, "compose.yaml", { reference: &'a str, memory: u64, environment: &'a [(&'a str, u64)] });
page!(KubernetesReadme, "kubernetes.md", { name: &'a str, facts: &'a Facts });
page!(Deployment, "deployment.yaml", {
    name: &'a str,
    reference: &'a str,
    memory: u64,
    environment: &'a [(&'a str, u64)],
    cores: u32,
});
page!(Service, "service.yaml", { name: &'a str });
page!(Autoscaler, "autoscaler.yaml", { name: &'a str });
page!(NetworkPolicy, "networkpolicy.yaml", { name: &'a str });
page!(Kustomization, "kustomization.yaml", { repository: &'a str, tag: &'a str });
page!(TrainingReadme, "training.md", {
    name: &'a str,
    tag: &'a str,
    version: &'a str,
    image_size: String,
    image_compressed: String,
    metrics: &'a [&'a str],
});

/// A line of the table of predictions.
struct PredictionRow {
    name: &'static str,
    vcpus: u32,
    memory: u32,
    latency: String,
    rows_per_hour: String,
    per_million: String,
    per_month: String,
}

/// What every page says of a circuit.
struct Facts {
    version: &'static str,
    circuit: String,
    query_size: String,
    result_size: String,
    key_size: String,
    needs_key: bool,
    one_core: String,
    profile: &'static str,
}

fn render(page: &impl Template) -> Result<Vec<u8>> {
    let text = page.render().map_err(|why| Diagnostic::internal(format!("a template: {why}")))?;
    Ok(text.into_bytes())
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(value).map_err(|why| Diagnostic::internal(format!("JSON: {why}")))?;
    Ok([text.as_slice(), b"\n"].concat())
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

/// A positive number for people: three digits, no exponent.
fn three_digits(value: f64) -> String {
    let decimals = (2.0 - value.log10().floor()).clamp(0.0, 6.0);
    format!("{value:.*}", decimals as usize)
}

/// Checks a name against what all targets take.
///
/// # Errors
/// [`Code::OptionInvalid`].
pub fn check_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if starts && name.len() <= 40 && name.chars().all(allowed) && !name.ends_with('-') && !name.contains("--") {
        return Ok(());
    }
    Err(Diagnostic::new(Code::OptionInvalid, format!("`{name}` is no name for a deployment"))
        .help("--name is lower-case letters, digits and single hyphens, at most 40, a letter first"))
}

/// A name that [`check_name`] accepts, from a file's.
pub fn name_from(stem: &str) -> String {
    let lower = stem.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-");
    let name = if name.starts_with(|c: char| c.is_ascii_lowercase()) { name } else { format!("tacit-{name}") };
    name.chars().take(40).collect::<String>().trim_end_matches('-').to_owned()
}

/// Labels that SageMaker reads: the port may be set, which endpoints of several containers need.
fn labels(title: &str) -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        label("com.amazonaws.sagemaker.capabilities.accept-bind-to-port", "true"),
        label("org.opencontainers.image.title", title),
        label("org.opencontainers.image.version", VERSION),
    ])
}

/// The image's own files: a program, a place for temporary files, and names for root and nobody.
fn root_files(program: &str, bytes: &[u8]) -> Vec<Entry> {
    vec![
        Entry::file("etc/group", *b"root:x:0:\nnobody:x:65534:\n"),
        Entry::file("etc/passwd", *b"root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n"),
        Entry::folder("tmp", 0o1777),
        Entry::program(format!("{BIN}/{program}"), bytes),
    ]
}

/// The image around a program, and the files to build it from or push it with.
fn image_files(name: &str, program: &str, command: &str, bytes: &[u8], model: &[Entry]) -> Result<(Built, Vec<Entry>)> {
    let architecture = program::check(bytes, program)?;
    let root = root_files(program, bytes);
    let labels = labels(program);
    let entrypoint = format!("/{BIN}/{program}");
    let mut layers = vec![root.clone()];
    if !model.is_empty() {
        layers.push(model.to_vec());
    }
    let built = image::build(&Image {
        name: name.to_owned(),
        architecture,
        layers,
        entrypoint: vec![entrypoint.clone()],
        command: vec![command.to_owned()],
        labels: labels.clone(),
        ports: vec![8080],
    })?;
    let dockerfile = Dockerfile { labels: &labels, entrypoint: &entrypoint, command };
    let push = PushScript { name, tag: &built.tag, reference: &built.reference };
    let mut entries = vec![
        Entry::file("image.tar", built.tar.as_slice()),
        Entry::file("image/Dockerfile", render(&dockerfile)?),
        Entry::program("push.sh", render(&push)?),
    ];
    entries.extend(root.into_iter().chain(model.iter().cloned()).map(|entry| entry.below("image/rootfs")));
    Ok((built, entries))
}

impl Inputs<'_> {
    /// What the server reads.
    fn model(&self) -> Vec<Entry> {
        model_files(&self.server, self.evaluation_key.as_deref())
    }

    fn key_bytes(&self) -> u64 {
        v1::evaluation_key_bytes(&self.artifact.client.layout)
    }

    fn circuit(&self) -> String {
        digits(&self.artifact.digest)
    }

    fn facts(&self) -> Facts {
        let layout = &self.artifact.client.layout;
        let one_us = self.artifact.plan.as_ref().map_or(0.0, |plan| self.cost.plan_us(layout, plan));
        let key = self.key_bytes();
        Facts {
            version: VERSION,
            circuit: self.circuit(),
            query_size: size(v1::query_row_bytes(layout)),
            result_size: size(v1::result_row_bytes(layout)),
            key_size: size(key),
            needs_key: key > 0,
            one_core: three_digits((one_us / 1e3).max(0.001)),
            profile: if self.measured { "by `tacit profile`" } else { "built in: an AMD EPYC with AVX2" },
        }
    }

    /// Bytes for a container of its own: settings, and the limit in MiB that they leave room for.
    fn memory(&self) -> (Vec<(&'static str, u64)>, u64) {
        const MIB: u64 = 1 << 20;
        let layout = &self.artifact.client.layout;
        let key = self.key_bytes();
        // Rows that a request may bring: 64, or what fits 64 MiB.
        let body = (key + 64 * v1::query_row_bytes(layout) + MIB).max(64 * MIB).next_multiple_of(MIB);
        // A key is expanded to Fourier transforms when it is loaded.
        let cache = (16 * key).next_multiple_of(MIB);
        let settings = vec![
            ("TACIT_KEY_CACHE_BYTES", cache),
            ("TACIT_MAX_BODY_BYTES", body),
            ("TACIT_MAX_BUFFERED_BYTES", 2 * body),
        ];
        let total = 256 * MIB + 8 * self.server.len() as u64 + cache + 3 * body + 8 * key;
        (settings, (total / MIB).next_multiple_of(256))
    }

    fn predictions(&self) -> Result<Vec<Prediction>> {
        Ok(instances::predict(self.artifact, &self.cost, program::check(self.program, SERVER)?, &self.prices))
    }

    /// Files of every target.
    fn common(&self) -> Vec<Entry> {
        vec![
            Entry::file("client.tacit", self.client.as_slice()),
            Entry::file("security-card.html", self.card.as_bytes()),
        ]
    }

    fn summary(&self, target: &str, built: &Built) -> Value {
        json!({
            "format": 1,
            "target": target,
            "name": self.name,
            "circuit": self.circuit(),
            "image": built.reference,
            "image_bytes": built.size,
            "image_compressed_bytes": built.compressed,
        })
    }
}

fn prediction_json(prediction: &Prediction) -> Value {
    json!({
        "instance": prediction.instance.name,
        "vcpus": prediction.instance.vcpus,
        "memory_gib": prediction.instance.memory,
        "dollars_per_hour": prediction.cost.map(|cost| cost.per_hour),
        "latency_ms": prediction.latency_ms,
        "rows_per_hour": prediction.rows_per_hour,
        "dollars_per_million_rows": prediction.cost.map(|cost| cost.per_million_rows),
        "dollars_per_month": prediction.cost.map(|cost| cost.per_month),
    })
}

/// What to do about a program that is larger than it need be.
fn advice(program: &[u8], package: &str) -> Option<String> {
    program::has_symbols(program).then(|| {
        format!(
            "the program has {} with its symbols; a smaller image starts sooner: build it with {}",
            size(program.len() as u64),
            program::build_command(package)
        )
    })
}

/// What the user should know of a circuit behind SageMaker's limits, and of the program.
fn warnings(inputs: &Inputs<'_>, mode: Mode, predictions: &[Prediction], instance_type: &str) -> Vec<String> {
    let layout = &inputs.artifact.client.layout;
    let mut warnings = Vec::from_iter(advice(inputs.program, SERVER));
    let key = if inputs.evaluation_key.is_some() { 0 } else { inputs.key_bytes() };
    let row = v1::query_row_bytes(layout);
    let (limit, seconds) = match mode {
        Mode::Async => (1 << 30, 3600.0),
        Mode::Realtime => (25_000_000, 60.0),
        Mode::Batch => (100_000_000, 3600.0),
    };
    if key + row > limit {
        warnings.push(format!(
            "a request with the evaluation key has {}, over the limit of {} in mode {}: give the key with --evaluation-key, or use mode async",
            size(key + row),
            size(limit),
            mode.as_str()
        ));
    } else if mode == Mode::Realtime && key + row > 6_000_000 {
        warnings.push(format!(
            "a request has {}: SageMaker documents 25 MB for real-time calls, older descriptions of its API 6 MB",
            size(key + row)
        ));
    }
    if let Some(slow) =
        predictions.iter().find(|one| one.instance.name == instance_type && one.latency_ms > 1e3 * seconds)
    {
        warnings.push(format!(
            "one row is predicted to take {:.0} s on {instance_type}, a request in mode {} at most {seconds:.0} s: choose a larger type{}",
            slow.latency_ms / 1e3,
            mode.as_str(),
            if mode == Mode::Realtime { " or mode async" } else { "" },
        ));
    }
    warnings
}

/// What an endpoint loads, and the places of that and of its clients' part in the buckets.
#[derive(Clone, Debug)]
pub struct Objects {
    /// `model.tar.gz`.
    pub model: Vec<u8>,
    /// Its key in the bucket of models.
    pub model_key: String,
    /// The key of `client.tacit` in the bucket of data.
    pub client_key: String,
}

/// The objects of a circuit, which are the same every time.
///
/// # Errors
/// [`Code::Internal`] where the archive cannot be written.
pub fn objects(circuit: &CircuitDigest, server: &[u8], evaluation_key: Option<&[u8]>) -> Result<Objects> {
    let model = gzip(&tar(&model_files(server, evaluation_key))?)?;
    Ok(Objects {
        model_key: format!("models/{}/model.tar.gz", image::digest(&model)),
        client_key: format!("client/{}/client.tacit", digits(circuit)),
        model,
    })
}

/// What the server reads.
fn model_files(server: &[u8], evaluation_key: Option<&[u8]>) -> Vec<Entry> {
    let key = evaluation_key.map(|key| Entry::file("evaluation.key", key));
    std::iter::once(Entry::file("server.tacit", server)).chain(key).collect()
}

fn digits(circuit: &CircuitDigest) -> String {
    circuit.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A deployment to SageMaker.
///
/// # Errors
/// [`Code::ProgramUnusable`], [`Code::OptionInvalid`] for the name.
pub fn sagemaker(inputs: &Inputs<'_>, mode: Mode, instance_type: Option<&str>) -> Result<Bundle> {
    check_name(inputs.name)?;
    let (built, mut entries) = image_files(inputs.name, SERVER, "serve", inputs.program, &[])?;
    let Objects { model, model_key, client_key } =
        objects(&inputs.artifact.digest, &inputs.server, inputs.evaluation_key.as_deref())?;
    let architecture = program::check(inputs.program, SERVER)?;
    let instance_type = instance_type.unwrap_or_else(|| instances::default_instance(architecture));
    let settings = sagemaker::Settings {
        name: inputs.name.to_owned(),
        mode,
        tag: built.tag.clone(),
        model_key,
        client_key,
        instance_type: instance_type.to_owned(),
    };
    let templates = [
        ("foundation", sagemaker::foundation(&settings)),
        ("endpoint", sagemaker::endpoint(&settings)),
        ("client", sagemaker::client(&settings)),
    ];
    for (name, template) in &templates {
        entries.push(Entry::file(format!("{name}.json"), pretty(template)?));
        entries.push(Entry::file(format!("{name}.parameters.json"), pretty(&sagemaker::parameters(template))?));
    }
    let predictions = inputs.predictions()?;
    let warnings = warnings(inputs, mode, &predictions, instance_type);
    let rows: Vec<PredictionRow> = predictions
        .iter()
        .map(|one| PredictionRow {
            name: one.instance.name,
            vcpus: one.instance.vcpus,
            memory: one.instance.memory,
            latency: format!("{} ms", three_digits(one.latency_ms)),
            rows_per_hour: format!("{:.2e}", one.rows_per_hour),
            per_million: one.cost.map_or_else(|| "-".to_owned(), |cost| three_digits(cost.per_million_rows)),
            per_month: one.cost.map_or_else(|| "-".to_owned(), |cost| format!("{:.0}", cost.per_month)),
        })
        .collect();
    let readme = SagemakerReadme {
        name: inputs.name,
        mode: mode.as_str(),
        async_: mode == Mode::Async,
        batch: mode == Mode::Batch,
        realtime: mode == Mode::Realtime,
        image_size: size(built.size),
        image_compressed: size(built.compressed),
        model_size: size(inputs.server.len() as u64),
        pinned: inputs.evaluation_key.is_some(),
        facts: &inputs.facts(),
        warnings: &warnings,
        priced: &inputs.prices.source,
        predictions: &rows,
    };
    let name = inputs.name;
    let deploy = DeployScript {
        name,
        model_key: &settings.model_key,
        client_key: &settings.client_key,
        endpoint: mode != Mode::Batch,
    };
    entries.extend([
        Entry::file("model.tar.gz", model),
        Entry::file("README.md", render(&readme)?),
        Entry::program("deploy.sh", render(&deploy)?),
        Entry::program("client.sh", render(&ClientScript { name, realtime: mode == Mode::Realtime })?),
    ]);
    if mode == Mode::Batch {
        entries.push(Entry::program("transform.sh", render(&TransformScript { name, instance_type })?));
    }
    let table = json!({
        "format": 1,
        "prices": inputs.prices.source,
        "one_core_ms": inputs.artifact.plan.as_ref().map_or(0.0, |plan| {
            inputs.cost.plan_us(&inputs.artifact.client.layout, plan) / 1e3
        }),
        "instances": predictions.iter().map(prediction_json).collect::<Vec<_>>(),
    });
    entries.push(Entry::file("predictions.json", pretty(&table)?));
    entries.extend(inputs.common());
    let mut summary = inputs.summary("sagemaker", &built);
    summary["mode"] = mode.as_str().into();
    summary["model_key"] = settings.model_key.into();
    summary["warnings"] = warnings.clone().into();
    finish(entries, summary, warnings)
}

/// A deployment with Docker on one machine.
///
/// # Errors
/// [`Code::ProgramUnusable`], [`Code::OptionInvalid`] for the name.
pub fn docker(inputs: &Inputs<'_>) -> Result<Bundle> {
    check_name(inputs.name)?;
    let (built, mut entries) = image_files(SERVER, SERVER, "serve", inputs.program, &[])?;
    let (environment, memory) = inputs.memory();
    entries.extend(inputs.model().into_iter().map(|entry| entry.below("model")));
    let readme = DockerReadme { name: inputs.name, facts: &inputs.facts(), memory };
    let compose = Compose { reference: &built.reference, memory, environment: &environment };
    entries.extend([Entry::file("README.md", render(&readme)?), Entry::file("compose.yaml", render(&compose)?)]);
    entries.extend(inputs.common());
    finish(entries, inputs.summary("docker", &built), advice(inputs.program, SERVER))
}

/// A deployment to Kubernetes; the image has the model as a layer.
///
/// # Errors
/// [`Code::ProgramUnusable`], [`Code::OptionInvalid`] for the name.
pub fn kubernetes(inputs: &Inputs<'_>) -> Result<Bundle> {
    let name = inputs.name;
    check_name(name)?;
    let model: Vec<Entry> = inputs.model().into_iter().map(|entry| entry.below(MODEL_FOLDER)).collect();
    let (built, mut entries) = image_files(name, SERVER, "serve", inputs.program, &model)?;
    let (environment, memory) = inputs.memory();
    let reference = &built.reference;
    entries.extend([
        Entry::file("README.md", render(&KubernetesReadme { name, facts: &inputs.facts() })?),
        Entry::file(
            "deployment.yaml",
            render(&Deployment { name, reference, memory, environment: &environment, cores: 4 })?,
        ),
        Entry::file("service.yaml", render(&Service { name })?),
        Entry::file("autoscaler.yaml", render(&Autoscaler { name })?),
        Entry::file("networkpolicy.yaml", render(&NetworkPolicy { name })?),
        Entry::file("kustomization.yaml", render(&Kustomization { repository: name, tag: &built.tag })?),
    ]);
    entries.extend(inputs.common());
    finish(entries, inputs.summary("kubernetes", &built), advice(inputs.program, SERVER))
}

/// The compiler as an image for training jobs.
///
/// # Errors
/// [`Code::ProgramUnusable`], [`Code::OptionInvalid`] for the name.
pub fn training(name: &str, program: &[u8], metrics: &[&str]) -> Result<Bundle> {
    check_name(name)?;
    let (built, mut entries) = image_files(name, COMPILER, "train", program, &[])?;
    let readme = TrainingReadme {
        name,
        tag: &built.tag,
        version: VERSION,
        image_size: size(built.size),
        image_compressed: size(built.compressed),
        metrics,
    };
    entries.push(Entry::file("README.md", render(&readme)?));
    let summary = json!({
        "format": 1,
        "target": "training",
        "name": name,
        "image": built.reference,
        "image_bytes": built.size,
        "image_compressed_bytes": built.compressed,
    });
    finish(entries, summary, advice(program, COMPILER))
}

/// The architecture that a deployment runs on, where its server's program can be used.
///
/// # Errors
/// [`Code::ProgramUnusable`].
pub fn check_server(bytes: &[u8]) -> Result<Architecture> {
    program::check(bytes, SERVER)
}

/// The name of the list of digests; a folder that has it was written by a bundle.
pub const DIGESTS: &str = "SHA256SUMS";

fn finish(mut entries: Vec<Entry>, summary: Value, warnings: impl IntoIterator<Item = String>) -> Result<Bundle> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let lines = entries
        .iter()
        .filter_map(|entry| Some(format!("{}  {}\n", image::digest(entry.content.as_ref()?), entry.path)));
    let digests: String = lines.collect();
    entries.push(Entry::file(DIGESTS, digests));
    Ok(Bundle { entries, summary, warnings: warnings.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_told_with_the_command_that_leaves_them_out() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(advice(&own, SERVER).is_some_and(|advice| advice.contains("strip=symbols")));
        assert_eq!(advice(b"no program", SERVER), None);
    }
}
