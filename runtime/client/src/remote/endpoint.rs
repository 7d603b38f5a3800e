//! An asynchronous endpoint of SageMaker: requests and results are objects, the endpoint is told their names.

use super::reply::{Refusal, shortened};
use super::{
    Answer, CONTENT_TYPE, Call, Http, KeySection, QuerySection, Reply, Service, Sign, State, Store, Ticket, Uploads,
    hex,
};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::Method;

/// Bytes that InvokeEndpointAsync takes inline.
const INLINE_BYTES: u64 = 128_000;
/// Bytes that a request object may have.
const OBJECT_BYTES: u64 = 1 << 30;
/// Statuses of AWS that another attempt may change.
pub(crate) const TRANSIENT: &[u16] = &[429, 500, 502, 503, 504];
/// Ends of SageMaker's clocks are not ours: seconds to wait longer.
const GRACE: u64 = 60;

/// Which endpoint, and where its requests lie.
#[derive(Clone, Debug)]
pub struct AsyncSettings {
    /// Address of SageMaker's runtime, such as `https://runtime.sagemaker.eu-west-1.amazonaws.com`.
    pub url: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// The bucket of keys and requests.
    pub bucket: String,
    /// What the names of this client's objects begin with: empty, or a path that ends in `/`.
    pub prefix: String,
    /// The client's name: a folder of its own in the bucket.
    pub client: String,
    /// Time a request may wait for its turn, 60 to 21600 seconds.
    pub ttl: Duration,
    /// Time a request may run, 1 to 3600 seconds.
    pub timeout: Duration,
    /// Requests of at most 128,000 bytes go with the call in place of an object.
    pub inline: bool,
}

/// An asynchronous endpoint.
#[derive(Debug)]
pub struct AsyncEndpoint {
    http: Http,
    sign: Option<Box<dyn Sign>>,
    store: Box<dyn Store>,
    settings: AsyncSettings,
    key: Option<Arc<KeySection>>,
}

/// What SageMaker answers to InvokeEndpointAsync.
#[derive(Default, Deserialize)]
struct Accepted {
    #[serde(rename = "InferenceId", default)]
    inference_id: String,
}

/// What AWS answers when it refuses.
#[derive(Default, Deserialize)]
struct AwsError {
    #[serde(alias = "Message", default)]
    message: String,
    #[serde(alias = "__type", default)]
    code: String,
}

impl AsyncEndpoint {
    /// An endpoint; `sign` is for the calls to it, `None` for a stand-in that takes them unsigned.
    pub fn new(
        http: Http,
        sign: Option<Box<dyn Sign>>,
        store: Box<dyn Store>,
        settings: AsyncSettings,
        key: Option<Arc<KeySection>>,
    ) -> Self {
        AsyncEndpoint { http, sign, store, settings, key }
    }

    fn location(&self, folder: &str, name: &str) -> String {
        let AsyncSettings { bucket, prefix, client, .. } = &self.settings;
        format!("s3://{bucket}/{prefix}{folder}/{client}/{name}")
    }

    /// The key where requests are composed with it: small ones go along with every query.
    fn stored_key(&self) -> Option<(&KeySection, String)> {
        let key = self.key.as_deref().filter(|key| key.bytes() >= self.store.least_first_part())?;
        Some((key, self.location("keys", &hex(&key.sha256))))
    }

    fn whole<'a>(&'a self, query: &'a QuerySection) -> Vec<&'a [u8]> {
        self.key.iter().flat_map(|key| key.parts()).chain(query.parts()).collect()
    }

    fn upload(&self, query: &QuerySection, uploads: &dyn Uploads) -> Result<String> {
        let request = self.location("requests", &hex(&query.request_id));
        match self.stored_key() {
            None => drop(self.store.upload(&request, &self.whole(query), uploads)?),
            Some((key, stored)) => {
                let mut composed = self.store.compose(&request, &stored, &query.parts(), uploads)?;
                if !composed {
                    // The store's rules may have removed the key meanwhile.
                    self.store.upload(&stored, &key.parts(), uploads)?;
                    composed = self.store.compose(&request, &stored, &query.parts(), uploads)?;
                }
                if !composed {
                    return Err(Diagnostic::new(
                        Code::RequestFailed,
                        "the stored evaluation key is gone as soon as it is written",
                    )
                    .at(stored)
                    .help("look for a lifecycle rule of the bucket that removes it"));
                }
            }
        }
        Ok(request)
    }

    fn invoke(&self, query: &QuerySection, request: Option<&String>, body: &[&[u8]]) -> Result<Reply> {
        let AsyncSettings { url, endpoint, client, ttl, timeout, .. } = &self.settings;
        let mut headers = vec![
            ("x-amzn-sagemaker-content-type", CONTENT_TYPE.to_owned()),
            ("x-amzn-sagemaker-accept", CONTENT_TYPE.to_owned()),
            ("x-amzn-sagemaker-inference-id", hex(&query.request_id)),
            ("x-amzn-sagemaker-requestttlseconds", ttl.as_secs().to_string()),
            ("x-amzn-sagemaker-invocationtimeoutseconds", timeout.as_secs().to_string()),
            // Each client's results under a prefix of its own, so that permissions can tell clients apart.
            ("x-amzn-sagemaker-s3outputpathextension", client.clone()),
        ];
        headers.extend(request.map(|location| ("x-amzn-sagemaker-inputlocation", location.clone())));
        let url = format!("{}/endpoints/{endpoint}/async-invocations", url.trim_end_matches('/'));
        let call = Call { method: Method::POST, url: &url, headers, body, transient: TRANSIENT };
        self.http.call(&call, self.sign.as_deref())
    }
}

/// The error of a call that SageMaker refused.
pub(crate) fn refused(reply: &Reply, endpoint: &str, action: &str) -> Diagnostic {
    let AwsError { message, code } = serde_json::from_slice(&reply.body).unwrap_or_default();
    let code = match reply.header("x-amzn-errortype").split(':').next() {
        Some(code) if !code.is_empty() => code.to_owned(),
        _ => code.rsplit('#').next().unwrap_or_default().to_owned(),
    };
    let text = if message.is_empty() { shortened(&String::from_utf8_lossy(&reply.body)) } else { shortened(&message) };
    let status = reply.status;
    let place = format!("endpoint {endpoint}");
    if matches!(status, 401 | 403) {
        return Diagnostic::new(Code::AccessDenied, format!("{action} was denied ({status} {code}): {text}"))
            .at(place)
            .help(format!("check the credentials, and allow {action} on the endpoint to their role"));
    }
    Diagnostic::new(Code::RequestFailed, format!("the endpoint answered {status} {code}: {text}"))
        .at(place)
        .help("check the endpoint's name and region, and that it is in service and asynchronous")
}

impl Service for AsyncEndpoint {
    fn name(&self) -> String {
        let AsyncSettings { url, endpoint, bucket, prefix, client, .. } = &self.settings;
        format!("{url} {endpoint} s3://{bucket}/{prefix} {client}")
    }

    fn query_limit(&self) -> u64 {
        OBJECT_BYTES - self.key.as_ref().map_or(0, |key| key.bytes())
    }

    fn resumes_from(&self) -> u64 {
        let along = if self.stored_key().is_some() { 0 } else { self.key.as_ref().map_or(0, |key| key.bytes()) };
        self.store.part_bytes().saturating_sub(along)
    }

    fn prepare(&self, uploads: &dyn Uploads) -> Result<u64> {
        let Some((key, location)) = self.stored_key() else { return Ok(0) };
        if self.store.has(&location)? {
            return Ok(0);
        }
        self.store.upload(&location, &key.parts(), uploads)
    }

    fn send(&self, query: &QuerySection, uploads: &dyn Uploads) -> Result<Answer> {
        let whole = self.whole(query);
        let inline = self.settings.inline && whole.iter().map(|part| part.len() as u64).sum::<u64>() <= INLINE_BYTES;
        let request = if inline { None } else { Some(self.upload(query, uploads)?) };
        let reply = self.invoke(query, request.as_ref(), if inline { &whole } else { &[] })?;
        if !reply.is_ok() {
            return Err(refused(&reply, &self.settings.endpoint, "sagemaker:InvokeEndpointAsync"));
        }
        let output = reply.header("x-amzn-sagemaker-outputlocation").to_owned();
        let failure = Some(reply.header("x-amzn-sagemaker-failurelocation").to_owned()).filter(|at| !at.is_empty());
        if output.is_empty() {
            return Err(Diagnostic::new(Code::RequestFailed, "the endpoint did not say where the result will be")
                .at(format!("endpoint {}", self.settings.endpoint))
                .help("give the name of an asynchronous endpoint, or --realtime for another one"));
        }
        let Accepted { inference_id } = serde_json::from_slice(&reply.body).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = now + self.settings.ttl.as_secs() + self.settings.timeout.as_secs() + GRACE;
        Ok(Answer::Later(Ticket { request, output, failure, inference_id, expires }))
    }

    fn poll(&self, ticket: &Ticket) -> Result<State> {
        if let Some(result) = self.store.get(&ticket.output)? {
            return Ok(State::Done(result));
        }
        let Some(failure) = &ticket.failure else { return Ok(State::Waiting) };
        Ok(match self.store.get(failure)? {
            None => State::Waiting,
            Some(text) => {
                let refusal = Refusal::of_text(&String::from_utf8_lossy(&text));
                let why = refusal.diagnostic(&format!("endpoint {}", self.settings.endpoint));
                State::Failed(Box::new(why.note(format!("the failure is {failure}"))), refusal.is_transient())
            }
        })
    }

    fn clean(&self, ticket: &Ticket) {
        for location in ticket.request.iter().chain([&ticket.output]).chain(&ticket.failure) {
            // A client needs no permission to remove: then the bucket's lifecycle rules do.
            let _ = self.store.delete(location);
        }
    }

    fn abandon(&self, location: &str, upload: &str) {
        let _ = self.store.abandon(location, upload);
    }

    fn suspicion(&self) -> Option<String> {
        self.store.suspicion()
    }
}
