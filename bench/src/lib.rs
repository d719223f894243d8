//! Measures packing policies in virtual time, with the very policy code that FnPacker runs.

pub mod costs;
pub mod policy;
pub mod random;
pub mod report;
pub mod simulation;
pub mod workload;
