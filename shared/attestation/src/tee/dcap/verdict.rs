//! What dcap-qvl says, by the names of the checks.
//!
//! Its errors have no types. Most of what they say was found before, by `prepare`; the rest is
//! told apart by words, which only ever choose between names of a refusal.

use crate::scorecard::{CheckName, Failed, Scorecard};

/// The checks that dcap-qvl makes, in its order.
const STAGES: &[(CheckName, &str)] = &[
    (CheckName::EndorsementsCurrent, "valid now"),
    (CheckName::Revocation, "nothing is revoked"),
    (CheckName::TcbInfo, "signed by Intel"),
    (CheckName::CertificateChain, "from Intel's root"),
    (
        CheckName::AttestationKey,
        "certified by the PCK certificate",
    ),
    (CheckName::QeIdentity, "Intel's quoting enclave"),
    (CheckName::Signature, "signed by the attestation key"),
];
/// Longest text on a card that is not ours, in characters.
const WORDS_MAX: usize = 200;
/// What failed comes before any of the stages is known to be passed.
const EARLY: usize = 0;
/// Up to and with this many stages, chains and collateral are verified.
const CHAINS: usize = 4;
const ATTESTATION_KEY: usize = 5;
const QE_IDENTITY: usize = 6;
const ALL: usize = 7;

/// Words, the check that failed, and how many stages were passed. The first that matches counts.
const WORDS: &[(&str, CheckName, usize)] = &[
    // The last stage: attributes of the TD.
    (
        "Reserved bits in TD attributes",
        CheckName::ReservedAttributes,
        ALL,
    ),
    ("TD migration is enabled", CheckName::NotMigratable, ALL),
    ("SERVTD_EXT is enabled", CheckName::ServiceTd, ALL),
    (
        "SEPT_VE_DISABLE is not enabled",
        CheckName::SeptVeDisable,
        ALL,
    ),
    // The platform's patch level.
    ("No matching TCB level found", CheckName::TcbStatus, ALL),
    (
        "is below minimum required from TDX module",
        CheckName::TcbStatus,
        ALL,
    ),
    ("TCB status is invalid: Revoked", CheckName::TcbStatus, ALL),
    ("Fmspc mismatch", CheckName::EndorsementsMatch, ALL),
    ("TDX module", CheckName::TcbInfo, ALL),
    // The quote.
    (
        "ISV enclave report signature is invalid",
        CheckName::Signature,
        QE_IDENTITY,
    ),
    (
        "QE report validation failed",
        CheckName::QeIdentity,
        ATTESTATION_KEY,
    ),
    (
        "QE MRSIGNER mismatch",
        CheckName::QeIdentity,
        ATTESTATION_KEY,
    ),
    (
        "QE ISVPRODID mismatch",
        CheckName::QeIdentity,
        ATTESTATION_KEY,
    ),
    (
        "QE MISCSELECT mismatch",
        CheckName::QeIdentity,
        ATTESTATION_KEY,
    ),
    ("QE ATTRIBUTES", CheckName::QeIdentity, ATTESTATION_KEY),
    ("QE ISVSVN", CheckName::QeIdentity, ATTESTATION_KEY),
    (
        "Signature is invalid for qe_report",
        CheckName::AttestationKey,
        CHAINS,
    ),
    ("QE report hash mismatch", CheckName::AttestationKey, CHAINS),
    ("QE auth data", CheckName::AttestationKey, CHAINS),
    // Collateral. A revocation list that expired is not current; one that is forged, or missing
    // for an issuer, revokes everything.
    ("CrlExpired", CheckName::EndorsementsCurrent, EARLY),
    ("Crl", CheckName::Revocation, EARLY),
    ("CRL", CheckName::Revocation, EARLY),
    ("CertRevoked", CheckName::Revocation, EARLY),
    ("UnknownRevocationStatus", CheckName::Revocation, EARLY),
    ("CertExpired", CheckName::EndorsementsCurrent, EARLY),
    ("CertNotValidYet", CheckName::EndorsementsCurrent, EARLY),
    (
        "issue date is in the future",
        CheckName::EndorsementsCurrent,
        EARLY,
    ),
    ("TCBInfo expired", CheckName::EndorsementsCurrent, EARLY),
    ("QE Identity expired", CheckName::EndorsementsCurrent, EARLY),
    ("tcb_info in quote_collateral", CheckName::TcbInfo, EARLY),
    (
        "qe_identity in quote_collateral",
        CheckName::QeIdentity,
        EARLY,
    ),
    (
        "Unsupported QE Identity",
        CheckName::EndorsementsMatch,
        EARLY,
    ),
    (
        "Failed to decode TcbInfo",
        CheckName::EndorsementsFormat,
        EARLY,
    ),
    (
        "Failed to decode QeIdentity",
        CheckName::EndorsementsFormat,
        EARLY,
    ),
    ("Failed to decode quote", CheckName::EvidenceFormat, EARLY),
    ("ertificate", CheckName::CertificateChain, EARLY),
];

/// Puts on the card what dcap-qvl refused, and what it had found good until then.
pub(super) fn fail(words: &str, card: &mut Scorecard) -> Failed {
    let (check, stages) = WORDS
        .iter()
        .find(|(part, ..)| words.contains(part))
        .map_or((CheckName::Signature, EARLY), |(_, check, stages)| {
            (*check, *stages)
        });
    pass_up_to(stages, card);
    let stage = STAGES.iter().find(|(name, _)| *name == check);
    let expected = match check {
        CheckName::TcbStatus => "a patch level that Intel published and did not revoke",
        CheckName::ReservedAttributes => "reserved TD attributes clear",
        CheckName::NotMigratable => "MIGRATABLE clear",
        CheckName::ServiceTd => "SERVTD_EXT clear",
        CheckName::SeptVeDisable => "SEPT_VE_DISABLE set",
        _ => stage.map_or("as Intel defines it", |(_, text)| text),
    };
    card.fail(check, expected, brief(words))
}

/// Words may repeat what an attacker wrote: short, and without control characters.
pub(super) fn brief(words: &str) -> String {
    words
        .chars()
        .filter(|letter| !letter.is_control())
        .take(WORDS_MAX)
        .collect()
}

/// Puts on the card that dcap-qvl found nothing wrong.
pub(super) fn pass(card: &mut Scorecard) {
    pass_up_to(ALL, card);
}

fn pass_up_to(stages: usize, card: &mut Scorecard) {
    for (name, text) in STAGES.iter().take(stages) {
        card.record(*name, true, *text, *text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorecard::Status;

    #[test]
    fn every_word_chooses_a_refusal_and_unknown_ones_too() {
        for (words, check, _) in WORDS {
            let mut card = Scorecard::new(&[]);
            assert_eq!(fail(words, &mut card).check(), *check, "{words}");
        }
        let mut card = Scorecard::new(&[]);
        assert_eq!(
            fail("something new", &mut card).check(),
            CheckName::Signature
        );
        assert_eq!(card.checks().len(), 1);
    }

    #[test]
    fn what_is_not_reached_is_not_passed() {
        let mut card = Scorecard::new(&[]);
        fail("QE report hash mismatch", &mut card);
        let passed = |name| card.check(name).map(|check| check.status);
        assert_eq!(passed(CheckName::TcbInfo), Some(Status::Pass));
        assert_eq!(passed(CheckName::AttestationKey), Some(Status::Fail));
        assert_eq!(passed(CheckName::Signature), None);
    }
}
