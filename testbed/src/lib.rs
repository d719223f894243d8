//! A whole SeSeMI on one machine, on a simulated TEE; nothing depends on it.

pub mod cluster;
pub mod commands;
pub mod demo;
pub mod processes;
pub mod progress;
pub mod roles;
pub mod scan;
pub mod simulated_tee;
pub mod state;
pub mod tap;
