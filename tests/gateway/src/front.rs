//! The calls.

use crate::Settings;
use crate::queue::{self, Input, Job};
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rand::Rng;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Bytes of an inline asynchronous request.
const INLINE_BYTES: usize = 128_000;
/// Bytes of a real-time request.
const REAL_TIME_BYTES: usize = 25 << 20;
/// Time of a real-time request.
const REAL_TIME: Duration = Duration::from_secs(60);

pub(crate) struct Shared {
    container: String,
    output: String,
    failure: String,
    queue: Mutex<mpsc::Sender<Job>>,
}

impl Shared {
    pub(crate) fn new(settings: &Settings, queue: mpsc::Sender<Job>) -> Self {
        let Settings { container, output, failure, .. } = settings;
        let trimmed = |path: &String| path.trim_end_matches('/').to_owned();
        Shared {
            container: trimmed(container),
            output: trimmed(output),
            failure: trimmed(failure),
            queue: Mutex::new(queue),
        }
    }
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/endpoints/{name}/async-invocations", post(asynchronous))
        .route("/endpoints/{name}/invocations", post(real_time))
        .with_state(shared)
}

fn error(status: StatusCode, kind: &'static str, message: &str) -> Response {
    let body = json!({ "message": message }).to_string();
    (status, [("content-type", "application/json"), ("x-amzn-errortype", kind)], body).into_response()
}

fn invalid(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "ValidationError", message)
}

/// A header field of the API; `None` where it is absent.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(format!("x-amzn-sagemaker-{name}")).and_then(|value| value.to_str().ok())
}

/// Headers that the container gets.
fn passed(headers: &HeaderMap, prefix: &str) -> Vec<(String, String)> {
    let of = |name: String, to: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(|value| (to.to_owned(), value.to_owned()))
    };
    let media = ["content-type", "accept"].into_iter().filter_map(|name| of(format!("{prefix}{name}"), name));
    let custom = "x-amzn-sagemaker-custom-attributes";
    media.chain(of(custom.to_owned(), custom)).collect()
}

async fn asynchronous(State(shared): State<Arc<Shared>>, Path(_): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, INLINE_BYTES + 1).await else {
        return invalid("the body cannot be read, or is too long");
    };
    match accept(&shared, &head.headers, body) {
        Ok(response) => response,
        Err(message) => invalid(&message),
    }
}

fn accept(shared: &Shared, headers: &HeaderMap, body: Bytes) -> Result<Response, String> {
    let field = |name: &str, most: usize| match header(headers, name) {
        Some(value) if value.len() > most => Err(format!("{name} has more than {most} characters")),
        value => Ok(value),
    };
    let seconds = |name: &str, range: std::ops::RangeInclusive<u64>, default: u64| match header(headers, name) {
        None => Ok(Duration::from_secs(default)),
        Some(text) => match text.parse() {
            Ok(value) if range.contains(&value) => Ok(Duration::from_secs(value)),
            _ => Err(format!("{name} is not between {} and {}", range.start(), range.end())),
        },
    };
    let input = match (field("inputlocation", 1024)?, body.is_empty()) {
        (Some(location), true) => Input::Stored(location.to_owned()),
        (None, false) if body.len() <= INLINE_BYTES => Input::Inline(body.to_vec()),
        (None, false) => return Err(format!("the body has more than {INLINE_BYTES} bytes")),
        (Some(_), false) => return Err("InputLocation and Body exclude each other".to_owned()),
        (None, true) => return Err("InputLocation or Body is needed".to_owned()),
    };
    let id: String = format!("{:032x}", rand::rng().random::<u128>());
    let inference_id = field("inference-id", 64)?.unwrap_or(&id).to_owned();
    field("custom-attributes", 1024)?;
    let folder =
        field("s3outputpathextension", 512)?.map_or(String::new(), |path| format!("/{}", path.trim_matches('/')));
    let name = field("filename", 32)?.map_or_else(|| format!("{id}.out"), str::to_owned);
    let output = format!("{}{folder}/{name}", shared.output);
    let failure = format!("{}{folder}/{id}-error.out", shared.failure);
    let job = Job {
        input,
        output: output.clone(),
        failure: failure.clone(),
        headers: passed(headers, "x-amzn-sagemaker-"),
        expires: Instant::now() + seconds("requestttlseconds", 60..=21_600, 21_600)?,
        timeout: seconds("invocationtimeoutseconds", 1..=3600, 900)?,
    };
    let queued = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    queued.map_err(|_| "the instances have ended".to_owned())?;
    let body = json!({ "InferenceId": inference_id, "OutputLocation": output, "FailureLocation": failure }).to_string();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-amzn-sagemaker-outputlocation", output),
        ("x-amzn-sagemaker-failurelocation", failure),
        ("x-amzn-sagemaker-inferenceid", inference_id),
    ];
    Ok((StatusCode::ACCEPTED, headers, body).into_response())
}

async fn real_time(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REAL_TIME_BYTES).await else {
        return invalid("the body cannot be read, or is too long");
    };
    let url = format!("{}/invocations", shared.container);
    let headers = passed(&head.headers, "");
    let posted = tokio::task::spawn_blocking(move || queue::post(&url, &headers, &body, REAL_TIME)).await;
    match posted {
        Ok(Ok((media_type, result))) => {
            let headers =
                [("content-type", media_type), ("x-amzn-invoked-production-variant", "AllTraffic".to_owned())];
            (headers, result).into_response()
        }
        Ok(Err(failure)) => {
            let body = json!({
                "ErrorCode": "",
                "LogStreamArn": "",
                "Message": failure.quoted(&name),
                "OriginalMessage": failure.message,
                "OriginalStatusCode": failure.status,
            });
            let headers = [("content-type", "application/json"), ("x-amzn-errortype", "ModelError")];
            (StatusCode::FAILED_DEPENDENCY, headers, body.to_string()).into_response()
        }
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "the gateway failed"),
    }
}
