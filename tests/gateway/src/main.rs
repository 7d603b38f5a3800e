//! `tacit-gateway`: SageMaker's fronts before a container on this machine.

use clap::Parser;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tacit_client::remote::{Folder, Store};
use tacit_gateway::{Gateway, Settings};
use tacit_ir::diag::Result;

/// Takes InvokeEndpointAsync and InvokeEndpoint calls for a container on this machine.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: tacit-gateway --container http://127.0.0.1:8080 --output s3://bucket/results --s3-endpoint file:///tmp/s3"
)]
struct Args {
    /// The container.
    #[arg(long)]
    container: String,
    /// Where results go.
    #[arg(long, default_value = "s3://bucket/results")]
    output: String,
    /// Where failures go.
    #[arg(long, default_value = "s3://bucket/failures")]
    failure: String,
    /// Address of S3, or file:///FOLDER for a local folder with buckets as folders.
    #[arg(long)]
    s3_endpoint: String,
    /// What to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Requests that run at the same time.
    #[arg(long, default_value_t = 1)]
    instances: usize,
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the binary's one place that prints")]
fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(gateway) => {
            println!("{}", gateway.url());
            gateway.wait();
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> std::result::Result<Gateway, Box<dyn std::error::Error>> {
    let store: Arc<dyn Store> = match args.s3_endpoint.strip_prefix("file://") {
        Some(folder) => Arc::new(Folder::new(folder)),
        None => Arc::new(s3(&args.s3_endpoint)?),
    };
    let Args { container, output, failure, instances, listen: address, s3_endpoint: _ } = args;
    Ok(Gateway::start(Settings { address, container, store, output, failure, instances })?)
}

#[cfg(feature = "aws")]
fn s3(endpoint: &str) -> Result<tacit_client::remote::aws::S3> {
    use tacit_client::remote::aws::{Account, S3};
    use tacit_client::remote::{Http, Patience};
    Ok(S3::new(Http::new(Patience::default()), &Account::new(None)?, Some(endpoint)))
}

#[cfg(not(feature = "aws"))]
fn s3(_: &str) -> Result<Folder> {
    use tacit_ir::diag::{Code, Diagnostic};
    Err(Diagnostic::new(Code::OptionInvalid, "this build knows no S3: build it with --features aws"))
}
