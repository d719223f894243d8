//! Confidential VMs of Azure: hardware evidence of the boot, and a vTPM that it vouches for.
//!
//! The paravisor holds the vTPM. At boot it has the hardware sign a hash of its runtime claims,
//! which hold the vTPM's attestation key (AK); afterwards that key signs quotes. So the chain is
//! hardware report, claims, AK, quote, registers. The hardware's part is as old as the boot:
//! only the quote's nonce is fresh.

mod document;
mod hcl;
mod judge;
#[cfg(test)]
mod tests;
mod tpm;

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;

use self::document::Document;
use self::hcl::{Hardware, HclReport};
pub(crate) use self::judge::judge;
use self::tpm::{Quote, digest_of};
use super::dcap::DcapVerifier;
use super::snp::{self, AmdRoot, SnpVerifier};
use crate::evidence::{Claims, Evidence, Malformed, Said, Subject, TcbStatus, Tee, Verifier};
use crate::facts::Facts;
use crate::measurements::{AzureMeasurements, Measurements, SnpMeasurements};
use crate::policy::Hex;
use crate::scorecard::{CheckName, Failed, Scorecard};

/// Verifies evidence of Azure's SEV-SNP machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzSnpVerifier(SnpVerifier);

impl AzSnpVerifier {
    /// Trusts AMD's roots.
    #[must_use]
    pub fn amd() -> Self {
        Self(SnpVerifier::amd())
    }

    /// Trusts these roots instead.
    #[must_use]
    pub const fn with_roots(roots: Vec<AmdRoot>) -> Self {
        Self(SnpVerifier::with_roots(roots))
    }
}

/// Verifies evidence of Azure's TDX machines.
#[derive(Debug, Clone)]
pub struct AzTdxVerifier(DcapVerifier);

impl AzTdxVerifier {
    /// Trusts Intel's root.
    #[must_use]
    pub fn intel() -> Self {
        Self(DcapVerifier::tdx())
    }

    /// Trusts this root (DER) instead.
    #[must_use]
    pub fn with_root(root: Vec<u8>) -> Self {
        Self(DcapVerifier::tdx().with_root(root))
    }
}

/// The VEK (DER) that came inside of evidence, for a caller that has no other. It is as hostile
/// as any endorsement. `None` if there is none, and if `body` is not evidence.
#[must_use]
pub fn endorsements_in(body: &[u8]) -> Option<Vec<u8>> {
    Document::parse(body, Tee::AzSnp).ok()?.vek
}

/// The hardware's part of evidence: a report of SEV-SNP, or a TD's quote.
pub(crate) fn hardware_evidence(body: &[u8], tee: Tee) -> Result<Vec<u8>, Malformed> {
    let document = Document::parse(body, tee)?;
    match tee {
        Tee::AzSnp => {
            let hcl = HclReport::parse(&document.hcl_report, Hardware::Snp)?;
            Ok(hcl.hardware.to_vec())
        }
        _ => td_quote(&document).map(<[u8]>::to_vec),
    }
}

/// The parts of evidence that both kinds of machine have.
struct Parts<'a> {
    hcl: HclReport<'a>,
    quote: Quote,
    pcrs: BTreeMap<u8, [u8; 32]>,
    document: &'a Document,
}

impl<'a> Parts<'a> {
    fn of(document: &'a Document, kind: Hardware) -> Result<Self, Malformed> {
        let hcl = HclReport::parse(&document.hcl_report, kind)?;
        let quote = Quote::parse(&document.message)?;
        let pcrs = quote.quoted(&document.pcrs);
        Ok(Self {
            hcl,
            quote,
            pcrs,
            document,
        })
    }

    /// From report data, which the hardware's evidence covers, down to the registers.
    fn verify(&self, report_data: &[u8], card: &mut Scorecard) -> Result<(), Failed> {
        let hash = digest(&SHA256, self.hcl.claims);
        let (covered, rest) = report_data
            .split_at_checked(hash.as_ref().len())
            .unwrap_or_default();
        card.require(
            CheckName::RuntimeClaims,
            covered == hash.as_ref() && rest.iter().all(|byte| *byte == 0),
            format!("report data {}, then zeros", hex::encode(hash)),
            hex::encode(report_data),
        )?;

        // The key of the claims above, and of nothing else that came with them.
        let ak = PublicKeyComponents {
            n: &self.hcl.ak.modulus,
            e: &self.hcl.ak.exponent,
        };
        let Document {
            message, signature, ..
        } = self.document;
        let ok = ak
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok();
        card.require(
            CheckName::TpmQuote,
            ok,
            "signed by HCLAkPub (RSASSA, SHA-256)",
            if ok { "signed" } else { "not signed by it" },
        )?;

        let digest = digest_of(&self.pcrs);
        card.require(
            CheckName::PcrDigest,
            digest == self.quote.pcr_digest,
            format!("digest {}", Hex(self.quote.pcr_digest)),
            format!("digest {} of {} registers", Hex(digest), self.pcrs.len()),
        )
    }

    fn measurements<T>(&self, hardware: T) -> Box<AzureMeasurements<T>> {
        Box::new(AzureMeasurements {
            hardware,
            pcrs: self.pcrs.clone(),
            secure_boot: self.hcl.secure_boot,
        })
    }

    fn said(&self, measurements: Measurements, report_data: Vec<u8>) -> Said {
        Said {
            measurements,
            report_data,
            nonce: Some(self.quote.nonce.clone()),
        }
    }

    fn said_tdx(&self, td: Said) -> Result<Said, Malformed> {
        match td.measurements {
            Measurements::Tdx(measured) => {
                let measurements = Measurements::AzTdx(self.measurements(*measured));
                Ok(self.said(measurements, td.report_data))
            }
            Measurements::Sgx(_)
            | Measurements::Snp(_)
            | Measurements::Nitro(_)
            | Measurements::AzSnp(_)
            | Measurements::AzTdx(_)
            | Measurements::Simulated(_) => Err(Malformed { field: "td_quote" }),
        }
    }

    fn said_snp(&self, guest: SnpMeasurements, report_data: [u8; 64]) -> Said {
        let measurements = Measurements::AzSnp(self.measurements(guest));
        self.said(measurements, report_data.to_vec())
    }
}

fn parse(evidence: &Evidence, tee: Tee) -> Result<Document, Malformed> {
    if evidence.tee != tee {
        return Err(Malformed {
            field: "kind of TEE",
        });
    }
    Document::parse(&evidence.body, tee)
}

fn format(tee: Tee, error: Malformed, card: &mut Scorecard) -> Failed {
    let wanted = format!("{tee} evidence: TPM quote, HCL report");
    card.fail(CheckName::EvidenceFormat, wanted, error.to_string())
}

impl Verifier for AzSnpVerifier {
    fn tee(&self) -> Tee {
        Tee::AzSnp
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        let document = parse(evidence, Tee::AzSnp)?;
        let parts = Parts::of(&document, Hardware::Snp)?;
        let (guest, report_data) = snp::read(parts.hcl.hardware)?;
        Ok(parts.said_snp(guest, report_data))
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let document =
            parse(subject.evidence, Tee::AzSnp).map_err(|error| format(Tee::AzSnp, error, card))?;
        let parts =
            Parts::of(&document, Hardware::Snp).map_err(|error| format(Tee::AzSnp, error, card))?;
        let Self(snp) = self;
        let genuine = snp.report(parts.hcl.hardware, subject.endorsements, subject.now, card)?;
        // No matter of policy: the guest itself gets reports too, of lower levels and with
        // report data of its choice, which could cover claims with a key of its choice.
        card.require(
            CheckName::Vmpl,
            genuine.guest.vmpl == 0,
            "0, the paravisor's",
            genuine.guest.vmpl.to_string(),
        )?;
        parts.verify(&genuine.report_data, card)?;
        Ok(Claims {
            said: parts.said_snp(genuine.guest, genuine.report_data),
            svn: genuine.svn.into(),
            tcb: TcbStatus::NotApplicable,
            facts: Facts::Snp(Box::new(genuine.facts)),
        })
    }
}

/// The quote of the TD: what of Azure's TDX evidence others than its own machine can verify.
fn td_quote(document: &Document) -> Result<&[u8], Malformed> {
    document
        .td_quote
        .as_deref()
        .ok_or(Malformed { field: "td_quote" })
}

impl Verifier for AzTdxVerifier {
    fn tee(&self) -> Tee {
        Tee::AzTdx
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        let document = parse(evidence, Tee::AzTdx)?;
        let parts = Parts::of(&document, Hardware::Tdx)?;
        let Self(dcap) = self;
        parts.said_tdx(dcap.read_quote(td_quote(&document)?)?)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let document =
            parse(subject.evidence, Tee::AzTdx).map_err(|error| format(Tee::AzTdx, error, card))?;
        let parts =
            Parts::of(&document, Hardware::Tdx).map_err(|error| format(Tee::AzTdx, error, card))?;
        let quote = td_quote(&document).map_err(|error| format(Tee::AzTdx, error, card))?;
        let Self(dcap) = self;
        let claims = dcap.verify_quote(quote, subject.endorsements, subject.now, card)?;
        parts.verify(&claims.said.report_data, card)?;
        Ok(Claims {
            said: parts
                .said_tdx(claims.said)
                .map_err(|error| format(Tee::AzTdx, error, card))?,
            ..claims
        })
    }
}
