//! Writes `seeds/`: run it in this folder after a change of a file format or of the IR's text.

use std::error::Error;
use std::fs;
use std::path::Path;
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, encrypt};
use tacit_compiler::compile;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_ir::artifact::envelope::{KeyHeader, QueryHeader};
use tacit_ir::artifact::{Artifact, Container, Kind};
use tacit_ir::interp::tensor::TensorValue;
use tacit_runtime::Circuit;

/// A tree, a linear model and others, each of some kilobytes at most.
const MODELS: [&str; 11] = [
    "../examples/iris_decision_tree/model.onnx",
    "../examples/iris_logistic/model.onnx",
    "../tests/zoo/models/lasso.onnx",
    "../tests/zoo/models/linear_svc.onnx",
    "../tests/zoo/models/linear_svr.onnx",
    "../tests/zoo/models/logistic_two.onnx",
    "../tests/zoo/models/mode_mixed.onnx",
    "../tests/zoo/models/multi_output.onnx",
    "../tests/zoo/models/polynomial_ridge.onnx",
    "../tests/zoo/models/post_softmax.onnx",
    "../tests/zoo/models/svc_linear_two.onnx",
];

fn compiled(model: &str) -> Result<Artifact, Box<dyn Error>> {
    let model = onnx::import(&fs::read(model)?, &onnx::ImportLimits::default())?;
    let nothing = std::collections::BTreeMap::new();
    Ok(compile(model, &Options::default(), &nothing, &DriverOptions::default())?.artifact)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new("seeds").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

/// The file, and each section of it behind its number.
fn put_file(target: &str, kind: Kind, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    put(target, "file", bytes)?;
    let file = Container::read(bytes, &[kind], kind.default_limit())?;
    for (number, (_, section)) in file.sections.iter().enumerate() {
        put(target, &format!("section{number}"), &[&[number as u8][..], section].concat())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let stem = |path: &str| path.trim_end_matches(".onnx").rsplit('/').take(2).collect::<Vec<_>>().join("-");
    for model in MODELS {
        put("onnx", &stem(model), &fs::read(model)?)?;
        for (stage, text) in compiled(model)?.text {
            put("ir_text", &format!("{}-{stage}", stem(model)), text.as_bytes())?;
        }
    }
    // The smallest tree, so that inputs are small.
    let artifact = compiled("../tests/zoo/models/mode_mixed.onnx")?;
    let linear = compiled("../tests/zoo/models/linear_regression.onnx")?;
    put_file("artifact", Kind::Artifact, &artifact.to_bytes()?)?;
    put_file("client_artifact", Kind::ClientArtifact, &artifact.client_part().to_bytes()?)?;
    put("artifact", "linear", &linear.to_bytes()?)?;
    let codec = Codec::new(&artifact)?;
    let columns = |ty: &tacit_ir::stage::tensor::TensorType| ty.columns().unwrap_or(1) as usize;
    let inputs = codec.inputs().into_iter().map(|(name, ty)| {
        let columns = columns(&ty);
        (name, TensorValue::f32(vec![1, columns], vec![0.5; columns]))
    });
    let batch = codec.encode(&inputs.collect())?;
    let layout = artifact.client.layout.clone();
    let key = ClientKey::generate(&layout, artifact.digest)?;
    let plan = artifact.plan.ok_or("an artifact has a plan")?;
    let circuit = Circuit::new(layout, plan, artifact.digest)?;
    let query = encrypt(&key, &batch.rows)?;
    put_file("key", Kind::ClientKey, &key.to_bytes(None)?)?;
    put_file("query", Kind::Query, &query)?;
    // No circuit of a size for a repository has an evaluation key; here any bytes stand for one.
    let key_section = KeyHeader::new(b"key", artifact.digest);
    let header = QueryHeader {
        rows: 1,
        length: query.len() as u64,
        request_id: [1; 16],
        key: None,
        circuit: artifact.digest,
    };
    put("envelope", "query", &[&header.write()[..], &query].concat())?;
    let named = QueryHeader { key: Some(key_section.sha256), ..header };
    put("envelope", "composed", &[&key_section.write()[..], b"key", &named.write(), &query].concat())?;
    put_file("result", Kind::Result, &tacit_runtime::run(&circuit, &query, None)?)
}
