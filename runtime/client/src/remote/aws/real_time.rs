//! A real-time endpoint of SageMaker.

use super::Sign;
use crate::remote::container::key_missing;
use crate::remote::endpoint::{TRANSIENT, refused};
use crate::remote::reply::Refusal;
use crate::remote::{Answer, CONTENT_TYPE, Call, Http, KeySection, QuerySection, Service, State, Ticket, Uploads, hex};
use backon::{BlockingRetryable, ExponentialBuilder};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::Method;

/// What a request surely may have: the API's own model says so.
const SAFE_BYTES: u64 = 6_291_456;
/// What a request may have by the documentation.
const MOST_BYTES: u64 = 25 << 20;

/// A real-time endpoint.
#[derive(Debug)]
pub struct RealTime {
    http: Http,
    sign: Box<dyn Sign>,
    url: String,
    endpoint: String,
    key: Option<Arc<KeySection>>,
}

/// What SageMaker answers (424) when the container refused.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ModelError {
    original_status_code: u16,
    original_message: String,
}

/// Why there is no result.
enum Trouble {
    Container(Refusal),
    Other(Diagnostic),
}

impl RealTime {
    /// An endpoint at SageMaker's runtime of this address.
    pub fn new(http: Http, sign: Box<dyn Sign>, url: &str, endpoint: &str, key: Option<Arc<KeySection>>) -> Self {
        RealTime { http, sign, url: url.trim_end_matches('/').to_owned(), endpoint: endpoint.to_owned(), key }
    }

    fn post(&self, query: &QuerySection, body: &[&[u8]]) -> std::result::Result<Vec<u8>, Trouble> {
        let bytes: u64 = body.iter().map(|part| part.len() as u64).sum();
        if bytes > MOST_BYTES {
            let message = format!("the request has {bytes} bytes, a real-time endpoint takes {MOST_BYTES}");
            return Err(Trouble::Other(Diagnostic::new(Code::OptionInvalid, message).help(
                "send fewer rows in a request, pin the evaluation key on the server, or use an asynchronous endpoint",
            )));
        }
        let headers = vec![
            ("content-type", CONTENT_TYPE.to_owned()),
            ("accept", CONTENT_TYPE.to_owned()),
            ("x-amzn-sagemaker-inference-id", hex(&query.request_id)),
        ];
        let url = format!("{}/endpoints/{}/invocations", self.url, self.endpoint);
        let call = Call { method: Method::POST, url: &url, headers, body, transient: TRANSIENT };
        let reply = self.http.call(&call, Some(&*self.sign)).map_err(Trouble::Other)?;
        if reply.is_ok() {
            return Ok(reply.body);
        }
        Err(match serde_json::from_slice::<ModelError>(&reply.body) {
            Ok(error) => {
                Trouble::Container(Refusal::of_container(error.original_status_code, error.original_message.as_bytes()))
            }
            Err(_) => Trouble::Other(refused(&reply, &self.endpoint, "sagemaker:InvokeEndpoint")),
        })
    }

    /// Tries again while the container is busy.
    fn patiently(&self, query: &QuerySection, body: &[&[u8]]) -> std::result::Result<Vec<u8>, Trouble> {
        let pauses =
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(500)).with_max_times(6).with_jitter();
        let busy = |why: &Trouble| matches!(why, Trouble::Container(Refusal { status: Some(429 | 503), .. }));
        (|| self.post(query, body)).retry(pauses).sleep(std::thread::sleep).when(busy).call()
    }
}

impl Service for RealTime {
    fn name(&self) -> String {
        format!("{} {}", self.url, self.endpoint)
    }

    fn query_limit(&self) -> u64 {
        SAFE_BYTES
    }

    fn send(&self, query: &QuerySection, _: &dyn Uploads) -> Result<Answer> {
        let who = format!("endpoint {}", self.endpoint);
        let parts = query.parts();
        let mut answer = self.patiently(query, &parts);
        if matches!(&answer, Err(Trouble::Container(refusal)) if refusal.wants_key()) {
            let key = self.key.as_ref().ok_or_else(|| key_missing(&who))?;
            answer = self.patiently(query, &[&key.parts()[..], &parts].concat());
        }
        answer.map(Answer::Done).map_err(|why| match why {
            Trouble::Container(refusal) => refusal.diagnostic(&who),
            Trouble::Other(why) => why,
        })
    }

    fn poll(&self, _: &Ticket) -> Result<State> {
        Err(Diagnostic::internal("a real-time endpoint answers at once"))
    }

    fn clean(&self, _: &Ticket) {}
}
