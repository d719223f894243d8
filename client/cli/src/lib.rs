//! The commands of `sesemi`, with the verifiers as an argument.

pub mod args;
pub mod failure;
pub mod input;
pub mod profile;
pub mod progress;
pub mod report;
