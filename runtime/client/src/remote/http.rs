//! HTTP with patience: what is transient is tried again, with growing pauses.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::io::Read;
use std::time::{Duration, Instant};
use tacit_ir::artifact::Kind;
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::{HeaderMap, Method, Request, Response, Uri, request};
use ureq::{Agent, Body, SendBody};

/// Bodies from here on wait for the server's permission, so that one that is refused by its headers is not sent.
const EXPECT_BYTES: usize = 1 << 20;

/// How long to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Further attempts after one that failed in transit or was answered by a transient error; pauses double from a quarter of
    /// a second up to ten seconds.
    pub retries: usize,
    /// Time for one answer.
    pub answer: Duration,
    /// Time over which a server that says when to come again (`Retry-After`) is asked again.
    pub busy: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { retries: 5, answer: Duration::from_secs(3600), busy: Duration::from_secs(3600) }
    }
}

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: &'a str,
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// The body's parts, one after another.
    pub body: &'a [&'a [u8]],
    /// Statuses that another attempt may change.
    pub transient: &'static [u16],
}

impl<'a> Call<'a> {
    /// A GET.
    pub fn get(url: &'a str, transient: &'static [u16]) -> Self {
        Call { method: Method::GET, url, headers: Vec::new(), body: &[], transient }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header field as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the status is 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Signs requests.
pub trait Sign: Send + Sync + std::fmt::Debug {
    /// Adds a signature's header fields.
    ///
    /// # Errors
    /// `AccessDenied` where there are no credentials.
    fn sign(&self, head: &mut request::Parts, body: &[&[u8]]) -> Result<()>;
}

/// A client with its connections.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    patience: Patience,
}

impl Http {
    /// A client; proxies are those of the environment.
    pub fn new(patience: Patience) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect of S3 says that the region is wrong, and a signature is for one host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_per_write(Some(Duration::from_secs(60)))
            .timeout_recv_response(Some(patience.answer))
            .timeout_recv_body(Some(patience.answer))
            .user_agent(concat!("tacit/", env!("CARGO_PKG_VERSION")))
            .build();
        Http { agent: Agent::new_with_config(config), patience }
    }

    /// Sends a request until there is an answer that is not transient, or patience ends; then the last answer is returned.
    ///
    /// # Errors
    /// [`Code::ServerUnreachable`] where no attempt was answered, [`Code::OptionInvalid`] for an address that is none, those
    /// of the signature.
    pub fn call(&self, call: &Call<'_>, sign: Option<&dyn Sign>) -> Result<Reply> {
        let start = Instant::now();
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(10))
            .with_max_times(self.patience.retries)
            .with_jitter();
        let mut pauses = pauses.build();
        loop {
            let answer = self.attempt(call, sign);
            let (asked, answer) = match answer {
                Ok(reply) if call.transient.contains(&reply.status) => {
                    (reply.header("retry-after").parse().ok().map(Duration::from_secs), Ok(reply))
                }
                Err(why) if why.code == Code::ServerUnreachable => (None, Err(why)),
                other => return other,
            };
            let within = |pause: &Duration| start.elapsed() + *pause < self.patience.busy;
            match asked.filter(within).or_else(|| pauses.next()) {
                Some(pause) => std::thread::sleep(pause),
                None => return answer,
            }
        }
    }

    fn attempt(&self, call: &Call<'_>, sign: Option<&dyn Sign>) -> Result<Reply> {
        let length: usize = call.body.iter().map(|part| part.len()).sum();
        let has_body = matches!(call.method, Method::POST | Method::PUT);
        let mut request = Request::builder().method(call.method.clone()).uri(call.url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if has_body {
            request = request.header("content-length", length);
        }
        let mut request = request.body(()).map_err(|why| bad_address(call.url, &why))?;
        if let Some(sign) = sign {
            let (mut head, ()) = request.into_parts();
            sign.sign(&mut head, call.body)?;
            request = Request::from_parts(head, ());
        }
        if length >= EXPECT_BYTES {
            request.headers_mut().insert("expect", ureq::http::HeaderValue::from_static("100-continue"));
        }
        let mut parts = Parts { next: call.body, current: &[] };
        let response = if has_body {
            self.agent.run(request.map(|()| SendBody::from_reader(&mut parts)))
        } else {
            self.agent.run(request)
        };
        response.and_then(read).map_err(|why| match why {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => bad_address(call.url, &why),
            why => Diagnostic::new(Code::ServerUnreachable, format!("cannot be reached: {why}"))
                .at(origin(call.url).to_owned())
                .help("check the address and that the server runs; then give the same command again"),
        })
    }
}

/// Checks that an address can be called.
///
/// # Errors
/// [`Code::OptionInvalid`] where it is none, or is one of https:// and this build has no TLS.
pub fn check_address(url: &str) -> Result<()> {
    let uri: Uri = url.parse().map_err(|why| bad_address(url, &why))?;
    match uri.scheme_str() {
        Some("http") => Ok(()),
        Some("https") if cfg!(feature = "tls") => Ok(()),
        Some("https") => Err(Diagnostic::new(Code::OptionInvalid, "this build of tacit has no TLS for https://")
            .at(url.to_owned())
            .help("build it with `cargo install --path cli --features tls` (or `aws`)")),
        _ => Err(bad_address(url, &"it does not begin with http:// or https://")),
    }
}

fn read(response: Response<Body>) -> std::result::Result<Reply, ureq::Error> {
    let (head, body) = response.into_parts();
    let limit = Kind::Result.default_limit() + 1;
    let body = body.into_with_config().limit(limit).read_to_vec()?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

fn bad_address(url: &str, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::OptionInvalid, format!("is no address: {why}"))
        .at(url.to_owned())
        .help("addresses look like http://localhost:8080")
}

/// An address without its path, for messages.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(start..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| start + at);
    url.get(..end).unwrap_or(url)
}

/// Reads slices one after another.
struct Parts<'a> {
    next: &'a [&'a [u8]],
    current: &'a [u8],
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let (true, Some((first, rest))) = (self.current.is_empty(), self.next.split_first()) {
            (self.current, self.next) = (first, rest);
        }
        self.current.read(buffer)
    }
}
