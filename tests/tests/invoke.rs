//! `tacit invoke` against servers that answer, forget, hang up and refuse.

use std::path::Path;
use std::sync::{Arc, Mutex};
use tacit_ir::artifact::envelope::Request;
use tacit_ir::artifact::{Artifact, Kind};
use tacit_runtime::{Circuit, EvaluationKey, run};
use tacit_tests::command::{TINY, bootstrapping, client, ok, refused};
use tacit_tests::double::{Asked, Reaction, serve};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris_decision_tree");

/// What a server saw of each request: whether a key came along, and rows.
type Seen = Arc<Mutex<Vec<(bool, u32)>>>;

fn iris() -> tempfile::TempDir {
    client(&format!("{EXAMPLE}/model.onnx"), &[])
}

fn json(status: u16, text: &str) -> Reaction {
    Reaction::Answer(status, vec![("content-type", "application/json".to_owned())], text.as_bytes().to_vec())
}

/// Evaluates as a server does, with the runtime; `key` holds the one key it knows.
fn evaluator(folder: &Path) -> (impl FnMut(&Asked) -> Reaction + Send + 'static, Seen) {
    let bytes = std::fs::read(folder.join("m.tacit")).unwrap();
    let artifact = Artifact::from_bytes(&bytes, Kind::Artifact.default_limit()).unwrap();
    let circuit = Circuit::new(artifact.client.layout, artifact.plan.unwrap(), artifact.digest).unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let mut known: Option<([u8; 32], EvaluationKey)> = None;
    let react = move |asked: &Asked| {
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/invocations"));
        assert_eq!(asked.header("content-type"), "application/octet-stream");
        let request = Request::read(&asked.body).unwrap();
        log.lock().unwrap().push((request.key.is_some(), request.header.rows));
        if let Some((header, file)) = request.key {
            header.check(file).unwrap();
            let key = EvaluationKey::from_bytes(file, circuit.layout(), circuit.digest()).unwrap();
            known = Some((header.sha256, key));
        }
        let key = known.as_ref().filter(|(name, _)| Some(*name) == request.header.key).map(|(_, key)| key);
        if request.header.key.is_some() && key.is_none() {
            return json(409, r#"{"code":"E0704","message":"the server does not have the key","help":"send it"}"#);
        }
        Reaction::Answer(200, vec![], run(&circuit, request.query, key).unwrap())
    };
    (react, seen)
}

fn npz(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The arguments of an invocation of iris, with its first rows.
fn invoke(url: &str, output: &str) -> Vec<String> {
    let x = format!("{EXAMPLE}/x_test.npy");
    ["invoke", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", output, "--url", url]
        .map(str::to_owned)
        .to_vec()
}

fn with<'a>(args: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn results_through_a_server_are_those_of_run() {
    let folder = iris();
    let at = folder.path();
    let (mut evaluate, seen) = evaluator(at);
    let url = serve(move |asked| evaluate(&asked));
    let x = format!("{EXAMPLE}/x_test.npy");
    ok(at, &["encrypt", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", "query"]);
    ok(at, &["run", "m.tacit", "--query", "query", "-o", "expected"]);
    ok(at, &["invoke", "c.tacit", "--query", "query", "-o", "result", "--url", &url]);
    assert_eq!(npz(&at.join("result")), npz(&at.join("expected")));
    // Trees are exact: the whole round trip gives the bytes of another one.
    ok(at, &["decrypt", "c.tacit", "--key", "keys/client.key", "--result", "result", "-o", "expected.npz"]);
    let args = invoke(&url, "y.npz");
    let out: serde_json::Value =
        serde_json::from_str(&ok(at, &with(&args, &["--json", "--rows-per-request", "7"]))).unwrap();
    assert_eq!(npz(&at.join("y.npz")), npz(&at.join("expected.npz")));
    let rows = out["rows"].as_u64().unwrap();
    assert_eq!(out["requests"].as_u64().unwrap(), rows.div_ceil(7));
    assert_eq!(seen.lock().unwrap().len() as u64, 1 + rows.div_ceil(7));
    assert!(!at.join("y.npz.job").exists(), "a finished job is removed");
}

#[test]
fn an_evaluation_key_travels_when_it_is_asked_for() {
    let folder = bootstrapping();
    let at = folder.path();
    let (mut evaluate, seen) = evaluator(at);
    let url = serve(move |asked| evaluate(&asked));
    let x = format!("{TINY}/x.csv");
    let args = |output: &'static str| {
        let all = ["invoke", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", output, "--url", &url];
        all.map(str::to_owned).to_vec()
    };
    ok(at, &with(&args("a.npz"), &["--rows-per-request", "4"]));
    // Without and with the key, then without: it is known.
    assert_eq!(*seen.lock().unwrap(), [(false, 4), (true, 4), (false, 2)]);
    ok(at, &with(&args("b.npz"), &[]));
    assert_eq!(seen.lock().unwrap()[3..], [(false, 6)]);
    // A server that lost the key asks again.
    let (mut evaluate, seen) = evaluator(at);
    let url = serve(move |asked| evaluate(&asked));
    ok(at, &["invoke", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", "c.npz", "--url", &url]);
    assert_eq!(*seen.lock().unwrap(), [(false, 6), (true, 6)]);
    ok(at, &["predict", "m.tacit", "--input", &x, "--mode", "clear", "-o", "clear.npz"]);
    let clear = tacit::data::read_npz(&at.join("clear.npz")).unwrap();
    for name in ["a.npz", "b.npz", "c.npz"] {
        let found = tacit::data::read_npz(&at.join(name)).unwrap();
        for (name, value) in &clear {
            let (a, b) = (value.to_f64().unwrap(), found[name].to_f64().unwrap());
            let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(largest < 0.25, "{name} is off by {largest}");
        }
    }
    std::fs::rename(at.join("keys/evaluation.key"), at.join("evaluation.key")).unwrap();
    refused(at, &with(&args("d.npz"), &[]), "E0703", 1);
    ok(at, &with(&args("d.npz"), &["--evaluation-key", "evaluation.key"]));
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let folder = iris();
    let at = folder.path();
    let (mut evaluate, seen) = evaluator(at);
    let mut count = 0;
    let url = serve(move |asked| {
        count += 1;
        if count == 4 { json(500, r#"{"code":"E0901","message":"an internal error"}"#) } else { evaluate(&asked) }
    });
    let args = invoke(&url, "y.npz");
    let why = refused(at, &with(&args, &["--rows-per-request", "5"]), "E0711", 1);
    assert!(why.contains("500 E0901: an internal error"), "{why}");
    assert!(!at.join("y.npz").exists());
    let job = std::fs::read_to_string(at.join("y.npz.job/job.json")).unwrap();
    assert_eq!(job.matches("\"done\"").count(), 3, "{job}");
    // A damaged result is not taken for a whole one.
    let damaged = at.join("y.npz.job/00001.result");
    let half = npz(&damaged).len() / 2;
    std::fs::write(&damaged, &npz(&damaged)[..half]).unwrap();
    // Another input is another job.
    std::fs::write(at.join("other.csv"), "5.1,3.5,1.4,0.2\n").unwrap();
    let mut other = args.clone();
    other[5] = "other.csv".to_owned();
    let why = refused(at, &with(&other, &[]), "E0714", 1);
    assert!(why.contains("of another input"), "{why}");
    let other_key = ["keygen", "c.tacit", "-o", "other"];
    ok(at, &other_key);
    let mut other = args.clone();
    other[3] = "other/client.key".to_owned();
    assert!(refused(at, &with(&other, &[]), "E0714", 1).contains("of another client key"));

    let before = seen.lock().unwrap().len();
    let out: serde_json::Value = serde_json::from_str(&ok(at, &with(&args, &["--json"]))).unwrap();
    let parts = out["parts"].as_u64().unwrap();
    assert_eq!(out["rows_resumed"], 10);
    assert_eq!(seen.lock().unwrap().len() - before, parts as usize - 2);
    assert!(!at.join("y.npz.job").exists());
    let found = tacit::data::read_npz(&at.join("y.npz")).unwrap();
    let expected = tacit::data::read_npz(Path::new(&format!("{EXAMPLE}/expected.npz"))).unwrap();
    assert_eq!(found["output_label"].data, expected["output_label"].data);

    // What is in the way can be dropped; what cannot be read is not dropped unasked.
    std::fs::create_dir(at.join("z.npz.job")).unwrap();
    std::fs::write(at.join("z.npz.job/job.json"), "{").unwrap();
    let args = invoke(&url, "z.npz");
    assert!(refused(at, &with(&args, &[]), "E0714", 1).contains("damaged"));
    ok(at, &with(&args, &["--restart"]));
}

#[test]
fn what_is_transient_is_tried_again() {
    let folder = iris();
    let at = folder.path();
    let (mut evaluate, seen) = evaluator(at);
    let mut count = 0;
    let url = serve(move |asked| {
        count += 1;
        match count {
            1 => Reaction::HangUp,
            2 => Reaction::Answer(503, vec![("retry-after", "0".to_owned())], b"busy".to_vec()),
            3 => Reaction::Answer(503, vec![], b"busy".to_vec()),
            _ => evaluate(&asked),
        }
    });
    ok(at, &with(&invoke(&url, "y.npz"), &[]));
    assert_eq!(seen.lock().unwrap().len(), 1);
    // A server that is always busy is given up, and so is one that never answers.
    let url = serve(|_| Reaction::Answer(503, vec![], b"busy".to_vec()));
    assert!(refused(at, &with(&invoke(&url, "n.npz"), &["--retries", "1"]), "E0711", 1).contains("503: busy"));
    let url = serve(|_| Reaction::HangUp);
    refused(at, &with(&invoke(&url, "n.npz"), &["--retries", "1"]), "E0710", 1);
    assert!(!at.join("n.npz.job").exists(), "nothing to go on with");
}

#[test]
fn refusals_and_wrong_answers_are_told() {
    let folder = iris();
    let at = folder.path();
    let refusal =
        r#"{"code":"E0606","message":"the request is for circuit a, this server runs b","help":"encrypt anew"}"#;
    let url = serve(move |_| json(422, refusal));
    let why = refused(at, &with(&invoke(&url, "n.npz"), &[]), "E0711", 1);
    assert!(why.contains("422 E0606: the request is for circuit a, this server runs b"), "{why}");
    assert!(why.contains("encrypt anew"), "{why}");
    let url = serve(|_| Reaction::Answer(200, vec![], b"<html>a proxy's page</html>".to_vec()));
    refused(at, &with(&invoke(&url, "n.npz"), &[]), "E0711", 1);
    let query = std::fs::read(at.join("m.tacit")).unwrap();
    let url = serve(move |_| Reaction::Answer(200, vec![], query.clone()));
    refused(at, &with(&invoke(&url, "n.npz"), &[]), "E0711", 1);
    for (url, code, exit) in [("localhost:1", "E0801", 2), ("ftp://localhost", "E0801", 2)] {
        refused(at, &with(&invoke(url, "n.npz"), &[]), code, exit);
    }
    let args = invoke("http://127.0.0.1:1", "n.npz");
    refused(at, &with(&args, &["--rows-per-request", "0"]), "E0801", 2);
    refused(at, &with(&args, &["--evaluation-key", "keys/client.key"]), "E0801", 2);
    assert!(!at.join("n.npz").exists() && !at.join("n.npz.job").exists());
}

/// Times in client artifacts decide how a batch is split.
#[test]
fn batches_are_split_by_predicted_time_and_size() {
    use std::time::Duration;
    use tacit_client::remote::rows_per_request;
    let minute = Duration::from_secs(60);
    assert_eq!(rows_per_request(Some(1e6), 1000, u64::MAX, minute), 60);
    assert_eq!(rows_per_request(Some(1e9), 1000, u64::MAX, minute), 1);
    assert_eq!(rows_per_request(Some(1.0), 1 << 20, u64::MAX, minute), 64);
    assert_eq!(rows_per_request(None, 1 << 20, 6 << 20, minute), 6);
    let folder = iris();
    let read = |name: &str| {
        Artifact::from_bytes(&std::fs::read(folder.path().join(name)).unwrap(), Kind::Artifact.default_limit()).unwrap()
    };
    let (whole, part) = (read("m.tacit"), read("c.tacit"));
    assert!(whole.row_us.is_some_and(|us| us > 0.0));
    assert_eq!(whole.row_us, part.row_us);
}
