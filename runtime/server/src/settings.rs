//! Settings: from the environment, as containers are configured; options of the command line override some.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tacit_ir::artifact::v1::MAX_ROWS;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Where SageMaker puts a model.
const MODEL_FOLDER: &str = "/opt/ml/model";
/// Where SageMaker puts further data of a model, a folder for each channel.
const DATA_FOLDER: &str = "/opt/ml/additional-model-data-sources";

/// Everything that can be set. [`Settings::default`] is what an empty environment gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// A server artifact, a whole artifact, or a folder that holds one.
    pub artifact: PathBuf,
    /// Evaluation keys to hold for good, beside those that [`Settings::artifact`] and [`Settings::data`] hold as folders.
    pub evaluation_keys: Vec<PathBuf>,
    /// A folder of folders that may hold an `evaluation.key` each; it need not exist.
    pub data: PathBuf,
    /// Threads that evaluate; as many as the machine has cores for this process when `None`.
    pub threads: Option<usize>,
    /// Bytes of one body.
    pub max_body_bytes: u64,
    /// Bytes of all bodies that were received and not answered yet.
    pub max_buffered_bytes: u64,
    /// Rows of one query.
    pub max_rows: u32,
    /// Requests that wait while another one is evaluated.
    pub queue_length: usize,
    /// Bytes of expanded evaluation keys that are kept for later requests.
    pub key_cache_bytes: usize,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Time for the headers of a request; also how long an unused connection stays open.
    pub header_timeout: Duration,
    /// Time without a byte of a body.
    pub idle_timeout: Duration,
    /// Time for a whole body.
    pub body_timeout: Duration,
    /// Time from the signal to end until requests that are still not answered are given up; SageMaker kills after 30 s.
    pub drain_timeout: Duration,
    /// Refuse request ids that were answered before. Evaluation has no side effects, so repeats are harmless otherwise.
    pub refuse_replays: bool,
    /// The least severe events to log: `error`, `warn`, `info`, `debug` or `trace`.
    pub log: tracing::Level,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            address: ([0, 0, 0, 0], 8080).into(),
            artifact: MODEL_FOLDER.into(),
            evaluation_keys: Vec::new(),
            data: DATA_FOLDER.into(),
            threads: None,
            max_body_bytes: 1 << 30,
            max_buffered_bytes: 2 << 30,
            max_rows: MAX_ROWS,
            queue_length: 16,
            key_cache_bytes: 1 << 30,
            max_connections: 512,
            header_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(900),
            drain_timeout: Duration::from_secs(25),
            refuse_replays: false,
            log: tracing::Level::INFO,
        }
    }
}

impl Settings {
    /// Settings from variables, whose values `get` gives; `spec/wire.md` lists them. Empty values count as absent.
    ///
    /// # Errors
    ///
    /// [`Code::OptionInvalid`], with the variable.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Settings> {
        let env = Environment(get);
        let mut out = Settings::default();
        // What SageMaker sets wins: it probes that port.
        let port = env.parse("TACIT_PORT", "a port", out.address.port())?;
        out.address.set_port(env.parse("SAGEMAKER_BIND_TO_PORT", "a port", port)?);
        out.artifact = env.parse("TACIT_MODEL_DIR", "a path", out.artifact)?;
        out.data = env.parse("TACIT_DATA_DIR", "a path", out.data)?;
        out.threads = env.parse("TACIT_THREADS", "a positive number", Positive(out.threads.unwrap_or(0)))?.some();
        out.max_body_bytes = env.parse("TACIT_MAX_BODY_BYTES", "a number of bytes", out.max_body_bytes)?;
        out.max_buffered_bytes = env.parse(
            "TACIT_MAX_BUFFERED_BYTES",
            "a number of bytes",
            out.max_buffered_bytes.max(out.max_body_bytes.saturating_mul(2)),
        )?;
        out.max_rows = env.parse("TACIT_MAX_ROWS", "a number of rows", out.max_rows)?;
        out.queue_length = env.parse("TACIT_QUEUE_LENGTH", "a positive number", Positive(out.queue_length))?.0;
        out.key_cache_bytes = env.parse("TACIT_KEY_CACHE_BYTES", "a number of bytes", out.key_cache_bytes)?;
        out.max_connections = env.parse("TACIT_MAX_CONNECTIONS", "a positive number", Positive(out.max_connections))?.0;
        out.header_timeout = env.seconds("TACIT_HEADER_TIMEOUT_SECONDS", out.header_timeout)?;
        out.idle_timeout = env.seconds("TACIT_IDLE_TIMEOUT_SECONDS", out.idle_timeout)?;
        out.body_timeout = env.seconds("TACIT_BODY_TIMEOUT_SECONDS", out.body_timeout)?;
        out.drain_timeout = env.seconds("TACIT_DRAIN_SECONDS", out.drain_timeout)?;
        out.refuse_replays = env.parse("TACIT_REFUSE_REPLAYS", "`true` or `false`", out.refuse_replays)?;
        out.log = env.parse("TACIT_LOG", "error, warn, info, debug or trace", out.log)?;
        Ok(out)
    }

    /// Threads that evaluate.
    pub(crate) fn evaluating_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

struct Environment<F>(F);

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn parse<T: FromStr>(&self, name: &str, what: &str, default: T) -> Result<T> {
        let Some(text) = (self.0)(name).filter(|text| !text.trim().is_empty()) else { return Ok(default) };
        text.trim().parse().map_err(|_| {
            Diagnostic::new(Code::OptionInvalid, format!("{name} is {text:?}, which is not {what}"))
                .help(format!("set {name} to {what}, or leave it out"))
        })
    }

    fn seconds(&self, name: &str, default: Duration) -> Result<Duration> {
        Ok(Duration::from_secs(self.parse(name, "a positive number of seconds", Positive(default.as_secs()))?.0))
    }
}

/// A number that is not read as 0.
struct Positive<T>(T);

impl<T: FromStr + PartialEq + Default> FromStr for Positive<T> {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        text.parse().ok().filter(|value| *value != T::default()).map(Positive).ok_or(())
    }
}

impl Positive<usize> {
    fn some(self) -> Option<usize> {
        Some(self.0).filter(|value| *value > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Settings::from_environment(find)
    }

    #[test]
    fn variables_override_defaults() {
        assert_eq!(read(&[]).unwrap(), Settings::default());
        assert_eq!(read(&[("TACIT_THREADS", " ")]).unwrap(), Settings::default());
        let settings = read(&[
            ("TACIT_PORT", "9000"),
            ("SAGEMAKER_BIND_TO_PORT", "9001"),
            ("TACIT_THREADS", "3"),
            ("TACIT_MAX_BODY_BYTES", "1000"),
            ("TACIT_IDLE_TIMEOUT_SECONDS", "7"),
            ("TACIT_REFUSE_REPLAYS", "true"),
            ("TACIT_LOG", "warn"),
        ]);
        let expected = Settings {
            address: ([0, 0, 0, 0], 9001).into(),
            threads: Some(3),
            max_body_bytes: 1000,
            idle_timeout: Duration::from_secs(7),
            refuse_replays: true,
            log: tracing::Level::WARN,
            ..Settings::default()
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn malformed_variables_are_named() {
        for (name, value) in [
            ("SAGEMAKER_BIND_TO_PORT", "port"),
            ("TACIT_PORT", "70000"),
            ("TACIT_THREADS", "0"),
            ("TACIT_QUEUE_LENGTH", "0"),
            ("TACIT_MAX_BODY_BYTES", "-1"),
            ("TACIT_BODY_TIMEOUT_SECONDS", "0"),
            ("TACIT_REFUSE_REPLAYS", "perhaps"),
        ] {
            let why = read(&[(name, value)]).unwrap_err();
            assert_eq!(why.code, Code::OptionInvalid);
            assert!(why.message.contains(name) && why.message.contains(value), "{why}");
        }
    }
}
