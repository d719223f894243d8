//! The real system as a bench uses it: every process of it, on this machine.

pub mod asker;
pub mod calibrate;
pub mod driver;
pub mod models;
pub mod outcome;
pub mod schedule;
pub mod stage;
pub mod system;

pub use system::{Direct, Packing, Source, System, SystemError, Wishes};
