//! A client key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_client::ClientKey;
use tacit_fuzz::{KEY, SOUND, both_ways};
use tacit_ir::artifact::Kind;

fuzz_target!(|data: &[u8]| {
    both_ways(KEY, Kind::ClientKey, data, |bytes| {
        // Without a passphrase: Argon2 takes a second by design.
        if let Ok(key) = ClientKey::from_bytes(bytes, None) {
            let _ = key.check(SOUND.key.layout(), SOUND.key.digest());
        }
    });
});
