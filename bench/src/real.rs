//! The real system as a bench uses it: every process of it, on this machine.

pub mod asker;
pub mod models;
pub mod system;

pub use system::{Direct, Packing, Source, System, SystemError, Wishes};
