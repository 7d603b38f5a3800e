//! What the server adds to the bare runtime, and what it does under load: `cargo bench -p tacit-tests --bench server
//! [-- load [SECONDS]]`; a part of an example's name restricts it.
//!
//! Requests, bare runs and bare exchanges of as many bytes over a socket take turns, on pools of as many threads and as nice;
//! medians. A request opens a connection of its own on loopback, but for throughput. `wire` is what the kernel takes to move the
//! bytes, without a server: it is part of what the server adds. `key` says where the evaluation key comes from; `request` sends
//! its section every time.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tacit_compiler::options::Options;
use tacit_runtime::run;
use tacit_server::Settings;
use tacit_tests::deployment::Deployment;
use tacit_tests::http::{Reply, connect, get, invoke, post_head, send_on};
use tacit_tests::timing::{median, ms};

/// Requests timed.
const TIMES: usize = 41;
/// Clients of the load.
const CLIENTS: usize = 8;
/// Requests that may wait: two clients fewer than there are, so that some are refused.
const QUEUE: usize = CLIENTS - 3;
/// How nice the server's pool is.
const NICENESS: i32 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if arguments.first().is_some_and(|first| first == "load") {
        let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        return load(Duration::from_secs(seconds));
    }
    println!(
        "{:<24} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>9} {:>9} {:>6}",
        "example",
        "key",
        "body KB",
        "bare ms",
        "server ms",
        "adds ms",
        "wire ms",
        "adds %",
        "p95",
        "bare /s",
        "server /s",
        "ratio"
    );
    for name in ["iris_decision_tree", "breast_cancer_xgboost", "digits_xgboost", "digits_mlp", "digits_mlp_deep"] {
        if arguments.first().is_none_or(|only| name.contains(only.as_str())) {
            overhead(name);
        }
    }
}

fn pool() -> rayon::ThreadPool {
    let nice = |_| {
        let _ = rustix::process::nice(NICENESS);
    };
    rayon::ThreadPoolBuilder::new().start_handler(nice).build().expect("threads start")
}

/// Takes bodies of so many bytes, one a connection, and answers with so many others.
fn wire(body: usize, reply: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut taken, given) = (vec![0; body], vec![0; reply]);
        for mut stream in listener.incoming().flatten() {
            if stream.read_exact(&mut taken).and_then(|()| stream.write_all(&given)).is_err() {
                return;
            }
        }
    });
    address
}

fn exchange(address: SocketAddr, body: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(body).expect("it takes the body");
    stream.read_to_end(&mut Vec::new()).expect("it answers");
}

fn overhead(name: &str) {
    let deployment = Deployment::new(name, &Options::default());
    let pool = pool();
    let key = pool.install(|| deployment.server_key());
    let query = deployment.query(0..1);
    let expected = pool.install(|| run(&deployment.circuit, &query, key.as_ref())).expect("a query");
    let alone = deployment.body(&query, 1, 1);
    let pinned = if key.is_some() { vec![deployment.key_path()] } else { Vec::new() };
    let mut modes = vec![(if key.is_some() { "pinned" } else { "none" }, pinned, alone.clone())];
    if key.is_some() {
        modes.push(("request", Vec::new(), [deployment.key_section(), alone].concat()));
    }
    for (mode, evaluation_keys, body) in modes {
        let server = Deployment::serve(Settings { evaluation_keys, ..deployment.settings() });
        let check = |reply: &Reply| {
            assert!(reply.status == 200 && reply.body == expected, "{}", reply.status);
        };
        let ask = || check(&invoke(server.address(), &body).expect("a reply"));
        let bare_run = || {
            let result = pool.install(|| run(&deployment.circuit, &query, key.as_ref()));
            assert!(result.is_ok_and(|result| result == expected));
        };
        ask();
        let (mut bare, mut served, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let wire = wire(body.len(), expected.len());
        for _ in 0..TIMES {
            let start = Instant::now();
            exchange(wire, &body);
            moved.push(ms(start));
            let start = Instant::now();
            bare_run();
            bare.push(ms(start));
            let start = Instant::now();
            ask();
            served.push(ms(start));
        }
        served.sort_by(f64::total_cmp);
        let p95 = served[TIMES * 95 / 100];
        let (bare, served, moved) = (median(bare), median(served), median(moved));
        // Throughput: the same number of evaluations, from two clients that always have one asked for, on connections that
        // they keep as SageMaker's proxies do.
        let count = ((2000.0 / served) as usize).clamp(8, 400) & !1;
        let start = Instant::now();
        for _ in 0..count {
            bare_run();
        }
        let bare_rate = count as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut stream = connect(server.address()).expect("a connection");
                    for _ in 0..count / 2 {
                        let head = post_head(body.len());
                        check(&send_on(&mut stream, &[head.as_bytes(), &body]).expect("a reply"));
                    }
                });
            }
        });
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!(
            "{:<24} {:<8} {:>9.1} {:>9.2} {:>9.2} {:>9.2} {:>8.2} {:>8.1} {:>6.1} {:>9.1} {:>9.1} {:>6.2}",
            name,
            mode,
            body.len() as f64 / 1e3,
            bare,
            served,
            served - bare,
            moved,
            100.0 * (served / bare - 1.0),
            p95,
            bare_rate,
            rate,
            rate / bare_rate
        );
    }
}

/// Resident memory of this process in MB: the server's, and the clients' beside it.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).map_or(f64::NAN, |kb| kb / 1e3)
}

/// Clients that ask again at once, or after the seconds they are told, with the key in every other request, while somebody
/// pings.
fn load(time: Duration) {
    let deployment = Deployment::new("digits_mlp_deep", &Options::default());
    let query = deployment.query(0..1);
    let expected = deployment.expected(&query);
    let alone = deployment.body(&query, 1, 1);
    let composed = [deployment.key_section(), alone.clone()].concat();
    let server = Deployment::serve(Settings { queue_length: QUEUE, ..deployment.settings() });
    let at = server.address();
    assert_eq!(invoke(at, &composed).expect("a reply").status, 200);
    let (right, busy, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    let before = resident_mb();
    let mut pings = Vec::new();
    let start = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (alone, composed, expected) = (&alone, &composed, &expected);
            let (right, busy, wrong, over) = (&right, &busy, &wrong, &over);
            scope.spawn(move || {
                for turn in client.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut pause = Duration::ZERO;
                    let counter = match invoke(at, if turn % 2 == 0 { alone } else { composed }) {
                        Ok(reply) if reply.status == 200 && reply.body == *expected => right,
                        Ok(reply) if reply.status == 503 => {
                            match reply.header("retry-after").and_then(|seconds| seconds.parse().ok()) {
                                Some(seconds) => {
                                    pause = Duration::from_secs(seconds);
                                    busy
                                }
                                None => wrong,
                            }
                        }
                        _ => wrong,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    let refused = Instant::now();
                    while refused.elapsed() < pause && !over.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        while start.elapsed() < time {
            let ping = Instant::now();
            let well = get(at, "/ping").is_ok_and(|reply| reply.status == 200);
            pings.push(if well { ms(ping) } else { f64::INFINITY });
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let after = resident_mb();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let longest = pings.iter().copied().fold(0.0, f64::max);
    println!(
        "{CLIENTS} clients for {seconds:.0} s, queue of {QUEUE}, every other request with its {:.1} MB key",
        composed.len() as f64 / 1e6
    );
    println!(
        "right {} ({:.1} /s), 503 {}, wrong {}",
        count(&right),
        count(&right) as f64 / seconds,
        count(&busy),
        count(&wrong)
    );
    println!("{} pings: median {:.1} ms, longest {longest:.1} ms", pings.len(), median(pings.clone()));
    println!("resident memory, clients included: {before:.0} MB before, {after:.0} MB after");
    assert_eq!(count(&wrong), 0, "replies that are neither right nor a clean 503");
    server.stop().expect("the server ends");
}
