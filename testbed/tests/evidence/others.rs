//! What other people's verifiers say of the same evidence.

use std::panic::catch_unwind;

use attestation::policy::ServiceTds;
use attestation::{AppraisalPolicy, Endorsements};
use cli::args::EvidenceKind;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use sev::certs::snp::{Chain, Verifiable as _};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use crate::case::Case;

/// Which verifier a kind of evidence is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Other {
    DcapQvl,
    Sev,
}

/// What another verifier says; `None` if there is none for this kind.
pub(crate) fn verdict(
    case: &Case,
    policy: &AppraisalPolicy,
) -> Option<(Other, Result<(), String>)> {
    match case.kind {
        EvidenceKind::Sgx | EvidenceKind::Tdx => {
            // It knows two of the things that a policy may allow.
            let verifier = QuoteVerifier::new_prod()
                .allow_debug(policy.allow_debug)
                .allow_service_td(policy.intel.service_tds != ServiceTds::These(Vec::new()));
            Some((Other::DcapQvl, dcap_qvl(case, &verifier)))
        }
        EvidenceKind::Snp => Some((Other::Sev, sev(case))),
        _ => None,
    }
}

/// dcap-qvl with another root: what a forger's root would have to be trusted for.
pub(crate) fn dcap_qvl_with_root(case: &Case, root: &[u8]) -> Result<(), String> {
    let verifier = QuoteVerifier::new(root.to_vec())
        .allow_debug(true)
        .allow_service_td(true);
    dcap_qvl(case, &verifier)
}

fn dcap_qvl(case: &Case, verifier: &QuoteVerifier) -> Result<(), String> {
    let Endorsements::Dcap { collateral } = &case.endorsements else {
        return Err("no collateral".to_owned());
    };
    let collateral: QuoteCollateralV3 =
        serde_json::from_slice(collateral).map_err(|error| error.to_string())?;
    verifier
        .verify(&case.body, &collateral, case.at)
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

fn sev(case: &Case) -> Result<(), String> {
    let Endorsements::Snp { vek, chain } = &case.endorsements else {
        return Err("no certificates".to_owned());
    };
    let [ask, ark] = &chain[..] else {
        return Err("no two issuers".to_owned());
    };
    // Its parser is not promised to survive what is not a report.
    let (vek, ask, ark, body) = (vek.clone(), ask.clone(), ark.clone(), case.body.clone());
    catch_unwind(move || {
        let chain = Chain::from_der(&ark, &ask, &vek).map_err(|error| error.to_string())?;
        let report = AttestationReport::from_bytes(&body).map_err(|error| error.to_string())?;
        (&chain, &report)
            .verify()
            .map_err(|error| error.to_string())
    })
    .unwrap_or_else(|_| Err("panicked".to_owned()))
}
