//! What both sides agree on: ids, tensors, messages and error codes. No I/O, no secrets.

pub mod action;
pub mod error_code;
pub mod id;
pub mod invoke;
pub mod keyservice;
pub mod limits;
pub mod measured;
pub mod oip;
pub mod openwhisk;
pub mod package;
pub mod tensor;

pub use error_code::{ErrorCode, Fault, WireError};
pub use id::{Digest, EnclaveId, ModelId, ModelVersion, PolicyHash, PrincipalId, RequestId};
pub use tensor::{Datatype, Tensor, TensorSpec};
