//! Looking at evidence that did not come over a channel: a file, a certificate. It makes no
//! witness, so that nothing can be released for it.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use protocol::EnclaveId;

use super::{RelyingParty, conclude, find_verifier, judge, judge_enclave, require_tee};
use crate::evidence::{Claims, Endorsements, Evidence, Said, Subject};
use crate::identity::enclave_id;
use crate::measured::ConfigHash;
use crate::policy::Allowed;
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// What evidence should be bound to; what is not asked for stays unchecked, and says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Compared with [`Said::report_data`], byte for byte.
    pub report_data: Option<Vec<u8>>,
    /// Compared with [`Said::nonce`], byte for byte.
    pub nonce: Option<Vec<u8>>,
}

/// What was found. Not an [`super::Appraised`]: evidence outside of a channel proves that such an
/// enclave once was, not who is speaking now.
#[derive(Debug)]
pub struct Examination {
    pub card: Scorecard,
    /// What the evidence says, also if it is not genuine; `None` if it cannot be read.
    pub said: Option<Said>,
    /// What it says, if it is genuine.
    pub claims: Option<Claims>,
    /// E_S or E_K, if it is genuine and the measured configuration was given.
    pub enclave: Option<EnclaveId>,
}

impl Examination {
    /// Genuine, and nothing on the card failed.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.claims.is_some() && self.card.first_failure().is_none()
    }
}

/// Examines evidence against a policy. `now` is time since the UNIX epoch.
#[must_use]
pub fn examine(
    relying: &RelyingParty,
    evidence: &Evidence,
    endorsements: &Endorsements,
    expected: &Expected,
    config: Option<&ConfigHash>,
    now: Duration,
) -> Examination {
    let mut card = Scorecard::new(CheckName::EVIDENCE);
    let mut said = None;
    let subject = Subject {
        evidence,
        endorsements,
        now,
    };
    let claims = genuine(relying, &subject, &mut said, &mut card).ok();
    let mut enclave = None;
    if let Some(claims) = &claims {
        compare(
            CheckName::ReportData,
            expected.report_data.as_deref(),
            Some(&claims.said.report_data),
            &mut card,
        );
        let nonce = claims.said.nonce.as_deref();
        compare(
            CheckName::Nonce,
            expected.nonce.as_deref(),
            nonce,
            &mut card,
        );
        judge(claims, &relying.policy, now, &mut card);
        enclave = config.map(|config| enclave_id(claims.measurements(), config));
        match (&enclave, &relying.policy.enclaves) {
            (Some(enclave), _) => judge_enclave(enclave, &relying.policy, &mut card),
            (None, Allowed::Any) => {}
            // A pin that cannot be looked at is not passed.
            (None, Allowed::These(_)) => {
                let expected = "one of the policy's enclaves";
                let got = "unknown: no measured configuration was given";
                card.record(CheckName::Enclave, false, expected, got);
            }
        }
    }
    Examination {
        card,
        said,
        claims,
        enclave,
    }
}

fn genuine(
    relying: &RelyingParty,
    subject: &Subject<'_>,
    said: &mut Option<Said>,
    card: &mut Scorecard,
) -> Result<Claims, Failed> {
    let tee = subject.evidence.tee;
    let verifier = find_verifier(CheckName::EvidenceGenuine, tee, &relying.verifiers, card)?;
    match verifier.read(subject.evidence) {
        Ok(read) => *said = Some(read),
        Err(malformed) => {
            let expected = format!("evidence as {tee} gives it");
            return Err(card.fail(CheckName::EvidenceFormat, expected, malformed.to_string()));
        }
    }
    require_tee(CheckName::TeeAccepted, tee, &relying.policy, card)?;
    let verified = verifier.verify(subject, card);
    let details = card.clone();
    conclude(CheckName::EvidenceGenuine, tee, verified, &details, card)
}

fn compare(name: CheckName, expected: Option<&[u8]>, got: Option<&[u8]>, card: &mut Scorecard) {
    let hex = |bytes: &[u8]| match bytes {
        [] => "empty".to_owned(),
        bytes => hex::encode(bytes),
    };
    let shown = got.map_or("absent".into(), hex);
    match expected {
        None => card.note(name, Status::Unchecked, shown),
        Some(expected) => {
            let ok = got.is_some_and(|got| verify_slices_are_equal(expected, got).is_ok());
            card.record(name, ok, hex(expected), shown);
        }
    }
}
