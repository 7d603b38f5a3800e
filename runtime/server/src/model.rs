//! Finds and reads what the server runs: one artifact, and the evaluation keys that are pinned beside it.

use crate::settings::Settings;
use std::path::{Path, PathBuf};
use tacit_ir::artifact::{Kind, ServerArtifact};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_runtime::Circuit;

/// The name of an evaluation key, as `tacit keygen` gives it.
const KEY_NAME: &str = "evaluation.key";
/// The name that wins when a folder has several artifacts.
const SERVER_NAME: &str = "server.tacit";

/// Reads the circuit; `Circuit::new` runs on the current rayon pool.
pub(crate) fn circuit(settings: &Settings) -> Result<(PathBuf, Circuit)> {
    let path = find(&settings.artifact)?;
    let read = || {
        let ServerArtifact { digest, layout, plan } =
            ServerArtifact::from_bytes(&read(&path)?, Kind::ServerArtifact.default_limit())?;
        Circuit::new(layout, plan, digest)
    };
    let circuit = read().map_err(|why| why.at(path.display().to_string()))?;
    Ok((path, circuit))
}

/// The evaluation keys to pin: those that were named, and every `evaluation.key` of the model's and the data folders.
pub(crate) fn pinned_keys(settings: &Settings) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths = settings.evaluation_keys.clone();
    let mut folders = vec![settings.artifact.clone()];
    if let Ok(entries) = std::fs::read_dir(&settings.data) {
        folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    folders.sort();
    paths.extend(folders.into_iter().map(|folder| folder.join(KEY_NAME)).filter(|path| path.is_file()));
    paths.into_iter().map(|path| read(&path).map(|bytes| (path, bytes))).collect()
}

/// The artifact: the path itself, or the one file of a folder that ends in `.tacit` and is no client artifact. Other files
/// are none of our business.
fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|why| unreadable(path, &why))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tacit") && path.is_file());
    found.sort();
    if let Some(server) = found.iter().find(|path| path.ends_with(SERVER_NAME)) {
        return Ok(server.clone());
    }
    found.retain(|path| !is_client_artifact(path));
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Diagnostic::new(Code::FileUnreadable, "the folder has no artifact: no file ends in .tacit")
            .at(path.display().to_string())
            .help(format!("put what `tacit server-artifact` wrote there as {SERVER_NAME}"))),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Diagnostic::new(
                Code::FileUnreadable,
                format!("the folder has several artifacts: {}", names.join(", ")),
            )
            .at(path.display().to_string())
            .help(format!("leave one of them, or call the one to serve {SERVER_NAME}")))
        }
    }
}

fn is_client_artifact(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.is_ok() && Kind::of_file(&head) == Some(Kind::ClientArtifact)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|why| unreadable(path, &why))
}

fn unreadable(path: &Path, why: &std::io::Error) -> Diagnostic {
    Diagnostic::new(Code::FileUnreadable, format!("cannot be read: {why}")).at(path.display().to_string())
}
