//! Model files: ONNX, or TOML with weights in files beside it.

use crate::{data, files};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use tacit_compiler::frontend::{onnx, toml};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::Graph;
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::stage::tensor::Tensor;

/// Whether a model is written in TOML.
pub(super) fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// Reads a model.
///
/// # Errors
/// Those of the front ends, with the file's name.
pub(super) fn read(path: &Path) -> Result<Graph<Tensor>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let model = if is_toml(path) {
        toml::import(&files::read_text(path)?, &|file, array| weights(&folder.join(file), array))
    } else {
        let limits = onnx::ImportLimits::default();
        let external = |file: &str, part| external(&folder.join(file), part, limits.max_bytes as u64);
        onnx::import_with(&files::read(path)?, &limits, &external)
    };
    model.map_err(|why| files::within(why, path))
}

/// A part of a file beside an ONNX model, at most `limit` bytes.
fn external(path: &Path, (offset, length): (u64, Option<u64>), limit: u64) -> Result<Vec<u8>> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Diagnostic::new(Code::FileUnreadable, format!("external data: {}: {why}", path.display()))
            .help("keep the files that the exporter wrote beside the model, under their names")
    };
    let mut file = File::open(path).map_err(|why| unreadable(&why))?;
    let size = file.metadata().map_err(|why| unreadable(&why))?.len();
    let length = length.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(unreadable(&format!("it has {size} bytes, the model reads {length} from {offset} on")));
    }
    if length > limit {
        let message = format!("external data: {} has {length} bytes, the limit is {limit}", path.display());
        return Err(
            Diagnostic::new(Code::ModelTooLarge, message).help("export a smaller model, or the part that is used")
        );
    }
    file.seek(SeekFrom::Start(offset)).map_err(|why| unreadable(&why))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(|why| unreadable(&why))?;
    Ok(bytes)
}

/// What to do about a weight file that cannot be read.
fn advised(mut why: Diagnostic) -> Diagnostic {
    why.help = Some("weight files lie beside the model, complete: .npy, .npz or .safetensors".to_owned());
    why
}

/// One array of a weight file.
fn weights(path: &Path, array: Option<&str>) -> Result<TensorValue> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let mut arrays = match extension {
        "npy" if array.is_some() => {
            let message = format!("`{}` holds one array, which has no name", path.display());
            return Err(Diagnostic::new(Code::TomlInvalid, message).help("leave `array` out, or give an .npz file"));
        }
        "npy" => return data::read_npy(path).map_err(advised),
        "npz" => data::read_npz(path).map_err(advised)?,
        "safetensors" => data::read_safetensors(path).map_err(advised)?,
        _ => {
            let message = format!("`{}` is no weight file: .npy, .npz or .safetensors", path.display());
            return Err(Diagnostic::new(Code::TomlInvalid, message));
        }
    };
    let names: Vec<String> = arrays.keys().cloned().collect();
    let chosen = match (array, names.as_slice()) {
        (Some(array), _) => array,
        (None, [only]) => only,
        (None, _) => "",
    };
    arrays.remove(chosen).ok_or_else(|| {
        let message = format!("`{}` has no array `{chosen}`", path.display());
        Diagnostic::new(Code::TomlInvalid, message).help(format!("`array` is one of {}", names.join(", ")))
    })
}
