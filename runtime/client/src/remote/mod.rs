//! Sends encrypted queries to where they are evaluated, and brings the results back.
//!
//! A [`Service`] is a server: [`Container`] is one that listens on an address, [`AsyncEndpoint`] an asynchronous endpoint of
//! SageMaker that reads requests from a [`Store`] and writes results there; with the feature `aws`, `aws` has S3 as a store,
//! signatures, and real-time endpoints. [`Job`] splits a batch into requests, sends them, waits, and keeps what is finished in
//! a folder, so that an interrupted run goes on where it stopped. Everything blocks; nothing here holds a secret.

#[cfg(feature = "aws")]
pub mod aws;
mod container;
mod endpoint;
mod http;
mod job;
mod reply;
mod store;

pub use container::Container;
pub use endpoint::{AsyncEndpoint, AsyncSettings};
pub use http::{Call, Http, Patience, Reply, Sign, check_address};
pub use job::{Job, JobId, Progress, RunSettings, rows_per_request};
pub use store::{Folder, Store, Uploads};

use serde::{Deserialize, Serialize};
use tacit_ir::artifact::envelope::{KeyHeader, QueryHeader, Request};
use tacit_ir::artifact::{CircuitDigest, Kind, View};
use tacit_ir::diag::{Diagnostic, Result};

/// The media type of requests and results.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// Lower-case hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An evaluation key file as a request carries it.
#[derive(Debug)]
pub struct KeySection {
    header: [u8; KeyHeader::BYTES],
    /// Its name.
    pub sha256: [u8; 32],
    file: Vec<u8>,
}

impl KeySection {
    /// The section of an evaluation key file, which is checked to belong to the circuit.
    ///
    /// # Errors
    /// Those of [`View::read`], `OtherCircuit`.
    pub fn new(file: Vec<u8>, circuit: CircuitDigest) -> Result<Self> {
        View::read(&file, &[Kind::EvaluationKey], Kind::EvaluationKey.default_limit())?.check_circuit(&circuit)?;
        let header = KeyHeader::new(&file, circuit);
        let bytes = header.write();
        let bytes = bytes.try_into().map_err(|_| Diagnostic::internal("a key header of another length"))?;
        Ok(KeySection { header: bytes, sha256: header.sha256, file })
    }

    /// The section's bytes, in two parts.
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.header, &self.file]
    }

    /// Bytes of the section.
    pub fn bytes(&self) -> u64 {
        (self.header.len() + self.file.len()) as u64
    }
}

/// A query as a request carries it.
#[derive(Debug)]
pub struct QuerySection {
    header: Vec<u8>,
    /// The id of the request.
    pub request_id: [u8; 16],
    file: Vec<u8>,
}

impl QuerySection {
    /// The section of a query file of this circuit; `key` names the evaluation key to use.
    pub fn new(file: Vec<u8>, rows: u32, circuit: CircuitDigest, key: Option<[u8; 32]>, request_id: [u8; 16]) -> Self {
        let header = QueryHeader { rows, length: file.len() as u64, request_id, key, circuit };
        QuerySection { header: header.write(), request_id, file }
    }

    /// A section that was kept, with its rows, where it is whole and of this circuit and key.
    pub(crate) fn kept(bytes: &[u8], circuit: &CircuitDigest, key: Option<[u8; 32]>) -> Option<(Self, u32)> {
        let request = Request::read(bytes).ok().filter(|request| request.key.is_none())?;
        let header = request.header;
        View::read(request.query, &[Kind::Query], Kind::Query.default_limit()).ok()?.check_circuit(circuit).ok()?;
        let same = header.circuit == *circuit && header.key == key;
        let section =
            QuerySection { header: header.write(), request_id: header.request_id, file: request.query.to_vec() };
        same.then_some((section, header.rows))
    }

    /// The section's bytes, in two parts.
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.header, &self.file]
    }

    /// Bytes of the section.
    pub fn bytes(&self) -> u64 {
        (self.header.len() + self.file.len()) as u64
    }
}

/// A request under way at a service that answers later: names of objects, nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The request object, `None` where it went inline.
    pub request: Option<String>,
    /// Where the result will be.
    pub output: String,
    /// Where a failure will be.
    pub failure: Option<String>,
    /// The service's name of the request.
    pub inference_id: String,
    /// Seconds since 1970 after which nothing will come any more.
    pub expires: u64,
}

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// The result file.
    Done(Vec<u8>),
    /// It will come.
    Later(Ticket),
}

/// What is known of a request under way.
#[derive(Debug)]
pub enum State {
    /// Nothing yet.
    Waiting,
    /// The result file.
    Done(Vec<u8>),
    /// The server's error; whether another attempt may succeed.
    Failed(Box<Diagnostic>, bool),
}

/// Where queries are evaluated.
pub trait Service: Send + Sync {
    /// What it is, for messages and for the job file: an address or an endpoint.
    fn name(&self) -> String;

    /// Bytes that a request's query section may have.
    fn query_limit(&self) -> u64;

    /// Bytes of a query section above which its upload can go on after an interruption, so that the section is worth keeping.
    fn resumes_from(&self) -> u64 {
        u64::MAX
    }

    /// Does once what all requests need, such as uploading the evaluation key. Returns the bytes that travelled.
    ///
    /// # Errors
    /// `ServerUnreachable`, `AccessDenied`, `RequestFailed`, those of `uploads`.
    fn prepare(&self, _uploads: &dyn Uploads) -> Result<u64> {
        Ok(0)
    }

    /// Sends a request. Transient errors were tried again already.
    ///
    /// # Errors
    /// `ServerUnreachable`, `AccessDenied`, `RequestFailed`, `EvaluationKeyMissing`, those of `uploads`.
    fn send(&self, query: &QuerySection, uploads: &dyn Uploads) -> Result<Answer>;

    /// Gives up an upload of an object that nobody will go on with. What cannot be given up is left to the store's own rules.
    fn abandon(&self, _location: &str, _upload: &str) {}

    /// Asks for the result of a request under way.
    ///
    /// # Errors
    /// `ServerUnreachable`, `AccessDenied`.
    fn poll(&self, ticket: &Ticket) -> Result<State>;

    /// Removes what a request left behind. What cannot be removed is left to the store's own rules.
    fn clean(&self, ticket: &Ticket);

    /// What may be the matter when nothing came until the deadline.
    fn suspicion(&self) -> Option<String> {
        None
    }
}
