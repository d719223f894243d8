//! Which checks may reject which class of negatives: a rejection for another reason is a fault.

use std::sync::Arc;
use std::time::Duration;

use attestation::CheckName::{
    self, AttestationKey, CertificateChain, EndorsementsCurrent, EndorsementsFormat,
    EndorsementsMatch, EvidenceFormat, NotDebug, QeIdentity, Revocation, RootPinned, Signature,
    TcbInfo,
};
use attestation::tee::dcap::DcapVerifier;
use attestation::tee::nitro::NitroVerifier;
use attestation::{
    AppraisalPolicy, Evidence, Expected, RelyingParty, Tee, Verifier, VerifierSet, examine,
};
use cli::args::EvidenceKind;

use crate::case::Case;
use crate::negatives::Negative;
use crate::others::dcap_qvl_with_root;

/// Whether this check is one that should notice this change.
pub(crate) fn may_reject(negative: &Negative, by: CheckName) -> bool {
    let words = negative.mutation.as_str();
    let expected: &[CheckName] = match negative.class.as_str() {
        "integrity" => &[
            EvidenceFormat,
            AttestationKey,
            Signature,
            CertificateChain,
            RootPinned,
            EndorsementsMatch,
        ],
        "parse" => &[EvidenceFormat],
        "time" => &[EndorsementsCurrent, CertificateChain],
        "root" => &[RootPinned],
        "revocation" => &[Revocation],
        "debug" => &[NotDebug],
        "endorsement" => &[CertificateChain, EndorsementsMatch, Signature, RootPinned],
        "collateral" if words.contains("CRL") => &[Revocation],
        "collateral" if words.starts_with("tcb_info signed-by chain") => {
            &[TcbInfo, CertificateChain]
        }
        "collateral" if words.starts_with("tcb_info") => &[TcbInfo],
        "collateral" if words.starts_with("qe_identity") => &[QeIdentity],
        "collateral" => &[EndorsementsMatch, Revocation, EndorsementsFormat],
        _ => &[],
    };
    expected.contains(&by)
}

/// A forgery has to be perfect, or its rejection says nothing about the root: with its own root
/// trusted, it is accepted by our verifier, and by another's.
pub(crate) fn must_be_genuine_under(case: &Case, root: &[u8], policy: &AppraisalPolicy) {
    let (tee, verifier): (_, Arc<dyn Verifier>) = match case.kind {
        EvidenceKind::Sgx => (
            Tee::Sgx,
            Arc::new(DcapVerifier::sgx().with_root(root.to_vec())),
        ),
        EvidenceKind::Tdx => (
            Tee::Tdx,
            Arc::new(DcapVerifier::tdx().with_root(root.to_vec())),
        ),
        EvidenceKind::Nitro => (Tee::Nitro, Arc::new(NitroVerifier::with_root(root))),
        other => panic!("no forgery of {other:?}"),
    };
    let relying = RelyingParty {
        verifiers: VerifierSet::new(vec![verifier]),
        policy: policy.clone(),
    };
    let evidence = Evidence {
        tee,
        body: case.body.clone(),
    };
    let examination = examine(
        &relying,
        &evidence,
        &case.endorsements,
        &Expected::default(),
        None,
        Duration::from_secs(case.at),
    );
    assert!(
        examination.accepted(),
        "{}: {}",
        case.name,
        examination.card
    );
    if tee != Tee::Nitro {
        assert_eq!(dcap_qvl_with_root(case, root), Ok(()), "{}", case.name);
    }
}
