//! The real system as a bench uses it: every process of it, on this machine.

pub mod system;

pub use system::{Direct, Source, System, SystemError, Wishes};
