//! NVIDIA GPUs (Hopper and later): a signed SPDM report and the device's certificate chain.
//!
//! What a GPU measured means nothing without NVIDIA's reference integrity manifest for its driver
//! and VBIOS, which is not at hand here: the report is shown to be genuine, and nothing more. A
//! GPU is therefore no [`crate::Tee`], and nothing is released for its evidence.

mod firmware_id;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use self::report::Report;
use super::p384::{self, Chain, Pin};
use crate::policy::Hex;
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// Of `CN=NVIDIA Device Identity CA`: `verifier_device_root.pem` of github.com/NVIDIA/nvtrust,
/// guest_tools/gpu_verifiers/local_gpu_verifier.
const NVIDIA_ROOT: Pin = Hex([
    0x10, 0x2b, 0xf6, 0x59, 0xd5, 0x41, 0x96, 0x14, 0xc9, 0xd8, 0xe6, 0xae, 0xce, 0xbc, 0x80, 0x45,
    0x4e, 0xb2, 0x6b, 0x1d, 0xf6, 0xa7, 0x69, 0xac, 0x72, 0x0b, 0x9a, 0x69, 0x0b, 0x16, 0x7b, 0x48,
]);
/// Longest chain, in bytes of PEM: an H100's has 4.8 KB.
const CHAIN_MAX: usize = 64 * 1024;
/// A leaf, what webpki walks at most, and a root. An H100's has five.
const CERTIFICATES_MAX: usize = 8;

/// What a genuine report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSaid {
    /// What the requester chose.
    pub nonce: [u8; 32],
    /// Digests by index; what they are of is in NVIDIA's manifest only.
    pub measurements: BTreeMap<u8, Vec<u8>>,
    pub driver_version: Option<String>,
    /// In NVIDIA's binary form.
    pub vbios_version: Option<Vec<u8>>,
}

/// Verifies reports against one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuVerifier {
    root: Pin,
}

/// [`GpuVerifier::examine`] with NVIDIA's root.
///
/// # Errors
/// [`Failed`] for everything that is not exactly one genuine report.
pub fn examine(
    report: &[u8],
    chain_pem: &[u8],
    expected_nonce: Option<&[u8]>,
    now: Duration,
    card: &mut Scorecard,
) -> Result<GpuSaid, Failed> {
    GpuVerifier::nvidia().examine(report, chain_pem, expected_nonce, now, card)
}

impl GpuVerifier {
    /// Trusts NVIDIA's root.
    #[must_use]
    pub const fn nvidia() -> Self {
        Self { root: NVIDIA_ROOT }
    }

    /// Trusts this certificate (DER) instead.
    #[must_use]
    pub fn with_root(der: &[u8]) -> Self {
        Self {
            root: p384::pin(der),
        }
    }

    /// Examines a report (the binary request and response) with the device's chain, leaf first
    /// and root last, in PEM. `now` is time since the UNIX epoch.
    ///
    /// # Errors
    /// [`Failed`] for everything that is not exactly one genuine report.
    pub fn examine(
        &self,
        report: &[u8],
        chain_pem: &[u8],
        expected_nonce: Option<&[u8]>,
        now: Duration,
        card: &mut Scorecard,
    ) -> Result<GpuSaid, Failed> {
        let wanted = "an SPDM 1.1 request for all measurements and its signed response";
        let report = Report::parse(report)
            .map_err(|error| card.fail(CheckName::EvidenceFormat, wanted, error.to_string()))?;
        let blocks = format!("{} measurements", report.measurements.len());
        card.record(CheckName::EvidenceFormat, true, wanted, blocks);

        let certificates = certificates(chain_pem, card)?;
        let certificates: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
        let [leaf, issuers @ .., root] = &certificates[..] else {
            let got = format!("{} certificates", certificates.len());
            return Err(card.fail(CheckName::EndorsementsPresent, "a leaf and a root", got));
        };
        let chain = Chain {
            leaf,
            issuers,
            root,
        };
        let key = p384::verify(&chain, &self.root, now, card)?;
        card.note(
            CheckName::Revocation,
            Status::Unchecked,
            "NVIDIA answers for revocation online (OCSP) only",
        );
        card.require(
            CheckName::Signature,
            key.signed(report.signed, &report.signature),
            "of request and response, by the device's leaf certificate",
            "a signature",
        )?;
        firmware(leaf, &report, card)?;
        check_nonce(&report, expected_nonce, card)?;
        card.note(
            CheckName::GpuMeasurements,
            Status::Unchecked,
            "measurements not compared: no reference integrity manifest",
        );
        Ok(GpuSaid {
            nonce: report.nonce,
            driver_version: report.driver(),
            vbios_version: report.vbios().map(<[u8]>::to_vec),
            measurements: report
                .measurements
                .into_iter()
                .map(|(index, value)| (index, value.to_vec()))
                .collect(),
        })
    }
}

fn certificates(pem: &[u8], card: &mut Scorecard) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let wanted = format!("2 to {CERTIFICATES_MAX} certificates in PEM");
    let read = if pem.len() > CHAIN_MAX {
        Err("too long".to_owned())
    } else {
        // One more than allowed shows that there are too many.
        CertificateDer::pem_slice_iter(pem)
            .take(CERTIFICATES_MAX.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())
    };
    let count = read.as_ref().map_or(0, Vec::len);
    let got = read
        .as_ref()
        .map_or_else(Clone::clone, |_| format!("{count} certificates"));
    let ok = (2..=CERTIFICATES_MAX).contains(&count);
    card.require(CheckName::EndorsementsFormat, ok, wanted, got)?;
    Ok(read.unwrap_or_default())
}

/// The leaf names the firmware that may hold its key (TCG DICE), the report the one that does.
fn firmware(leaf: &[u8], report: &Report<'_>, card: &mut Scorecard) -> Result<(), Failed> {
    let certified = firmware_id::of(leaf);
    let hex = |id: Option<&[u8]>| id.map_or("none".to_owned(), hex::encode);
    let Some(reported) = report.firmware_id() else {
        // Reports of early firmware lack it.
        card.note(
            CheckName::AttestationKey,
            Status::Unchecked,
            format!("firmware {} by the certificate only", hex(certified)),
        );
        return Ok(());
    };
    card.require(
        CheckName::AttestationKey,
        certified == Some(reported),
        format!("firmware {}", hex(certified)),
        format!("firmware {}", hex(Some(reported))),
    )
}

fn check_nonce(
    report: &Report<'_>,
    expected: Option<&[u8]>,
    card: &mut Scorecard,
) -> Result<(), Failed> {
    let got = hex::encode(report.nonce);
    let Some(expected) = expected else {
        card.note(CheckName::Nonce, Status::Unchecked, got);
        return Ok(());
    };
    let ok = verify_slices_are_equal(expected, &report.nonce).is_ok();
    card.require(CheckName::Nonce, ok, hex::encode(expected), got)
}

#[cfg(test)]
mod tests;
