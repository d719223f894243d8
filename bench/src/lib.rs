//! Measures packing policies in virtual time, with the very policy code that FnPacker runs; and
//! what it costs to verify evidence.

pub mod compare;
pub mod costs;
pub mod evidence;
pub mod plots;
pub mod policy;
pub mod random;
pub mod real;
pub mod report;
pub mod router;
pub mod simulation;
pub mod workload;
