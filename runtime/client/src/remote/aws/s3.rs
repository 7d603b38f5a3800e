//! S3 as a store.

use super::{Account, Sign};
use crate::remote::endpoint::TRANSIENT;
use crate::remote::reply::shortened;
use crate::remote::store::length;
use crate::remote::{CONTENT_TYPE, Call, Http, Reply, Store, Uploads};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::Method;

/// S3's rule for every part of a composed object but the last.
const LEAST_PART: u64 = 5 << 20;
/// Bytes of the parts that larger objects are uploaded in: little is sent again after an interruption, and what S3 takes, 10,000
/// parts, is more than any request.
const PART: u64 = 8 << 20;
/// What need not be escaped in a path: RFC 3986's unreserved characters and the separator.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const VALUE: &AsciiSet = &PATH.add(b'/');
/// Errors about who asks; the others of 403 are about what for.
const WHO: &[&str] = &[
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];

/// Buckets of S3, or of something that speaks its protocol.
#[derive(Debug)]
pub struct S3 {
    http: Http,
    sign: Box<dyn Sign>,
    account: Account,
    /// Address with buckets as folders; `None` where buckets are hosts.
    endpoint: Option<String>,
    /// Whether reading was answered with 403, which can mean that nothing is there.
    denied: AtomicBool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct S3Error {
    code: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    upload_id: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "ETag")]
    etag: String,
}

#[derive(Deserialize)]
struct ListedPart {
    #[serde(rename = "PartNumber")]
    number: usize,
    #[serde(rename = "ETag", default)]
    etag: String,
    #[serde(rename = "Size")]
    size: u64,
}

/// Parts of an upload that arrived. A list that S3 cuts, after 1000, lacks the last ones, and some stores leave out the ETags that
/// are needed to end an upload: such parts are sent again.
#[derive(Default, Deserialize)]
struct Arrived {
    #[serde(rename = "Part", default)]
    parts: Vec<ListedPart>,
}

/// An upload that stopped, and whether it can go on: with the network, the service or the credentials back.
struct Stopped {
    why: Box<Diagnostic>,
    can_go_on: bool,
}

impl From<Diagnostic> for Stopped {
    fn from(why: Diagnostic) -> Self {
        Stopped { can_go_on: why.code == Code::ServerUnreachable, why: Box::new(why) }
    }
}

impl Stopped {
    fn by(reply: &Reply, action: &str, location: &str) -> Self {
        let code = error(reply).unwrap_or_default().code;
        let can_go_on = TRANSIENT.contains(&reply.status) || WHO.contains(&code.as_str());
        Stopped { why: Box::new(refused(reply, action, location)), can_go_on }
    }
}

/// One call: an object, a query string, and what it needs permission for.
struct Ask<'a> {
    method: Method,
    location: &'a str,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: &'a [&'a [u8]],
}

impl S3 {
    /// The account's S3, or the one at an address.
    pub fn new(http: Http, account: &Account, endpoint: Option<&str>) -> Self {
        let endpoint = endpoint.map(str::to_owned).or_else(|| {
            let address = account.address("S3", "s3");
            Some(address).filter(|address| *address != account.regional("s3"))
        });
        let sign = Box::new(account.signer("s3"));
        S3 { http, sign, account: account.clone(), endpoint, denied: AtomicBool::new(false) }
    }

    fn url(&self, bucket: &str, name: &str) -> String {
        let name = utf8_percent_encode(name, PATH);
        match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}/{name}", endpoint.trim_end_matches('/')),
            // Certificates cover one label.
            None if bucket.contains('.') => format!("{}/{bucket}/{name}", self.account.regional("s3")),
            None => format!("{}/{name}", self.account.regional(&format!("{bucket}.s3"))),
        }
    }

    fn call(&self, ask: &Ask<'_>) -> Result<Reply> {
        let (bucket, name) = parse(ask.location)?;
        let url = format!("{}{}", self.url(bucket, name), ask.query);
        let headers = ask.headers.clone();
        let call = Call { method: ask.method.clone(), url: &url, headers, body: ask.body, transient: TRANSIENT };
        self.http.call(&call, Some(&*self.sign))
    }

    fn must(&self, action: &str, ask: &Ask<'_>) -> Result<Reply> {
        let reply = self.call(ask)?;
        if reply.is_ok() && error(&reply).is_none() { Ok(reply) } else { Err(refused(&reply, action, ask.location)) }
    }

    /// Goes on with the upload of an object, or begins one; its id, and the parts that arrived by number.
    fn begin(&self, location: &str, uploads: &dyn Uploads) -> Result<(String, BTreeMap<usize, ListedPart>)> {
        if let Some(id) = uploads.id(location) {
            let query = format!("?uploadId={}", utf8_percent_encode(&id, VALUE));
            let reply = self.call(&Ask { method: Method::GET, location, query, headers: vec![], body: &[] })?;
            if reply.is_ok() && error(&reply).is_none() {
                let Arrived { parts } = xml(&reply, location)?;
                let usable = parts.into_iter().filter(|part| !part.etag.is_empty());
                return Ok((id, usable.map(|part| (part.number, part)).collect()));
            }
            let stopped = Stopped::by(&reply, "s3:ListMultipartUploadParts", location);
            if stopped.can_go_on {
                return Err(*stopped.why);
            }
            // A role that may not look begins anew; an upload that a lifecycle rule ended is not there to give up.
            let _ = self.abandon(location, &id);
            uploads.keep(location, None)?;
        }
        let headers = vec![("content-type", CONTENT_TYPE.to_owned())];
        let query = "?uploads=".to_owned();
        let begun = self.must("s3:PutObject", &Ask { method: Method::POST, location, query, headers, body: &[] })?;
        let Upload { upload_id } = xml(&begun, location)?;
        uploads.keep(location, Some(&upload_id))?;
        Ok((upload_id, BTreeMap::new()))
    }

    /// Writes an object in parts, the first one a copy of another object where that is given. Returns the bytes that travelled;
    /// `None` when the other object is not there.
    fn multipart(
        &self,
        location: &str,
        first: Option<&str>,
        rest: &[&[u8]],
        uploads: &dyn Uploads,
    ) -> Result<Option<u64>> {
        let (id, arrived) = self.begin(location, uploads)?;
        let written = self.parts(location, &id, &arrived, first, rest);
        match &written {
            Err(Stopped { can_go_on: true, .. }) => {}
            Ok(Some(_)) => uploads.keep(location, None)?,
            Ok(None) | Err(_) => {
                // What cannot be given up is given up by the bucket's lifecycle rule.
                let _ = self.abandon(location, &id);
                uploads.keep(location, None)?;
            }
        }
        written.map_err(|stopped| *stopped.why)
    }

    fn parts(
        &self,
        location: &str,
        id: &str,
        arrived: &BTreeMap<usize, ListedPart>,
        first: Option<&str>,
        rest: &[&[u8]],
    ) -> std::result::Result<Option<u64>, Stopped> {
        let id = utf8_percent_encode(id, VALUE);
        let put = |number: usize, headers, body: &[&[u8]]| {
            let query = format!("?partNumber={number}&uploadId={id}");
            self.call(&Ask { method: Method::PUT, location, query, headers, body })
        };
        let mut etags = Vec::new();
        if let Some(first) = first {
            match arrived.get(&1) {
                Some(part) => etags.push(part.etag.clone()),
                None => {
                    let (bucket, name) = parse(first)?;
                    let source = format!("/{bucket}/{}", utf8_percent_encode(name, PATH));
                    let copied = put(1, vec![("x-amz-copy-source", source)], &[])?;
                    let what = error(&copied);
                    if copied.status == 404 && what.as_ref().is_some_and(|what| what.code == "NoSuchKey") {
                        return Ok(None);
                    }
                    if !copied.is_ok() || what.is_some() {
                        let action = "s3:PutObject there and s3:GetObject of the evaluation key";
                        return Err(Stopped::by(&copied, action, location));
                    }
                    etags.push(xml::<Part>(&copied, location)?.etag);
                }
            }
        }
        let mut travelled = 0;
        let total = length(rest);
        for start in (0..total).step_by(PART as usize) {
            let body = cut(rest, start, PART);
            let number = etags.len() + 1;
            match arrived.get(&number) {
                Some(part) if part.size == length(&body) => etags.push(part.etag.clone()),
                _ => {
                    let uploaded = put(number, vec![], &body)?;
                    if !uploaded.is_ok() {
                        return Err(Stopped::by(&uploaded, "s3:PutObject", location));
                    }
                    travelled += length(&body);
                    etags.push(uploaded.header("etag").to_owned());
                }
            }
        }
        let parts: String = (1..)
            .zip(&etags)
            .map(|(number, etag)| {
                let etag = quick_xml::escape::escape(etag);
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
            })
            .collect();
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
        );
        let query = format!("?uploadId={id}");
        let headers = vec![("content-type", "application/xml".to_owned())];
        let completed = self.call(&Ask { method: Method::POST, location, query, headers, body: &[body.as_bytes()] })?;
        // Completions can fail after their 200.
        if !completed.is_ok() || error(&completed).is_some() {
            return Err(Stopped::by(&completed, "s3:PutObject", location));
        }
        Ok(Some(travelled))
    }
}

/// So many bytes of slices that follow each other, from a start on.
fn cut<'a>(parts: &[&'a [u8]], start: u64, bytes: u64) -> Vec<&'a [u8]> {
    let (mut skip, mut left) = (start as usize, bytes as usize);
    let mut found = Vec::new();
    for part in parts {
        let rest = part.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(part.len());
        let some = rest.get(..left).unwrap_or(rest);
        left -= some.len();
        if !some.is_empty() {
            found.push(some);
        }
    }
    found
}

fn parse(location: &str) -> Result<(&str, &str)> {
    let parts = location.strip_prefix("s3://").and_then(|name| name.split_once('/'));
    parts.filter(|(bucket, name)| !bucket.is_empty() && !name.is_empty()).ok_or_else(|| {
        Diagnostic::new(Code::RequestFailed, format!("`{}` is no name of an object in S3", shortened(location)))
    })
}

fn xml<T: for<'a> Deserialize<'a>>(reply: &Reply, location: &str) -> Result<T> {
    quick_xml::de::from_str(&String::from_utf8_lossy(&reply.body)).map_err(|why| {
        Diagnostic::new(Code::RequestFailed, format!("S3's answer cannot be read: {why}")).at(location.to_owned())
    })
}

/// The error in a reply's body, if it is one.
fn error(reply: &Reply) -> Option<S3Error> {
    let text = String::from_utf8_lossy(&reply.body);
    if !text.get(..text.len().min(200)).is_some_and(|start| start.contains("<Error>")) {
        return None;
    }
    quick_xml::de::from_str(&text).ok()
}

fn refused(reply: &Reply, action: &str, location: &str) -> Diagnostic {
    let S3Error { code, message } = error(reply).unwrap_or_default();
    let text = format!("S3 answered {} {code}: {}", reply.status, shortened(&message));
    let why = if code == "RequestTimeTooSkewed" {
        Diagnostic::new(Code::AccessDenied, text).help("this machine's clock is more than 15 minutes off: set it")
    } else if WHO.contains(&code.as_str()) {
        Diagnostic::new(Code::AccessDenied, text)
            .help("the credentials are wrong, expired, or of another account: check `aws sts get-caller-identity`")
    } else if matches!(reply.status, 401 | 403) {
        Diagnostic::new(Code::AccessDenied, text)
            .help(format!("allow the credentials' role {action} on {location}, and kms:GenerateDataKey and kms:Decrypt where the bucket has a key of its own"))
    } else if code == "NoSuchBucket" {
        Diagnostic::new(Code::RequestFailed, text).help("check --bucket")
    } else if matches!(reply.status, 301 | 307) || code == "AuthorizationHeaderMalformed" {
        Diagnostic::new(Code::RequestFailed, text).help("the bucket is in another region: give it with --region")
    } else {
        Diagnostic::new(Code::RequestFailed, text).help("give the same command again")
    };
    why.at(location.to_owned())
}

impl Store for S3 {
    fn least_first_part(&self) -> u64 {
        LEAST_PART
    }

    /// A 403 is taken for absence: without s3:ListBucket S3 answers so.
    fn has(&self, location: &str) -> Result<bool> {
        let ask = Ask { method: Method::HEAD, location, query: String::new(), headers: vec![], body: &[] };
        let reply = self.call(&ask)?;
        match reply.status {
            _ if reply.is_ok() => Ok(true),
            403 | 404 => Ok(false),
            _ => Err(refused(&reply, "s3:GetObject", location)),
        }
    }

    fn put(&self, location: &str, parts: &[&[u8]]) -> Result<()> {
        let headers = vec![("content-type", CONTENT_TYPE.to_owned())];
        let ask = Ask { method: Method::PUT, location, query: String::new(), headers, body: parts };
        self.must("s3:PutObject", &ask).map(drop)
    }

    fn part_bytes(&self) -> u64 {
        PART
    }

    fn upload(&self, location: &str, parts: &[&[u8]], uploads: &dyn Uploads) -> Result<u64> {
        if length(parts) <= PART {
            return self.put(location, parts).map(|()| length(parts));
        }
        self.multipart(location, None, parts, uploads)?
            .ok_or_else(|| Diagnostic::internal("an upload that copies nothing lacks what it copies"))
    }

    fn compose(&self, location: &str, first: &str, last: &[&[u8]], uploads: &dyn Uploads) -> Result<bool> {
        self.multipart(location, Some(first), last, uploads).map(|written| written.is_some())
    }

    fn abandon(&self, location: &str, upload: &str) -> Result<()> {
        let query = format!("?uploadId={}", utf8_percent_encode(upload, VALUE));
        let ask = Ask { method: Method::DELETE, location, query, headers: vec![], body: &[] };
        self.must("s3:AbortMultipartUpload", &ask).map(drop)
    }

    fn get(&self, location: &str) -> Result<Option<Vec<u8>>> {
        let ask = Ask { method: Method::GET, location, query: String::new(), headers: vec![], body: &[] };
        let reply = self.call(&ask)?;
        match reply.status {
            _ if reply.is_ok() => Ok(Some(reply.body)),
            404 if error(&reply).is_none_or(|what| what.code != "NoSuchBucket") => Ok(None),
            403 if error(&reply).is_none_or(|what| !WHO.contains(&what.code.as_str())) => {
                self.denied.store(true, Ordering::Relaxed);
                Ok(None)
            }
            _ => Err(refused(&reply, "s3:GetObject", location)),
        }
    }

    fn delete(&self, location: &str) -> Result<()> {
        let ask = Ask { method: Method::DELETE, location, query: String::new(), headers: vec![], body: &[] };
        self.must("s3:DeleteObject", &ask).map(drop)
    }

    fn suspicion(&self) -> Option<String> {
        let denied = self.denied.load(Ordering::Relaxed);
        denied.then(|| "S3 answered 403 when asked for results: that is how it says `not yet` to roles without s3:ListBucket, and also what it says without s3:GetObject".to_owned())
    }
}
