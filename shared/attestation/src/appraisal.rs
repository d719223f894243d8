//! Appraisal: genuine evidence against a policy, into a witness that only this file can make.

mod examine;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use protocol::EnclaveId;

use crate::binder::{Binder, ChannelBinder, SpkiHash};
use crate::evidence::{
    Claims, Endorsements, Evidence, Subject, TcbStatus, Tee, Verifier, VerifierSet,
};
use crate::identity::enclave_id;
use crate::measured::MeasuredConfig;
use crate::measurements::Measurements;
use crate::policy::{Allowed, AppraisalPolicy};
use crate::scorecard::{CheckName, Failed, Scorecard, Status};
pub use examine::{Examination, Expected, examine};

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
    claims: Claims,
    config: MeasuredConfig,
    scorecard: Scorecard,
    at: Duration,
}

impl Appraised {
    #[must_use]
    pub fn tee(&self) -> Tee {
        self.0.claims.tee()
    }

    /// E_S or E_K.
    #[must_use]
    pub fn enclave(&self) -> EnclaveId {
        self.0.enclave
    }

    #[must_use]
    pub fn measurements(&self) -> &Measurements {
        self.0.claims.measurements()
    }

    /// Everything that the evidence said.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.0.claims
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
}

impl AppraiseError {
    pub(crate) fn new(scorecard: Scorecard, failed: Failed) -> Self {
        Self {
            scorecard: Box::new(scorecard),
            failed: failed.check(),
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

impl std::error::Error for AppraiseError {}

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
    endorsements: &Endorsements,
    binder: &ChannelBinder,
    config: &MeasuredConfig,
    now: Duration,
) -> Result<Appraised, AppraiseError> {
    let subject = Subject {
        evidence,
        endorsements,
        now,
    };
    Appraisal::new(Scorecard::new(CheckName::CHANNEL), relying)
        .channel(&subject, binder, config, None)
}

/// Claims of a certificate's evidence, which is genuine and binds the certificate's key.
#[derive(Debug, Clone)]
pub(crate) struct CertificateClaims(Measurements);

/// An appraisal under way: a scorecard and what to fill it with.
#[derive(Debug)]
pub(crate) struct Appraisal<'a> {
    card: Scorecard,
    relying: &'a RelyingParty,
}

impl<'a> Appraisal<'a> {
    pub(crate) const fn new(card: Scorecard, relying: &'a RelyingParty) -> Self {
        Self { card, relying }
    }

    /// Checks a certificate's evidence. Returns the scorecard for the rest of the appraisal.
    pub(crate) fn certificate(
        mut self,
        subject: &Subject<'_>,
        spki: &SpkiHash,
    ) -> Result<(Scorecard, CertificateClaims), AppraiseError> {
        match self.certificate_checks(subject, spki) {
            Ok(claims) => Ok((self.card, CertificateClaims(claims.said.measurements))),
            Err(failed) => Err(AppraiseError::new(self.card, failed)),
        }
    }

    fn certificate_checks(
        &mut self,
        subject: &Subject<'_>,
        spki: &SpkiHash,
    ) -> Result<Claims, Failed> {
        use CheckName::{CertificateEvidence, CertificateKey, CertificateTee};
        self.tee(CertificateTee, subject.evidence.tee)?;
        let verifier = self.verifier(CertificateEvidence, subject.evidence.tee)?;
        let subject = &self.dated(subject);
        // The same checks are made of the channel's evidence, and those lines are that one's.
        let mut scratch = Scorecard::new(&[]);
        let verified = verifier.verify(subject, &mut scratch);
        let claims = self.genuine(
            CertificateEvidence,
            subject.evidence.tee,
            verified,
            &scratch,
        )?;
        self.bound(CertificateKey, &claims, &Binder::Certificate(*spki))?;
        Ok(claims)
    }

    /// Checks a channel's fresh evidence against the whole policy, and against the certificate.
    pub(crate) fn channel(
        mut self,
        subject: &Subject<'_>,
        binder: &ChannelBinder,
        config: &MeasuredConfig,
        certificate: Option<&CertificateClaims>,
    ) -> Result<Appraised, AppraiseError> {
        match self.channel_checks(subject, binder, config, certificate) {
            Ok((claims, enclave)) => Ok(Appraised(Arc::new(Accepted {
                enclave,
                claims,
                config: config.clone(),
                scorecard: self.card,
                at: subject.now,
            }))),
            Err(failed) => Err(AppraiseError::new(self.card, failed)),
        }
    }

    fn channel_checks(
        &mut self,
        subject: &Subject<'_>,
        binder: &ChannelBinder,
        config: &MeasuredConfig,
        certificate: Option<&CertificateClaims>,
    ) -> Result<(Claims, EnclaveId), Failed> {
        use CheckName::{EvidenceGenuine, ReportData, TeeAccepted};
        self.config(binder, config)?;
        self.tee(TeeAccepted, subject.evidence.tee)?;
        let verifier = self.verifier(EvidenceGenuine, subject.evidence.tee)?;
        let subject = &self.dated(subject);
        let verified = verifier.verify(subject, &mut self.card);
        let card = self.card.clone();
        let claims = self.genuine(EvidenceGenuine, subject.evidence.tee, verified, &card)?;
        self.bound(ReportData, &claims, &Binder::Channel(binder.clone()))?;
        judge(&claims, &self.relying.policy, subject.now, &mut self.card);
        self.relying
            .verifiers
            .memory()
            .judge(&claims, &mut self.card);
        let hash = config.hash();
        let enclave = enclave_id(claims.measurements(), &hash);
        if let Some(CertificateClaims(measurements)) = certificate {
            let named = enclave_id(measurements, &hash);
            self.card.record(
                CheckName::SameEnclave,
                named == enclave && measurements == claims.measurements(),
                named.to_string(),
                enclave.to_string(),
            );
        }
        judge_enclave(&enclave, &self.relying.policy, &mut self.card);
        // Whatever was recorded on the way counts, not only what was asked for last.
        if let Some(failed) = self.card.first_failure() {
            return Err(failed);
        }
        self.relying.verifiers.memory().admit(&claims);
        Ok((claims, enclave))
    }

    /// The host's clock, or the date of what the vendor signed if that is later.
    fn dated<'s>(&self, subject: &Subject<'s>) -> Subject<'s> {
        let floor = self.relying.verifiers.memory().time_floor();
        Subject {
            now: subject.now.max(floor),
            ..*subject
        }
    }

    fn config(&mut self, binder: &ChannelBinder, config: &MeasuredConfig) -> Result<(), Failed> {
        self.card.require(
            CheckName::MeasuredConfig,
            config.kind() == binder.role.name() && config.hash() == binder.config,
            format!("{} {}", binder.role.name(), binder.config),
            format!("{} {}", config.kind(), config.hash()),
        )
    }

    fn tee(&mut self, name: CheckName, tee: Tee) -> Result<(), Failed> {
        require_tee(name, tee, &self.relying.policy, &mut self.card)
    }

    fn verifier(&mut self, name: CheckName, tee: Tee) -> Result<&'a dyn Verifier, Failed> {
        find_verifier(name, tee, &self.relying.verifiers, &mut self.card)
    }

    fn genuine(
        &mut self,
        name: CheckName,
        tee: Tee,
        verified: Result<Claims, Failed>,
        card: &Scorecard,
    ) -> Result<Claims, Failed> {
        conclude(name, tee, verified, card, &mut self.card)
    }

    fn bound(&mut self, name: CheckName, claims: &Claims, binder: &Binder) -> Result<(), Failed> {
        let wanted = binder.report_data();
        let bound = claims.said.bound();
        self.card.require(
            name,
            verify_slices_are_equal(&wanted, bound).is_ok(),
            short_hex(&wanted),
            short_hex(bound),
        )
    }
}

fn require_tee(
    name: CheckName,
    tee: Tee,
    policy: &AppraisalPolicy,
    card: &mut Scorecard,
) -> Result<(), Failed> {
    let accepted = policy.accepted.iter().map(|tee| tee.name());
    let expected = format!("one of [{}]", accepted.collect::<Vec<_>>().join(", "));
    card.require(name, policy.accepts_tee(tee), expected, tee.name())
}

fn find_verifier<'a>(
    name: CheckName,
    tee: Tee,
    verifiers: &'a VerifierSet,
    card: &mut Scorecard,
) -> Result<&'a dyn Verifier, Failed> {
    verifiers.for_tee(tee).ok_or_else(|| {
        let expected = format!("{tee} evidence signed by the vendor");
        card.fail(name, expected, "this build has no verifier for it")
    })
}

/// Sums up what a verifier recorded on `details`: one line on `card`.
fn conclude(
    name: CheckName,
    tee: Tee,
    verified: Result<Claims, Failed>,
    details: &Scorecard,
    card: &mut Scorecard,
) -> Result<Claims, Failed> {
    let expected = format!("{tee} evidence signed by the vendor");
    // A verifier that recorded a failure has not accepted, whatever it returns.
    let verified = verified.and_then(|claims| details.first_failure().map_or(Ok(claims), Err));
    let claims = match verified {
        Ok(claims) => claims,
        Err(failed) => {
            let got = match details.check(failed.check()) {
                Some(check) => format!("failed at \"{}\": {}", check.name, check.got),
                None => format!("failed at \"{}\"", failed.check()),
            };
            let summed_up = card.fail(name, expected, got);
            // The precise name, where it is on this card; else the one line that is.
            return Err(match card.check(failed.check()) {
                Some(_) => failed,
                None => summed_up,
            });
        }
    };
    // A verifier that answers for another TEE would let its claims pass under this one's name.
    card.require(name, claims.tee() == tee, expected, claims.tee().name())?;
    Ok(claims)
}

/// Whether claims that were appraised at `at` are also acceptable to another policy: an owner's or
/// a user's, who want more than the relying party that appraised them.
///
/// # Errors
/// [`AppraiseError`] names the first check that failed; the card has all of them.
pub fn satisfies(
    claims: &Claims,
    enclave: &EnclaveId,
    policy: &AppraisalPolicy,
    at: Duration,
) -> Result<Scorecard, AppraiseError> {
    let mut card = Scorecard::new(&[]);
    if let Err(failed) = require_tee(CheckName::TeeAccepted, claims.tee(), policy, &mut card) {
        return Err(AppraiseError::new(card, failed));
    }
    judge(claims, policy, at, &mut card);
    judge_enclave(enclave, policy, &mut card);
    match card.first_failure() {
        None => Ok(card),
        Some(failed) => Err(AppraiseError::new(card, failed)),
    }
}

/// The whole policy but for the enclave id; all of it goes on the card.
fn judge(claims: &Claims, policy: &AppraisalPolicy, now: Duration, card: &mut Scorecard) {
    judge_debug(claims, policy, card);
    judge_svn(claims, policy, card);
    judge_tcb(claims, policy, card);
    policy.measurements.judge(claims, card);
    crate::tee::judge(claims, policy, now, card);
}

fn judge_debug(claims: &Claims, policy: &AppraisalPolicy, card: &mut Scorecard) {
    let debug = claims.measurements().debug();
    let got = if debug { "debug" } else { "production" };
    if policy.allow_debug {
        card.note(CheckName::NotDebug, Status::Unchecked, got);
    } else {
        card.record(CheckName::NotDebug, !debug, "production", got);
    }
}

fn judge_svn(claims: &Claims, policy: &AppraisalPolicy, card: &mut Scorecard) {
    let got = claims.svn.to_string();
    if policy.minimum_svn == 0 {
        card.note(CheckName::SecurityVersion, Status::Unchecked, got);
    } else {
        let ok = claims.svn >= policy.minimum_svn;
        let expected = format!("at least {}", policy.minimum_svn);
        card.record(CheckName::SecurityVersion, ok, expected, got);
    }
}

fn judge_tcb(claims: &Claims, policy: &AppraisalPolicy, card: &mut Scorecard) {
    if claims.tcb == TcbStatus::NotApplicable && !has_tcb_status(claims.tee()) {
        card.note(CheckName::TcbStatus, Status::NotApplicable, "");
        return;
    }
    let accepted = policy.accepted_tcb.iter().map(|tcb| tcb.name());
    let expected = format!("one of [{}]", accepted.collect::<Vec<_>>().join(", "));
    let ok = policy.accepts_tcb(claims.tcb);
    card.record(CheckName::TcbStatus, ok, expected, claims.tcb.name());
}

fn judge_enclave(enclave: &EnclaveId, policy: &AppraisalPolicy, card: &mut Scorecard) {
    match &policy.enclaves {
        Allowed::Any => card.note(CheckName::Enclave, Status::Unchecked, enclave.to_string()),
        Allowed::These(enclaves) => {
            let names: Vec<_> = enclaves.iter().map(ToString::to_string).collect();
            let expected = format!("one of [{}]", names.join(", "));
            let ok = policy.accepts_enclave(enclave);
            card.record(CheckName::Enclave, ok, expected, enclave.to_string());
        }
    }
}

/// SEV-SNP has patch levels, but no vendor's judgement of them.
const fn has_tcb_status(tee: Tee) -> bool {
    match tee {
        Tee::Sgx | Tee::Tdx | Tee::AzTdx => true,
        Tee::Snp | Tee::AzSnp | Tee::Nitro | Tee::Simulated => false,
    }
}

/// First 16 bytes: enough to tell values apart in a report for people.
fn short_hex(bytes: &[u8]) -> String {
    let head = bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    if bytes.is_empty() {
        "nothing".into()
    } else {
        format!("{head}..")
    }
}

#[cfg(test)]
mod tests;
