//! The durable rows: one per version, grant and request key.

use protocol::keyservice::{PolicyText, WireKey};
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};

/// What is stored, with its key bytes where there are any.
#[derive(Debug, Clone)]
pub enum Row {
    /// A registered version of a model.
    Version {
        model: ModelId,
        version: ModelVersion,
        owner: PrincipalId,
        digest: Digest,
        key: WireKey,
    },
    /// A live grant; `epoch` is when it was made.
    Grant {
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        epoch: u64,
        policy: Option<PolicyText>,
    },
    /// A live request key; `owner` is whom the model must belong to.
    RequestKey {
        user: PrincipalId,
        model: ModelId,
        enclave: EnclaveId,
        owner: PrincipalId,
        epoch: u64,
        key: WireKey,
        policy: Option<PolicyText>,
    },
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    Version {
        model: ModelId,
        version: ModelVersion,
    },
    Grant {
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
    },
    RequestKey {
        user: PrincipalId,
        model: ModelId,
        enclave: EnclaveId,
    },
}

impl Row {
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Version { model, version, .. } => RowKey::Version {
                model: model.clone(),
                version: *version,
            },
            Self::Grant {
                model,
                user,
                enclave,
                ..
            } => RowKey::Grant {
                model: model.clone(),
                user: *user,
                enclave: *enclave,
            },
            Self::RequestKey {
                user,
                model,
                enclave,
                ..
            } => RowKey::RequestKey {
                user: *user,
                model: model.clone(),
                enclave: *enclave,
            },
        }
    }
}
