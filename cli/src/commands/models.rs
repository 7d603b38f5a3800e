//! Model files: ONNX, or TOML with weights in files beside it.

use crate::{data, files};
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
    let model = if is_toml(path) {
        let folder = path.parent().unwrap_or(Path::new(""));
        toml::import(&files::read_text(path)?, &|file, array| weights(&folder.join(file), array))
    } else {
        onnx::import(&files::read(path)?, &onnx::ImportLimits::default())
    };
    model.map_err(|why| files::within(why, path))
}

/// One array of a weight file.
fn weights(path: &Path, array: Option<&str>) -> Result<TensorValue> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let mut arrays = match extension {
        "npy" => return data::read_npy(path),
        "npz" => data::read_npz(path)?,
        "safetensors" => data::read_safetensors(path)?,
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
