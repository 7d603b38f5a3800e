//! The command line as users run it.

use std::path::Path;
use std::process::{Command, Output};

pub(crate) fn tacit(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tacit")).args(args).current_dir(folder).output().expect("the binary runs")
}

/// The standard output of a command that must succeed.
pub(crate) fn ok(folder: &Path, args: &[&str]) -> String {
    let output = tacit(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The text of the error, its lines joined.
pub(crate) fn refused(folder: &Path, args: &[&str], code: &str, exit: i32) -> String {
    let output = tacit(folder, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
    assert!(text.contains(code), "{args:?} should say {code}: {text}");
    text.split(|c: char| c.is_whitespace() || c == '│').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
