//! The routes of SageMaker's container contract, and what their replies look like. Every reply declares its length, for
//! asynchronous endpoints refuse others: no body is a stream.

use crate::body::{Budget, Incoming, Refusal, Rules, hex, receive};
use crate::engine::{Engine, Reply};
use crate::metrics::Metrics;
use crate::replays::Replays;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, RETRY_AFTER};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tacit_ir::diag::{Code, Result};
use tokio::sync::watch;

/// The request id of the query section, in hexadecimal digits.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-tacit-request-id");
/// SageMaker hands this header on to the client, 1024 visible characters at most.
const CUSTOM_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");
/// Seconds after which to ask again while the circuit is loaded.
const LOADING_SECONDS: u64 = 2;
/// Batch transform takes no larger payloads.
const MAX_PAYLOAD_MB: u64 = 100;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: OnceLock<Serving>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) max_body_bytes: u64,
    /// Set when the server is about to end: pings fail, so that nothing new is sent.
    pub(crate) draining: AtomicBool,
    /// Becomes true when the time for what runs is over.
    pub(crate) over: watch::Receiver<bool>,
}

/// What is there once the circuit passed its self-test.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) engine: Engine,
    pub(crate) rules: Rules,
    pub(crate) replays: Option<Replays>,
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ping", get(ping))
        .route("/invocations", post(invocations))
        .route("/execution-parameters", get(execution_parameters))
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(shared)
}

async fn ping(State(shared): State<Arc<Shared>>) -> Response {
    match shared.serving() {
        Ok(_) => StatusCode::OK.into_response(),
        Err(why) => error(&why.into(), LOADING_SECONDS),
    }
}

async fn execution_parameters(State(shared): State<Arc<Shared>>) -> Response {
    let megabytes = (shared.max_body_bytes >> 20).clamp(1, MAX_PAYLOAD_MB);
    let parameters = serde_json::json!({
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": megabytes,
    });
    json(StatusCode::OK, &parameters)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let Shared { engine, metrics, budget, .. } = &*shared;
    metrics.buffered.set(budget.used() as i64);
    metrics.ready.set(i64::from(shared.serving().is_ok()));
    if let Some(Serving { engine, .. }) = engine.get() {
        let (keys, bytes) = engine.keys().sizes();
        metrics.waiting.set(engine.waiting() as i64);
        metrics.keys.set(keys as i64);
        metrics.key_bytes.set(bytes as i64);
    }
    match metrics.text() {
        Ok((text, media_type)) => ([(CONTENT_TYPE, media_type)], text).into_response(),
        Err(why) => error(&why.into(), LOADING_SECONDS),
    }
}

async fn no_such_path(uri: Uri) -> Response {
    let paths = "POST /invocations, GET /ping, GET /execution-parameters, GET /metrics";
    let message = format!("there is nothing at {}", uri.path().chars().take(80).collect::<String>());
    let body = serde_json::json!({ "code": Code::EnvelopeInvalid.as_str(), "message": message, "help": paths });
    json(StatusCode::NOT_FOUND, &body)
}

async fn no_such_method() -> Response {
    let body = serde_json::json!({
        "code": Code::EnvelopeInvalid.as_str(),
        "message": "this path has no such method",
        "help": "POST to /invocations, GET the others",
    });
    json(StatusCode::METHOD_NOT_ALLOWED, &body)
}

/// What is known of a request when it was answered, for logs.
#[derive(Debug, Default)]
struct Seen {
    request_id: Option<[u8; 16]>,
    rows: u32,
    bytes: u64,
}

async fn invocations(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let start = Instant::now();
    let mut seen = Seen::default();
    let answer = answer(&shared, request, &mut seen).await;
    let seconds = start.elapsed().as_secs_f64();
    let request_id = seen.request_id.map(|id| hex(&id)).unwrap_or_default();
    let Seen { rows, bytes, .. } = seen;
    let total_ms = seconds * 1e3;
    let mut response = match answer {
        Ok((Reply { result, key, queued, run }, predicted_ms)) => {
            let (run_ms, queue_ms) = (run.as_secs_f64() * 1e3, queued.as_secs_f64() * 1e3);
            tracing::info!(
                request_id,
                status = 200,
                rows,
                bytes,
                result_bytes = result.len(),
                key = key.map(|key| key.name()),
                queue_ms,
                run_ms,
                predicted_ms,
                total_ms,
                "answered"
            );
            let attributes = format!("request={request_id};predicted-ms={predicted_ms:.1};actual-ms={run_ms:.1}");
            let mut response = ([(CONTENT_TYPE, "application/octet-stream")], result).into_response();
            set(&mut response, CUSTOM_ATTRIBUTES, &attributes);
            response
        }
        Err(refusal) => {
            let retry_after = shared.engine.get().map_or(LOADING_SECONDS, |serving| serving.engine.retry_after());
            let response = error(&refusal, retry_after);
            let (status, code) = (response.status().as_u16(), refusal.why.code.as_str());
            let message = &refusal.why.message;
            if status >= 500 && status != 503 {
                tracing::error!(request_id, status, code, message, rows, bytes, total_ms, "failed");
            } else {
                tracing::info!(request_id, status, code, message, rows, bytes, total_ms, "refused");
            }
            response
        }
    };
    if !request_id.is_empty() {
        set(&mut response, REQUEST_ID, &request_id);
    }
    shared.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    shared.metrics.request_seconds.observe(seconds);
    response
}

/// The reply and its predicted milliseconds, or why there is none.
async fn answer(shared: &Shared, request: Request, seen: &mut Seen) -> std::result::Result<(Reply, f64), Refusal> {
    let (parts, body) = request.into_parts();
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Serving { engine, rules, replays } = shared.serving()?;
    let mut incoming = Incoming::new(body, declared, rules);
    let mut ahead = None;
    let early = rules.check_length(declared).and_then(|()| engine.check_room()).map_err(Refusal::from);
    let received = match early {
        Err(refusal) => Err(refusal),
        Ok(()) => {
            let find = |name: &_| engine.keys().find(name);
            let accept = |header: &_| replays.as_ref().map_or(Ok(()), |replays| replays.check(header));
            let ready = |piece| engine.prepare_ahead(&piece, &mut ahead);
            receive(&mut incoming, (rules, engine.circuit()), &shared.budget, find, accept, ready).await
        }
    };
    let received = match received {
        Ok(received) => received,
        Err(refusal) => {
            seen.request_id = refusal.request_id;
            // A client that asked first has sent nothing yet.
            if !parts.headers.contains_key(EXPECT) {
                tokio::spawn(incoming.linger());
            }
            return Err(refusal);
        }
    };
    let header = received.header;
    *seen = Seen { request_id: Some(header.request_id), rows: header.rows, bytes: received.bytes };
    let refuse = |why| Refusal { why, request_id: Some(header.request_id) };
    let claim = replays.as_ref().map(|replays| replays.claim(&header)).transpose().map_err(refuse)?;
    let predicted_ms = engine.predicted_ms(header.rows);
    let mut over = shared.over.clone();
    let evaluated = tokio::select! {
        evaluated = engine.evaluate(received, ahead) => evaluated,
        _ = over.wait_for(|over| *over) => Err(crate::busy("the server ends before the request is evaluated")),
    };
    let reply = evaluated.map_err(refuse)?;
    if let Some(claim) = claim {
        claim.keep();
    }
    Ok((reply, predicted_ms))
}

impl Shared {
    /// What serves, once it does and as long as it does.
    fn serving(&self) -> Result<&Serving> {
        let serving = self.engine.get().ok_or_else(|| crate::busy("the circuit is being loaded and tested"))?;
        if self.draining.load(Ordering::Relaxed) {
            return Err(crate::busy("the server is about to end"));
        }
        Ok(serving)
    }
}

/// The status of an error: 4xx when the request is to blame, 503 when asking again helps, 500 for our bugs.
fn status(code: Code) -> StatusCode {
    match code {
        Code::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::OtherCircuit | Code::NotConformant | Code::EvaluationKeyMissing => StatusCode::UNPROCESSABLE_ENTITY,
        Code::KeyNotFound | Code::RequestReplayed => StatusCode::CONFLICT,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::ServerBusy => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn error(refusal: &Refusal, retry_after: u64) -> Response {
    let why = &refusal.why;
    let status = status(why.code);
    // What is wrong with us is in the log alone.
    let message =
        if why.code == Code::Internal { "an internal error; the server's log says more" } else { &why.message };
    let body = serde_json::json!({ "code": why.code.as_str(), "message": message, "help": why.help });
    let mut response = json(status, &body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, retry_after.into());
    }
    // The rest of the body may still be on its way.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
