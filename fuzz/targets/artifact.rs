//! An artifact as `tacit run` and `tacit predict` read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_client::codec::Codec;
use tacit_fuzz::{ARTIFACT, both_ways};
use tacit_ir::artifact::{Artifact, Kind};
use tacit_runtime::Circuit;

fuzz_target!(|data: &[u8]| {
    both_ways(ARTIFACT, Kind::Artifact, data, |bytes| {
        let Ok(artifact) = Artifact::from_bytes(bytes, Kind::Artifact.default_limit()) else { return };
        let _ = Codec::new(&artifact);
        if let Some(plan) = artifact.plan {
            let _ = Circuit::new(artifact.client.layout, plan, artifact.digest);
        }
    });
});
