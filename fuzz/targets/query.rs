//! A query as the server reads and runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_fuzz::{QUERY, SOUND, both_ways};
use tacit_ir::artifact::Kind;

fuzz_target!(|data: &[u8]| {
    both_ways(QUERY, Kind::Query, data, |bytes| {
        let _ = tacit_runtime::run(&SOUND.circuit, bytes, None);
    });
});
