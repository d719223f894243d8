//! AMD SEV-SNP: reports of versions 2 to 5 from Milan, Genoa and Turin, signed by VCEK or VLEK.
//!
//! The signature is verified over the bytes as they came, never over a structure written again:
//! no byte of a report can change without a refusal.

mod chain;
mod judge;
mod product;
mod report;
#[cfg(test)]
mod tests;
mod vek;

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

pub(crate) use self::judge::judge;
pub use self::product::AmdRoot;
use self::product::{AMD_ROOTS, tcb};
use self::report::{Report, SIGNED};
use self::vek::{Vek, Whose};
use crate::evidence::{
    Claims, Endorsements, Evidence, Malformed, Said, Subject, TcbStatus, Tee, Verifier,
};
use crate::facts::{Facts, SnpFacts, SnpProduct, SnpSigningKey};
use crate::measurements::{Measurements, SnpMeasurements};
use crate::platform::Platform;
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// Verifies reports against roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpVerifier {
    roots: Vec<AmdRoot>,
}

/// A genuine report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Genuine {
    pub(crate) guest: SnpMeasurements,
    pub(crate) report_data: [u8; 64],
    pub(crate) svn: u32,
    pub(crate) facts: SnpFacts,
}

/// Which chip a report is of, unverified.
pub(crate) fn platform(body: &[u8]) -> Result<Platform, Malformed> {
    let report = Report::parse(body)?;
    let key = match (report.key_info >> 2) & 0b111 {
        0 => SnpSigningKey::Vcek,
        1 => SnpSigningKey::Vlek,
        _ => {
            return Err(Malformed {
                field: "signing key",
            });
        }
    };
    let product = match report.cpuid {
        None => None,
        Some((family, model)) => Some(product::processor(family, model).ok_or(Malformed {
            field: "family and model of the processor",
        })?),
    };
    Ok(Platform::Amd {
        product,
        key,
        chip_id: report.chip_id,
        // Reports of version 2 are of Milan or Genoa, which share a layout.
        tcb: tcb(product.unwrap_or(SnpProduct::Milan), report.reported_tcb),
    })
}

impl SnpVerifier {
    /// Trusts AMD's roots, one for each product line.
    #[must_use]
    pub fn amd() -> Self {
        Self::with_roots(AMD_ROOTS.to_vec())
    }

    /// Trusts these roots instead.
    #[must_use]
    pub const fn with_roots(roots: Vec<AmdRoot>) -> Self {
        Self { roots }
    }

    /// Verifies a report wherever it comes from: alone, or beside a vTPM's quote.
    ///
    /// # Errors
    /// [`Failed`] for everything that is not exactly one genuine report.
    pub(crate) fn report(
        &self,
        body: &[u8],
        endorsements: &Endorsements,
        now: Duration,
        card: &mut Scorecard,
    ) -> Result<Genuine, Failed> {
        let format = "a report of version 2 to 5 (AMD 56860)";
        let report = match Report::parse(body) {
            Ok(report) => report,
            Err(error) => {
                return Err(card.fail(CheckName::EvidenceFormat, format, error.to_string()));
            }
        };
        let version = format!("version {}", report.version);
        card.record(CheckName::EvidenceFormat, true, format, version);
        let Endorsements::Snp { vek, chain } = endorsements else {
            let wanted = "the VEK and its issuers";
            return Err(card.fail(CheckName::EndorsementsPresent, wanted, "none"));
        };
        let vek = chain::verify(&self.roots, vek, chain, now, card)?;
        card.note(
            CheckName::Revocation,
            Status::Unchecked,
            "no revocation list came with the endorsements",
        );
        signing_key(&vek, &report, card)?;
        signature(&vek, &report, body, card)?;
        let wanted = "product, chip and firmware of the report";
        match vek.matches(&report) {
            Ok(()) => card.record(CheckName::EndorsementsMatch, true, wanted, "the same"),
            Err(why) => return Err(card.fail(CheckName::EndorsementsMatch, wanted, why)),
        }
        Ok(genuine(&vek, &report))
    }
}

/// That the report says of itself which kind of key signed it, and is right.
fn signing_key(vek: &Vek, report: &Report, card: &mut Scorecard) -> Result<(), Failed> {
    let wanted = match vek.kind() {
        SnpSigningKey::Vcek => 0,
        SnpSigningKey::Vlek => 1,
    };
    let got = match (&vek.whose, report.chip_key_masked()) {
        (Whose::Chip(_), false) => format!("key {}, VCEK", report.signing_key()),
        (Whose::Provider(id), false) => format!("key {}, VLEK of {id}", report.signing_key()),
        // Such reports are not signed at all, says the specification.
        (_, true) => "the chip's key is masked".into(),
    };
    card.require(
        CheckName::AttestationKey,
        report.signing_key() == wanted && !report.chip_key_masked(),
        format!("key {wanted} by the certificate, not masked"),
        got,
    )
}

fn signature(vek: &Vek, report: &Report, body: &[u8], card: &mut Scorecard) -> Result<(), Failed> {
    let signed = body.get(..SIGNED).unwrap_or_default();
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, vek.key);
    let ok = key.verify(signed, &report.signature).is_ok();
    card.require(
        CheckName::Signature,
        ok,
        "signed by the VEK (ECDSA P-384, SHA-384)",
        if ok { "signed" } else { "not signed by it" },
    )
}

fn genuine(vek: &Vek, report: &Report) -> Genuine {
    let [abi_minor, abi_major, ..] = report.policy.to_le_bytes();
    let facts = SnpFacts {
        product: vek.product,
        version: report.version,
        signing_key: vek.kind(),
        chip_masked: report.chip_masked(),
        chip_id: report.chip_id,
        reported_tcb: tcb(vek.product, report.reported_tcb),
        committed_tcb: tcb(vek.product, report.committed_tcb),
        launch_tcb: tcb(vek.product, report.launch_tcb),
        current_tcb: tcb(vek.product, report.current_tcb),
        policy_abi: (abi_major, abi_minor),
        firmware: report.firmware,
        platform_info: report.platform_info,
    };
    Genuine {
        guest: report.measurements(),
        report_data: report.report_data,
        svn: report.guest_svn,
        facts,
    }
}

/// What a report says, unverified: the guest's measurements and its report data.
///
/// # Errors
/// [`Malformed`] names the field.
pub(crate) fn read(body: &[u8]) -> Result<(SnpMeasurements, [u8; 64]), Malformed> {
    let report = Report::parse(body)?;
    Ok((report.measurements(), report.report_data))
}

fn said(guest: SnpMeasurements, report_data: [u8; 64]) -> Said {
    Said {
        measurements: Measurements::Snp(Box::new(guest)),
        report_data: report_data.to_vec(),
        nonce: None,
    }
}

impl Verifier for SnpVerifier {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        if evidence.tee != Tee::Snp {
            return Err(Malformed {
                field: "kind of TEE",
            });
        }
        let (guest, report_data) = read(&evidence.body)?;
        Ok(said(guest, report_data))
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let Subject {
            evidence,
            endorsements,
            now,
        } = *subject;
        if evidence.tee != Tee::Snp {
            let wanted = Tee::Snp.name();
            return Err(card.fail(CheckName::EvidenceFormat, wanted, evidence.tee.name()));
        }
        let genuine = self.report(&evidence.body, endorsements, now, card)?;
        Ok(Claims {
            said: said(genuine.guest, genuine.report_data),
            svn: genuine.svn.into(),
            tcb: TcbStatus::NotApplicable,
            facts: Facts::Snp(Box::new(genuine.facts)),
        })
    }
}
