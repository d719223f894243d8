//! The commands of `sesemi`, with the verifiers as an argument.

pub mod args;
pub mod input;
pub mod profile;
