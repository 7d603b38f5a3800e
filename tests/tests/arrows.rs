//! Who may depend on whom, asked of cargo itself.

use std::process::Command;

fn tree(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal,build", "--prefix", "none", "-p", package])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs, it runs this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with(&format!("{package} v")), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    text
}

fn assert_without(package: &str, banned: &[&str]) {
    let tree = tree(package);
    for banned in banned {
        let found = tree.lines().any(|line| line.starts_with(&format!("{banned} v")));
        assert!(!found, "{package} must not depend on {banned}");
    }
}

#[test]
fn the_ir_depends_on_none_of_ours() {
    assert_without(
        "tacit-ir",
        &["tacit-compiler", "tacit-runtime", "tacit-client", "tacit-torus", "tacit", "tfhe", "protobuf", "clap"],
    );
}

#[test]
fn the_compiler_knows_no_cryptography_and_no_runtime() {
    assert_without(
        "tacit-compiler",
        &["tacit-runtime", "tacit-client", "tacit-torus", "tacit", "tfhe", "tfhe-fft", "clap"],
    );
}

#[test]
fn the_runtime_knows_no_compiler_and_no_secret_keys() {
    assert_without("tacit-runtime", &["tacit-compiler", "tacit-client", "tacit", "protobuf", "onnx-protobuf", "clap"]);
}

#[test]
fn the_server_is_lean() {
    let ours = ["tacit-compiler", "tacit-client", "tacit", "tfhe", "protobuf", "onnx-protobuf", "clap", "miette"];
    let network = ["rustls", "native-tls", "openssl", "aws-lc-rs", "ring", "reqwest", "ureq", "aws-sdk-s3", "rusty-s3"];
    assert_without("tacit-server", &[&ours[..], &network].concat());
}

#[test]
fn the_client_knows_no_compiler_and_no_server() {
    assert_without("tacit-client", &["tacit-compiler", "tacit-runtime", "tacit", "protobuf", "clap"]);
}

#[test]
fn bundles_know_no_compiler_and_no_runtime() {
    assert_without(
        "tacit-bundle",
        &["tacit-compiler", "tacit-runtime", "tacit-client", "tacit-server", "tacit", "tfhe"],
    );
}

#[test]
fn the_default_command_has_no_tls_and_no_aws() {
    assert_without("tacit", &["rustls", "ring", "reqsign-core", "quick-xml"]);
}

#[test]
fn the_test_of_arrows_can_fail() {
    assert!(tree("tacit-client").lines().any(|line| line.starts_with("tacit-ir v")));
}
