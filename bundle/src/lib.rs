//! What a deployment of a circuit is made of, as files in memory; the command writes them.

pub mod archive;
pub mod deployment;
pub mod image;
pub mod instances;
mod policy;
pub mod program;
pub mod sagemaker;
