//! Damaged files of every kind: an error or a value, never a panic.
//!
//! Each kind is cut, flipped and spliced some thousand times with a fixed seed. Containers guard their contents with
//! digests, so damaged contents are also put into containers with right digests.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::{DriverOptions, parse_ir};
use tacit_ir::artifact::{Artifact, Container, Kind};
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_runtime::{Circuit, Query};
use tacit_tests::{Example, difference, examples};

const SEED: u64 = 11;

fn smallest() -> Example {
    examples().into_iter().find(|example| example.name == "iris_decision_tree").expect("an example")
}

fn damaged(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..5) {
            0 => out.truncate(at),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => out[at] = [0, 0x7f, 0x80, 0xff, 0x0b][rng.random_range(0..5)],
            3 => {
                let end = (at + rng.random_range(1..40)).min(out.len());
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            _ => {
                let end = (at + rng.random_range(1..40)).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out
}

#[test]
fn onnx_models() {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let limits = onnx::ImportLimits { max_elements: 1 << 20, ..Default::default() };
    for example in examples() {
        let bytes = example.model();
        let rounds = (2_000_000 / bytes.len()).clamp(20, 1500);
        let refused = (0..rounds).filter(|_| onnx::import(&damaged(&bytes, &mut rng), &limits).is_err()).count();
        assert!(refused > 0, "{}", example.name);
    }
}

#[test]
fn a_file_of_nested_groups_is_refused() {
    // Unknown nested groups recurse without limit in the protobuf runtime.
    let mut bytes = vec![0x08, 0x08, 0x3a, 0x80, 0x80, 0x40];
    bytes.extend(std::iter::repeat_n(0x0b, 1 << 20));
    assert!(onnx::import(&bytes, &onnx::ImportLimits::default()).is_err());
}

#[test]
fn ir_text() {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let compiled = smallest().compile(&Options::default()).unwrap();
    for (_, text) in &compiled.artifact.text {
        for _ in 0..1500 {
            if let Ok(text) = String::from_utf8(damaged(text.as_bytes(), &mut rng)) {
                let _ = parse_ir(&text);
            }
        }
    }
}

#[test]
fn artifacts_queries_results_and_keys() {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let example = smallest();
    let compiled = example.compile(&Options::default()).unwrap();
    let artifact = compiled.artifact;
    let codec = Codec::new(&artifact).unwrap();
    let batch = codec.encode(&example.inputs(&codec).unwrap()).unwrap();
    let layout = artifact.client.layout.clone();
    let circuit = Circuit::new(layout.clone(), artifact.plan.clone().unwrap(), artifact.digest).unwrap();
    let key = ClientKey::generate(&layout, artifact.digest).unwrap();
    let query = encrypt(&key, &batch.rows[..1]).unwrap();
    let result = tacit_runtime::run(&circuit, &query, None).unwrap();
    let key_bytes = key.to_bytes(None).unwrap();
    let files: [(&[u8], Kind); 4] = [
        (&artifact.to_bytes().unwrap(), Kind::Artifact),
        (&query, Kind::Query),
        (&result, Kind::Result),
        (&key_bytes, Kind::ClientKey),
    ];
    for (bytes, kind) in files {
        let read = |bytes: &[u8]| match kind {
            Kind::Query => Query::read(&circuit, bytes).is_ok(),
            Kind::Result => decrypt(&key, bytes).is_ok(),
            Kind::ClientKey => {
                ClientKey::from_bytes(bytes, None).and_then(|key| key.check(&layout, &artifact.digest)).is_ok()
            }
            _ => match Artifact::from_bytes(bytes, Kind::Artifact.default_limit()) {
                // What was accepted must run.
                Ok(found) => {
                    let codec = Codec::new(&found);
                    let plan = found.plan.clone();
                    if let (Ok(_), Some(plan)) = (codec, plan) {
                        let _ = Circuit::new(found.client.layout.clone(), plan, found.digest);
                    }
                    true
                }
                Err(_) => false,
            },
        };
        assert!(read(bytes), "{kind:?} before damage");
        for _ in 0..300 {
            let broken = damaged(bytes, &mut rng);
            assert!(broken == bytes || !read(&broken), "a damaged {kind:?} was accepted");
        }
        // Damage behind right digests.
        for _ in 0..1500 {
            let mut file = Container::read(bytes, &[kind], kind.default_limit()).unwrap();
            let at = rng.random_range(0..file.sections.len());
            file.sections[at].1 = damaged(&file.sections[at].1, &mut rng);
            if kind == Kind::Artifact && file.sections.len() >= 2 {
                file.digest = tacit_ir::artifact::digest(&[&file.sections[0].1, &file.sections[1].1]);
            }
            read(&file.write());
        }
    }
}

fn seed(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../fuzz/seeds/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Where this fails, `cargo run --bin make-seeds` in `fuzz` makes new ones.
#[test]
fn seeds_of_fuzzing_are_sound() {
    let artifact = Artifact::from_bytes(&seed("artifact/file"), Kind::Artifact.default_limit()).unwrap();
    let circuit = Circuit::new(artifact.client.layout.clone(), artifact.plan.unwrap(), artifact.digest).unwrap();
    let key = ClientKey::from_bytes(&seed("key/file"), None).unwrap();
    let query = seed("query/file");
    assert!(Query::read(&circuit, &query).is_ok());
    assert!(decrypt(&key, &tacit_runtime::run(&circuit, &query, None).unwrap()).is_ok());
}

/// Found by fuzzing: a tree whose bounds, sums of those of its nodes, no longer fitted half the torus once passes had moved
/// what its branches share.
#[test]
fn a_tree_of_loose_bounds_compiles_to_what_it_is() {
    let model = onnx::import(&seed("onnx/loose_bounds"), &Default::default()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let data: Vec<f32> = (0..400).map(|_| rng.random_range(0.0..8.0)).collect();
    let inputs = onnx::inputs(&model);
    let inputs = BTreeMap::from([(inputs[0].0.clone(), TensorValue::f32(vec![100, 4], data))]);
    let expected = evaluate(&model, &inputs).unwrap().into_iter().collect();
    let compiled = compile(model, &Options::default(), &BTreeMap::new(), &DriverOptions::default()).unwrap();
    let codec = Codec::new(&compiled.artifact).unwrap();
    let batch = codec.encode(&inputs).unwrap();
    let plan = compiled.artifact.plan.as_ref().unwrap();
    let results = batch.rows.iter().map(|row| plan::evaluate(plan, &codec.spec().layout, &row.inputs()).unwrap());
    let found = codec.decode(&results.collect::<Vec<_>>(), &batch.passed).unwrap();
    let difference = difference(&found, &expected);
    assert!(difference.labels == 0 && difference.floats < 2e-3, "{difference:?}");
}
