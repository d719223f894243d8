//! What a piece of evidence is: TEE, platform, who made it, when.

use attestation::facts::{DcapFacts, NitroFacts, SnpFacts, SnpSigningKey};
use attestation::{Facts, Measurements};

use super::super::{Outcome, time};
use super::genuineness;
use crate::args::EvidenceKind;

/// `is …`, without the full stop.
pub(super) fn sentence(kind: EvidenceKind, outcome: &Outcome) -> String {
    let what = match kind {
        EvidenceKind::Sgx => "a quote about an enclave of Intel SGX",
        EvidenceKind::Tdx => "a quote about a virtual machine of Intel TDX (a trust domain)",
        EvidenceKind::Snp => "a report about a virtual machine of AMD SEV-SNP",
        EvidenceKind::Nitro => "an attestation document of an AWS Nitro enclave",
        EvidenceKind::AzSnp => "evidence of an Azure virtual machine on AMD SEV-SNP, by its vTPM",
        EvidenceKind::AzTdx => "evidence of an Azure virtual machine on Intel TDX, by its vTPM",
        EvidenceKind::Ratls => "a certificate with a quote of Intel SGX or TDX in it (RA-TLS)",
        EvidenceKind::Nvidia => "a measurement report of an NVIDIA GPU",
    };
    if outcome.measurement.is_none() {
        return format!("should be {what}, but cannot be read as one");
    }
    let failed = outcome.first_failure().map(|check| check.name);
    let genuine = if outcome.claims.is_some() || outcome.accepted {
        "signed as its vendor says"
    } else if failed.is_some_and(|name| !genuineness(name)) {
        "signed as its vendor says, but in a state that no policy accepts"
    } else {
        "but it is not shown to be genuine, so everything that it says may be made up"
    };
    format!("is {what}, {genuine}")
}

/// What genuine evidence says about platform, maker and time.
pub(super) fn details(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let Some(claims) = &outcome.claims else {
        return Vec::new();
    };
    let mut rows = code(claims.measurements());
    match &claims.facts {
        Facts::None => {}
        Facts::Dcap(facts) => rows.extend(dcap(facts)),
        Facts::Snp(facts) => rows.extend(snp(facts)),
        Facts::Nitro(facts) => rows.extend(nitro(facts)),
    }
    rows
}

type Rows = Vec<(&'static str, String)>;

/// Who made the code, where the measurements say so.
fn code(measurements: &Measurements) -> Rows {
    match measurements {
        Measurements::Sgx(sgx) => vec![
            ("made by (MRSIGNER)", hex::encode(sgx.mrsigner)),
            ("product", sgx.isv_prod_id.to_string()),
        ],
        Measurements::Tdx(_)
        | Measurements::Snp(_)
        | Measurements::Nitro(_)
        | Measurements::AzSnp(_)
        | Measurements::AzTdx(_)
        | Measurements::Simulated(_) => Vec::new(),
    }
}

fn dcap(facts: &DcapFacts) -> Rows {
    let mut rows = vec![
        ("platform (FMSPC)", hex::encode(facts.fmspc)),
        ("machine (PPID)", hex::encode(&facts.ppid)),
        ("judged by", "Intel".to_owned()),
        ("judged on", time(facts.issued.as_secs())),
        ("made on", "quotes do not say".to_owned()),
    ];
    if !facts.advisories.is_empty() {
        rows.push(("open advisories", facts.advisories.join(", ")));
    }
    rows
}

fn snp(facts: &SnpFacts) -> Rows {
    let machine = if facts.chip_masked {
        "hidden by the host".to_owned()
    } else {
        hex::encode(facts.chip_id)
    };
    let signed_by = match facts.signing_key {
        SnpSigningKey::Vcek => "the chip's own key (VCEK)",
        SnpSigningKey::Vlek => "the cloud provider's key (VLEK)",
    };
    vec![
        ("platform", format!("AMD {:?}", facts.product)),
        ("machine (chip id)", machine),
        ("signed by", signed_by.to_owned()),
        ("patch level", facts.reported_tcb.to_string()),
        ("made on", "reports do not say".to_owned()),
    ]
}

fn nitro(facts: &NitroFacts) -> Rows {
    vec![
        ("platform", "AWS Nitro".to_owned()),
        ("enclave (module)", facts.module_id.clone()),
        ("made on", time(facts.timestamp.as_secs())),
    ]
}
