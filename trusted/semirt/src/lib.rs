//! SeMIRT: serves many encrypted inference requests at once inside a TEE.
//!
//! [`run()`] starts an instance. One request goes through `server` (HTTP), `serve` (the one path:
//! keys, open, model, session, run, seal) and back; `keys` and `models` hold what stays warm.

pub mod args;
pub mod config;
pub mod run;
pub mod sources;

mod activation_log;
mod channel_sources;
mod identity;
mod keys;
mod lifecycle;
mod lock;
mod meter;
mod models;
mod refusal;
mod replay;
mod serve;
mod server;
mod stored;
#[cfg(test)]
mod testing;
mod workers;

pub use args::Args;
pub use config::Config;
pub use identity::IdentityError;
pub use run::{Place, Running, StartError, Trust, run};
