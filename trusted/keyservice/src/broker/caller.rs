//! Who is calling, as values that only the attested channel can make.

use std::sync::Arc;
use std::time::Duration;

use attestation::{Appraised, AttestedPeer, Claims};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    enclave: EnclaveId,
    claims: Arc<Claims>,
    at: Duration,
}

impl Instance {
    /// E_S from the appraised evidence.
    #[must_use]
    pub const fn enclave(&self) -> EnclaveId {
        self.enclave
    }

    /// What the evidence said.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// When it was appraised, since the UNIX epoch.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// Tests of decisions have no channel. This one runs on the simulated TEE.
    #[cfg(test)]
    pub(crate) fn for_test(enclave: EnclaveId) -> Self {
        use attestation::measurements::SimulatedMeasurements;
        use attestation::{Facts, Measurements, Said, TcbStatus};
        let measurements = SimulatedMeasurements {
            mr: [0; 48],
            debug: false,
        };
        let claims = Claims {
            said: Said {
                measurements: Measurements::Simulated(measurements),
                report_data: Vec::new(),
                nonce: None,
            },
            svn: 3,
            tcb: TcbStatus::NotApplicable,
            facts: Facts::None,
        };
        Self {
            enclave,
            claims: Arc::new(claims),
            at: Duration::ZERO,
        }
    }
}

impl From<&Appraised> for Instance {
    fn from(appraised: &Appraised) -> Self {
        Self {
            enclave: appraised.enclave(),
            claims: Arc::new(appraised.claims().clone()),
            at: appraised.at(),
        }
    }
}

/// The peer at the other end of an attested channel.
#[derive(Debug, Clone, PartialEq, Eq)]
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
