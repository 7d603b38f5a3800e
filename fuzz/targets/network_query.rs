//! A query for a network, as far as the server reads it before it bootstraps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_fuzz::{NETWORK, both_ways};
use tacit_ir::artifact::Kind;
use tacit_runtime::{Query, prepare};

fuzz_target!(|data: &[u8]| {
    let network = &*NETWORK;
    both_ways(&network.query, Kind::Query, data, |bytes| {
        let Ok(query) = Query::read(&network.circuit, bytes) else { return };
        for row in query.rows() {
            let _ = prepare(&network.circuit, row);
        }
    });
});
