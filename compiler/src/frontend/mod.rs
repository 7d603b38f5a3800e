//! Front ends: model files to float graphs.

pub mod onnx;
pub mod toml;
