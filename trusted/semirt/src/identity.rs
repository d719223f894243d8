//! Who this enclave is: its E_S, and what it needs to prove that to KeyService.

use std::sync::Arc;
use std::time::Duration;

use attestation::cbor::CborError;
use attestation::{
    Allowed, AppraisalPolicy, AppraiseError, Attester, Binder, ChannelBinder, CollectError,
    MeasuredConfig, RelyingParty, Role, SpkiHash, TcbStatus, VerifierSet, appraise,
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
    #[error("collect evidence about this enclave")]
    Collect(#[from] CollectError),
    #[error("read this enclave's own evidence")]
    Read(#[from] AppraiseError),
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
pub(crate) async fn establish(
    config: &Config,
    trust: Trust,
    now: Duration,
) -> Result<Known, IdentityError> {
    let measured = MeasuredConfig::semirt(config.measured())?;
    let keyservice = config.measured().keyservice;
    // Evidence may take seconds on real hardware.
    let asked = tokio::task::spawn_blocking(move || {
        let Trust {
            attester,
            verifiers,
        } = trust;
        let enclave = own_enclave(attester.as_ref(), &verifiers, &measured, now)?;
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

fn own_enclave(
    attester: &dyn Attester,
    verifiers: &VerifierSet,
    config: &MeasuredConfig,
    now: Duration,
) -> Result<EnclaveId, IdentityError> {
    // Bound to no connection, so it proves nothing to anybody else.
    let binder = ChannelBinder {
        role: Role::Semirt,
        exporter: [0; 32],
        peer_nonce: [0; 32],
        own_spki: SpkiHash::of(&[]),
        peer_spki: SpkiHash::of(&[]),
        config: config.hash(),
        epoch: 0,
    };
    let evidence = attester.collect(&Binder::channel(binder.clone()))?;
    // Whether this enclave is good enough is for KeyService to say, not for itself.
    let policy = AppraisalPolicy {
        accepted: vec![attester.tee()],
        enclaves: Allowed::Any,
        allow_debug: true,
        minimum_svn: 0,
        accepted_tcb: vec![
            TcbStatus::UpToDate,
            TcbStatus::SwHardeningNeeded,
            TcbStatus::ConfigurationNeeded,
            TcbStatus::ConfigurationAndSwHardeningNeeded,
            TcbStatus::OutOfDate,
            TcbStatus::OutOfDateConfigurationNeeded,
            TcbStatus::NotApplicable,
        ],
    };
    let relying = RelyingParty {
        verifiers: verifiers.clone(),
        policy,
    };
    Ok(appraise(&relying, &evidence, &binder, config, now)?.enclave())
}
