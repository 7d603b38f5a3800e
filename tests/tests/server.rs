//! The server over real sockets: right replies, and clean refusals of everything else.

use serde_json::Value;
use std::sync::LazyLock;
use std::thread;
use tacit_client::codec::Codec;
use tacit_client::decrypt;
use tacit_compiler::options::Options;
use tacit_ir::artifact::envelope::{KeyHeader, QueryHeader};
use tacit_server::Settings;
use tacit_tests::deployment::Deployment;
use tacit_tests::difference;
use tacit_tests::http::{Reply, get, invoke};

static TREE: LazyLock<Deployment> = LazyLock::new(Deployment::tree);
static NETWORK: LazyLock<Deployment> = LazyLock::new(Deployment::network);

/// Checks that a request was refused as it should be, with a body that says why.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    let body: Value = serde_json::from_slice(&reply.body).expect("a JSON body");
    assert_eq!((reply.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(!reply.head.to_ascii_lowercase().contains("transfer-encoding"), "{}", reply.head);
}

/// Checks a right reply: the bytes of `tacit run`, and headers as SageMaker wants them.
#[track_caller]
fn assert_answered(reply: &Reply, expected: &[u8], id: u8) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == expected, "the reply is not what `tacit run` writes");
    assert_eq!(reply.header("content-length"), Some(&*expected.len().to_string()));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let id = format!("{id:02x}").repeat(16);
    assert_eq!(reply.header("x-tacit-request-id"), Some(&*id));
    let attributes = reply.header("x-amzn-sagemaker-custom-attributes").expect("times");
    assert!(attributes.starts_with(&format!("request={id};predicted-ms=")) && attributes.contains(";actual-ms="));
    assert!(reply.head.len() < 1024, "{}", reply.head);
}

#[test]
fn a_tree_answers_as_tacit_run_does_and_decrypts_to_the_labels_of_onnxruntime() {
    let server = Deployment::serve(TREE.settings());
    let query = TREE.query(0..20);
    let reply = invoke(server.address(), &TREE.body(&query, 20, 7)).unwrap();
    assert_answered(&reply, &TREE.expected(&query), 7);
    let codec = Codec::new(&TREE.artifact).unwrap();
    let outputs = codec.decode(&decrypt(&TREE.key, &reply.body).unwrap(), &Default::default()).unwrap();
    let expected = TREE.example.expected.iter().map(|(name, value)| {
        let columns = value.data.len() / value.shape.first().copied().unwrap_or(1);
        let data = value.data.pick(0..20 * columns);
        (name.clone(), tacit_ir::interp::tensor::TensorValue { shape: vec![20, columns], data })
    });
    let difference = difference(&outputs, &expected.collect());
    assert_eq!(difference.labels, 0);
    // Evaluation has no side effects: the same request gets the same reply.
    let again = invoke(server.address(), &TREE.body(&query, 20, 7)).unwrap();
    assert_answered(&again, &reply.body, 7);
    server.stop().unwrap();
}

/// Queries of half a megabyte are prepared in pieces while they arrive or wait, whoever is evaluated.
#[test]
fn queries_that_are_prepared_before_their_turn_get_their_own_results() {
    let forest = Deployment::new("breast_cancer_xgboost", &Options::default());
    let server = Deployment::serve(Settings { threads: Some(2), queue_length: 8, ..forest.settings() });
    thread::scope(|scope| {
        for client in 0..4 {
            let (forest, at) = (&forest, server.address());
            scope.spawn(move || {
                // Several rows too, of which the first alone is prepared ahead.
                let rows = 1 + client % 2;
                let queries = [client, client + 4].map(|first| forest.query(first..first + rows));
                let expected = queries.each_ref().map(|query| forest.expected(query));
                for turn in 0..20 {
                    let id = (10 * client + turn % 2) as u8;
                    let body = forest.body(&queries[turn % 2], rows as u32, id);
                    assert_answered(&invoke(at, &body).unwrap(), &expected[turn % 2], id);
                }
            });
        }
    });
    server.stop().unwrap();
}

#[test]
fn the_whole_artifact_serves_too_and_other_files_of_the_folder_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("model.tacit", &TREE.artifact.to_bytes().unwrap());
    put("client.tacit", &TREE.artifact.client_part().to_bytes().unwrap());
    put("model.tar.gz", b"left by local mode");
    put("notes.txt", b"");
    let server = Deployment::serve(Settings { artifact: folder.path().to_owned(), ..TREE.settings() });
    let query = TREE.query(0..1);
    assert_answered(&invoke(server.address(), &TREE.body(&query, 1, 1)).unwrap(), &TREE.expected(&query), 1);
}

#[test]
fn a_network_takes_its_key_from_the_request_then_from_memory() {
    let server = Deployment::serve(NETWORK.settings());
    let at = server.address();
    let query = NETWORK.query(0..2);
    let expected = NETWORK.expected(&query);
    let alone = NETWORK.body(&query, 2, 1);
    let composed = [NETWORK.key_section(), alone.clone()].concat();
    let missing = invoke(at, &alone).unwrap();
    assert_refused(&missing, 409, "E0704");
    assert_eq!(missing.header("x-tacit-request-id"), Some(&*"01".repeat(16)));
    assert_answered(&invoke(at, &composed).unwrap(), &expected, 1);
    assert_answered(&invoke(at, &alone).unwrap(), &expected, 1);
    assert_answered(&invoke(at, &composed).unwrap(), &expected, 1);
    let metrics = get(at, "/metrics").unwrap().text();
    for line in [
        "tacit_keys_read_total 1",
        "tacit_keys 1",
        "tacit_rows_total 6",
        "tacit_ready 1",
        "tacit_buffered_bytes 0",
        "tacit_requests_total{status=\"200\"} 3",
        "tacit_requests_total{status=\"409\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[test]
fn a_cache_of_keys_that_holds_none_still_answers() {
    let server = Deployment::serve(Settings { key_cache_bytes: 1, ..NETWORK.settings() });
    let query = NETWORK.query(0..1);
    let alone = NETWORK.body(&query, 1, 1);
    let composed = [NETWORK.key_section(), alone.clone()].concat();
    assert_answered(&invoke(server.address(), &composed).unwrap(), &NETWORK.expected(&query), 1);
    assert_refused(&invoke(server.address(), &alone).unwrap(), 409, "E0704");
}

#[test]
fn pinned_keys_are_found_by_name_or_in_the_data_folder() {
    let query = NETWORK.query(0..1);
    let (alone, expected) = (NETWORK.body(&query, 1, 1), NETWORK.expected(&query));
    let named = Settings { evaluation_keys: vec![NETWORK.key_path()], ..NETWORK.settings() };
    let channel = Settings { data: NETWORK.folder(), ..NETWORK.settings() };
    for settings in [named, channel] {
        let server = Deployment::serve(settings);
        assert_answered(&invoke(server.address(), &alone).unwrap(), &expected, 1);
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let server = Deployment::serve(NETWORK.settings());
    let at = server.address();
    let query = NETWORK.query(0..1);
    let file = NETWORK.evaluation_key.clone().unwrap();
    let key = KeyHeader::new(&file, NETWORK.artifact.digest);
    let body =
        |key: KeyHeader, file: &[u8], header: QueryHeader| [&key.write()[..], file, &header.write(), &query].concat();
    let header = NETWORK.header(&query, 1, 1);
    // The file is not the one that its section names.
    let mut flipped = file.clone();
    flipped[file.len() / 2] ^= 1;
    assert_refused(&invoke(at, &body(key, &flipped, header)).unwrap(), 400, "E0603");
    let other = QueryHeader { key: Some([9; 32]), ..header };
    assert_refused(&invoke(at, &body(key, &file, other)).unwrap(), 400, "E0608");
    let none = QueryHeader { key: None, ..header };
    assert_refused(&invoke(at, &[&none.write()[..], &query].concat()).unwrap(), 422, "E0703");
    let short = KeyHeader::new(&file[..1000], NETWORK.artifact.digest);
    let named = QueryHeader { key: Some(short.sha256), ..header };
    assert_refused(&invoke(at, &body(short, &file[..1000], named)).unwrap(), 422, "E0607");
    // A key of right size and hash that is none.
    let garbage = vec![7; file.len()];
    let wrong = KeyHeader::new(&garbage, NETWORK.artifact.digest);
    let named = QueryHeader { key: Some(wrong.sha256), ..header };
    assert_refused(&invoke(at, &body(wrong, &garbage, named)).unwrap(), 400, "E0601");
    assert_refused(&invoke(at, &body(key, &file, header)[..1 << 20]).unwrap(), 400, "E0603");
    let twice = [NETWORK.key_section(), NETWORK.key_section()].concat();
    assert_refused(&invoke(at, &twice).unwrap(), 400, "E0608");
    // A circuit without an evaluation key takes none.
    let tree = Deployment::serve(TREE.settings());
    let query = TREE.query(0..1);
    let key = KeyHeader::new(b"key", TREE.artifact.digest);
    let with = [&key.write()[..], b"key", &TREE.body(&query, 1, 1)].concat();
    assert_refused(&invoke(tree.address(), &with).unwrap(), 400, "E0608");
    let naming = QueryHeader { key: Some([1; 32]), ..TREE.header(&query, 1, 1) };
    assert_refused(&invoke(tree.address(), &[&naming.write()[..], &query].concat()).unwrap(), 400, "E0608");
}

#[test]
fn the_other_paths_answer_as_sagemaker_expects() {
    let server = Deployment::serve(TREE.settings());
    let ping = get(server.address(), "/ping").unwrap();
    assert_eq!((ping.status, ping.body.len()), (200, 0));
    let parameters = get(server.address(), "/execution-parameters").unwrap();
    let parameters: Value = serde_json::from_slice(&parameters.body).unwrap();
    let expected = serde_json::json!({
        "MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 100
    });
    assert_eq!(parameters, expected);
    let metrics = get(server.address(), "/metrics").unwrap();
    assert!(
        metrics.header("content-type").is_some_and(|media_type| media_type.starts_with("text/plain; version=0.0.4"))
    );
    assert_refused(&get(server.address(), "/models").unwrap(), 404, "E0608");
    assert_refused(&get(server.address(), "/invocations").unwrap(), 405, "E0608");
}
