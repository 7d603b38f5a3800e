//! A compiled model with a client's keys, and servers that run it.

use crate::{Example, examples, http, networks};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, encrypt};
use tacit_compiler::options::{Options, RegimeRule};
use tacit_ir::artifact::envelope::{KeyHeader, QueryHeader};
use tacit_ir::artifact::v1::BatchHeader;
use tacit_ir::artifact::{Artifact, Container, Kind, SectionId, encode};
use tacit_ir::interp::tensor::TensorValue;
use tacit_runtime::{Circuit, EvaluationKey, run};
use tacit_server::{Running, Server, Settings};

/// A compiled model and a client of it.
#[derive(Debug)]
pub struct Deployment {
    /// The example.
    pub example: Example,
    /// The whole artifact.
    pub artifact: Artifact,
    /// The circuit, to compare with.
    pub circuit: Circuit,
    /// The client's key.
    pub key: ClientKey,
    /// What `tacit keygen` writes for the server.
    pub evaluation_key: Option<Vec<u8>>,
    folder: tempfile::TempDir,
}

impl Deployment {
    /// Compiles an example and writes `server.tacit` and, where there is one, `evaluation.key`.
    ///
    /// # Panics
    /// When the example does not compile.
    pub fn new(name: &str, options: &Options) -> Self {
        let mut all = examples().into_iter().chain(networks());
        let example = all.find(|example| example.name == name).expect("an example of that name");
        let artifact = example.compile(options).expect("the example compiles").artifact;
        let server = artifact.server_part().expect("a compiled circuit");
        let key = ClientKey::generate(&artifact.client.layout, artifact.digest).expect("a key");
        let evaluation_key = key.evaluation_key().expect("an evaluation key");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("server.tacit"), server.to_bytes().expect("bytes")).expect("a file");
        if let Some(bytes) = &evaluation_key {
            std::fs::create_dir(folder.path().join("keys")).expect("a folder");
            std::fs::write(folder.path().join("keys/evaluation.key"), bytes).expect("a file");
        }
        let circuit = Circuit::new(server.layout, server.plan, server.digest).expect("a checked plan");
        Deployment { example, artifact, circuit, key, evaluation_key, folder }
    }

    /// The small tree of the iris data; no evaluation key.
    pub fn tree() -> Self {
        Self::new("iris_decision_tree", &Options::default())
    }

    /// A residual network whose every layer bootstraps, so that queries are small. With bits given nothing is searched.
    pub fn network() -> Self {
        let options = Options {
            input_bits: Some(4),
            weight_bits: Some(4),
            noise_share: Some(0.2),
            regime: Some(RegimeRule::Bootstrap),
            max_accuracy_loss: 1.0,
            ..Options::default()
        };
        Self::new("breast_cancer_residual_mlp", &options)
    }

    /// Test rows as inputs.
    ///
    /// # Panics
    /// When the example has no such rows.
    pub fn inputs(&self, rows: std::ops::Range<usize>) -> BTreeMap<String, TensorValue> {
        let codec = Codec::new(&self.artifact).expect("a fresh artifact");
        let all = self.example.inputs(&codec).expect("test rows");
        let some = |(name, value): (String, TensorValue)| {
            let columns = value.columns();
            let data = value.data.pick(rows.start * columns..rows.end * columns);
            (name, TensorValue { shape: vec![rows.len(), columns], data })
        };
        all.into_iter().map(some).collect()
    }

    /// An encrypted query of test rows.
    ///
    /// # Panics
    /// When the rows cannot be encrypted.
    pub fn query(&self, rows: std::ops::Range<usize>) -> Vec<u8> {
        let codec = Codec::new(&self.artifact).expect("a fresh artifact");
        let batch = codec.encode(&self.inputs(rows)).expect("rows of the model");
        encrypt(&self.key, &batch.rows).expect("encryption")
    }

    /// A query of one encrypted row, repeated: long work for a server, quickly made.
    ///
    /// # Panics
    /// When the row cannot be encrypted.
    pub fn repeated(&self, rows: u32) -> Vec<u8> {
        let one = self.query(0..1);
        let mut file = Container::read(&one, &[Kind::Query], u64::MAX).expect("a query");
        let header = BatchHeader { rows, layout: self.circuit.layout().clone() };
        for (id, section) in &mut file.sections {
            *section = match *id {
                SectionId::HEADER => encode(&header).expect("a header"),
                _ => section.repeat(rows as usize),
            };
        }
        file.write()
    }

    /// The query's section's header for a query file of these rows.
    pub fn header(&self, query: &[u8], rows: u32, id: u8) -> QueryHeader {
        QueryHeader {
            rows,
            length: query.len() as u64,
            request_id: [id; 16],
            key: self.evaluation_key.as_ref().map(|file| KeyHeader::new(file, self.artifact.digest).sha256),
            circuit: self.artifact.digest,
        }
    }

    /// A body: the query section.
    pub fn body(&self, query: &[u8], rows: u32, id: u8) -> Vec<u8> {
        [&self.header(query, rows, id).write()[..], query].concat()
    }

    /// The key section.
    ///
    /// # Panics
    /// For circuits without one.
    pub fn key_section(&self) -> Vec<u8> {
        let file = self.evaluation_key.as_ref().expect("a circuit that bootstraps");
        [&KeyHeader::new(file, self.artifact.digest).write()[..], file].concat()
    }

    /// What `tacit run` writes for the query.
    ///
    /// # Panics
    /// When the query does not fit.
    pub fn expected(&self, query: &[u8]) -> Vec<u8> {
        run(&self.circuit, query, self.server_key().as_ref()).expect("a query of this circuit")
    }

    /// The expanded evaluation key.
    ///
    /// # Panics
    /// Never: the key was made for the circuit.
    pub fn server_key(&self) -> Option<EvaluationKey> {
        let (layout, digest) = (self.circuit.layout(), self.circuit.digest());
        let read = |file| EvaluationKey::from_bytes(file, layout, digest).expect("the client's key");
        self.evaluation_key.as_deref().map(read)
    }

    /// The folder with `server.tacit`.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Where the evaluation key lies.
    pub fn key_path(&self) -> PathBuf {
        self.folder.path().join("keys/evaluation.key")
    }

    /// Settings for a server on a free port of this machine.
    pub fn settings(&self) -> Settings {
        Settings {
            address: ([127, 0, 0, 1], 0).into(),
            artifact: self.folder(),
            data: self.folder().join("none"),
            ..Settings::default()
        }
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn serve(settings: Settings) -> Running {
        let server = Server::bind(settings).and_then(Server::start).expect("a server that listens");
        let start = Instant::now();
        loop {
            let reply = http::get(server.address(), "/ping");
            if reply.is_ok_and(|reply| reply.status == 200) {
                return server;
            }
            assert!(!server.has_ended() && start.elapsed() < Duration::from_secs(120), "the server does not get ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
