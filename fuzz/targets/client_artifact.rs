//! A client artifact as `tacit encrypt` and `tacit decrypt` read it: what is accepted encodes and decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use tacit_client::codec::Codec;
use tacit_fuzz::{CLIENT_ARTIFACT, both_ways};
use tacit_ir::artifact::{Artifact, Kind};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::Element;

/// Values per input; an artifact may claim inputs of any width.
const MAX_COLUMNS: u64 = 1 << 10;

fn value(element: Element, columns: usize) -> TensorValue {
    let data = match element {
        Element::F32 => Data::F32(vec![0.5; columns]),
        Element::F64 => Data::F64(vec![0.5; columns]),
        Element::I64 => Data::I64(vec![1; columns]),
        Element::Bool => Data::Bool(vec![true; columns]),
        Element::Str => Data::Str(vec!["a".to_owned(); columns]),
    };
    TensorValue { shape: vec![1, columns], data }
}

fuzz_target!(|data: &[u8]| {
    both_ways(CLIENT_ARTIFACT, Kind::ClientArtifact, data, |bytes| {
        let Ok(artifact) = Artifact::from_bytes(bytes, Kind::Artifact.default_limit()) else { return };
        let Ok(codec) = Codec::new(&artifact) else { return };
        let inputs: BTreeMap<_, _> = codec
            .inputs()
            .into_iter()
            .map(|(name, ty)| {
                let columns = (ty.columns().unwrap_or(1) as u64).min(MAX_COLUMNS);
                (name, value(ty.element, columns as usize))
            })
            .collect();
        let Ok(batch) = codec.encode(&inputs) else { return };
        let slots = &codec.spec().layout.result_slots;
        if slots.iter().all(|&slots| u64::from(slots) <= MAX_COLUMNS) {
            let results = vec![slots.iter().map(|&slots| vec![1 << 40; slots as usize]).collect()];
            let _ = codec.decode(&results, &batch.passed);
        }
    });
});
