//! The three roles apart: the client makes keys, encrypts and decrypts; the server runs.

use super::engine::in_pool;
use super::{load, load_server, say, spinner};
use crate::args::{ClientArtifact, Decrypt, Encrypt, Keygen, Run, ServerArtifact as ServerArtifactArgs};
use crate::{data, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, decrypt as decrypt_result, encrypt as encrypt_rows};
use tacit_ir::artifact::{Artifact, Kind, ServerArtifact};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_runtime::{Circuit, EvaluationKey};

pub(super) fn keygen(args: &Keygen) -> Result<()> {
    let artifact = load(&args.artifact)?;
    let passphrase = files::passphrase(args.passphrase_file.as_deref())?;
    let key = ClientKey::generate(&artifact.client.layout, artifact.digest)?;
    let path = args.output.join("client.key");
    files::write_secret(&path, &key.to_bytes(passphrase.as_deref())?, args.force)?;
    match key.evaluation_key()? {
        None => say(format!("wrote {}; the circuit needs no evaluation key", path.display())),
        Some(bytes) => {
            let public = args.output.join("evaluation.key");
            files::write(&public, &bytes)?;
            say(format!(
                "wrote {} (secret) and {} (for the server, {} bytes)",
                path.display(),
                public.display(),
                bytes.len()
            ));
        }
    }
    Ok(())
}

pub(super) fn read_key(artifact: &Artifact, path: &Path, passphrase_file: Option<&Path>) -> Result<ClientKey> {
    let passphrase = files::passphrase(passphrase_file)?;
    let key = ClientKey::from_bytes(&files::read(path)?, passphrase.as_deref())
        .and_then(|key| key.check(&artifact.client.layout, &artifact.digest).map(|()| key));
    key.map_err(|why| why.at(path.display().to_string()))
}

pub(super) fn encrypt(args: &Encrypt) -> Result<()> {
    let artifact = load(&args.artifact)?;
    let key = read_key(&artifact, &args.key, args.passphrase_file.as_deref())?;
    let codec = Codec::new(&artifact)?;
    let bar = spinner("encrypting");
    let inputs = data::read_inputs(&args.input, &codec.inputs())?;
    let batch = codec.encode(&inputs).map_err(|why| files::within(why, &args.input))?;
    let query = encrypt_rows(&key, &batch.rows)?;
    files::write(&args.output, &query)?;
    bar.finish_and_clear();
    say(format!("wrote {}: {} rows, {} bytes", args.output.display(), batch.rows.len(), query.len()));
    Ok(())
}

pub(super) fn run(args: &Run) -> Result<()> {
    let ServerArtifact { digest, layout, plan } =
        ServerArtifact::from_bytes(&files::read(&args.artifact)?, Kind::ServerArtifact.default_limit())
            .map_err(|why| why.at(args.artifact.display().to_string()))?;
    let circuit = Circuit::new(layout, plan, digest)?;
    if let Some(path) = args.evaluation_key.as_ref().filter(|_| !circuit.needs_evaluation_key()) {
        return Err(Diagnostic::new(Code::OptionInvalid, "the circuit needs no evaluation key")
            .at(path.display().to_string())
            .help("leave --evaluation-key out"));
    }
    let query = files::read(&args.query)?;
    let bar = spinner("evaluating");
    let result = in_pool(args.threads, || {
        let read = |path: &PathBuf| {
            EvaluationKey::from_bytes(&files::read(path)?, circuit.layout(), circuit.digest())
                .map_err(|why| why.at(path.display().to_string()))
        };
        let key = args.evaluation_key.as_ref().map(read).transpose()?;
        tacit_runtime::run(&circuit, &query, key.as_ref()).map_err(|why| why.at(args.query.display().to_string()))
    })??;
    files::write(&args.output, &result)?;
    bar.finish_and_clear();
    say(format!("wrote {}: {} bytes", args.output.display(), result.len()));
    Ok(())
}

pub(super) fn decrypt(args: &Decrypt) -> Result<()> {
    let artifact = load(&args.artifact)?;
    let key = read_key(&artifact, &args.key, args.passphrase_file.as_deref())?;
    let codec = Codec::new(&artifact)?;
    let results =
        decrypt_result(&key, &files::read(&args.result)?).map_err(|why| why.at(args.result.display().to_string()))?;
    let passed = match &args.input {
        Some(path) => codec.encode(&data::read_inputs(path, &codec.inputs())?)?.passed,
        None if codec.needs_inputs_to_decode() => {
            return Err(Diagnostic::new(Code::OptionInvalid, "the model's outputs depend on clear inputs too")
                .help("give the inputs of the query again with --input"));
        }
        None => BTreeMap::new(),
    };
    let outputs = codec.decode(&results, &passed)?;
    files::write(&args.output, &data::npz_bytes(&outputs)?)?;
    say(format!("wrote {}: {} rows", args.output.display(), results.len()));
    Ok(())
}

pub(super) fn client_artifact(args: &ClientArtifact) -> Result<()> {
    let artifact = load(&args.artifact)?;
    let bytes = artifact.client_part().to_bytes()?;
    files::write(&args.output, &bytes)?;
    say(format!("wrote {}: {} bytes", args.output.display(), bytes.len()));
    Ok(())
}

pub(super) fn server_artifact(args: &ServerArtifactArgs) -> Result<()> {
    let artifact = load_server(&args.artifact)?;
    let part = artifact.server_part().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?;
    let bytes = part.to_bytes()?;
    files::write(&args.output, &bytes)?;
    say(format!("wrote {}: {} bytes", args.output.display(), bytes.len()));
    Ok(())
}
