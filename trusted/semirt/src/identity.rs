//! Who this enclave is: its E_S, and what it needs to prove that to KeyService.

use std::sync::Arc;

use attestation::cbor::CborError;
use attestation::{Attester, MeasuredConfig, OwnEnclaveError, RelyingParty, own_enclave};
use protocol::EnclaveId;

use crate::config::Config;
use crate::run::Trust;

/// Why an enclave could not learn its own identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error("encode the measured configuration")]
    Config(#[from] CborError),
    #[error("find out this enclave's id")]
    Enclave(#[from] OwnEnclaveError),
    #[error("the task that asks the TEE failed")]
    Task,
}

/// This enclave, towards KeyService.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) enclave: EnclaveId,
    pub(crate) attester: Arc<dyn Attester>,
    pub(crate) config: MeasuredConfig,
    /// Accepts the measured KeyService and no other.
    pub(crate) keyservice: Arc<RelyingParty>,
}

/// Asks the TEE. The one way to one's own measurements that every TEE has is one's own evidence.
pub(crate) async fn establish(config: &Config, trust: Trust) -> Result<Known, IdentityError> {
    let policy = config.policy();
    let measured = MeasuredConfig::semirt(config.measured(), &policy)?;
    // Evidence may take seconds on real hardware.
    let asked = tokio::task::spawn_blocking(move || {
        let Trust {
            attester,
            verifiers,
        } = trust;
        let enclave = own_enclave(attester.as_ref(), &verifiers, &measured)?;
        let keyservice = Arc::new(RelyingParty { verifiers, policy });
        Ok(Known {
            enclave,
            attester,
            config: measured,
            keyservice,
        })
    });
    asked.await.unwrap_or(Err(IdentityError::Task))
}
