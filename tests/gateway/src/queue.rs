//! Instances: take requests from the queue, one at a time each.

use crate::Settings;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tacit_client::remote::Store;

/// Bytes of a reply's headers, all together.
const HEADER_BYTES: usize = 4096;
/// Bytes of a reply.
const REPLY_BYTES: u64 = 4 << 30;

/// Where a request is.
pub(crate) enum Input {
    Stored(String),
    Inline(Vec<u8>),
}

/// A request that waits.
pub(crate) struct Job {
    pub(crate) input: Input,
    pub(crate) output: String,
    pub(crate) failure: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) expires: Instant,
    pub(crate) timeout: Duration,
}

/// What a container answered in place of a result, or what happened to it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Failure {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }

    /// In SageMaker's words.
    pub(crate) fn quoted(&self, endpoint: &str) -> String {
        let side = if self.status < 500 { "client" } else { "server" };
        format!(
            "Received {side} error ({}) from primary with message \"{}\". See the log of the container behind {endpoint}.",
            self.status, self.message
        )
    }
}

/// Starts the instances; they end when the queue's sender is dropped.
pub(crate) fn start(settings: &Settings, jobs: mpsc::Receiver<Job>) {
    let jobs = Arc::new(Mutex::new(jobs));
    let store: Arc<dyn Store> = Arc::clone(&settings.store);
    let url = format!("{}/invocations", settings.container.trim_end_matches('/'));
    for _ in 0..settings.instances.max(1) {
        let (jobs, store, url) = (Arc::clone(&jobs), Arc::clone(&store), url.clone());
        std::thread::spawn(move || {
            loop {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = next else { return };
                finish(&*store, &job, run(&*store, &url, &job));
            }
        });
    }
}

fn run(store: &dyn Store, url: &str, job: &Job) -> Result<Vec<u8>, Failure> {
    if Instant::now() >= job.expires {
        return Err(Failure::new(408, "the request waited longer than its time to live"));
    }
    let stored;
    let body = match &job.input {
        Input::Inline(body) => body,
        Input::Stored(location) => {
            stored = store.get(location).map_err(|why| Failure::new(400, why.to_string()))?;
            stored.as_ref().ok_or_else(|| Failure::new(400, format!("there is no object at {location}")))?
        }
    };
    post(url, &job.headers, body, job.timeout).map(|(_, result)| result)
}

fn finish(store: &dyn Store, job: &Job, result: Result<Vec<u8>, Failure>) {
    let written = match &result {
        Ok(result) => store.put(&job.output, &[result]),
        Err(failure) => store.put(&job.failure, &[failure.quoted("the endpoint").as_bytes()]),
    };
    if let Err(why) = written {
        // A client waits for an object that will not come: say why where it is looked for.
        let _ = store.put(&job.failure, &[why.to_string().as_bytes()]);
    }
}

/// POSTs a request once; the reply's media type and body.
pub(crate) fn post(
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    timeout: Duration,
) -> Result<(String, Vec<u8>), Failure> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(timeout))
        // A pooled connection that has died would be an error of ours.
        .max_idle_connections(0)
        .proxy(None)
        .build()
        .new_agent();
    let mut request = agent.post(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let broken = |why: &dyn std::fmt::Display| Failure::new(500, format!("the container did not answer: {why}"));
    let (head, body) = request.send(body).map_err(|why| broken(&why))?.into_parts();
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if text("content-length").is_none() {
        let message = "The response from container primary did not specify the required Content-Length header";
        return Err(Failure::new(500, message));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES {
        return Err(Failure::new(500, format!("the response has {bytes} bytes of headers, more than {HEADER_BYTES}")));
    }
    let result = body.into_with_config().limit(REPLY_BYTES).read_to_vec().map_err(|why| broken(&why))?;
    if !head.status.is_success() {
        return Err(Failure::new(head.status.as_u16(), String::from_utf8_lossy(&result)));
    }
    Ok((text("content-type").unwrap_or_default(), result))
}
