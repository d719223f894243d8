//! The embedded serverless platform: OpenWhisk's REST API over local process sandboxes.
//!
//! It is on the untrusted side: it sees ciphertext only and links no cryptography.

mod activations;
pub mod config;
mod functions;
mod gateway;
mod ids;
mod invocation;
mod json;
mod launch;
mod logs;
mod meter;
mod metrics;
mod output;
mod pool;
mod record;
mod sandbox;
pub mod scheduler;
mod throttle;
mod verdict;

pub use config::{Config, Image};
pub use launch::{RunError, Running, run};
