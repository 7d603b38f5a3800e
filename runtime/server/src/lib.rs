//! Answers encrypted queries over HTTP, after SageMaker's container contract; `spec/wire.md` has the bytes, the statuses and
//! the settings.
//!
//! HTTP has a thread of its own, which never evaluates; the circuit runs on a pool of threads that give way to it, one
//! request at a time, so that `/ping` is answered while every core is busy. A body is checked header by header as it arrives,
//! and kept once. Nothing is written to disk, no name is resolved, no connection is opened.

mod body;
mod engine;
mod http;
mod keys;
mod metrics;
mod model;
mod replays;
mod self_test;
mod server;
mod settings;

pub use server::{Running, Server, serve};
pub use settings::Settings;

use tacit_ir::diag::{Code, Diagnostic};

/// Logs one JSON object a line to standard output, panics among them. Later calls do nothing.
pub fn init_logs(settings: &Settings) {
    let logs = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(settings.log)
        .finish();
    if tracing::subscriber::set_global_default(logs).is_ok() {
        std::panic::set_hook(Box::new(|why| {
            let place = why.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "panicked: {}", why.payload_as_str().unwrap_or("no message"));
        }));
    }
}

/// The server cannot take a request now.
fn busy(why: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::ServerBusy, why).help("send the request again after the seconds of the Retry-After header")
}
