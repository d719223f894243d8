//! Appraisal: genuine evidence against a policy, into a witness that only this file can make.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use protocol::EnclaveId;

use crate::binder::{Binder, ChannelBinder, SpkiHash};
use crate::evidence::{Claims, Evidence, TcbStatus, Tee, VerifierSet, VerifyError};
use crate::identity::enclave_id;
use crate::measured::MeasuredConfig;
use crate::measurements::Measurements;
use crate::policy::{Allowed, AppraisalPolicy};
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// What a relying party appraises with.
#[derive(Debug, Clone)]
pub struct RelyingParty {
    pub verifiers: VerifierSet,
    pub policy: AppraisalPolicy,
}

/// Proof that evidence was appraised and accepted. Only [`appraise`] and the attest gate make
/// one; whoever needs an attested peer takes it as an argument. Copies share the contents.
#[derive(Debug, Clone)]
pub struct Appraised(Arc<Accepted>);

#[derive(Debug)]
struct Accepted {
    enclave: EnclaveId,
    measurements: Measurements,
    config: MeasuredConfig,
    scorecard: Scorecard,
    at: Duration,
}

impl Appraised {
    #[must_use]
    pub fn tee(&self) -> Tee {
        self.0.measurements.tee()
    }

    /// E_S or E_K.
    #[must_use]
    pub fn enclave(&self) -> EnclaveId {
        self.0.enclave
    }

    #[must_use]
    pub fn measurements(&self) -> &Measurements {
        &self.0.measurements
    }

    /// The measured configuration that is part of the enclave id.
    #[must_use]
    pub fn config(&self) -> &MeasuredConfig {
        &self.0.config
    }

    #[must_use]
    pub fn scorecard(&self) -> &Scorecard {
        &self.0.scorecard
    }

    /// The `now` of the appraisal, since the UNIX epoch.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.0.at
    }
}

/// Evidence was not accepted; the scorecard says which check failed, and how.
#[derive(Debug)]
pub struct AppraiseError {
    scorecard: Box<Scorecard>,
    failed: CheckName,
    source: Option<VerifyError>,
}

impl AppraiseError {
    pub(crate) fn new(scorecard: Scorecard, Failed(failed): Failed) -> Self {
        Self {
            scorecard: Box::new(scorecard),
            failed,
            source: None,
        }
    }

    #[must_use]
    pub const fn scorecard(&self) -> &Scorecard {
        &self.scorecard
    }

    /// The check that failed.
    #[must_use]
    pub const fn failed(&self) -> CheckName {
        self.failed
    }
}

impl fmt::Display for AppraiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "appraising evidence failed at \"{}\"", self.failed)?;
        match self.scorecard.check(self.failed) {
            Some(check) => write!(f, ": expected {}, got {}", check.expected, check.got),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AppraiseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Appraises fresh evidence of a channel. Checks of the TLS channel and the certificate stay
/// unchecked: the attest gate makes those ([`crate::gate`]).
///
/// `now` is time since the UNIX epoch, as far as the caller trusts it.
///
/// # Errors
/// [`AppraiseError`] names the first check that failed.
pub fn appraise(
    relying: &RelyingParty,
    evidence: &Evidence,
    binder: &ChannelBinder,
    config: &MeasuredConfig,
    now: Duration,
) -> Result<Appraised, AppraiseError> {
    Appraisal::new(Scorecard::new(), relying, now).channel(evidence, binder, config, None)
}

/// Claims of a certificate's evidence, which is genuine and binds the certificate's key.
#[derive(Debug, Clone)]
pub(crate) struct CertificateClaims(Measurements);

/// An appraisal under way: a scorecard and what to fill it with.
#[derive(Debug)]
pub(crate) struct Appraisal<'a> {
    card: Scorecard,
    relying: &'a RelyingParty,
    now: Duration,
    source: Option<VerifyError>,
}

/// Names of the checks that evidence in a certificate and evidence in a channel share.
struct Names {
    tee: CheckName,
    genuine: CheckName,
    binder: CheckName,
}

const CERTIFICATE: Names = Names {
    tee: CheckName::CertificateTee,
    genuine: CheckName::CertificateEvidence,
    binder: CheckName::CertificateKey,
};
const CHANNEL: Names = Names {
    tee: CheckName::TeeAccepted,
    genuine: CheckName::EvidenceGenuine,
    binder: CheckName::ReportData,
};

impl<'a> Appraisal<'a> {
    pub(crate) const fn new(card: Scorecard, relying: &'a RelyingParty, now: Duration) -> Self {
        Self {
            card,
            relying,
            now,
            source: None,
        }
    }

    fn error(self, failed: Failed) -> AppraiseError {
        AppraiseError {
            source: self.source,
            ..AppraiseError::new(self.card, failed)
        }
    }

    /// Checks a certificate's evidence. Returns the scorecard for the rest of the appraisal.
    pub(crate) fn certificate(
        mut self,
        evidence: &Evidence,
        spki: &SpkiHash,
    ) -> Result<(Scorecard, CertificateClaims), AppraiseError> {
        match self.genuine(&CERTIFICATE, evidence, &Binder::Certificate(*spki)) {
            Ok(claims) => Ok((self.card, CertificateClaims(claims.measurements))),
            Err(failed) => Err(self.error(failed)),
        }
    }

    /// Checks a channel's fresh evidence against the whole policy, and against the certificate.
    pub(crate) fn channel(
        mut self,
        evidence: &Evidence,
        binder: &ChannelBinder,
        config: &MeasuredConfig,
        certificate: Option<&CertificateClaims>,
    ) -> Result<Appraised, AppraiseError> {
        match self.channel_checks(evidence, binder, config, certificate) {
            Ok((claims, enclave)) => Ok(Appraised(Arc::new(Accepted {
                enclave,
                measurements: claims.measurements,
                config: config.clone(),
                scorecard: self.card,
                at: self.now,
            }))),
            Err(failed) => Err(self.error(failed)),
        }
    }

    fn channel_checks(
        &mut self,
        evidence: &Evidence,
        binder: &ChannelBinder,
        config: &MeasuredConfig,
        certificate: Option<&CertificateClaims>,
    ) -> Result<(Claims, EnclaveId), Failed> {
        self.config(binder, config)?;
        let claims = self.genuine(&CHANNEL, evidence, &Binder::Channel(binder.clone()))?;
        self.debug(&claims)?;
        self.patches(&claims)?;
        let hash = config.hash();
        let enclave = enclave_id(&claims.measurements, &hash);
        if let Some(CertificateClaims(measurements)) = certificate {
            let named = enclave_id(measurements, &hash);
            self.card.require(
                CheckName::SameEnclave,
                named == enclave && *measurements == claims.measurements,
                named.to_string(),
                enclave.to_string(),
            )?;
        }
        self.enclave(&enclave)?;
        Ok((claims, enclave))
    }

    fn config(&mut self, binder: &ChannelBinder, config: &MeasuredConfig) -> Result<(), Failed> {
        self.card.require(
            CheckName::MeasuredConfig,
            config.kind() == binder.role.name() && config.hash() == binder.config,
            format!("{} {}", binder.role.name(), binder.config),
            format!("{} {}", config.kind(), config.hash()),
        )
    }

    fn genuine(
        &mut self,
        names: &Names,
        evidence: &Evidence,
        binder: &Binder,
    ) -> Result<Claims, Failed> {
        let accepted = self.relying.policy.accepted.iter().map(|tee| tee.name());
        self.card.require(
            names.tee,
            self.relying.policy.accepts_tee(evidence.tee),
            format!("one of [{}]", accepted.collect::<Vec<_>>().join(", ")),
            evidence.tee.name(),
        )?;
        let expected = format!("{} evidence signed by the vendor", evidence.tee);
        let Some(verifier) = self.relying.verifiers.for_tee(evidence.tee) else {
            let got = "this build has no verifier for it";
            return self
                .card
                .require(names.genuine, false, expected, got)
                .and(Err(Failed(names.genuine)));
        };
        let claims = match verifier.verify(evidence, self.now) {
            Ok(claims) => claims,
            Err(error) => {
                let got = error.to_string();
                self.source = Some(error);
                return self
                    .card
                    .require(names.genuine, false, expected, got)
                    .and(Err(Failed(names.genuine)));
            }
        };
        // A verifier that answers for another TEE would let its claims pass under this one's name.
        self.card.require(
            names.genuine,
            claims.tee() == evidence.tee,
            expected,
            claims.tee().name(),
        )?;
        let wanted = binder.report_data();
        self.card.require(
            names.binder,
            verify_slices_are_equal(&wanted, &claims.report_data).is_ok(),
            short_hex(&wanted),
            short_hex(&claims.report_data),
        )?;
        Ok(claims)
    }

    fn debug(&mut self, claims: &Claims) -> Result<(), Failed> {
        let got = if claims.measurements.debug() {
            "debug"
        } else {
            "production"
        };
        if self.relying.policy.allow_debug {
            self.card.note(CheckName::NotDebug, Status::Unchecked, got);
            return Ok(());
        }
        self.card.require(
            CheckName::NotDebug,
            !claims.measurements.debug(),
            "production",
            got,
        )
    }

    fn patches(&mut self, claims: &Claims) -> Result<(), Failed> {
        let policy = &self.relying.policy;
        let svn = claims.svn.to_string();
        if policy.minimum_svn == 0 {
            self.card
                .note(CheckName::SecurityVersion, Status::Unchecked, svn);
        } else {
            let ok = claims.svn >= policy.minimum_svn;
            let expected = format!("at least {}", policy.minimum_svn);
            self.card
                .require(CheckName::SecurityVersion, ok, expected, svn)?;
        }
        if claims.tcb == TcbStatus::NotApplicable && !has_tcb_status(claims.tee()) {
            self.card
                .note(CheckName::TcbStatus, Status::NotApplicable, "");
            return Ok(());
        }
        let accepted = policy.accepted_tcb.iter().map(|tcb| tcb.name());
        self.card.require(
            CheckName::TcbStatus,
            policy.accepts_tcb(claims.tcb),
            format!("one of [{}]", accepted.collect::<Vec<_>>().join(", ")),
            claims.tcb.name(),
        )
    }

    fn enclave(&mut self, enclave: &EnclaveId) -> Result<(), Failed> {
        let policy = &self.relying.policy;
        match &policy.enclaves {
            Allowed::Any => {
                self.card
                    .note(CheckName::Enclave, Status::Unchecked, enclave.to_string());
                Ok(())
            }
            Allowed::These(enclaves) => {
                let names: Vec<_> = enclaves.iter().map(ToString::to_string).collect();
                self.card.require(
                    CheckName::Enclave,
                    policy.accepts_enclave(enclave),
                    format!("one of [{}]", names.join(", ")),
                    enclave.to_string(),
                )
            }
        }
    }
}

const fn has_tcb_status(tee: Tee) -> bool {
    match tee {
        Tee::Sgx | Tee::Tdx | Tee::Snp | Tee::AzSnp | Tee::AzTdx => true,
        Tee::Nitro | Tee::Simulated => false,
    }
}

/// First 16 bytes: enough to tell values apart in a report for people.
fn short_hex(bytes: &[u8]) -> String {
    let head = bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("{head}..")
}

#[cfg(test)]
mod tests;
