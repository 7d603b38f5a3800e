//! The commands as users run them: roles apart, files in between, and every kind of wrong file.

use std::path::Path;
use tacit_tests::command::{ok, refused};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris_decision_tree");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris_logistic");

fn compiled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["compile", &format!("{EXAMPLE}/model.onnx"), "-o", "m.tacit"]);
    folder
}

#[test]
fn three_roles_with_files_between() {
    let folder = compiled();
    let at = folder.path();
    let x = format!("{EXAMPLE}/x_test.npy");
    ok(at, &["client-artifact", "m.tacit", "-o", "c.tacit"]);
    ok(at, &["keygen", "c.tacit", "-o", "keys"]);
    ok(at, &["encrypt", "c.tacit", "--key", "keys/client.key", "--input", &x, "-o", "query"]);
    ok(at, &["run", "m.tacit", "--query", "query", "-o", "result", "--threads", "1"]);
    ok(at, &["run", "m.tacit", "--query", "query", "-o", "result2", "--threads", "2"]);
    assert_eq!(std::fs::read(at.join("result")).unwrap(), std::fs::read(at.join("result2")).unwrap());
    ok(at, &["decrypt", "c.tacit", "--key", "keys/client.key", "--result", "result", "-o", "y.npz"]);
    let found = tacit::data::read_npz(&at.join("y.npz")).unwrap();
    let expected = tacit::data::read_npz(Path::new(&format!("{EXAMPLE}/expected.npz"))).unwrap();
    assert_eq!(found["output_label"].data, expected["output_label"].data);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(at.join("keys/client.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // A second key does not replace the first unasked.
    refused(at, &["keygen", "c.tacit", "-o", "keys"], "E0702", 1);
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let (a, b) = (compiled(), compiled());
    assert_eq!(std::fs::read(a.path().join("m.tacit")).unwrap(), std::fs::read(b.path().join("m.tacit")).unwrap());
}

#[test]
fn wrong_files_are_refused() {
    let folder = compiled();
    let at = folder.path();
    let x = format!("{EXAMPLE}/x_test.npy");
    let model = format!("{EXAMPLE}/model.onnx");
    ok(at, &["keygen", "m.tacit", "-o", "keys"]);
    ok(at, &["encrypt", "m.tacit", "--key", "keys/client.key", "--input", &x, "-o", "query"]);
    ok(at, &["compile", &format!("{OTHER}/model.onnx"), "-o", "other.tacit"]);
    let query = std::fs::read(at.join("query")).unwrap();
    std::fs::write(at.join("cut"), &query[..query.len() / 2]).unwrap();
    let mut flipped = query.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(at.join("flipped"), &flipped).unwrap();
    std::fs::write(at.join("text.onnx"), "this is no model").unwrap();
    let onnx = std::fs::read(&model).unwrap();
    std::fs::write(at.join("cut.onnx"), &onnx[..onnx.len() / 2]).unwrap();

    refused(at, &["compile", "missing.onnx", "-o", "n.tacit"], "E0001", 1);
    refused(at, &["compile", "text.onnx", "-o", "n.tacit"], "E0002", 1);
    refused(at, &["compile", "cut.onnx", "-o", "n.tacit"], "E0003", 1);
    refused(at, &["compile", &model, "-o", "no/folder/n.tacit"], "E0005", 1);
    refused(at, &["compile", &model, "-o", "n.tacit", "--set", "precision=3"], "E0801", 2);
    refused(at, &["compile", &model, "-o", "n.tacit", "--set", "encoding=\"grid\""], "E0801", 2);
    assert!(!at.join("n.tacit").exists(), "nothing is left behind");
    refused(at, &["run", &model, "--query", "query", "-o", "r"], "E0601", 1);
    refused(at, &["run", "m.tacit", "--query", "cut", "-o", "r"], "E0603", 1);
    refused(at, &["run", "m.tacit", "--query", "flipped", "-o", "r"], "E0603", 1);
    refused(at, &["run", "m.tacit", "--query", "keys/client.key", "-o", "r"], "E0605", 1);
    refused(at, &["run", "other.tacit", "--query", "query", "-o", "r"], "E0606", 1);
    refused(at, &["encrypt", "other.tacit", "--key", "keys/client.key", "--input", &x, "-o", "q"], "E0606", 1);
    refused(at, &["predict", "m.tacit", "--input", &format!("{EXAMPLE}/model.onnx")], "E0006", 1);
    std::fs::write(at.join("narrow.csv"), "1,2\n3,4\n").unwrap();
    refused(at, &["predict", "m.tacit", "--input", "narrow.csv"], "E0203", 1);
    std::fs::write(at.join("nan.csv"), "1,2,,4\n").unwrap();
    refused(at, &["predict", "m.tacit", "--input", "nan.csv"], "E0205", 1);
    refused(at, &["opt", "text.onnx"], "E0404", 1);
    refused(at, &["opt", "text.onnx", "--passes", "none"], "E0404", 1);
    refused(at, &["explain", "E9999"], "E0801", 2);
    assert!(ok(at, &["explain", "e0606"]).starts_with("# E0606"));
    assert!(!at.join("r").exists() && !at.join("q").exists());
}

#[test]
fn a_passphrase_guards_the_key() {
    let folder = compiled();
    let at = folder.path();
    let x = format!("{EXAMPLE}/x_test.npy");
    std::fs::write(at.join("pass"), "correct horse\n").unwrap();
    std::fs::write(at.join("wrong"), "battery staple\n").unwrap();
    ok(at, &["keygen", "m.tacit", "-o", "keys", "--passphrase-file", "pass"]);
    let encrypt = ["encrypt", "m.tacit", "--key", "keys/client.key", "--input", &x, "-o", "query"];
    refused(at, &encrypt, "E0701", 1);
    refused(at, &[&encrypt[..], &["--passphrase-file", "wrong"]].concat(), "E0701", 1);
    ok(at, &[&encrypt[..], &["--passphrase-file", "pass"]].concat());
}

#[test]
fn every_error_code_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    for code in tacit_ir::diag::Code::ALL {
        let page = ok(folder.path(), &["explain", code.as_str()]);
        assert!(page.starts_with(&format!("# {code}: {}", code.summary())), "{page}");
    }
}
