//! The attested key broker: releases keys only to attested instances that owner and user allowed.
//!
//! [`broker`] decides and does no I/O; [`vault`] makes decisions durable and decides nothing;
//! [`keeper`] owns both and answers only after the vault has committed; [`server`] knows HTTP.

pub mod broker;
pub mod command;
pub mod config;
pub mod keeper;
pub mod memory;
pub mod metrics;
pub mod routes;
pub mod server;
pub mod vault;

pub use config::Config;
pub use server::{RunError, Running, run};
