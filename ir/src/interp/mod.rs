//! Clear interpreters: the oracles.

pub mod integer;
pub mod network;
pub mod plan;
pub mod tensor;
