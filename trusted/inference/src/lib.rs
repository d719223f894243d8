//! Engine → Model → Session: one module per inference engine, loading from memory only.
//!
//! The owner's side is [`pack`]: ONNX in, checked [`Package`](pack::Package) out. The TEE's side is
//! [`assemble`] (plaintext of a package → its parts) and [`engine`] (parts → model → answers).

pub mod assemble;
pub mod blob;
pub mod engine;
pub mod engines;
pub mod example;
pub mod onnx;
pub mod pack;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use blob::Blob;
pub use engine::{Engine, Engines, LoadError, LoadLimits, Model, RunError, Session};
