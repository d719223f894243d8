//! One module for each command: its arguments, and what it prints.

pub(crate) mod agree;
pub(crate) mod calibrate;
pub(crate) mod compare;
pub(crate) mod evidence;
mod live;
mod pictures;
mod platform;
pub(crate) mod router;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod simulate;
mod workloads;
