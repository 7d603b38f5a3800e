//! Front ends: model files to float graphs.

pub mod onnx;
pub mod toml;

/// Whether a path that a model names leads out of the model's folder: a model from somebody else must not name any file of this
/// machine.
fn leaves_folder(path: &str) -> bool {
    path.split(['/', '\\']).any(|part| part.is_empty() || part == "..") || path.contains(':')
}
