//! What FnPacker asks of a serverless platform.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

mod connections;
mod knative;
mod openwhisk;
mod wire;

pub use knative::{Knative, KnativeConfig, KnativeConfigError};
pub use openwhisk::{AuthError, OpenWhisk, OpenWhiskAuth};
pub use wire::ApiUrlError;

/// A boxed future, so that the platform can be chosen at run time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a platform can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Largest body of an invocation, in bytes.
    pub max_payload: usize,
    /// The platform says itself when it had to start a sandbox.
    pub cold_signal: bool,
    /// Deleting a function also lets its idle instances go.
    pub delete_frees_memory: bool,
}

/// A function as it should be. Its JSON form is what [`Platform::ensure`] compares, so field order
/// and names are part of what is deployed: changing them makes every instance cold once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionSpec {
    pub name: String,
    pub image: String,
    pub memory_mb: u64,
    /// Invocations at once in one instance.
    pub concurrency: u32,
    pub timeout_ms: u64,
    /// Given to the instance when it starts; nothing that a user relies on, nothing secret.
    pub env: BTreeMap<String, String>,
}

/// A function that is deployed as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRef {
    pub name: String,
    /// Whether `ensure` had to write it.
    pub written: bool,
}

/// The platform's own account of an invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub activation: Option<String>,
    /// Until a sandbox was ready to initialise or run, its creation included.
    pub wait: Duration,
    /// How long it was initialised; absent when it was ready (not a cold start).
    pub init: Option<Duration>,
    /// What is billed: initialisation and run.
    pub duration: Duration,
}

/// What came back from the function itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// JSON; `{"error": …}` if the function refused.
    pub body: Bytes,
    pub record: Record,
}

/// Why there is no answer from the function.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("the platform asks to slow down: {message}")]
    Throttled {
        retry_after: Duration,
        message: String,
    },
    #[error("the platform has no function '{function}'")]
    NotFound { function: String },
    #[error("the platform refuses the payload: {message}")]
    TooLarge { message: String },
    #[error("no answer within {} ms", .waited.as_millis())]
    Deadline {
        waited: Duration,
        activation: Option<String>,
    },
    #[error("the function ran into its time limit: {message}")]
    TimeLimit { message: String, record: Record },
    /// `executed` is false only if the request cannot have begun.
    #[error("the instance failed: {message}")]
    InstanceFailed {
        message: String,
        executed: bool,
        record: Record,
    },
    #[error("the platform does not accept the credentials")]
    Unauthorized,
    /// The request cannot have been sent.
    #[error("cannot connect to the platform at {api}")]
    Unreachable {
        api: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request may have been taken.
    #[error("the connection to the platform broke")]
    Broken {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the platform answered {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the platform's answer is not of the expected form")]
    Malformed { source: serde_json::Error },
}

impl PlatformError {
    /// Whether the same invocation may be sent again without any risk that it runs twice.
    #[must_use]
    pub const fn surely_not_executed(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotFound { .. } => true,
            Self::InstanceFailed { executed, .. } => !*executed,
            _ => false,
        }
    }

    /// The platform's record, where there is one.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        match self {
            Self::TimeLimit { record, .. } | Self::InstanceFailed { record, .. } => Some(record),
            _ => None,
        }
    }
}

/// A serverless platform. Cancelling any of its futures leaves it usable.
pub trait Platform: Send + Sync + Debug {
    fn caps(&self) -> Caps;

    /// Makes the function be as `spec` says. Idempotent: writes nothing when it is so already,
    /// since any write makes all of its instances cold.
    fn ensure<'a>(
        &'a self,
        spec: &'a FunctionSpec,
    ) -> Pending<'a, Result<FunctionRef, PlatformError>>;

    /// Invokes the function with a JSON object and waits for its answer, at most `patience`.
    fn invoke<'a>(
        &'a self,
        function: &'a FunctionRef,
        body: Bytes,
        patience: Duration,
    ) -> Pending<'a, Result<Answer, PlatformError>>;

    /// Removes the function; one that is absent is no error.
    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), PlatformError>>;
}
