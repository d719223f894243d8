//! AWS Nitro Enclaves: attestation documents, signed below AWS's root.
//!
//! A document has no notion of patch levels, and AWS tells verifiers to leave revocation out, as
//! the certificates are short-lived: what bounds a stolen document is its age.

mod document;

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(any(test, feature = "testing"))]
pub(crate) use document::sig_structure;

use self::document::Document;
use super::p384::{self, Chain, Pin};
use crate::evidence::{Claims, Evidence, Malformed, Said, Subject, TcbStatus, Tee, Verifier};
use crate::facts::{Facts, NitroFacts};
use crate::measurements::{Measurements, NitroMeasurements};
use crate::policy::{Hex, NitroPolicy};
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// Of `CN=aws.nitro-enclaves`, as AWS publishes it beside the certificate ("Verifying the root of
/// trust", AWS Nitro Enclaves user guide).
const AWS_ROOT: Pin = Hex([
    0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31,
    0x7e, 0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
]);

/// Verifies documents against one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NitroVerifier {
    root: Pin,
}

impl NitroVerifier {
    /// Trusts AWS's root.
    #[must_use]
    pub const fn aws() -> Self {
        Self { root: AWS_ROOT }
    }

    /// Trusts this certificate (DER) instead.
    #[must_use]
    pub fn with_root(der: &[u8]) -> Self {
        Self {
            root: p384::pin(der),
        }
    }
}

impl Verifier for NitroVerifier {
    fn tee(&self) -> Tee {
        Tee::Nitro
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        parse(evidence).map(|document| said(&document))
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let wanted = "a COSE_Sign1 document with ES384, each field once and within its bounds";
        let document = parse(subject.evidence)
            .map_err(|error| card.fail(CheckName::EvidenceFormat, wanted, error.to_string()))?;
        card.record(CheckName::EvidenceFormat, true, wanted, "such a document");
        card.note(
            CheckName::EndorsementsPresent,
            Status::NotApplicable,
            "the document has its certificates with it",
        );
        card.note(
            CheckName::Revocation,
            Status::NotApplicable,
            "AWS tells verifiers not to look for any; certificates live for hours to weeks",
        );
        // From the root down in the document, from the leaf up in the walk.
        let mut issuers = document.cabundle.clone();
        let root = issuers.first().copied().unwrap_or_default();
        issuers.reverse();
        issuers.pop();
        let chain = Chain {
            leaf: document.certificate,
            issuers: &issuers,
            root,
        };
        let key = p384::verify(&chain, &self.root, subject.now, card)?;
        card.require(
            CheckName::Signature,
            key.signed(&document.signed(), &document.signature),
            "of the document, by the enclave's certificate",
            "a signature",
        )?;
        Ok(Claims {
            said: said(&document),
            svn: 0,
            tcb: TcbStatus::NotApplicable,
            facts: Facts::Nitro(Box::new(NitroFacts {
                timestamp: document.timestamp,
                module_id: document.module_id.to_owned(),
                pcrs: document.pcrs,
                public_key: document.public_key.map(<[u8]>::to_vec),
            })),
        })
    }
}

fn parse(evidence: &Evidence) -> Result<Document<'_>, Malformed> {
    if evidence.tee != Tee::Nitro {
        return Err(Malformed {
            field: "kind of TEE",
        });
    }
    Document::parse(&evidence.body)
}

fn said(document: &Document<'_>) -> Said {
    let register = |index| document.pcrs.get(&index).copied();
    let measurements = NitroMeasurements {
        // The parser refuses documents that lack one of these.
        pcr: [0, 1, 2].map(|index| register(index).unwrap_or([0; 48])),
        // Of the deployment, not of the code: a policy may ask for them by value. PCR4 is the
        // parent instance's id, with which no two enclaves would have the same identity.
        pcr3: None,
        pcr4: None,
        // Zero for images without a signature.
        pcr8: register(8).filter(|pcr| pcr != &[0; 48]),
    };
    Said {
        measurements: Measurements::Nitro(Box::new(measurements)),
        report_data: document.user_data.unwrap_or_default().to_vec(),
        nonce: document.nonce.map(<[u8]>::to_vec),
    }
}

/// The policy's checks that only Nitro has. `now` is time since the UNIX epoch.
pub(crate) fn judge(facts: &NitroFacts, policy: &NitroPolicy, now: Duration, card: &mut Scorecard) {
    let off = now.abs_diff(facts.timestamp);
    card.record(
        CheckName::Freshness,
        off <= Duration::from_secs(policy.max_age_s),
        format!("made within {} s of {} s", policy.max_age_s, now.as_secs()),
        format!("made at {:.3} s", facts.timestamp.as_secs_f64()),
    );
    card.note(CheckName::Platform, Status::Unchecked, &facts.module_id);
    judge_pcrs(&facts.pcrs, policy, card);
}

fn judge_pcrs(pcrs: &BTreeMap<u8, [u8; 48]>, policy: &NitroPolicy, card: &mut Scorecard) {
    if policy.pcrs.is_empty() {
        let used = pcrs.iter().filter(|(_, value)| *value != &[0; 48]);
        let used: Vec<_> = used
            .map(|(index, value)| format!("PCR{index} {}", Hex(*value)))
            .collect();
        card.note(CheckName::Pcrs, Status::Unchecked, used.join(", "));
        return;
    }
    for wanted in &policy.pcrs {
        let got = pcrs.get(&wanted.index).copied().map(Hex);
        card.record(
            CheckName::Pcrs,
            got.is_some_and(|got| wanted.values.contains(&got)),
            format!("PCR{} in {:?}", wanted.index, wanted.values),
            match got {
                Some(got) => format!("PCR{} {got}", wanted.index),
                None => format!("no PCR{}", wanted.index),
            },
        );
    }
}

#[cfg(test)]
mod tests;
