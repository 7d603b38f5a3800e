//! The commands.

mod bundle;
mod compile;
mod demo;
mod demo_sagemaker;
mod engine;
mod inspect;
mod invoke;
mod models;
mod options;
mod predict;
mod profile;
mod report;
mod roles;
mod serve;
mod tools;
mod train;

pub use engine::{Evaluation, Timing, encrypted_predictions};
pub use profile::measured as measured_costs;

use crate::args::Command;
use crate::files;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::time::Duration;
use tacit_ir::artifact::{Artifact, Kind};
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Runs a command.
///
/// # Errors
/// Every error of the catalogue.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Compile(args) => compile::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Keygen(args) => roles::keygen(&args),
        Command::Encrypt(args) => roles::encrypt(&args),
        Command::Run(args) => roles::run(&args),
        Command::Decrypt(args) => roles::decrypt(&args),
        Command::ClientArtifact(args) => roles::client_artifact(&args),
        Command::ServerArtifact(args) => roles::server_artifact(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Invoke(args) => invoke::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Opt(args) => tools::opt(&args),
        Command::Passes => tools::passes(),
        Command::Explain(args) => tools::explain(&args),
        Command::Demo { rows, sagemaker } => demo::run(rows, sagemaker),
    }
}

/// Prints to standard output; a closed pipe is no error.
#[allow(clippy::print_stdout, reason = "the commands' one place that prints results")]
fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    // Nobody reads on: there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A spinner for work of unknown length; shown on terminals only.
fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over rows; shown on terminals only.
fn row_bar(rows: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} rows, {eta} left");
    let bar = ProgressBar::new(rows as u64).with_message("predicting");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads an artifact or client artifact.
fn load(path: &Path) -> Result<Artifact> {
    let bytes = files::read(path)?;
    Artifact::from_bytes(&bytes, Kind::Artifact.default_limit()).map_err(|why| why.at(path.display().to_string()))
}

/// Reads an artifact that has the server's part.
fn load_server(path: &Path) -> Result<Artifact> {
    let artifact = load(path)?;
    if artifact.plan.is_none() {
        return Err(Diagnostic::new(Code::WrongFileKind, "the file is a client artifact, which has no circuit to run")
            .at(path.display().to_string())
            .help("give the artifact that `tacit compile` wrote"));
    }
    Ok(artifact)
}
