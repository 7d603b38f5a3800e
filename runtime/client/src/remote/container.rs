//! A server that listens on an address.

use super::reply::Refusal;
use super::{Answer, CONTENT_TYPE, Call, Http, KeySection, QuerySection, Service, State, Ticket, Uploads};
use std::sync::Arc;
use tacit_ir::artifact::Kind;
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::Method;

/// A server's `/invocations`.
#[derive(Debug)]
pub struct Container {
    http: Http,
    url: String,
    key: Option<Arc<KeySection>>,
}

impl Container {
    /// The server at an address such as `http://localhost:8080`; the path `/invocations` is added where it has none.
    pub fn new(http: Http, url: &str, key: Option<Arc<KeySection>>) -> Self {
        let url = url.trim_end_matches('/');
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let url = if has_path { url.to_owned() } else { format!("{url}/invocations") };
        Container { http, url, key }
    }

    fn post(&self, body: &[&[u8]]) -> Result<std::result::Result<Vec<u8>, Refusal>> {
        let headers = vec![("content-type", CONTENT_TYPE.to_owned()), ("accept", CONTENT_TYPE.to_owned())];
        let transient = &[408, 429, 502, 503, 504];
        let call = Call { method: Method::POST, url: &self.url, headers, body, transient };
        let reply = self.http.call(&call, None)?;
        Ok(if reply.is_ok() { Ok(reply.body) } else { Err(Refusal::of_container(reply.status, &reply.body)) })
    }
}

/// The error of a server that needs an evaluation key when there is none to send.
pub(crate) fn key_missing(who: &str) -> Diagnostic {
    Diagnostic::new(Code::EvaluationKeyMissing, "the server has no evaluation key of this client, and none was given")
        .at(who.to_owned())
        .help("give the key that `tacit keygen` wrote with --evaluation-key")
}

impl Service for Container {
    fn name(&self) -> String {
        self.url.clone()
    }

    fn query_limit(&self) -> u64 {
        Kind::Query.default_limit()
    }

    /// Sends the query alone, and with the key where the server asks for it: it may have restarted since.
    fn send(&self, query: &QuerySection, _: &dyn Uploads) -> Result<Answer> {
        let parts = query.parts();
        let mut answer = self.post(&parts)?;
        if answer.as_ref().is_err_and(Refusal::wants_key) {
            let key = self.key.as_ref().ok_or_else(|| key_missing(&self.url))?;
            answer = self.post(&[&key.parts()[..], &parts].concat())?;
        }
        answer.map(Answer::Done).map_err(|refusal| refusal.diagnostic(&self.url))
    }

    fn poll(&self, _: &Ticket) -> Result<State> {
        Err(Diagnostic::internal("a container answers at once"))
    }

    fn clean(&self, _: &Ticket) {}
}
