//! What the server adds to the bare runtime, and what it does under load: `cargo bench -p tacit-tests --bench server
//! [-- load [SECONDS] [hasty]]`; a part of an example's name restricts it.
//!
//! Requests, bare runs and bare exchanges of as many bytes over a socket take turns, on pools of as many threads and as nice;
//! medians, of differences within a turn. `adds` is what a request takes beyond a bare run when client and server share loopback
//! and the cores; `wire` is what the kernel alone takes to move the bytes, part of what is added. `after` is what a client waits
//! beyond a bare run once its last byte was sent, when it sends at the pace of a network of 10 Gbit/s: what the server itself
//! adds. `throughput` is that of two clients on connections that they keep, over that of the bare runtime, in blocks that take
//! turns; clients and the kernel take their share of the same cores. `fed` is the server's over that of the bare runtime fed by
//! the same clients over plain sockets, without HTTP, envelope or queue: what the server itself takes away. `capacity` leaves
//! clients out: it is the time that processors spend on a bare run, over that which they spend in the server's threads on a
//! request. `key` says where the evaluation key comes from; `request` sends its section every time.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tacit_compiler::options::Options;
use tacit_runtime::run;
use tacit_server::Settings;
use tacit_tests::deployment::Deployment;
use tacit_tests::http::{Reply, connect, get, invoke, post_head, reply, send_on};
use tacit_tests::timing::{cpu_ms, median, ms};

/// Requests timed.
const TIMES: usize = 41;
/// Clients of the load.
const CLIENTS: usize = 8;
/// Requests that may wait: two clients fewer than there are, so that some are refused.
const QUEUE: usize = CLIENTS - 3;
/// Blocks of requests for throughput, and milliseconds of one.
const BLOCKS: usize = 9;
const BLOCK_MS: f64 = 500.0;
/// Bytes a second of the network that a client is on, and those that it sends at a time.
const PACE: f64 = 1.25e9;
const SLICE: usize = 128 << 10;
/// How nice the server's pool is.
const NICENESS: i32 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if arguments.first().is_some_and(|first| first == "load") {
        let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        return load(Duration::from_secs(seconds), arguments.iter().any(|argument| argument == "hasty"));
    }
    println!(
        "{:<24} {:<8} {:>9} {:>9} {:>9} {:>6} {:>8} {:>8} {:>7} {:>6} {:>9} {:>9} {:>10} {:>5} {:>8}",
        "example",
        "key",
        "body KB",
        "bare ms",
        "adds ms",
        "%",
        "p95 ms",
        "wire ms",
        "after",
        "%",
        "bare /s",
        "server /s",
        "throughput",
        "fed",
        "capacity"
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
    let name = |index| format!("evaluate-{index}");
    rayon::ThreadPoolBuilder::new().thread_name(name).start_handler(nice).build().expect("threads start")
}

/// Milliseconds that the threads of pools and of the server have been on a processor.
fn evaluating_ms() -> f64 {
    cpu_ms(|thread| thread == "server" || thread.starts_with("evaluate-"))
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

/// The two ends of a connection.
fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (client, listener.accept().expect("a connection").0)
}

/// Sends bodies through each connection and has them answered by a thread at its other end, of which one runs at a time.
fn feed(
    connections: &mut [(TcpStream, TcpStream)],
    times: usize,
    (body, expected): (&[u8], &[u8]),
    run: impl Fn(&[u8]) -> Vec<u8> + Sync,
) {
    let turn = Mutex::new(());
    thread::scope(|scope| {
        for (client, runner) in connections {
            scope.spawn(|| {
                let mut reply = vec![0; expected.len()];
                for _ in 0..times {
                    client.write_all(body).and_then(|()| client.read_exact(&mut reply)).expect("a reply");
                    assert!(reply == expected);
                }
            });
            scope.spawn(|| {
                let mut taken = vec![0; body.len()];
                for _ in 0..times {
                    runner.read_exact(&mut taken).expect("a body");
                    let one_at_a_time = turn.lock();
                    let result = run(&taken);
                    drop(one_at_a_time);
                    runner.write_all(&result).expect("it takes the reply");
                }
            });
        }
    });
}

fn exchange(address: SocketAddr, body: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(body).expect("it takes the body");
    stream.read_to_end(&mut Vec::new()).expect("it answers");
}

/// Sends a request slice by slice as a network would, and gives the reply and the milliseconds from the last byte to it.
fn invoke_paced(address: SocketAddr, body: &[u8]) -> (Reply, f64) {
    let mut stream = connect(address).expect("a connection");
    let start = Instant::now();
    stream.write_all(post_head(body.len()).as_bytes()).expect("it takes the head");
    for (number, slice) in body.chunks(SLICE).enumerate() {
        let due = Duration::from_secs_f64((number * SLICE + slice.len()) as f64 / PACE);
        thread::sleep(due.saturating_sub(start.elapsed()));
        stream.write_all(slice).expect("it takes the body");
    }
    let sent = Instant::now();
    let reply = reply(&mut stream).expect("a reply");
    (reply, ms(sent))
}

fn overhead(name: &str) {
    let deployment = Deployment::new(name, &Options::default());
    let pool = pool();
    let key = pool.install(|| deployment.server_key());
    let query = deployment.query(0..1);
    let evaluate = |query: &[u8]| pool.install(|| run(&deployment.circuit, query, key.as_ref())).expect("a query");
    let expected = evaluate(&query);
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
        let bare_run = || assert!(evaluate(&query) == expected);
        ask();
        let (mut bare, mut served, mut moved, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
            let (reply, waited) = invoke_paced(server.address(), &body);
            check(&reply);
            after.push(waited);
        }
        let beyond = |all: &[f64]| median(all.iter().zip(&bare).map(|(all, bare)| all - bare).collect());
        let (adds, after) = (beyond(&served), beyond(&after));
        served.sort_by(f64::total_cmp);
        let p95 = served[TIMES * 95 / 100];
        let (bare, moved) = (median(bare), median(moved));
        // Throughput: the same number of evaluations, from two clients that always have one asked for, on connections that
        // they keep as SageMaker's proxies do.
        let count = ((BLOCK_MS / bare) as usize).max(4) & !1;
        let rate = |start: Instant| 1e3 * count as f64 / ms(start);
        let mut streams = [(); 2].map(|()| connect(server.address()).expect("a connection"));
        let mut sockets = [(); 2].map(|()| socket_pair());
        let (mut bare_rates, mut rates, mut fed_rates) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bare_cpu, mut served_cpu) = (Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            let before = evaluating_ms();
            let start = Instant::now();
            (0..count).for_each(|_| bare_run());
            bare_rates.push(rate(start));
            bare_cpu.push((evaluating_ms() - before) / count as f64);
            let start = Instant::now();
            feed(&mut sockets, count / 2, (&body, &expected), |body| evaluate(&body[body.len() - query.len()..]));
            fed_rates.push(rate(start));
            let before = evaluating_ms();
            let start = Instant::now();
            thread::scope(|scope| {
                for stream in &mut streams {
                    scope.spawn(|| {
                        for _ in 0..count / 2 {
                            let head = post_head(body.len());
                            check(&send_on(stream, &[head.as_bytes(), &body]).expect("a reply"));
                        }
                    });
                }
            });
            rates.push(rate(start));
            served_cpu.push((evaluating_ms() - before) / count as f64);
        }
        let ratio = |of: &[f64], to: &[f64]| median(of.iter().zip(to).map(|(of, to)| of / to).collect());
        let (throughput, fed) = (ratio(&rates, &bare_rates), ratio(&rates, &fed_rates));
        let capacity = ratio(&bare_cpu, &served_cpu);
        println!(
            "{:<24} {:<8} {:>9.1} {:>9.2} {:>9.2} {:>6.1} {:>8.1} {:>8.2} {:>7.2} {:>6.1} {:>9.1} {:>9.1} {:>10.2} {:>5.2} {:>8.2}",
            name,
            mode,
            body.len() as f64 / 1e3,
            bare,
            adds,
            100.0 * adds / bare,
            p95,
            moved,
            after,
            100.0 * after / bare,
            median(bare_rates),
            median(rates),
            throughput,
            fed,
            capacity
        );
    }
}

/// Resident memory of this process in MB: the server's, and the clients' beside it.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).map_or(f64::NAN, |kb| kb / 1e3)
}

/// Clients that ask again at once, or, unless they are hasty, after the seconds they are told, with the key in every other request,
/// while somebody pings.
fn load(time: Duration, hasty: bool) {
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
                    while !hasty && refused.elapsed() < pause && !over.load(Ordering::Relaxed) {
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
