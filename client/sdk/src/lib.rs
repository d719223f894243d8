//! The client of SeSeMI: verify KeyService, register, grant, seal, invoke, open.

pub mod epochs;
pub mod explain;
pub mod gateway;
pub mod private_file;
pub mod retry;

pub use explain::Explain;
pub use retry::RetryPolicy;
