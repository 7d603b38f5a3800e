//! The command line as users run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The `tacit` binary, built with the same profile as the test that runs, and with every feature.
///
/// # Panics
/// Where it does not build.
pub fn binary() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT
        .get_or_init(|| {
            let test = std::env::current_exe().expect("a test has a path");
            let target = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").to_path_buf();
            let mut build = Command::new(env!("CARGO"));
            build
                .args(["build", "-q", "--offline", "-p", "tacit", "--features", "aws"])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            // What cargo says of the test would make ring, and all above it, compile anew.
            for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")) {
                build.env_remove(name);
            }
            if target.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo runs, it runs this test").success());
            target.join("tacit")
        })
        .clone()
}

/// Runs a command in a folder.
///
/// # Panics
/// Where the binary does not start.
pub fn tacit(folder: &Path, args: &[&str]) -> Output {
    Command::new(binary()).args(args).current_dir(folder).output().expect("the binary runs")
}

/// The standard output of a command that must succeed.
///
/// # Panics
/// Where it does not.
pub fn ok(folder: &Path, args: &[&str]) -> String {
    let output = tacit(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The error of a command that must be refused with this code and exit code, its lines joined.
///
/// # Panics
/// Where it is not.
pub fn refused(folder: &Path, args: &[&str], code: &str, exit: i32) -> String {
    let output = tacit(folder, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
    assert!(text.contains(code), "{args:?} should say {code}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text.split(|c: char| c.is_whitespace() || c == '│').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A folder with a network of two bootstraps, its calibration rows and a few rows to predict.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/invoke");

/// A client's folder: the artifact `m.tacit`, the client artifact `c.tacit`, and keys in `keys`.
///
/// # Panics
/// Where the model does not compile.
pub fn client(model: &str, more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    ok(folder.path(), &[&["compile", model, "-o", "m.tacit"], more].concat());
    ok(folder.path(), &["client-artifact", "m.tacit", "-o", "c.tacit"]);
    ok(folder.path(), &["keygen", "c.tacit", "-o", "keys"]);
    folder
}

/// The folder of a client of the network in [`TINY`].
///
/// # Panics
/// Where it does not compile.
pub fn bootstrapping() -> tempfile::TempDir {
    client(&format!("{TINY}/network.toml"), &["--calibration", &format!("{TINY}/calibration.csv")])
}
