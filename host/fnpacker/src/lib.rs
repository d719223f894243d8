//! FnPacker: packs many models onto few functions and routes invocations; sees ciphertext only.

mod answer;
pub mod config;
pub mod metrics;
pub mod packing;
pub mod platform;
pub mod record;
