//! `tacit bundle` and `tacit train` as users run them.

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{ok, refused, tacit};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// A folder with a compiled tree and the least static program.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["compile", &format!("{EXAMPLES}/iris_decision_tree/model.onnx"), "-o", "Iris_tree.tacit"]);
    let mut program = vec![0; 64 + 56];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in [(16, 2u16), (18, 62), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1)] {
        program[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    program[64] = 1;
    std::fs::write(folder.path().join("server"), program).unwrap();
    folder
}

/// Every file below a folder, what is inside archives, too.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                unpack(
                    path.strip_prefix(folder).unwrap().display().to_string(),
                    std::fs::read(&path).unwrap(),
                    &mut files,
                );
            }
        }
    }
    files
}

fn unpack(name: String, bytes: Vec<u8>, files: &mut BTreeMap<String, Vec<u8>>) {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inside = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut inside).unwrap();
        unpack(format!("{name}!"), inside, files);
    } else if bytes.get(257..262) == Some(b"ustar") {
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert!(!entry.header().entry_type().is_symlink(), "{name}");
            let mut inside = Vec::new();
            entry.read_to_end(&mut inside).unwrap();
            let path = entry.path().unwrap().display().to_string();
            unpack(format!("{name}/{path}"), inside, files);
        }
    }
    files.insert(name, bytes);
}

#[test]
fn bundles_of_every_target_are_the_same_every_time() {
    let folder = prepared();
    let at = folder.path();
    for (target, mode, files) in [
        ("sagemaker", "async", &["model.tar.gz", "foundation.json", "endpoint.parameters.json", "deploy.sh"][..]),
        ("sagemaker", "realtime", &["endpoint.json", "client.json", "predictions.json"]),
        ("sagemaker", "batch", &["transform.sh"]),
        ("docker", "async", &["compose.yaml", "model/server.tacit"]),
        ("kubernetes", "async", &["deployment.yaml", "service.yaml", "autoscaler.yaml", "kustomization.yaml"]),
    ] {
        let common = ["--server-binary", "server", "--target", target, "--mode", mode];
        let bundle = |out: &str| ok(at, &[&["bundle", "Iris_tree.tacit", "-o", out][..], &common].concat());
        bundle("one");
        bundle("two");
        let (one, two) = (contents(&at.join("one")), contents(&at.join("two")));
        assert!(one == two, "{target} {mode} differs");
        for file in files.iter().chain(&["README.md", "image.tar", "image/Dockerfile", "client.tacit", "push.sh"]) {
            assert!(one.contains_key(*file), "{target} {mode} has no {file}: {:?}", one.keys());
        }
        let digests = ["--check", "--quiet", "SHA256SUMS"];
        let checked = Command::new("sha256sum").args(digests).current_dir(at.join("one")).status().unwrap();
        assert!(checked.success());
        std::fs::remove_dir_all(at.join("one")).unwrap();
        std::fs::remove_dir_all(at.join("two")).unwrap();
    }
}

#[test]
fn the_model_is_in_the_servers_part_alone() {
    let folder = prepared();
    let at = folder.path();
    ok(at, &["bundle", "Iris_tree.tacit", "--target", "sagemaker", "--server-binary", "server", "-o", "d"]);
    let files = contents(&at.join("d"));
    let kind = |name: &str| files[name][8];
    assert_eq!((kind("client.tacit"), kind("model.tar.gz!/server.tacit")), (2, 7));
    assert!(!files.keys().any(|name| name.starts_with("model.tar.gz!/") && name != "model.tar.gz!/server.tacit"));
    let summary = ok(at, &["inspect", "d/client.tacit", "--json"]);
    assert!(!summary.contains("external_products"));
    let predictions: serde_json::Value = serde_json::from_slice(&files["predictions.json"]).unwrap();
    let instances = predictions["instances"].as_array().unwrap();
    assert!(instances.len() > 5);
    for one in instances {
        assert!(
            one["latency_ms"].as_f64().unwrap() > 0.0 && one["dollars_per_month"].as_f64().unwrap() > 50.0,
            "{one}"
        );
    }
}

/// The demonstration's endpoint loads the very archive that a bundle of its model has, and its client the bundle's client part.
#[test]
fn the_demonstration_goes_through_a_bundles_files() {
    let folder = prepared();
    let at = folder.path();
    let example = format!("{EXAMPLES}/breast_cancer_residual_mlp");
    let calibration = format!("{example}/calibration.npy");
    ok(at, &["compile", &format!("{example}/model.onnx"), "--calibration", &calibration, "-o", "m.tacit"]);
    let bundle = ["bundle", "m.tacit", "--target", "sagemaker", "--server-binary", "server", "-o", "d", "--json"];
    let summary: serde_json::Value = serde_json::from_str(&ok(at, &bundle)).unwrap();
    let (model, circuit) = (summary["model_key"].as_str().unwrap(), summary["circuit"].as_str().unwrap());
    let printed = ok(at, &["demo", "--sagemaker", "--rows", "2"]);
    assert!(printed.contains(&format!("s3://demo-models/{model} for the endpoint")), "{model}: {printed}");
    assert!(printed.contains(&format!("s3://demo/client/{circuit}/client.tacit")), "{circuit}: {printed}");
    assert!(printed.contains("logits: at most 0."), "{printed}");
    // The server's part of the artifact is what the archive has.
    ok(at, &["server-artifact", "m.tacit", "-o", "server.tacit"]);
    let files = contents(&at.join("d"));
    assert!(files["model.tar.gz!/server.tacit"] == std::fs::read(at.join("server.tacit")).unwrap());
}

/// The server's part runs queries, tells clients nothing, and is no input for what needs the whole.
#[test]
fn a_server_artifact_runs_and_does_no_more() {
    let folder = prepared();
    let at = folder.path();
    let rows = format!("{EXAMPLES}/iris_decision_tree/x_test.npy");
    let printed = ok(at, &["server-artifact", "Iris_tree.tacit", "-o", "s.tacit"]);
    let bytes = std::fs::read(at.join("s.tacit")).unwrap();
    assert!(printed.contains(&format!("{} bytes", bytes.len())), "{printed}");
    assert!(bytes.len() < std::fs::read(at.join("Iris_tree.tacit")).unwrap().len());
    // Names of inputs and labels are the client's.
    let label = b"output_label";
    assert!(!bytes.windows(label.len()).any(|window| window == label));
    ok(at, &["keygen", "Iris_tree.tacit", "-o", "keys"]);
    ok(at, &["encrypt", "Iris_tree.tacit", "--key", "keys/client.key", "--input", &rows, "-o", "q"]);
    for (artifact, result) in [("s.tacit", "r1"), ("Iris_tree.tacit", "r2")] {
        ok(at, &["run", artifact, "--query", "q", "-o", result]);
    }
    assert!(std::fs::read(at.join("r1")).unwrap() == std::fs::read(at.join("r2")).unwrap());
    ok(at, &["server-artifact", "Iris_tree.tacit", "-o", "again.tacit"]);
    assert!(std::fs::read(at.join("again.tacit")).unwrap() == bytes);
    ok(at, &["client-artifact", "Iris_tree.tacit", "-o", "c.tacit"]);
    for (command, why) in [
        (&["server-artifact", "c.tacit", "-o", "n"][..], "E0605"),
        (&["server-artifact", "s.tacit", "-o", "n"], "E0605"),
        (&["server-artifact", "none.tacit", "-o", "n"], "E0001"),
        (&["server-artifact", "Iris_tree.tacit", "-o", "none/n"], "E0005"),
        (&["keygen", "s.tacit", "-o", "n"], "E0605"),
        (&["encrypt", "s.tacit", "--key", "keys/client.key", "--input", &rows, "-o", "n"], "E0605"),
    ] {
        refused(at, command, why, 1);
        assert!(!at.join("n").exists(), "{command:?}");
    }
}

/// Predictions by hand: from one core's time, the cores, and a price.
#[test]
fn times_and_costs_add_up_and_prices_can_be_given() {
    let folder = prepared();
    let at = folder.path();
    let model = format!("{EXAMPLES}/breast_cancer_xgboost_100x4/model.onnx");
    ok(at, &["compile", &model, "-o", "trees.tacit"]);
    let toml = "date = \"2026-11\"\nregion = \"eu-west-1\"\n[dollars-per-hour]\n\"ml.m5.xlarge\" = 0.25\n\"ml.c5.9xlarge\" = 2\n";
    std::fs::write(at.join("p.toml"), toml).unwrap();
    let json =
        r#"{"date": "2026-11", "region": "eu-west-1", "dollars-per-hour": {"ml.m5.xlarge": 0.25, "ml.c5.9xlarge": 2}}"#;
    std::fs::write(at.join("p.json"), json).unwrap();
    let bundle = |more: &[&str]| {
        let args =
            ["bundle", "trees.tacit", "--target", "sagemaker", "--server-binary", "server", "-o", "d", "--force"];
        ok(at, &[&args[..], more].concat());
        let read = |name: &str| std::fs::read_to_string(at.join("d").join(name)).unwrap();
        (serde_json::from_str::<serde_json::Value>(&read("predictions.json")).unwrap(), read("README.md"))
    };
    let (built_in, readme) = bundle(&[]);
    for text in [built_in["prices"].as_str().unwrap(), &readme] {
        assert!(text.contains("September 2026, us-east-1") && text.contains("verify before relying on it"), "{text}");
    }
    let (given, readme) = bundle(&["--prices", "p.toml"]);
    assert_eq!(bundle(&["--prices", "p.json"]), (given.clone(), readme.clone()));
    assert!(readme.contains("2026-11, eu-west-1") && !readme.contains("September 2026"), "{readme}");

    let summary: serde_json::Value = serde_json::from_str(&ok(at, &["inspect", "trees.tacit", "--json"])).unwrap();
    let one_core = given["one_core_ms"].as_f64().unwrap();
    assert_eq!(Some(one_core), summary["predicted_run_ms"].as_f64());
    let near = |a: &serde_json::Value, b: f64| {
        let a = a.as_f64().unwrap();
        assert!((a - b).abs() <= 1e-9 * b, "{a} {b}");
    };
    for table in [&built_in, &given] {
        for one in table["instances"].as_array().unwrap() {
            // Two virtual processors are a core.
            let cores = (one["vcpus"].as_u64().unwrap() / 2) as f64;
            let latency = one["latency_ms"].as_f64().unwrap();
            assert!(latency <= one_core * (1.0 + 1e-9) && latency * cores >= one_core * (1.0 - 1e-9), "{one}");
            near(&one["rows_per_hour"], 3_600_000.0 / one_core * cores);
        }
    }
    let priced = |name: &str| {
        let one = given["instances"].as_array().unwrap().iter().find(|one| one["instance"] == name);
        one.unwrap_or_else(|| panic!("{name}"))
    };
    // A core, two, and eighteen: 730 hours a month.
    near(&priced("ml.m5.large")["latency_ms"], one_core);
    assert!(priced("ml.m5.large")["dollars_per_month"].is_null());
    near(&priced("ml.m5.xlarge")["dollars_per_month"], 182.5);
    near(&priced("ml.m5.xlarge")["dollars_per_million_rows"], 0.25 * one_core / 2.0 / 3.6);
    near(&priced("ml.c5.9xlarge")["dollars_per_month"], 1460.0);
    near(&priced("ml.c5.9xlarge")["dollars_per_million_rows"], 2.0 * one_core / 18.0 / 3.6);

    for (name, text, what) in [
        ("a.toml", toml.replace("eu-west-1", ""), "region is 1 to 40"),
        ("b.toml", toml.replace("ml.m5.xlarge", "ml.m5.gigantic"), "ml.m5.gigantic"),
        ("c.toml", toml.replace("0.25", "-0.25"), "no positive number"),
        ("d.toml", toml.replace("date", "day"), "unknown field `day`"),
        ("e.toml", "date =".to_owned(), "is no TOML"),
        ("f.json", "{".to_owned(), "is no JSON"),
        ("g.json", r#"{"date": "2026", "region": "x", "dollars-per-hour": {}}"#.to_owned(), "no price"),
    ] {
        std::fs::write(at.join(name), text).unwrap();
        let args = ["bundle", "trees.tacit", "--target", "sagemaker", "--server-binary", "server", "-o", "n"];
        let why = refused(at, &[&args[..], &["--prices", name]].concat(), "E0801", 2);
        assert!(why.contains(what) && why.contains(name), "{why}");
        assert!(!at.join("n").exists());
    }
}

#[test]
fn nothing_in_a_bundle_is_secret() {
    let folder = prepared();
    let at = folder.path();
    let example = format!("{EXAMPLES}/digits_mlp_deep");
    let calibration = format!("{example}/calibration.npy");
    let compile = ["compile", &format!("{example}/model.onnx"), "--calibration", &calibration, "-o", "mlp.tacit"];
    // Bits are given, so that nothing is searched.
    ok(at, &[&compile[..], &["--set", "input-bits=4", "--set", "weight-bits=5", "--set", "noise-share=0.2"]].concat());
    ok(at, &["keygen", "mlp.tacit", "-o", "keys"]);
    let key = std::fs::read(at.join("keys/client.key")).unwrap();
    // The header is that of any file; the secret is at the end.
    let secret = &key[key.len() - 64..];
    let bundle = ["bundle", "mlp.tacit", "--server-binary", "server", "-o", "d", "--evaluation-key"];
    for target in ["sagemaker", "docker", "kubernetes"] {
        let why = refused(at, &[&bundle[..], &["keys/client.key", "--target", target]].concat(), "E0605", 1);
        assert!(why.contains("client key"), "{why}");
        assert!(!at.join("d").exists());
        ok(at, &[&bundle[..], &["keys/evaluation.key", "--target", target]].concat());
        let files = contents(&at.join("d"));
        assert!(files.keys().any(|name| name.ends_with("evaluation.key")), "{:?}", files.keys());
        for (name, bytes) in &files {
            let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(!holds(secret), "{target}: {name} holds the client's secret");
            assert!(!bytes.starts_with(b"\x89TACIT\r\n\x03"), "{target}: {name} is a client key");
            for pattern in [&b"PRIVATE KEY"[..], b"AKIA", b"aws_secret_access_key", b"password="] {
                assert!(!holds(pattern), "{target}: {name} has {}", String::from_utf8_lossy(pattern));
            }
        }
        std::fs::remove_dir_all(at.join("d")).unwrap();
    }
    ok(at, &["keygen", "Iris_tree.tacit", "-o", "other"]);
    let other =
        [&["bundle", "Iris_tree.tacit"][..], &bundle[2..], &["keys/evaluation.key", "--target", "docker"]].concat();
    refused(at, &other, "E0606", 1);
}

#[test]
fn what_cannot_be_bundled_is_refused() {
    let folder = prepared();
    let at = folder.path();
    let bundle = ["bundle", "Iris_tree.tacit", "--target", "docker", "-o", "d"];
    let own = env!("CARGO_BIN_EXE_tacit");
    // Beside the program that cargo built there may be a `tacit-server`; beside a copy there is none.
    let copy = at.join("tacit");
    std::fs::copy(own, &copy).unwrap();
    let output = Command::new(&copy).args(bundle).current_dir(at).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.contains("E0001") && why.contains("crt-static"), "{why}");
    let why = refused(at, &[&bundle[..], &["--server-binary", own]].concat(), "E0009", 1);
    assert!(why.contains("dynamically linked"), "{why}");
    let good = [&bundle[..], &["--server-binary", "server"]].concat();
    refused(at, &[&good[..], &["--name", "Not A Name"]].concat(), "E0801", 2);
    ok(at, &["client-artifact", "Iris_tree.tacit", "-o", "c.tacit"]);
    refused(at, &["bundle", "c.tacit", "--target", "docker", "-o", "d", "--server-binary", "server"], "E0605", 1);
    refused(at, &["bundle", "Iris_tree.tacit", "--target", "training", "-o", "d"], "E0801", 2);
    let output = tacit(at, &["bundle", "--target", "docker", "-o", "d"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!at.join("d").exists());

    std::fs::create_dir(at.join("d")).unwrap();
    ok(at, &good);
    std::fs::write(at.join("d/README.md"), "edited").unwrap();
    let why = refused(at, &good, "E0008", 1);
    assert!(why.contains("--force"), "{why}");
    assert_eq!(std::fs::read_to_string(at.join("d/README.md")).unwrap(), "edited");
    ok(at, &[&good[..], &["--force"]].concat());
    assert_ne!(std::fs::read_to_string(at.join("d/README.md")).unwrap(), "edited");
    // A folder that no bundle wrote stays, even with --force.
    std::fs::create_dir(at.join("mine")).unwrap();
    std::fs::write(at.join("mine/thesis"), "years").unwrap();
    let mine =
        ["bundle", "Iris_tree.tacit", "--target", "docker", "-o", "mine", "--server-binary", "server", "--force"];
    refused(at, &mine, "E0008", 1);
    assert_eq!(std::fs::read_to_string(at.join("mine/thesis")).unwrap(), "years");
    // No temporary folder is left.
    assert!(
        !std::fs::read_dir(at).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(".tacit"))
    );
}

/// The folder that SageMaker prepares for a job.
fn job(hyperparameters: &str, model: &[&str], calibration: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("input/config")).unwrap();
    std::fs::write(at.join("input/config/hyperparameters.json"), hyperparameters).unwrap();
    for (channel, files) in [("model", model), ("calibration", calibration)] {
        if !files.is_empty() {
            std::fs::create_dir_all(at.join("input/data").join(channel)).unwrap();
        }
        for file in files {
            let path = Path::new(EXAMPLES).join(file);
            std::fs::copy(&path, at.join("input/data").join(channel).join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

#[test]
fn a_training_job_compiles() {
    // As SageMaker passes values, as its Python tools do, and a name as Python writes it.
    let parameters = r#"{"failure-bits": "30", "precision_bits": "\"11\"", "encoding": "\"thresholds\"", "sagemaker_region": "\"x\""}"#;
    let folder = job(parameters, &["iris_decision_tree/model.onnx"], &[]);
    let at = folder.path();
    let printed = ok(at, &["train", "--folder", "."]);
    for name in ["compile_seconds", "predicted_run_ms", "query_bytes", "external_products", "log2_noise"] {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("tacit:{name}=")));
        let value: f64 =
            line.unwrap_or_else(|| panic!("{name}: {printed}")).strip_suffix(';').unwrap().parse().unwrap();
        assert!(value.is_finite());
    }
    assert!(!at.join("output/failure").exists());
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join("output/data/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["parameters"]["failure_bits"], 30);
    // The same circuit as `tacit compile` makes; a client and a server that have only their parts.
    let model = format!("{EXAMPLES}/iris_decision_tree/model.onnx");
    ok(at, &["compile", &model, "-o", "m.tacit", "--set", "failure-bits=30", "--set", "precision-bits=11"]);
    let compiled: serde_json::Value = serde_json::from_str(&ok(at, &["inspect", "m.tacit", "--json"])).unwrap();
    assert_eq!(summary["circuit"], compiled["circuit"]);
    let (client, server) = ("output/data/client.tacit", "model/server.tacit");
    ok(at, &["keygen", client, "-o", "keys"]);
    let rows = format!("{EXAMPLES}/iris_decision_tree/x_test.npy");
    ok(at, &["encrypt", client, "--key", "keys/client.key", "--input", &rows, "-o", "q"]);
    ok(at, &["run", server, "--query", "q", "-o", "r"]);
    ok(at, &["decrypt", client, "--key", "keys/client.key", "--result", "r", "-o", "y.npz"]);
    assert_eq!(std::fs::read_dir(at.join("model")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(at.join("output/data")).unwrap().count(), 3);
}

#[test]
fn a_training_job_takes_another_jobs_archive_and_calibration_rows() {
    let folder = job("{}", &[], &["digits_mlp/calibration.npy"]);
    let at = folder.path();
    std::fs::create_dir_all(at.join("input/data/model")).unwrap();
    let archive = std::fs::File::create(at.join("input/data/model/model.tar.gz")).unwrap();
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(archive, flate2::Compression::fast()));
    archive.append_path_with_name(format!("{EXAMPLES}/digits_mlp/model.onnx"), "model.onnx").unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    ok(at, &["train", "--folder", "."]);
    assert!(at.join("model/server.tacit").exists());
}

/// Whether a process handles SIGTERM: `proc(5)`, bits of `SigCgt`.
fn hears_sigterm(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << 14 != 0
}

/// SageMaker sends SIGTERM and waits, 120 s or, for endpoints, 30 s, before it kills.
#[test]
fn a_job_that_is_told_to_stop_leaves_a_reason_and_nothing_half_written() {
    let folder = job("{}", &["digits_cnn_pool/model.onnx"], &["digits_cnn_pool/calibration.npy"]);
    let at = folder.path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacit"));
    let mut job = command.args(["train", "--folder", "."]).current_dir(at).stderr(Stdio::piped()).spawn().unwrap();
    // As soon as it listens: compiling takes seconds from there.
    while !hears_sigterm(job.id()) {
        assert!(job.try_wait().unwrap().is_none(), "the job ended before it was told to");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = Instant::now();
    let kill = ["-TERM", &job.id().to_string()];
    assert!(Command::new("kill").args(kill).status().unwrap().success());
    let output = job.wait_with_output().unwrap();
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && why.contains("E0715"), "{:?}: {why}", output.status);
    let failure = std::fs::read_to_string(at.join("output/failure")).unwrap();
    assert!(failure.contains("E0715") && failure.contains("SIGTERM"), "{failure}");
    let left: Vec<String> = contents(at).into_keys().filter(|name| !name.starts_with("input/")).collect();
    assert_eq!(left, ["output/failure"]);
}

#[test]
fn a_failed_job_says_why_in_its_file() {
    let many = ["iris_decision_tree/model.onnx", "digits_mlp/model.onnx"];
    for (parameters, model, code, exit, what) in [
        ("{\"bits\": \"3\"}", &many[..1], "E0801", 2, "unknown field `bits`"),
        ("{\"failure-bits\": \"x\"}", &many[..1], "E0801", 2, "failure-bits"),
        ("[]", &many[..1], "E0801", 2, "is no JSON object"),
        ("{}", &[][..], "E0001", 1, "input/data/model"),
        ("{}", &["iris_decision_tree/x_test.npy"][..], "E0001", 1, "no file that ends in .onnx or .toml"),
        ("{}", &many[1..], "E0801", 2, "calibration"),
    ] {
        let folder = job(parameters, model, &[]);
        let at = folder.path();
        refused(at, &["train", "--folder", "."], code, exit);
        let failure = std::fs::read_to_string(at.join("output/failure")).unwrap();
        assert!(failure.contains(code) && failure.contains(what), "{failure}");
        assert!(failure.chars().count() <= 1024);
        assert!(!at.join("model/server.tacit").exists());
    }
}
