//! The client of SeSeMI: verify KeyService, register, grant, seal, invoke, open.

pub mod audit;
pub mod epochs;
pub mod explain;
pub mod gateway;
pub mod infer;
pub mod keyring;
pub mod keyservice;
pub mod publish;
pub mod retry;
pub mod state_file;
pub mod wall_time;

pub use epochs::EpochMemory;
pub use explain::Explain;
pub use gateway::Gateway;
pub use infer::{Answer, InferClient, InferError};
pub use keyring::RequestKeyring;
pub use keyservice::{Keyservice, KeyserviceError, Owner, PinnedKeyservice, User};
pub use publish::{ModelShelf, Pushed};
pub use retry::RetryPolicy;
pub use wall_time::WallTime;
