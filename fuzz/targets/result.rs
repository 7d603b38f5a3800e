//! A result as the client decrypts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_client::decrypt;
use tacit_fuzz::{RESULT, SOUND, both_ways};
use tacit_ir::artifact::Kind;

fuzz_target!(|data: &[u8]| {
    both_ways(RESULT, Kind::Result, data, |bytes| {
        let _ = decrypt(&SOUND.key, bytes);
    });
});
