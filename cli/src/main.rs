//! The `tacit` command.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = tacit::args::Args::parse();
    match tacit::commands::run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => tacit::render::fail(report),
    }
}
