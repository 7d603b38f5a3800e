//! The server of a container: `serve` answers queries, as SageMaker starts it.

use lexopt::{Arg, Parser};
use std::process::ExitCode;
use tacit_ir::diag::{Code, Diagnostic, Kind, Result};
use tacit_server::{Settings, init_logs, serve};

const HELP: &str = "\
Answers encrypted queries over HTTP.

Usage: tacit-server serve [OPTIONS]

Options:
  --model PATH           A server artifact, or a folder that holds one [default: /opt/ml/model]
  --evaluation-key FILE  An evaluation key to hold for good; may be repeated
  --port PORT            The port [default: SAGEMAKER_BIND_TO_PORT, else 8080]
  --host ADDRESS         The address to listen on [default: 0.0.0.0]
  --threads COUNT        Threads that evaluate [default: all cores]
  -h, --help             Print this
  -V, --version          Print the version

Limits are read from TACIT_... variables, which spec/wire.md lists. Logs go to standard output, a JSON object a line.

Example: tacit-server serve --model server.tacit --port 8080
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn run() -> Result<()> {
    match arguments(Parser::from_env())? {
        Command::Print(text) => {
            print(text);
            Ok(())
        }
        Command::Serve(settings) => {
            init_logs(&settings);
            serve(*settings)
        }
    }
}

enum Command {
    Serve(Box<Settings>),
    Print(&'static str),
}

fn usage(why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::OptionInvalid, why.to_string()).help("tacit-server --help says more")
}

fn arguments(mut parser: Parser) -> Result<Command> {
    let mut settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let mut command = None;
    while let Some(argument) = parser.next().map_err(usage)? {
        let text = |parser: &mut Parser| parser.value().map_err(usage);
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Print(HELP)),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Command::Print(concat!("tacit-server ", env!("CARGO_PKG_VERSION"), "\n")));
            }
            Arg::Long("model") => settings.artifact = text(&mut parser)?.into(),
            Arg::Long("evaluation-key") => settings.evaluation_keys.push(text(&mut parser)?.into()),
            Arg::Long("port") => settings.address.set_port(number(&mut parser, "--port")?),
            Arg::Long("host") => settings.address.set_ip(number(&mut parser, "--host")?),
            Arg::Long("threads") => settings.threads = Some(number(&mut parser, "--threads")?),
            Arg::Value(value) if command.is_none() => command = Some(value),
            other => return Err(usage(other.unexpected())),
        }
    }
    match command.as_deref().and_then(|command| command.to_str()) {
        Some("serve") if settings.threads != Some(0) => Ok(Command::Serve(Box::new(settings))),
        Some("serve") => Err(usage("--threads 0: at least one thread is needed")),
        Some("train") => Err(Diagnostic::new(Code::OptionInvalid, "this image answers queries, it does not compile")
            .help("run training jobs with the compiler's image; this one is for endpoints")),
        Some(other) => Err(usage(format!("there is no command {other:?}"))),
        None => Err(usage("a command is missing: serve")),
    }
}

fn number<T: std::str::FromStr>(parser: &mut Parser, option: &str) -> Result<T> {
    let value = parser.value().map_err(usage)?;
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| usage(format!("{option} {}: not understood", value.to_string_lossy())))
}

#[allow(clippy::print_stdout, reason = "the one place that prints")]
fn print(text: &str) {
    print!("{text}");
}

/// Exit codes: 1 the input is wrong, 2 the command line is, 101 a bug of ours.
#[allow(clippy::print_stderr, reason = "the one place that prints errors")]
fn fail(why: &Diagnostic) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(match why.code.kind() {
        Kind::Input => 1,
        Kind::Usage => 2,
        Kind::Internal => 101,
    })
}
