//! Amazon's side: credentials from the standard chain, signatures, S3 as a store, real-time endpoints.

mod real_time;
mod s3;

pub use real_time::RealTime;
pub use s3::S3;

use super::{Sign, hex};
use bytes::Bytes;
use ini::Ini;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner};
use reqsign_core::{CommandExecute, CommandOutput, Context, Env, Error, FileRead, HttpSend, OsEnv, Signer};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tacit_ir::diag::{Code, Diagnostic, Result};
use ureq::http::{HeaderValue, Request, Response, request};

/// Time for an answer of the services that credentials come from; instances' own is a hop away, or nowhere.
const CREDENTIALS: Duration = Duration::from_secs(5);

/// A region, and the credentials of the environment.
#[derive(Clone, Debug)]
pub struct Account {
    region: String,
    context: Context,
}

impl Account {
    /// The account of this environment; the region is the given one, or `AWS_REGION`, `AWS_DEFAULT_REGION`, or the profile's.
    ///
    /// # Errors
    /// [`Code::OptionInvalid`] where no region is to be found.
    pub fn new(region: Option<&str>) -> Result<Self> {
        let of_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| OsEnv.var(name));
        let region = region.map(str::to_owned).or_else(of_environment).or_else(profile_region).ok_or_else(|| {
            Diagnostic::new(Code::OptionInvalid, "no AWS region is given")
                .help("give --region, or set AWS_REGION or the profile's region")
        })?;
        if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Diagnostic::new(Code::OptionInvalid, format!("`{region}` is no AWS region")));
        }
        let context =
            Context::new().with_env(OsEnv).with_file_read(Files).with_http_send(Web).with_command_execute(Commands);
        Ok(Account { region, context })
    }

    /// Signs for a service, such as `s3`.
    pub fn signer(&self, service: &str) -> impl Sign + use<> {
        let builder = RequestSigner::new(service, &self.region);
        SigV4(Signer::new(self.context.clone(), DefaultCredentialProvider::new(), builder))
    }

    /// The address of a service: that of `AWS_ENDPOINT_URL_NAME` or `AWS_ENDPOINT_URL`, else the region's.
    pub fn address(&self, name: &str, host: &str) -> String {
        let override_of = |name: &str| OsEnv.var(name).filter(|url| !url.is_empty());
        override_of(&format!("AWS_ENDPOINT_URL_{name}"))
            .or_else(|| override_of("AWS_ENDPOINT_URL"))
            .unwrap_or_else(|| self.regional(host))
    }

    fn regional(&self, host: &str) -> String {
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://{host}.{}.{domain}", self.region)
    }
}

/// The region of the profile in `~/.aws/config`.
fn profile_region() -> Option<String> {
    let path = OsEnv.var("AWS_CONFIG_FILE").map(Into::into).or_else(|| Some(OsEnv.home_dir()?.join(".aws/config")))?;
    let config = Ini::load_from_file(path).ok()?;
    let section = match OsEnv.var("AWS_PROFILE").as_deref() {
        None | Some("default") => "default".to_owned(),
        Some(name) => format!("profile {name}"),
    };
    config.get_from(Some(section), "region").map(str::to_owned)
}

#[derive(Debug)]
struct SigV4(Signer<Credential>);

impl Sign for SigV4 {
    fn sign(&self, head: &mut request::Parts, body: &[&[u8]]) -> Result<()> {
        let mut hash = Sha256::new();
        body.iter().for_each(|part| hash.update(part));
        let hash =
            HeaderValue::from_str(&hex(&hash.finalize())).map_err(|why| Diagnostic::internal(why.to_string()))?;
        head.headers.insert("x-amz-content-sha256", hash);
        // The parts that wait block themselves: nothing here needs more of an executor.
        pollster::block_on(self.0.sign(head, None)).map_err(|why| {
            Diagnostic::new(Code::AccessDenied, format!("there are no AWS credentials to sign with: {why}"))
                .help("set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached")
        })
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        std::fs::read(path).map_err(|why| Error::config_invalid(format!("{path}: {why}")))
    }
}

#[derive(Debug)]
struct Web;

impl HttpSend for Web {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(1)))
            .timeout_global(Some(CREDENTIALS))
            .build()
            .new_agent();
        let send = || {
            let (head, body) = request.into_parts();
            let response = if body.is_empty() && matches!(head.method.as_str(), "GET" | "HEAD" | "DELETE") {
                agent.run(Request::from_parts(head, ()))?
            } else {
                agent.run(Request::from_parts(head, &body[..]))?
            };
            let (head, mut body) = response.into_parts();
            Ok(Response::from_parts(head, Bytes::from(body.read_to_vec()?)))
        };
        // Not the error itself: it may quote what was sent.
        send().map_err(|_: ureq::Error| Error::unexpected("a service for credentials cannot be reached"))
    }
}

#[derive(Debug)]
struct Commands;

impl CommandExecute for Commands {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        args: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let output = std::process::Command::new(program).args(args).output();
        let output = output.map_err(|why| Error::config_invalid(format!("{program}: {why}")))?;
        Ok(CommandOutput { status: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr: output.stderr })
    }
}
