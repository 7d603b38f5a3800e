//! Receives the body of a request: checks each header as soon as it is there, and keeps what is needed of the rest, once.

use crate::keys::{KeyName, Source};
use crate::settings::Settings;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tacit_ir::artifact::CircuitDigest;
use tacit_ir::artifact::envelope::{Head, KeyHeader, QueryHeader};
use tacit_ir::artifact::v1::{evaluation_key_bytes, query_row_bytes};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::plan::Layout;
use tacit_runtime::{ArrivedRow, ArrivingQuery, Circuit, EvaluationKey, Piece};
use tokio::time::Instant;

/// Bytes that a file may have beside its ciphertexts: its container's header, its layout.
const FILE_OVERHEAD: u64 = 64 << 10;
/// Bytes that are read and thrown away after a refusal, so that a client that sends first and listens later hears it.
const LINGER_BYTES: u64 = 64 << 20;
/// Pause after each part of them, of some tens to hundreds of KB: a client that asks again at once, and again is refused, would
/// take the cores from what is evaluated.
const LINGER_PAUSE: Duration = Duration::from_millis(2);
/// Time for all of them.
const LINGER_TIME: Duration = Duration::from_secs(10);

/// What a request must fit.
#[derive(Debug)]
pub(crate) struct Rules {
    digest: CircuitDigest,
    /// Bytes of the bodies of an evaluation key; 0 where the circuit needs none.
    key_bytes: u64,
    row_bytes: u64,
    max_body: u64,
    max_rows: u32,
    idle: Duration,
    whole: Duration,
}

/// A request as far as it is needed to answer it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) header: QueryHeader,
    pub(crate) query: Vec<ArrivedRow>,
    pub(crate) key: Key,
    /// Bytes of the body.
    pub(crate) bytes: u64,
    /// Held as long as the bytes are.
    pub(crate) share: Share,
}

/// The evaluation key of a request.
#[derive(Debug)]
pub(crate) enum Key {
    /// The circuit needs none.
    None,
    /// Held for this request even if others push it out.
    Held(Arc<EvaluationKey>, Source),
    /// Came along and was not at hand; not checked.
    Sent(KeyHeader, Vec<u8>),
}

/// Bytes of all bodies in memory, and their limit.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicU64,
    limit: u64,
}

/// Part of a budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Budget { used: AtomicU64::new(0), limit })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Share { budget: Arc::clone(budget), bytes: 0 }
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.budget.limit {
            return Err(crate::busy("the server holds as many bytes of requests as it may"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Rules {
    pub(crate) fn new(settings: &Settings, layout: &Layout, digest: CircuitDigest, needs_key: bool) -> Self {
        Rules {
            digest,
            key_bytes: if needs_key { evaluation_key_bytes(layout) } else { 0 },
            row_bytes: query_row_bytes(layout),
            max_body: settings.max_body_bytes,
            max_rows: settings.max_rows,
            idle: settings.idle_timeout,
            whole: settings.body_timeout,
        }
    }

    /// Checks the length that the HTTP header declares.
    pub(crate) fn check_length(&self, declared: Option<u64>) -> Result<()> {
        match declared {
            Some(length) if length > self.max_body => Err(self.too_large(length)),
            _ => Ok(()),
        }
    }

    fn too_large(&self, length: u64) -> Diagnostic {
        let message = format!("the request has {length} bytes, the limit is {}", self.max_body);
        Diagnostic::new(Code::FileTooLarge, message).help("send fewer rows in a request")
    }

    fn check_circuit(&self, head: &Head) -> Result<()> {
        if *head.circuit() == self.digest {
            return Ok(());
        }
        let (own, other) = (hex(&self.digest[..4]), hex(&head.circuit()[..4]));
        Err(Diagnostic::new(Code::OtherCircuit, format!("the request is for circuit {other}, this server runs {own}"))
            .help("encrypt with the client artifact of the circuit that is deployed"))
    }

    fn check_key(&self, header: &KeyHeader) -> Result<()> {
        if self.key_bytes == 0 {
            return Err(Diagnostic::new(
                Code::EnvelopeInvalid,
                "the circuit needs no evaluation key, the request has one",
            )
            .help("send the query section alone"));
        }
        self.check_file("evaluation key", header.length, self.key_bytes)
    }

    fn check_query(&self, header: &QueryHeader) -> Result<()> {
        if header.rows == 0 || header.rows > self.max_rows {
            let message = format!("the query has {} rows; between 1 and {} are possible", header.rows, self.max_rows);
            return Err(Diagnostic::new(Code::NotConformant, message).help("send fewer rows in a request"));
        }
        match (self.key_bytes, header.key) {
            (0, Some(_)) => {
                Err(Diagnostic::new(Code::EnvelopeInvalid, "the circuit needs no evaluation key, the query names one"))
            }
            (1.., None) => Err(Diagnostic::new(Code::EvaluationKeyMissing, "the query names no evaluation key")
                .help("name the key that `tacit keygen` wrote beside the client key")),
            _ => self.check_file("query", header.length, u64::from(header.rows) * self.row_bytes),
        }
    }

    fn check_file(&self, what: &str, length: u64, ciphertexts: u64) -> Result<()> {
        if (ciphertexts..=ciphertexts + FILE_OVERHEAD).contains(&length) {
            return Ok(());
        }
        let message = format!("the {what} has {length} bytes, its ciphertexts take {ciphertexts}");
        Err(Diagnostic::new(Code::NotConformant, message)
            .help("make keys and queries with the client artifact of the circuit that is deployed"))
    }
}

/// A refusal, and the request it is of where that is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: Diagnostic,
    pub(crate) request_id: Option<[u8; 16]>,
}

impl From<Diagnostic> for Refusal {
    fn from(why: Diagnostic) -> Self {
        Refusal { why, request_id: None }
    }
}

/// Receives a body. `find` gives a key that is at hand: then its bytes, if they come along, are passed over, for the key of that
/// name is known. `accept` is asked once the query's header was read, before its ciphertexts are; `ready` gets pieces of the
/// query that may be prepared already.
pub(crate) async fn receive(
    body: &mut Incoming,
    (rules, circuit): (&Rules, &Arc<Circuit>),
    budget: &Arc<Budget>,
    find: impl Fn(&KeyName) -> Option<(Arc<EvaluationKey>, Source)>,
    accept: impl Fn(&QueryHeader) -> Result<()>,
    mut ready: impl FnMut(Arc<Piece>),
) -> std::result::Result<Received, Refusal> {
    let mut share = Share::new(budget);
    let mut head = body.head().await?;
    rules.check_circuit(&head)?;
    let mut key = Key::None;
    let mut sent = None;
    if let Head::Key(header) = head {
        rules.check_key(&header)?;
        body.expect((KeyHeader::BYTES + QueryHeader::BYTES) as u64, header.length, rules, false)?;
        body.consume(KeyHeader::BYTES);
        key = match find(&header.sha256) {
            Some((held, source)) => {
                body.pass_over(header.length).await?;
                Key::Held(held, source)
            }
            None => Key::Sent(header, body.take(header.length, &mut share).await?),
        };
        sent = Some(header);
        head = body.head().await?;
    }
    let Head::Query(header) = head else {
        return Err(Diagnostic::new(Code::EnvelopeInvalid, "the request has two key sections").into());
    };
    let refuse = |why| Refusal { why, request_id: Some(header.request_id) };
    let mut checked = || {
        rules.check_circuit(&head)?;
        if let Some(sent) = &sent {
            header.check_key(sent)?;
        }
        rules.check_query(&header)?;
        if let (Some(name), None) = (&header.key, &sent) {
            let (held, source) = find(name).ok_or_else(|| key_not_found(name))?;
            key = Key::Held(held, source);
        }
        accept(&header)
    };
    checked().map_err(refuse)?;
    body.expect(body.received() + QueryHeader::BYTES as u64, header.length, rules, true).map_err(refuse)?;
    body.consume(QueryHeader::BYTES);
    let mut query = ArrivingQuery::new(Arc::clone(circuit), header.rows, header.length).map_err(refuse)?;
    let arrive = |part: &[u8]| {
        share.grow(part.len() as u64)?;
        query.push(part, &mut ready)
    };
    body.each(header.length, arrive).await.map_err(refuse)?;
    body.end().await.map_err(refuse)?;
    let query = query.finish().map_err(refuse)?;
    Ok(Received { header, query, key, bytes: body.received(), share })
}

fn key_not_found(name: &KeyName) -> Diagnostic {
    let name = hex(&name[..8]);
    Diagnostic::new(Code::KeyNotFound, format!("the server does not have evaluation key {name}.."))
        .help("send the request again with the key section before the query section")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body that arrives, with deadlines.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: Body,
    /// What arrived and was not used yet.
    chunk: Bytes,
    /// Gathered when a header is spread over chunks.
    used: u64,
    declared: Option<u64>,
    ended: bool,
    deadline: Instant,
    idle: Duration,
}

impl Incoming {
    pub(crate) fn new(body: Body, declared: Option<u64>, rules: &Rules) -> Self {
        let deadline = Instant::now() + rules.whole;
        Incoming { body, chunk: Bytes::new(), used: 0, declared, ended: false, deadline, idle: rules.idle }
    }

    /// Bytes used so far.
    fn received(&self) -> u64 {
        self.used
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let until = self.deadline.min(Instant::now() + self.idle);
        loop {
            match tokio::time::timeout_at(until, self.body.frame()).await {
                Err(_) => {
                    return Err(Diagnostic::new(Code::RequestTimeout, "the request's body arrived too slowly")
                        .help("send it again over a better connection, or in smaller requests"));
                }
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(Err(_))) => {
                    self.ended = true;
                    return Err(cut());
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Empty chunks and trailers.
                    _ => {}
                },
            }
        }
    }

    /// The header that comes next, which stays unused. What is no header is refused as soon as that is certain.
    async fn head(&mut self) -> Result<Head> {
        loop {
            let head = Head::read(&self.chunk);
            let cut = match &head {
                Err(why) => self.chunk.is_empty() || why.code == Code::FileCorrupted,
                Ok(_) => false,
            };
            if !cut || self.ended {
                return head;
            }
            if let Some(more) = self.next().await? {
                self.chunk = if self.chunk.is_empty() { more } else { [&self.chunk[..], &more].concat().into() };
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.chunk.len());
        let _ = self.chunk.split_to(bytes);
        self.used += bytes as u64;
    }

    /// Checks that `before` bytes and a file of this length are within the limit and within what HTTP declared; `all` of it
    /// when nothing follows.
    fn expect(&self, before: u64, length: u64, rules: &Rules, all: bool) -> Result<()> {
        let total = before.saturating_add(length);
        if total > rules.max_body {
            return Err(rules.too_large(total));
        }
        match self.declared {
            Some(declared) if declared < total => {
                let message = format!("the request has {declared} bytes, its headers say at least {total}");
                Err(Diagnostic::new(Code::FileCorrupted, message).help("send the whole request"))
            }
            Some(declared) if all && declared > total => {
                let message = format!("the request has {} bytes after its query", declared - total);
                Err(Diagnostic::new(Code::EnvelopeInvalid, message).help("send a request that `tacit invoke` made"))
            }
            _ => Ok(()),
        }
    }

    /// The next `length` bytes, each copied once.
    async fn take(&mut self, length: u64, share: &mut Share) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let room = usize::try_from(length).is_ok_and(|length| out.try_reserve_exact(length).is_ok());
        if !room {
            return Err(crate::busy("the server has no memory for the request"));
        }
        self.each(length, |part| {
            share.grow(part.len() as u64)?;
            out.extend_from_slice(part);
            Ok(())
        })
        .await?;
        Ok(out)
    }

    async fn pass_over(&mut self, length: u64) -> Result<()> {
        self.each(length, |_| Ok(())).await
    }

    async fn each(&mut self, length: u64, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.chunk.is_empty() {
                self.chunk = self.next().await?.ok_or_else(cut)?;
            }
            let part = self.chunk.split_to(self.chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            visit(&part)?;
            left -= part.len() as u64;
            self.used += part.len() as u64;
        }
        Ok(())
    }

    /// Checks that nothing follows.
    async fn end(&mut self) -> Result<()> {
        if self.chunk.is_empty() && self.next().await?.is_none() {
            return Ok(());
        }
        Err(Diagnostic::new(Code::EnvelopeInvalid, "the request has bytes after its query")
            .help("send a request that `tacit invoke` made"))
    }

    /// Reads on for a while after a refusal; closing at once would reset the connection, and the client might never see why.
    pub(crate) async fn linger(mut self) {
        self.deadline = Instant::now() + LINGER_TIME;
        let mut left = LINGER_BYTES;
        while !self.ended && left > 0 {
            match self.next().await {
                Ok(Some(part)) => left = left.saturating_sub(part.len() as u64),
                Ok(None) | Err(_) => return,
            }
            tokio::time::sleep(LINGER_PAUSE).await;
        }
    }
}

fn cut() -> Diagnostic {
    Diagnostic::new(Code::FileCorrupted, "the request's body was cut").help("send the whole request")
}
