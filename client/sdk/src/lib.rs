//! The client of SeSeMI: verify KeyService, register, grant, seal, invoke, open.

pub mod epochs;
pub mod explain;
pub mod gateway;
pub mod keyring;
pub mod retry;
pub mod state_file;

pub use explain::Explain;
pub use retry::RetryPolicy;
