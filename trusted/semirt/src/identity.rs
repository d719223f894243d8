//! Who this enclave is: its E_S, and what it needs to prove that to KeyService.

use std::sync::Arc;

use attestation::cbor::CborError;
use attestation::{
    Allowed, AppraisalPolicy, Attester, MeasuredConfig, OwnEnclaveError, RelyingParty, TcbStatus,
    own_enclave,
};
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
    let measured = MeasuredConfig::semirt(config.measured())?;
    let keyservice = config.measured().keyservice;
    // Evidence may take seconds on real hardware.
    let asked = tokio::task::spawn_blocking(move || {
        let Trust {
            attester,
            verifiers,
        } = trust;
        let enclave = own_enclave(attester.as_ref(), &verifiers, &measured)?;
        // E_K covers the kind of TEE and its debug flag, so the pin decides; patch levels are not
        // part of it and stay strict.
        let accepted = verifiers.tees().collect();
        let policy = AppraisalPolicy {
            accepted_tcb: vec![TcbStatus::UpToDate, TcbStatus::NotApplicable],
            ..AppraisalPolicy::strict(accepted, Allowed::These(vec![keyservice]))
        };
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
