//! What the fuzz targets share: one circuit, its key and its files, and damage behind right checksums.
//!
//! Containers guard their contents with checksums that no fuzzer guesses. An input of the container targets is therefore
//! read twice: as a file, and as `[number, content..]`, which puts the content in the place of that section of a sound
//! file and makes the checksums anew.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, encrypt};
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::artifact::{Artifact, Container, Kind, digest};
use tacit_ir::interp::tensor::TensorValue;
use tacit_runtime::Circuit;

/// The sound files, as `make-seeds` wrote them.
pub const ARTIFACT: &[u8] = include_bytes!("../seeds/artifact/file");
/// The client's part of it.
pub const CLIENT_ARTIFACT: &[u8] = include_bytes!("../seeds/client_artifact/file");
/// A key for it, which has never encrypted anything but the seeds.
pub const KEY: &[u8] = include_bytes!("../seeds/key/file");
/// One encrypted row.
pub const QUERY: &[u8] = include_bytes!("../seeds/query/file");
/// Its result.
pub const RESULT: &[u8] = include_bytes!("../seeds/result/file");

/// The circuit of the sound files, ready to run, and their key.
#[derive(Debug)]
pub struct Sound {
    /// The circuit.
    pub circuit: Circuit,
    /// The key.
    pub key: ClientKey,
}

/// The circuit and the key that queries and results are read with.
///
/// # Panics
/// When the seeds are of another format: `cargo run --bin make-seeds` makes new ones.
pub static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    let artifact = Artifact::from_bytes(ARTIFACT, Kind::Artifact.default_limit()).expect("the seeds are sound");
    let plan = artifact.plan.expect("the seed has a plan");
    Sound {
        circuit: Circuit::new(artifact.client.layout, plan, artifact.digest).expect("the seeds are sound"),
        key: ClientKey::from_bytes(KEY, None).expect("the seeds are sound"),
    }
});

/// A network's circuit and its files, made anew for each run: evaluation keys are too large for a repository.
#[derive(Debug)]
pub struct Network {
    /// The circuit.
    pub circuit: Arc<Circuit>,
    /// Its evaluation key.
    pub evaluation_key: Vec<u8>,
    /// One encrypted row.
    pub query: Vec<u8>,
}

/// A residual network of thirty inputs.
///
/// # Panics
/// When it does not compile any more.
pub static NETWORK: LazyLock<Network> = LazyLock::new(|| {
    let model = include_bytes!("../../examples/breast_cancer_residual_mlp/model.onnx");
    let model = onnx::import(model, &onnx::ImportLimits::default()).expect("the example imports");
    // With bits given nothing is searched, and values near those of the data are calibration enough.
    let options =
        Options { input_bits: Some(4), weight_bits: Some(4), noise_share: Some(0.2), ..Options::default() };
    let rows = |count: usize| TensorValue::f32(vec![count, 30], (0..count * 30).map(|i| (i % 37) as f32 / 4.0).collect());
    let inputs = |count: usize| BTreeMap::from([("x".to_owned(), rows(count))]);
    let compiled = compile(model, &options, &inputs(64), &DriverOptions::default()).expect("the example compiles");
    let artifact = compiled.artifact;
    let batch = Codec::new(&artifact).and_then(|codec| codec.encode(&inputs(1))).expect("a row");
    let layout = artifact.client.layout.clone();
    let key = ClientKey::generate(&layout, artifact.digest).expect("a key");
    let plan = artifact.plan.expect("a plan");
    Network {
        query: encrypt(&key, &batch.rows).expect("encryption"),
        evaluation_key: key.evaluation_key().ok().flatten().expect("networks need one"),
        circuit: Arc::new(Circuit::new(layout, plan, artifact.digest).expect("a checked plan")),
    }
});

/// `sound` with one section replaced, as `data` says, and right checksums; `None` for data that names no section.
pub fn with_section(sound: &[u8], kind: Kind, data: &[u8]) -> Option<Vec<u8>> {
    let (&number, content) = data.split_first()?;
    let mut file = Container::read(sound, &[kind], kind.default_limit()).ok()?;
    file.sections.get_mut(usize::from(number))?.1 = content.to_vec();
    if kind == Kind::Artifact {
        file.digest = digest(&[&file.sections[0].1, &file.sections[1].1]);
    }
    Some(file.write())
}

/// Runs `read` on the data as a file, and on the sound file with one section replaced by the data.
pub fn both_ways(sound: &[u8], kind: Kind, data: &[u8], mut read: impl FnMut(&[u8])) {
    read(data);
    if let Some(file) = with_section(sound, kind, data) {
        read(&file);
    }
}
