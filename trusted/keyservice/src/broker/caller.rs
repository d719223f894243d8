//! Who is calling, as values that only the attested channel can make.

use attestation::{Appraised, AttestedPeer};
use protocol::{EnclaveId, PrincipalId};

/// An owner or user whose channel proved possession of the identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal(PrincipalId);

impl Principal {
    /// SHA-256 of the identity key's SubjectPublicKeyInfo.
    #[must_use]
    pub const fn id(&self) -> PrincipalId {
        self.0
    }

    /// Tests of decisions have no channel.
    #[cfg(test)]
    pub(crate) const fn for_test(id: PrincipalId) -> Self {
        Self(id)
    }
}

/// An instance whose fresh evidence on this connection was appraised.
///
// SECURITY: the only constructor outside tests takes `Appraised`, so a release without appraisal
// does not compile (broker/tests.rs: no_release_without_consent).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance(EnclaveId);

impl Instance {
    /// E_S from the appraised evidence.
    #[must_use]
    pub const fn enclave(&self) -> EnclaveId {
        self.0
    }

    /// Tests of decisions have no channel.
    #[cfg(test)]
    pub(crate) const fn for_test(enclave: EnclaveId) -> Self {
        Self(enclave)
    }
}

impl From<&Appraised> for Instance {
    fn from(appraised: &Appraised) -> Self {
        Self(appraised.enclave())
    }
}

/// The peer at the other end of an attested channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Principal(Principal),
    Instance(Instance),
}

impl From<&AttestedPeer> for Caller {
    fn from(peer: &AttestedPeer) -> Self {
        match peer {
            AttestedPeer::Principal(id) => Self::Principal(Principal(*id)),
            AttestedPeer::Instance(appraised) => Self::Instance(Instance::from(appraised)),
        }
    }
}
