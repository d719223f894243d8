//! The commands of `sesemi`, with the verifiers as an argument.
