//! Clear interpreters: the oracles.

pub mod integer;
pub mod plan;
pub mod tensor;
