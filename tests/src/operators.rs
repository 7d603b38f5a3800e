//! One small model for each operator that runs encrypted, with onnxruntime's answers (`tests/operators/make.py`).

use crate::zoo::{Case, cases_in};
use std::path::Path;

/// Every model, in order of name.
///
/// # Panics
/// Where a file is missing or unreadable.
pub fn cases() -> Vec<Case> {
    cases_in(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("operators")])
}
