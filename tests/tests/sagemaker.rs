//! `tacit invoke` through a stand-in for SageMaker: folders and a double of S3, failures, and processes that are killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tacit_client::remote::{
    AsyncEndpoint, AsyncSettings, Folder, Http, Job, JobId, KeySection, Patience, RunSettings, Store, Uploads,
};
use tacit_gateway::{Gateway, Settings};
use tacit_ir::artifact::envelope::Request;
use tacit_ir::artifact::sha256;
use tacit_ir::diag::Result;
use tacit_server::Running;
use tacit_tests::command::{TINY, binary, bootstrapping, client, ok, refused};
use tacit_tests::deployment::Deployment;
use tacit_tests::double::{self, Reaction};

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris_decision_tree");

/// A folder as store that remembers what was read of it: the requests, when a gateway reads.
#[derive(Clone, Debug)]
struct Recording(Folder, Arc<Mutex<Vec<Vec<u8>>>>);

impl Recording {
    fn new(root: &Path) -> Self {
        Recording(Folder::new(root), Arc::default())
    }
    fn read(&self) -> Vec<Vec<u8>> {
        self.1.lock().unwrap().clone()
    }
}

impl Store for Recording {
    fn least_first_part(&self) -> u64 {
        self.0.least_first_part()
    }
    fn has(&self, location: &str) -> Result<bool> {
        self.0.has(location)
    }
    fn put(&self, location: &str, parts: &[&[u8]]) -> Result<()> {
        self.0.put(location, parts)
    }
    fn compose(&self, location: &str, first: &str, last: &[&[u8]], uploads: &dyn Uploads) -> Result<bool> {
        self.0.compose(location, first, last, uploads)
    }
    fn get(&self, location: &str) -> Result<Option<Vec<u8>>> {
        let read = self.0.get(location)?;
        self.1.lock().unwrap().extend(read.clone());
        Ok(read)
    }
    fn delete(&self, location: &str) -> Result<()> {
        self.0.delete(location)
    }
}

fn gateway(store: impl Store + 'static, container: &str) -> Gateway {
    let settings = Settings {
        address: ([127, 0, 0, 1], 0).into(),
        container: container.to_owned(),
        store: Arc::new(store),
        output: "s3://bucket/results".to_owned(),
        failure: "s3://bucket/failures/".to_owned(),
        instances: 1,
    };
    Gateway::start(settings).expect("a free port")
}

/// A gateway before a server of the folder's artifact, and its bucket.
fn endpoint(at: &Path, root: &Path) -> (Running, Recording, Gateway) {
    std::fs::create_dir(at.join("server")).unwrap();
    ok(at, &["server-artifact", "m.tacit", "-o", "server/server.tacit"]);
    let settings = Deployment::tree().settings();
    let server = Deployment::serve(tacit_server::Settings { artifact: at.join("server"), ..settings });
    let store = Recording::new(root);
    let gateway = gateway(store.clone(), &format!("http://{}", server.address()));
    (server, store, gateway)
}

/// The arguments of an invocation with a folder as S3.
fn invoke(folder: &Path, gateway: &str, input: &str, output: &str) -> Vec<String> {
    let s3 = format!("file://{}", folder.join("s3").display());
    let args =
        ["invoke", "c.tacit", "--key", "keys/client.key", "--input", input, "-o", output, "--endpoint", "scores"];
    let more = ["--bucket", "bucket", "--client-id", "alice", "--s3-endpoint", &s3, "--sagemaker-endpoint", gateway];
    args.iter().chain(&more).map(|arg| (*arg).to_owned()).collect()
}

fn with<'a>(args: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}

/// Bytes of requests are the key section and the query section; results are those of `tacit run`; the key travels once.
#[test]
fn requests_are_composed_and_results_are_those_of_run() {
    let deployment = Deployment::network();
    let server = Deployment::serve(deployment.settings());
    let root = tempfile::tempdir().unwrap();
    let store = Recording::new(root.path());
    let gateway = gateway(store.clone(), &format!("http://{}", server.address()));
    let key =
        Arc::new(KeySection::new(deployment.evaluation_key.clone().unwrap(), deployment.artifact.digest).unwrap());
    let settings = AsyncSettings {
        url: gateway.url(),
        endpoint: "scores".to_owned(),
        bucket: "bucket".to_owned(),
        prefix: "models/".to_owned(),
        client: "alice".to_owned(),
        ttl: Duration::from_secs(600),
        timeout: Duration::from_secs(600),
        inline: false,
    };
    let http = Http::new(Patience::default());
    let endpoint = AsyncEndpoint::new(http, None, Box::new(Folder::new(root.path())), settings, Some(key.clone()));
    let run = RunSettings { in_flight: 2, attempts: 1, deadline: Duration::from_secs(300), key: Some(key.sha256) };
    let queries = [deployment.query(0..2), deployment.query(2..3)];
    for (round, key_bytes) in [key.bytes(), 0].into_iter().enumerate() {
        let id = JobId { circuit: deployment.artifact.digest, client_key: [0; 32], input: [round as u8; 32], rows: 3 };
        let mut job = Job::open(&root.path().join("job"), id, 2, false).unwrap();
        let mut query = |rows: std::ops::Range<usize>| Ok(queries[rows.start / 2].clone());
        let (results, progress) = job.run(&endpoint, &run, &mut query, &mut |_| {}).unwrap();
        assert_eq!(results, queries.each_ref().map(|query| deployment.expected(query)));
        assert_eq!(progress.key_bytes, key_bytes);
        job.remove().unwrap();
    }
    let requests = store.read();
    assert_eq!(requests.len(), 4);
    for (request, query) in requests.iter().zip(queries.iter().cycle()) {
        assert!(request.starts_with(&deployment.key_section()) && request.ends_with(query));
        assert_eq!(request.len(), deployment.key_section().len() + 104 + query.len());
    }
    // What was read was removed; the key stays.
    let left = files(&root.path().join("bucket"));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with(root.path().join("bucket/models/keys/alice")));
    server.stop().unwrap();
}

#[test]
fn a_tree_goes_as_an_object_or_inline() {
    let folder = client(&format!("{IRIS}/model.onnx"), &[]);
    let at = folder.path();
    let x = format!("{IRIS}/x_test.npy");
    let (server, store, gateway) = endpoint(at, &at.join("s3"));
    ok(at, &["predict", "m.tacit", "--input", &x, "-o", "expected.npz"]);
    for (output, more, objects) in
        [("a.npz", &["--rows-per-request", "1"][..], 1), ("b.npz", &["--rows-per-request", "1", "--inline"], 0)]
    {
        let before = store.read().len();
        let out = json(&ok(at, &[&with(&invoke(at, &gateway.url(), &x, output), more)[..], &["--json"]].concat()));
        let requests = out["requests"].as_u64().unwrap() as usize;
        assert_eq!(store.read().len() - before, requests * objects);
        assert_eq!(std::fs::read(at.join(output)).unwrap(), std::fs::read(at.join("expected.npz")).unwrap());
    }
    server.stop().unwrap();
}

#[test]
fn failures_are_told_and_transient_ones_are_sent_again() {
    let folder = client(&format!("{IRIS}/model.onnx"), &[]);
    let at = folder.path();
    std::fs::write(at.join("x.csv"), "5.1,3.5,1.4,0.2\n6.0,2.9,4.5,1.5\n").unwrap();
    ok(at, &["encrypt", "c.tacit", "--key", "keys/client.key", "--input", "x.csv", "-o", "query"]);
    ok(at, &["run", "m.tacit", "--query", "query", "-o", "result"]);
    let result = std::fs::read(at.join("result")).unwrap();
    let behind = |reaction: Box<dyn FnMut(usize) -> Reaction + Send>| {
        let (mut reaction, mut count) = (reaction, 0);
        let container = double::serve(move |_| {
            count += 1;
            reaction(count)
        });
        gateway(Folder::new(at.join("s3")), &container)
    };
    let answer = |status, body: &str| Reaction::Answer(status, vec![], body.as_bytes().to_vec());
    // Found fault with: final.
    let body = r#"{"code":"E0606","message":"this server runs another circuit","help":"encrypt anew"}"#;
    let front = behind(Box::new(move |count| if count == 1 { answer(422, body) } else { Reaction::HangUp }));
    let why = refused(at, &with(&invoke(at, &front.url(), "x.csv", "y.npz"), &[]), "E0711", 1);
    assert!(why.contains("422 E0606: this server runs another circuit") && why.contains("encrypt anew"), "{why}");
    // Replies that SageMaker does not take.
    let long = "x".repeat(5000);
    let front = behind(Box::new(move |_| Reaction::Answer(200, vec![("x-long", long.clone())], vec![])));
    let why = refused(at, &with(&invoke(at, &front.url(), "x.csv", "y.npz"), &[]), "E0711", 1);
    assert!(why.contains("bytes of headers"), "{why}");
    // A container that dies twice, then answers.
    let good = result.clone();
    let front =
        behind(Box::new(
            move |count| {
                if count < 3 { Reaction::HangUp } else { Reaction::Answer(200, vec![], good.clone()) }
            },
        ));
    let out = json(&ok(at, &with(&invoke(at, &front.url(), "x.csv", "y.npz"), &["--json"])));
    assert_eq!((out["requests"].as_u64(), out["requests_repeated"].as_u64()), (Some(3), Some(2)));
    // Too slow for the deadline: the next run waits for what is under way, and sends nothing.
    let good = result.clone();
    let front = behind(Box::new(move |_| {
        std::thread::sleep(Duration::from_secs(3));
        Reaction::Answer(200, vec![], good.clone())
    }));
    let args = invoke(at, &front.url(), "x.csv", "z.npz");
    let why = refused(at, &with(&args, &["--deadline", "1"]), "E0713", 1);
    assert!(why.contains("are not sent again"), "{why}");
    let out = json(&ok(at, &with(&args, &["--json"])));
    assert_eq!((out["rows"].as_u64(), out["requests"].as_u64()), (Some(2), Some(0)));
}

/// Runs a command with credentials and nothing else of AWS in the environment.
fn with_credentials(at: &Path, credentials: bool, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).current_dir(at).env("HOME", at).env("AWS_EC2_METADATA_DISABLED", "true");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") && !name.contains("METADATA")) {
        command.env_remove(name);
    }
    if credentials {
        command.env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
    }
    command.output().unwrap()
}

/// The least of S3 on a folder, with errors to order: what is asked of it, and in which order, is what is tested. That
/// signatures are right is for `tests/sagemaker/gateway.py`, with an S3 that we did not write.
struct Bucket {
    root: PathBuf,
    parts: BTreeMap<u32, Vec<u8>>,
    refuse: Refusals,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Answered to the next request whose method, path and query begin so and, after a star, go on so; 0 hangs up.
type Refusals = Arc<Mutex<Vec<(&'static str, u16, &'static str)>>>;

impl Bucket {
    fn refusal(&self, line: &str) -> Option<(u16, &'static str)> {
        let mut all = self.refuse.lock().unwrap();
        let fits = |pattern: &str| match pattern.split_once('*') {
            Some((start, rest)) => line.starts_with(start) && line.contains(rest),
            None => line.starts_with(pattern),
        };
        let at = all.iter().position(|(pattern, ..)| fits(pattern))?;
        let (_, status, code) = all.remove(at);
        Some((status, code))
    }

    fn answer(&mut self, asked: &double::Asked) -> Reaction {
        assert!(asked.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/"));
        assert_eq!(asked.header("x-amz-content-sha256"), tacit_client::remote::hex(&sha256(&[&asked.body])));
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        self.asked.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
        let ok = |body: &str| Reaction::Answer(200, vec![], body.as_bytes().to_vec());
        let error = |status, code: &str| {
            let body =
                format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>so it is</Message></Error>");
            Reaction::Answer(status, vec![], if asked.method == "HEAD" { Vec::new() } else { body.into_bytes() })
        };
        match self.refusal(&format!("{} {}", asked.method, asked.path)) {
            Some((0, _)) => return Reaction::HangUp,
            Some((status, code)) => return error(status, code),
            None => {}
        }
        let file = self.root.join(path.trim_start_matches('/'));
        let etag = |bytes: &[u8]| format!("\"{}\"", bytes.len());
        match (asked.method.as_str(), query) {
            ("POST", "uploads=") => {
                self.parts.clear();
                ok("<InitiateMultipartUploadResult><UploadId>a/b+c</UploadId></InitiateMultipartUploadResult>")
            }
            ("PUT", query) if query.starts_with("partNumber=") => {
                assert!(query.ends_with("&uploadId=a%2Fb%2Bc"), "{query}");
                let source = asked.header("x-amz-copy-source");
                let part = match source {
                    "" => asked.body.clone(),
                    source => match std::fs::read(self.root.join(&source[1..])) {
                        Ok(bytes) => bytes,
                        Err(_) => return error(404, "NoSuchKey"),
                    },
                };
                assert!(source.is_empty() || part.len() >= 5 << 20, "S3's least part");
                let tag = etag(&part);
                let number = query["partNumber=".len()..].split('&').next().unwrap();
                self.parts.insert(number.parse().unwrap(), part);
                if source.is_empty() {
                    Reaction::Answer(200, vec![("etag", tag)], vec![])
                } else {
                    ok(&format!("<CopyPartResult><ETag>{}</ETag></CopyPartResult>", tag.replace('"', "&quot;")))
                }
            }
            ("POST", _) => {
                let body = String::from_utf8(asked.body.clone()).unwrap();
                for (at, (number, part)) in self.parts.iter().enumerate() {
                    assert_eq!(*number, at as u32 + 1);
                    let tag = etag(part).replace('"', "&quot;");
                    assert!(body.contains(&format!("<PartNumber>{number}</PartNumber><ETag>{tag}</ETag>")), "{body}");
                }
                assert_eq!(body.matches("<Part>").count(), self.parts.len());
                let whole: Vec<&[u8]> = self.parts.values().map(Vec::as_slice).collect();
                Folder::new(&self.root).put(&format!("s3:/{path}"), &whole).unwrap();
                self.parts.clear();
                ok("<CompleteMultipartUploadResult><ETag>all</ETag></CompleteMultipartUploadResult>")
            }
            ("GET", "uploadId=a%2Fb%2Bc") => {
                let part = |(number, part): (&u32, &Vec<u8>)| {
                    let tag = etag(part).replace('"', "&quot;");
                    let size = part.len();
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag><Size>{size}</Size></Part>")
                };
                let parts: String = self.parts.iter().map(part).collect();
                ok(&format!("<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"))
            }
            ("DELETE", query) if !query.is_empty() => {
                self.parts.clear();
                Reaction::Answer(204, vec![], vec![])
            }
            ("DELETE", _) => {
                let _ = std::fs::remove_file(file);
                Reaction::Answer(204, vec![], vec![])
            }
            ("PUT", _) => {
                Folder::new(&self.root).put(&format!("s3:/{path}"), &[&asked.body]).unwrap();
                ok("")
            }
            // Without s3:ListBucket absence is a 403.
            _ => match std::fs::read(file) {
                Ok(bytes) if asked.method == "GET" => Reaction::Answer(200, vec![], bytes),
                Ok(_) => ok(""),
                Err(_) => error(403, "AccessDenied"),
            },
        }
    }
}

#[test]
fn s3_takes_a_key_once_and_composes_requests() {
    let folder = bootstrapping();
    let at = folder.path();
    let root = at.join("s3");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let bucket = |refuse: Vec<(&'static str, u16, &'static str)>| {
        let refuse = Arc::new(Mutex::new(refuse));
        let mut bucket = Bucket { root: root.clone(), parts: BTreeMap::new(), refuse, asked: asked.clone() };
        double::serve(move |asked| bucket.answer(&asked))
    };
    let (server, store, gateway) = endpoint(at, &root);
    let x = format!("{TINY}/x.csv");
    let run = |output: &str, s3: &str, credentials: bool, more: &[&str]| {
        let args =
            ["invoke", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", output, "--endpoint", "scores"];
        let places =
            ["--bucket", "bucket", "--client-id", "alice", "--s3-endpoint", s3, "--sagemaker-endpoint", &gateway.url()];
        let last = ["--region", "eu-west-1", "--rows-per-request", "4", "--json", "--retries", "1"];
        with_credentials(at, credentials, &[&args[..], &places, &last, more].concat())
    };
    let evaluation_key = std::fs::read(at.join("keys/evaluation.key")).unwrap();
    let address = bucket(vec![]);
    for (output, key_bytes) in [("a.npz", evaluation_key.len() + 88), ("b.npz", 0)] {
        let out = run(output, &address, true, &[]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let out = json(&String::from_utf8_lossy(&out.stdout));
        assert_eq!((out["key_bytes"].as_u64(), out["requests"].as_u64()), (Some(key_bytes as u64), Some(2)));
    }
    let puts = asked.lock().unwrap().iter().filter(|line| line.starts_with("PUT /bucket/keys/alice/")).count();
    assert_eq!(puts, evaluation_key.len().div_ceil(PART), "{asked:?}");
    let requests = store.read();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        let request = Request::read(request).unwrap();
        let (header, file) = request.key.unwrap();
        header.check(file).unwrap();
        assert!(file == evaluation_key);
    }
    let left = files(&root.join("bucket"));
    assert!(left.len() == 1 && left[0].starts_with(root.join("bucket/keys/alice")), "{left:?}");
    ok(at, &["predict", "m.tacit", "--input", &x, "--mode", "clear", "-o", "clear.npz"]);
    let [clear, found] = ["clear.npz", "a.npz"].map(|name| tacit::data::read_npz(&at.join(name)).unwrap());
    for (name, value) in &clear {
        let (a, b) = (value.to_f64().unwrap(), found[name].to_f64().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.25), "{a:?} {b:?}");
    }
    // A key that a lifecycle rule removed after it was looked for is uploaded again; an upload that breaks is repeated.
    let gone = bucket(vec![("PUT /bucket/requests", 404, "NoSuchKey"), ("PUT /bucket/keys", 503, "SlowDown")]);
    assert!(run("c.npz", &gone, true, &[]).status.success());
    // Who asks wrongly is told so, and nothing is left behind.
    for (s3, credentials, code, text) in [
        (bucket(vec![("POST", 403, "SignatureDoesNotMatch")]), true, "E0712", "SignatureDoesNotMatch"),
        (bucket(vec![("POST", 403, "AccessDenied")]), true, "E0712", "s3:PutObject"),
        (bucket(vec![("POST", 404, "NoSuchBucket")]), true, "E0711", "--bucket"),
        (bucket(vec![("POST", 301, "PermanentRedirect")]), true, "E0711", "--region"),
        (bucket(vec![]), false, "E0712", "no AWS credentials"),
    ] {
        let out = run("n.npz", &s3, credentials, &[]);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && why.contains(code) && why.contains(text), "{text}: {why}");
        assert!(!at.join("n.npz").exists() && !at.join("n.npz.job").exists());
    }
    // Results that cannot be read look as if they were not there yet: the deadline's error says what else it may be.
    let address = bucket((0..2000).map(|_| ("GET /bucket/results", 403, "AccessDenied")).collect());
    let out = run("d.npz", &address, true, &["--deadline", "3"]);
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(why.contains("E0713") && why.contains("s3:GetObject"), "{why}");
    server.stop().unwrap();
}

/// Bytes of the parts that objects are uploaded in.
const PART: usize = 8 << 20;

#[test]
fn interrupted_uploads_go_on_with_the_parts_that_are_missing() {
    let folder = bootstrapping();
    let at = folder.path();
    let root = at.join("s3");
    let (asked, refuse) = (Arc::new(Mutex::new(Vec::new())), Refusals::default());
    let mut bucket =
        Bucket { root: root.clone(), parts: BTreeMap::new(), refuse: refuse.clone(), asked: asked.clone() };
    let s3 = double::serve(move |asked| bucket.answer(&asked));
    let (server, store, gateway) = endpoint(at, &root);
    // Three parts of a query: one row has about half a megabyte.
    std::fs::write(at.join("x.csv"), "0.5,-0.25,0.75,0.1\n".repeat(44)).unwrap();
    let run = |refusals: &[(&'static str, u16, &'static str)], more: &[&str]| {
        refuse.lock().unwrap().extend(refusals);
        asked.lock().unwrap().clear();
        let args = ["invoke", "c.tacit", "--key", "keys/client.key", "--input", "x.csv", "-o", "y.npz", "--json"];
        let service = ["--endpoint", "scores", "--bucket", "bucket", "--client-id", "alice", "--region", "eu-west-1"];
        let places = ["--s3-endpoint", &s3, "--sagemaker-endpoint", &gateway.url(), "--retries", "0"];
        let rows = ["--rows-per-request", "44"];
        let out = with_credentials(at, true, &[&args[..], &service, &places, &rows, more].concat());
        let uploads: Vec<String> =
            asked.lock().unwrap().iter().filter(|line| line.contains("uploadId")).cloned().collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.success().then(|| json(&text(&out.stdout))), text(&out.stderr), uploads)
    };
    let part = |uploads: &[String], number: u32| {
        uploads.iter().filter(|line| line.starts_with("PUT") && line.contains(&format!("partNumber={number}&"))).count()
    };
    let job = || json(&std::fs::read_to_string(at.join("y.npz.job/job.json")).unwrap());

    // The key stops in its second part, and so does the next attempt; what arrived is not sent again.
    let key = std::fs::metadata(at.join("keys/evaluation.key")).unwrap().len() as usize + 88;
    assert!(key > PART && key < 2 * PART);
    let stop = ("PUT /bucket/keys*partNumber=2", 0, "");
    let (_, why, uploads) = run(&[stop], &[]);
    assert!(why.contains("E0710") && (part(&uploads, 1), part(&uploads, 2)) == (1, 1), "{why} {uploads:?}");
    let kept = job()["uploads"].as_object().unwrap().clone();
    let (location, id) = kept.iter().next().unwrap();
    assert!(kept.len() == 1 && location.starts_with("s3://bucket/keys/alice/") && id == "a/b+c", "{kept:?}");
    let (_, why, uploads) = run(&[stop], &[]);
    assert!(why.contains("E0710") && (part(&uploads, 1), part(&uploads, 2)) == (0, 1), "{why} {uploads:?}");
    // Credentials that expired meanwhile are no reason to give up either.
    let (_, why, uploads) = run(&[("GET /bucket/keys*uploadId", 403, "ExpiredToken")], &[]);
    assert!(why.contains("E0712") && uploads.len() == 1, "{why} {uploads:?}");

    // Then it goes on, and the query stops in its last part; its ciphertexts are kept, not made anew.
    let (_, why, uploads) = run(&[("PUT /bucket/requests*partNumber=4", 0, "")], &[]);
    assert!(why.contains("E0710"), "{why}");
    let of_key: Vec<String> = uploads.iter().filter(|line| line.contains("/keys/")).cloned().collect();
    assert_eq!((part(&of_key, 1), part(&of_key, 2)), (0, 1), "{uploads:?}");
    let kept = std::fs::read(at.join("y.npz.job/00000.query")).unwrap();
    assert!(kept.starts_with(b"TACITQRY") && kept.len() > 2 * PART, "{}", kept.len());
    let (out, why, uploads) = run(&[], &[]);
    assert!(out.is_some_and(|out| out["rows"] == 44 && out["key_bytes"] == 0), "{why}");
    assert_eq!((1..5).map(|number| part(&uploads, number)).collect::<Vec<_>>(), [0, 0, 0, 1], "{uploads:?}");
    let request = store.read().pop().unwrap();
    assert!(request.len() == key + kept.len() && request.ends_with(&kept));
    assert!(!at.join("y.npz.job").exists());

    // What cannot go on is given up: one that is denied at once, one whose upload is gone when it is looked for, and
    // that of a job that is dropped.
    let (_, why, uploads) = run(&[("PUT /bucket/requests*partNumber=3", 403, "AccessDenied")], &[]);
    assert!(
        why.contains("E0712") && uploads.last().unwrap().starts_with("DELETE /bucket/requests"),
        "{why} {uploads:?}"
    );
    assert!(!at.join("y.npz.job").exists());
    run(&[("PUT /bucket/requests*partNumber=3", 0, "")], &[]);
    let (out, why, uploads) = run(&[("GET /bucket/requests*uploadId", 404, "NoSuchUpload")], &[]);
    assert!(out.is_some(), "{why}");
    assert_eq!((1..5).map(|number| part(&uploads, number)).collect::<Vec<_>>(), [1; 4], "{uploads:?}");
    run(&[("PUT /bucket/requests*partNumber=3", 0, "")], &[]);
    let (out, why, uploads) = run(&[], &["--restart"]);
    assert!(out.is_some() && uploads[0].starts_with("DELETE /bucket/requests"), "{why} {uploads:?}");
    assert_eq!(part(&uploads, 2), 1);
    let left = files(&root.join("bucket"));
    assert!(left.len() == 1 && left[0].starts_with(root.join("bucket/keys/alice")), "{left:?}");
    server.stop().unwrap();
}

/// A process that is killed, without notice, when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(at: &Path, args: &[&str]) -> Process {
    let mut command = Command::new(binary());
    Process(command.args(args).current_dir(at).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Waits until the job file says so.
fn wait_for(job: &Path, what: &str) {
    let start = Instant::now();
    while !std::fs::read_to_string(job).is_ok_and(|text| text.contains(what)) {
        assert!(start.elapsed() < Duration::from_secs(120), "no {what} in {}", job.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn killed_servers_and_clients_lose_nothing() {
    let folder = bootstrapping();
    let at = folder.path();
    let row = "0.5,-0.25,0.75,0.1\n";
    std::fs::write(at.join("x.csv"), row.repeat(48)).unwrap();
    ok(at, &["predict", "m.tacit", "--input", "x.csv", "--mode", "clear", "-o", "clear.npz"]);
    let clear = tacit::data::read_npz(&at.join("clear.npz")).unwrap();
    // A port that was free a moment ago, to come back to.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let serve = ["serve", "m.tacit", "--port", &port];
    let gateway = gateway(Folder::new(at.join("s3")), &format!("http://127.0.0.1:{port}"));
    let args = invoke(at, &gateway.url(), "x.csv", "y.npz");
    let command = with(&args, &["--rows-per-request", "8", "--in-flight", "2", "--json"]);
    let job = at.join("y.npz.job/job.json");

    // The server dies in the middle of a request, and the client too, with parts done and parts under way.
    let server = spawn(at, &serve);
    let invoking = spawn(at, &command);
    wait_for(&job, "\"done\"");
    drop(server);
    let server = spawn(at, &serve);
    drop(invoking);
    let saved = json(&std::fs::read_to_string(&job).unwrap());
    let count = |state: &str| {
        let parts = saved["parts"].as_array().unwrap();
        parts.iter().filter(|part| part["state"] == state).count() as u64
    };
    let done = count("done");
    assert!((1..6).contains(&done), "{saved}");
    let out = json(&ok(at, &command));
    assert_eq!(out["rows"], 48);
    assert_eq!(out["rows_resumed"].as_u64(), Some(8 * done));
    let pending = 6 - done - count("under-way");
    let requests = out["requests"].as_u64().unwrap();
    assert!((pending..=pending + 3 * count("under-way") + 2).contains(&requests), "{out}");
    assert!(!at.join("y.npz.job").exists());
    let found = tacit::data::read_npz(&at.join("y.npz")).unwrap();
    for (name, value) in &clear {
        let (a, b) = (value.to_f64().unwrap(), found[name].to_f64().unwrap());
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.25), "{a:?} {b:?}");
    }
    drop(server);
}
