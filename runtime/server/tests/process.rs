//! The server as a process of its own: arguments, logs, signals, memory.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tacit_tests::deployment::Deployment;
use tacit_tests::http::{connect, get, invoke, post_head, reply};

static TREE: LazyLock<Deployment> = LazyLock::new(Deployment::tree);
static NETWORK: LazyLock<Deployment> = LazyLock::new(Deployment::network);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacit-server"));
    command.args(arguments).env_clear();
    command
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A server that is ready, with the variables that it has in images.
struct Process {
    child: Child,
    address: SocketAddr,
    /// Reads the logs to their end: a pipe that nobody reads would stop the server.
    logs: Option<JoinHandle<Vec<String>>>,
}

/// Nothing outlives a test that fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(deployment: &Deployment, variables: &[(&str, &str)]) -> Self {
        let folder = deployment.folder();
        let mut command = command(&["serve", "--host", "127.0.0.1", "--port", "0", "--model"]);
        command.arg(folder).envs(tacit_bundle::image::ENVIRONMENT).envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut logs = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        let mut address = None;
        loop {
            let mut line = String::new();
            assert!(logs.read_line(&mut line).unwrap() > 0, "ended: {lines:?}");
            let event: serde_json::Value = serde_json::from_str(&line).expect("a JSON object a line");
            if event["message"] == "listening" {
                address = event["address"].as_str().and_then(|text| text.parse().ok());
            }
            let ready = event["message"] == "ready";
            lines.push(line);
            if ready {
                break;
            }
        }
        let logs = thread::spawn(move || {
            lines.extend(logs.lines().map(Result::unwrap));
            lines
        });
        Process { child, address: address.expect("an address"), logs: Some(logs) }
    }

    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// The exit status, and all lines of logs.
    fn finish(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        (status, self.logs.take().unwrap().join().unwrap())
    }
}

#[test]
fn arguments_are_those_of_containers() {
    let (code, help, _) = output(&["--help"]);
    assert!(code == Some(0) && help.contains("Example: tacit-server serve"), "{help}");
    assert!(output(&["--version"]).1.starts_with("tacit-server "));
    for (arguments, said) in [
        (&["train"][..], "compiler's image"),
        (&[], "a command is missing"),
        (&["evaluate"], "there is no command"),
        (&["serve", "--threads", "0"], "at least one thread"),
        (&["serve", "--port", "many"], "not understood"),
        (&["serve", "--colour"], "--colour"),
    ] {
        let (code, _, why) = output(arguments);
        assert!(code == Some(2) && why.starts_with("E0801: ") && why.contains(said), "{arguments:?}: {code:?} {why}");
    }
    let (code, _, why) = output(&["serve", "--host", "127.0.0.1", "--port", "0", "--model", "/no/such/model.tacit"]);
    assert!(code == Some(1) && why.starts_with("E0001: /no/such/model.tacit"), "{code:?} {why}");
}

#[test]
fn the_signal_to_end_lets_what_runs_end_and_logs_hold_no_payload() {
    let server = Process::start(&TREE, &[]);
    let query = TREE.query(0..20);
    let body = TREE.body(&query, 20, 0x5a);
    assert!(invoke(server.address, &body).unwrap().body == TREE.expected(&query));
    assert_eq!(get(server.address, "/nothing").unwrap().status, 404);
    // A request that has begun when the signal comes is received and answered.
    let mut stream = connect(server.address).unwrap();
    stream.write_all(post_head(body.len()).as_bytes()).unwrap();
    stream.write_all(&body[..body.len() / 2]).unwrap();
    let start = Instant::now();
    while !get(server.address, "/metrics").unwrap().text().contains("tacit_connections 2") {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    server.terminate();
    while connect(server.address).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "still listening");
        thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(&body[body.len() / 2..]).unwrap();
    assert!(reply(&mut stream).unwrap().body == TREE.expected(&query));
    let (status, lines) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30));
    for line in &lines {
        serde_json::from_str::<serde_json::Value>(line).expect("a JSON object a line");
        assert!(line.len() < 1000, "{line}");
    }
    let answered: Vec<_> = lines.iter().filter(|line| line.contains("\"answered\"")).collect();
    assert!(answered.len() == 2 && answered.iter().all(|line| line.contains(&"5a".repeat(16))), "{lines:?}");
}

/// Waking a thread would take longer than it saves.
#[test]
fn circuits_of_a_tenth_of_a_millisecond_are_evaluated_on_one_thread() {
    let threads = |deployment, variables: &[(&str, &str)]| {
        let server = Process::start(deployment, variables);
        server.terminate();
        let lines = server.finish().1;
        let ready = lines.iter().find(|line| line.contains("\"ready\"")).expect("it was ready");
        serde_json::from_str::<serde_json::Value>(ready).unwrap()["threads"].as_u64()
    };
    assert_eq!(threads(&TREE, &[]), Some(1));
    assert_eq!(threads(&TREE, &[("TACIT_THREADS", "3")]), Some(3));
    let cores = thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(threads(&NETWORK, &[]), Some(cores));
}

#[test]
fn a_signal_ends_an_idle_server_at_once_and_one_that_evaluates_in_time() {
    let idle = Process::start(&TREE, &[]);
    // An unused connection does not hold it up.
    let _unused = connect(idle.address).unwrap();
    let start = Instant::now();
    idle.terminate();
    assert_eq!(idle.finish().0.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());

    let folder = NETWORK.folder();
    let busy = Process::start(&NETWORK, &[("TACIT_DATA_DIR", folder.to_str().unwrap()), ("TACIT_DRAIN_SECONDS", "1")]);
    let query = NETWORK.repeated(150);
    let body = NETWORK.body(&query, 150, 1);
    let at = busy.address;
    thread::scope(|scope| {
        let asked = scope.spawn(|| invoke(at, &body).unwrap());
        while !get(at, "/metrics").unwrap().text().contains(&format!("tacit_buffered_bytes {}", query.len())) {
            thread::sleep(Duration::from_millis(5));
        }
        let start = Instant::now();
        busy.terminate();
        assert_eq!(asked.join().unwrap().status, 503);
        assert_eq!(busy.finish().0.code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn hundreds_of_bad_requests_leave_no_memory_behind() {
    let server = Process::start(&NETWORK, &[]);
    let (at, fresh) = (server.address, server.resident_kb());
    let query = NETWORK.query(0..1);
    let good = NETWORK.body(&query, 1, 1);
    let mut damaged_key = [NETWORK.key_section(), good.clone()].concat();
    damaged_key[100_000] ^= 1;
    let bodies: [&[u8]; 5] = [b"", &[0; 100_000], &good, &good[..good.len() / 2], &damaged_key[..1 << 20]];
    let round = |times: usize| {
        for _ in 0..times {
            for body in bodies {
                let status = invoke(at, body).unwrap().status;
                assert!((400..500).contains(&status), "{status}");
            }
            // One that leaves in the middle.
            let mut stream = connect(at).unwrap();
            stream.write_all(post_head(damaged_key.len()).as_bytes()).unwrap();
            stream.write_all(&damaged_key[..1 << 18]).unwrap();
        }
        for _ in 0..times / 10 {
            assert_eq!(invoke(at, &damaged_key).unwrap().status, 400);
        }
    };
    round(30);
    let before = server.resident_kb();
    round(100);
    let after = server.resident_kb();
    // A whole request with a key takes 30 megabytes for a moment; a leak of one body a request would be hundreds.
    assert!(before < fresh + 40_000 && after < before + 10_000, "from {fresh} to {before} and {after} kB");
    let answered = invoke(at, &[NETWORK.key_section(), good].concat()).unwrap();
    assert!(answered.body == NETWORK.expected(&query));
    server.terminate();
    assert_eq!(server.finish().0.code(), Some(0));
}
