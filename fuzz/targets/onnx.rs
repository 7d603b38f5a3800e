//! An ONNX model: import, and compile what was imported.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx::{ImportLimits, import};
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::diag::Code;

fuzz_target!(|data: &[u8]| {
    // Small limits leave time for more inputs; the checks against them are the same.
    let limits = ImportLimits { max_elements: 1 << 16, max_tree_nodes: 1 << 14, max_targets: 1 << 10, ..Default::default() };
    let Ok(model) = import(data, &limits) else { return };
    let compiled = compile(model, &Options::default(), &BTreeMap::new(), &DriverOptions::default());
    if let Err(why) = compiled {
        assert!(why.code != Code::Internal, "{why}");
    }
});
