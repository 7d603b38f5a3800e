//! An evaluation key as the server reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_fuzz::{NETWORK, both_ways};
use tacit_ir::artifact::Kind;
use tacit_runtime::EvaluationKey;

fuzz_target!(|data: &[u8]| {
    let network = &*NETWORK;
    both_ways(&network.evaluation_key, Kind::EvaluationKey, data, |bytes| {
        let _ = EvaluationKey::from_bytes(bytes, network.circuit.layout(), network.circuit.digest());
    });
});
