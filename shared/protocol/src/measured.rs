//! Measured configuration: every setting that changes what a user relies on. Its canonical hash is
//! part of E_S (SeMIRT) and E_K (KeyService); no environment variable and no flag may change it.

use serde::{Deserialize, Serialize};

use crate::id::EnclaveId;
use crate::package::EngineName;

/// How strictly requests are kept apart inside one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Models of any owner, requests side by side.
    #[default]
    Shared,
    /// Models of different owners never share an instance.
    PerOwner,
    /// One request at a time; keys fetched and session rebuilt for every request.
    Sequential,
}

/// What a user of SeMIRT relies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemirtMeasured {
    pub isolation: Isolation,
    /// Requests served at once (SGX: the TCS count).
    pub concurrency: u16,
    /// Longest time a released key is kept, in seconds; a lease may be shorter.
    pub key_ttl_s: u32,
    /// Memory for loaded models, in bytes.
    pub model_memory: u64,
    pub engines: Vec<EngineName>,
    /// E_K of the only KeyService that it asks for keys.
    pub keyservice: EnclaveId,
}

/// What owners and users of a KeyService rely on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyserviceMeasured {
    /// Longest lease it gives, in seconds.
    pub lease_ttl_s: u32,
}
