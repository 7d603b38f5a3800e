//! The three stages.

pub mod circuit;
pub mod quant;
pub mod tensor;
