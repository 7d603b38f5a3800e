//! What the `tacit` command is made of: data files, commands, rendering. The binary only parses arguments.

pub mod args;
pub mod commands;
pub mod data;
pub mod files;
pub mod render;
