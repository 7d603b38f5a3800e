//! What a server must survive: damaged, oversized, slow, repeated and senseless requests, more of them than it can take, clients
//! that leave, and its own end.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tacit_ir::artifact::envelope::{KeyHeader, QueryHeader};
use tacit_server::Settings;
use tacit_tests::deployment::Deployment;
use tacit_tests::http::{Reply, connect, get, invoke, post_head, reply, send};

static TREE: LazyLock<Deployment> = LazyLock::new(Deployment::tree);
static NETWORK: LazyLock<Deployment> = LazyLock::new(Deployment::network);

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("a JSON body");
    assert_eq!((reply.status, body["code"].as_str()), (status, Some(code)), "{body}");
}

/// Checks that a reply is a result, this one.
#[track_caller]
fn assert_answered(reply: &Reply, expected: &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == expected, "the reply is not what `tacit run` writes");
}

/// Waits until a line of the metrics begins so and ends with this number.
#[track_caller]
fn wait_for(at: SocketAddr, metric: &str, value: u64) {
    let start = Instant::now();
    let line = format!("{metric} {value}");
    while !get(at, "/metrics").is_ok_and(|reply| reply.text().lines().any(|found| found == line)) {
        assert!(start.elapsed() < Duration::from_secs(60), "never `{line}`");
        thread::sleep(Duration::from_millis(5));
    }
}

fn pinned() -> Settings {
    Settings { evaluation_keys: vec![NETWORK.key_path()], ..NETWORK.settings() }
}

#[test]
fn wrong_envelopes_get_a_status_that_says_who_must_act() {
    let server = Deployment::serve(Settings { max_rows: 4, ..TREE.settings() });
    let at = server.address();
    let query = TREE.query(0..1);
    let header = TREE.header(&query, 1, 1);
    let body = |header: QueryHeader| [&header.write()[..], &query].concat();
    assert_refused(&invoke(at, b"").unwrap(), 400, "E0608");
    assert_refused(&invoke(at, &query).unwrap(), 400, "E0608");
    assert_refused(&invoke(at, &[0xff; 5000]).unwrap(), 400, "E0608");
    let mut other_version = body(header);
    other_version[8] = 2;
    assert_refused(&invoke(at, &other_version).unwrap(), 400, "E0602");
    let mut unknown_bits = body(header);
    unknown_bits[10] = 1;
    assert_refused(&invoke(at, &unknown_bits).unwrap(), 400, "E0608");
    let other_circuit = QueryHeader { circuit: [3; 32], ..header };
    let refused = invoke(at, &body(other_circuit)).unwrap();
    assert_refused(&refused, 422, "E0606");
    assert_refused(&invoke(at, &body(QueryHeader { rows: 5, ..header })).unwrap(), 422, "E0607");
    assert_refused(&invoke(at, &body(QueryHeader { rows: 0, ..header })).unwrap(), 422, "E0607");
    assert_refused(&invoke(at, &body(QueryHeader { rows: 2, ..header })).unwrap(), 422, "E0607");
    let longer = [body(header), vec![0]].concat();
    assert_refused(&invoke(at, &longer).unwrap(), 400, "E0608");
    // Another model's client.
    let other = NETWORK.query(0..1);
    let other = [&NETWORK.header(&other, 1, 1).write()[..], &other].concat();
    assert_refused(&invoke(at, &other).unwrap(), 422, "E0606");
    // A query file for other parameters behind a header that fits: padded to the right length.
    let mut wrong_file = vec![0; query.len()];
    wrong_file[..8].copy_from_slice(&tacit_ir::artifact::MAGIC);
    assert_refused(&invoke(at, &[&header.write()[..], &wrong_file].concat()).unwrap(), 400, "E0602");
    // Chunked bodies are as good as others, and checked the same way.
    let chunked = |body: &[u8]| {
        let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut sent = head.as_bytes().to_vec();
        for part in body.chunks(1000) {
            sent.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            sent.extend_from_slice(part);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\n\r\n");
        send(at, &[&sent]).unwrap()
    };
    assert_answered(&chunked(&body(header)), &TREE.expected(&query));
    assert_refused(&chunked(&longer), 400, "E0608");
    assert_refused(&chunked(&body(header)[..2000]), 400, "E0603");
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let server = Deployment::serve(TREE.settings());
    let at = server.address();
    let query = TREE.query(0..1);
    let whole = TREE.body(&query, 1, 1);
    let mut lengths: Vec<usize> = (0..QueryHeader::BYTES + 8).collect();
    lengths.extend((QueryHeader::BYTES..whole.len()).step_by(977));
    for length in lengths {
        let reply = invoke(at, &whole[..length]).unwrap();
        assert!((400..500).contains(&reply.status), "cut at {length}: {}", reply.text());
    }
    // The request id is the client's to choose.
    let id = 24..40;
    let places = (0..QueryHeader::BYTES + 300).chain((0..whole.len()).step_by(1009)).filter(|at| !id.contains(at));
    for place in places {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        let reply = invoke(at, &flipped).unwrap();
        assert!((400..500).contains(&reply.status), "flipped at {place}: {}", reply.text());
    }
    // A body that ends before its declared length.
    let mut stream = connect(at).unwrap();
    stream.write_all(post_head(whole.len()).as_bytes()).unwrap();
    stream.write_all(&whole[..whole.len() / 2]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert_answered(&invoke(at, &whole).unwrap(), &TREE.expected(&query));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    let server = Deployment::serve(Settings { max_body_bytes: 1 << 20, ..NETWORK.settings() });
    let at = server.address();
    let refused_unsent = |head: &[u8]| {
        let mut stream = connect(at).unwrap();
        stream.write_all(head).unwrap();
        reply(&mut stream).unwrap()
    };
    assert_refused(&refused_unsent(post_head((1 << 20) + 1).as_bytes()), 413, "E0604");
    assert_refused(&refused_unsent(post_head(1 << 40).as_bytes()), 413, "E0604");
    let chunked = "POST /invocations HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n58\r\n";
    let key = KeyHeader::new(NETWORK.evaluation_key.as_ref().unwrap(), NETWORK.artifact.digest);
    // Without a declared length, a section's header says enough.
    assert_refused(&refused_unsent(&[chunked.as_bytes(), &key.write()].concat()), 413, "E0604");
    // Headers that lie about lengths are refused before a file is received, too.
    let query = NETWORK.query(0..1);
    let huge = QueryHeader { length: u64::MAX - 50, ..NETWORK.header(&query, 1, 1) };
    let head = [post_head(1 << 20).as_bytes(), &huge.write()].concat();
    let refused = refused_unsent(&head);
    assert!(matches!(refused.status, 409 | 422), "{}", refused.text());
    let wrong = KeyHeader { circuit: [1; 32], ..key };
    assert_refused(&refused_unsent(&[post_head(1 << 20).as_bytes(), &wrong.write()].concat()), 422, "E0606");
    let endless = KeyHeader { length: u64::MAX, ..key };
    assert_refused(&refused_unsent(&[post_head(1 << 20).as_bytes(), &endless.write()].concat()), 422, "E0607");
    // A client that asks first is not told to go on.
    let asking = post_head(1 << 30).replace("Host: test", "Host: test\r\nExpect: 100-continue");
    assert_refused(&refused_unsent(asking.as_bytes()), 413, "E0604");
    // One that sends first and listens later hears it too.
    let mut stream = connect(at).unwrap();
    stream.write_all(post_head(20 << 20).as_bytes()).unwrap();
    stream.write_all(&vec![0; 20 << 20]).unwrap();
    assert_refused(&reply(&mut stream).unwrap(), 413, "E0604");
}

#[test]
fn more_bytes_than_the_budget_are_refused_and_forgotten() {
    let query = TREE.query(0..20);
    let limit = query.len() as u64 - 1;
    let server = Deployment::serve(Settings { max_buffered_bytes: limit, ..TREE.settings() });
    let refused = invoke(server.address(), &TREE.body(&query, 20, 1)).unwrap();
    assert_refused(&refused, 503, "E0706");
    assert!(refused.header("retry-after").is_some());
    wait_for(server.address(), "tacit_buffered_bytes", 0);
    let small = TREE.query(0..1);
    assert_eq!(invoke(server.address(), &TREE.body(&small, 1, 1)).unwrap().status, 200);
}

#[test]
fn slow_clients_are_cut_off_and_others_served_meanwhile() {
    let settings = Settings {
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(3),
        ..TREE.settings()
    };
    let server = Deployment::serve(settings);
    let at = server.address();
    let query = TREE.query(0..1);
    let body = TREE.body(&query, 1, 1);
    let head = post_head(body.len());
    thread::scope(|scope| {
        // Nothing, half a header line, a header for ever: closed, with or without words.
        for beginning in ["", "POST /invoc", "POST /invocations HTTP/1.1\r\nHost: a\r\n"] {
            scope.spawn(move || {
                let mut stream = connect(at).unwrap();
                stream.write_all(beginning.as_bytes()).unwrap();
                let start = Instant::now();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                assert!(start.elapsed() < Duration::from_secs(30), "never closed after {beginning:?}");
                assert!(!rest.starts_with(b"HTTP/1.1 2"));
            });
        }
        // A body that stops.
        scope.spawn(|| {
            let mut stream = connect(at).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body[..body.len() / 2]).unwrap();
            assert_refused(&reply(&mut stream).unwrap(), 408, "E0707");
        });
        // A body that trickles, never idle for long enough to be cut off for that.
        scope.spawn(|| {
            let mut stream = connect(at).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let over = AtomicBool::new(false);
            writer.write_all(head.as_bytes()).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for byte in &body {
                        if over.load(Ordering::Relaxed) || writer.write_all(&[*byte]).is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                });
                let refused = reply(&mut stream);
                over.store(true, Ordering::Relaxed);
                assert_refused(&refused.unwrap(), 408, "E0707");
            });
        });
        scope.spawn(|| {
            for _ in 0..10 {
                assert_answered(&invoke(at, &body).unwrap(), &TREE.expected(&query));
                thread::sleep(Duration::from_millis(200));
            }
        });
    });
    wait_for(at, "tacit_buffered_bytes", 0);
}

#[test]
fn replays_are_refused_where_that_is_asked_for() {
    let server = Deployment::serve(Settings { refuse_replays: true, ..TREE.settings() });
    let at = server.address();
    let query = TREE.query(0..1);
    // A request that failed may be repeated.
    let mut damaged = TREE.body(&query, 1, 5);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_refused(&invoke(at, &damaged).unwrap(), 400, "E0603");
    assert_eq!(invoke(at, &TREE.body(&query, 1, 5)).unwrap().status, 200);
    assert_refused(&invoke(at, &TREE.body(&query, 1, 5)).unwrap(), 409, "E0705");
    assert_eq!(invoke(at, &TREE.body(&query, 1, 6)).unwrap().status, 200);
}

#[test]
fn what_is_no_http_is_no_harm() {
    let server = Deployment::serve(Settings { max_connections: 40, ..TREE.settings() });
    let at = server.address();
    let long_header = format!("GET /ping HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let many_headers = format!("GET /ping HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let garbage: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = connect(at).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut answer);
        let status = answer.get(9..10).map(|digit| digit[0]);
        assert!(matches!(status, None | Some(b'4')), "{}", String::from_utf8_lossy(&answer));
    }
    // Idle connections up to the limit, then one too many, which is closed at once; afterwards all is as before.
    let idle: Vec<_> = (0..40).map(|_| connect(at).unwrap()).collect();
    let start = Instant::now();
    while connect(at).and_then(|mut stream| stream.read(&mut [0])).unwrap_or(0) != 0 {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    drop(idle);
    let query = TREE.query(0..1);
    let answered = || invoke(at, &TREE.body(&query, 1, 1)).is_ok_and(|reply| reply.status == 200);
    while !answered() {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pings_are_answered_while_all_cores_evaluate() {
    let server = Deployment::serve(pinned());
    let at = server.address();
    let query = NETWORK.repeated(12);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let reply = invoke(at, &NETWORK.body(&query, 12, 1));
            over.store(true, Ordering::Relaxed);
            reply.unwrap()
        });
        wait_for(at, "tacit_buffered_bytes", query.len() as u64);
        let mut pings = 0;
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            assert_eq!(get(at, "/ping").unwrap().status, 200);
            assert!(start.elapsed() < Duration::from_secs(2), "a ping took {:?}", start.elapsed());
            pings += 1;
            thread::sleep(Duration::from_millis(20));
        }
        assert!(pings > 5, "the load was over after {pings} pings");
        assert_answered(&load.join().unwrap(), &NETWORK.expected(&query));
    });
}

#[test]
fn a_full_queue_says_when_to_come_back_and_loses_nothing_it_took() {
    let server = Deployment::serve(Settings { queue_length: 2, ..pinned() });
    let at = server.address();
    let query = NETWORK.repeated(3);
    let expected = NETWORK.expected(&query);
    let replies: Vec<Reply> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|id| {
                let body = NETWORK.body(&query, 3, id);
                scope.spawn(move || invoke(at, &body).unwrap())
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (answered, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert!(answered.len() >= 3 && !refused.is_empty(), "{} answered, {} refused", answered.len(), refused.len());
    assert!(answered.iter().all(|reply| reply.body == expected));
    for reply in refused {
        assert_refused(&reply, 503, "E0706");
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=600).contains(&seconds));
    }
}

#[test]
fn clients_that_leave_do_not_keep_others_waiting() {
    let server = Deployment::serve(pinned());
    let at = server.address();
    let long = NETWORK.repeated(1000);
    let leave = |id: u8| {
        let mut stream = connect(at).unwrap();
        let body = NETWORK.body(&long, 1000, id);
        stream.write_all(post_head(body.len()).as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream
    };
    // One is being evaluated, two wait.
    let streams: Vec<_> = (0..3).map(leave).collect();
    wait_for(at, "tacit_waiting_requests", 2);
    drop(streams);
    let start = Instant::now();
    let query = NETWORK.query(0..1);
    assert_answered(&invoke(at, &NETWORK.body(&query, 1, 9)).unwrap(), &NETWORK.expected(&query));
    assert!(start.elapsed() < Duration::from_secs(60), "waited for those who left");
    wait_for(at, "tacit_dropped_total", 3);
    wait_for(at, "tacit_buffered_bytes", 0);
    wait_for(at, "tacit_rows_total", 1);
}

#[test]
fn a_server_that_ends_answers_what_it_took_and_nothing_else() {
    let server = Deployment::serve(Settings { drain_timeout: Duration::from_secs(100), ..pinned() });
    let at = server.address();
    let query = NETWORK.repeated(5);
    thread::scope(|scope| {
        let taken = scope.spawn(|| invoke(at, &NETWORK.body(&query, 5, 1)).unwrap());
        wait_for(at, "tacit_buffered_bytes", query.len() as u64);
        server.stop().unwrap();
        assert_answered(&taken.join().unwrap(), &NETWORK.expected(&query));
    });
    assert!(connect(at).is_err());
}

#[test]
fn a_server_that_ends_in_time_gives_up_what_takes_too_long() {
    let server = Deployment::serve(Settings { drain_timeout: Duration::from_secs(1), ..pinned() });
    let at = server.address();
    let long = NETWORK.repeated(1000);
    thread::scope(|scope| {
        let taken = scope.spawn(|| invoke(at, &NETWORK.body(&long, 1000, 1)).unwrap());
        wait_for(at, "tacit_buffered_bytes", long.len() as u64);
        let start = Instant::now();
        server.stop().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
        let refused = taken.join().unwrap();
        assert_refused(&refused, 503, "E0706");
        assert!(refused.header("retry-after").is_some());
    });
}

#[test]
fn a_server_without_a_sound_artifact_ends_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let start = |artifact: &std::path::Path| {
        let settings = Settings { artifact: artifact.to_owned(), ..TREE.settings() };
        let server = tacit_server::Server::bind(settings).unwrap();
        server.run(std::future::pending()).unwrap_err().code.as_str()
    };
    assert_eq!(start(folder.path()), "E0001");
    let path = folder.path().join("model.tacit");
    std::fs::write(&path, TREE.artifact.client_part().to_bytes().unwrap()).unwrap();
    assert_eq!(start(folder.path()), "E0001");
    assert_eq!(start(&path), "E0605");
    let mut damaged = TREE.artifact.server_part().unwrap().to_bytes().unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert_eq!(start(folder.path()), "E0603");
    std::fs::write(folder.path().join("other.tacit"), b"").unwrap();
    assert_eq!(start(folder.path()), "E0001");
    // A pinned key that is none.
    let settings = Settings { evaluation_keys: vec![folder.path().join("model.tacit")], ..NETWORK.settings() };
    let server = tacit_server::Server::bind(settings).unwrap();
    assert_eq!(server.run(std::future::pending()).unwrap_err().code.as_str(), "E0605");
    // The port is taken.
    let taken = Deployment::serve(TREE.settings());
    let again = Settings { address: taken.address(), ..TREE.settings() };
    assert_eq!(tacit_server::Server::bind(again).unwrap_err().code.as_str(), "E0708");
}
