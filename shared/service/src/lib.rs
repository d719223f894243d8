//! Process scaffolding that every SeSeMI process shares: clock, config files, logging, shutdown.

pub mod clock;
pub mod config;
mod core_dumps;
mod in_place;
pub mod shutdown;
pub mod telemetry;
pub mod units;

pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use config::{ConfigError, load_config};
pub use core_dumps::forbid_core_dumps;
pub use in_place::{InPlace, in_place};
pub use shutdown::Shutdown;
pub use telemetry::{ErrorChain, init_logging};
