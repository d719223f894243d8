//! SGX and TDX: quotes of Intel's data center attestation primitives (DCAP).
//!
//! [`dcap_qvl`] decides whether a quote is genuine: chains to the pinned root, revocation,
//! signatures, Intel's judgement of platform, TDX module and quoting enclave. Around it, this
//! module closes what that crate leaves to its callers (each has a test that fails without it):
//!
//! | dcap-qvl 0.7.1 | here |
//! |---|---|
//! | takes bytes after the quote, other types of outer certification, altered unused PEM | `quote`, `pem`: exact parsers |
//! | lets an unused root certificate in a chain be anything | [`CheckName::RootPinned`]: it is the pinned one |
//! | lets `pck_certificate_chain` of the collateral override the quote's own chain | the quote's own wins |
//! | does not compare PCE ids | [`CheckName::EndorsementsMatch`] |
//! | does not look at `thisUpdate` of revocation lists | [`CheckName::EndorsementsCurrent`] |
//! | returns bad TCB states, old judgements, platform flags as success | facts, for the policy: `judge` |
//! | with `allow_debug` and `allow_service_td`, accepts both | asked to, so that the policy names them: `judge` |
//! | says what failed in words only | `verdict` maps them to checks; unknown words fail too |
//!
//! It cannot be told to go on with a TD that is migratable, lacks SEPT_VE_DISABLE, or has
//! reserved attribute bits or (as a TDX 1.0 body) SERVTD_EXT: such a quote fails here, under that
//! name, after everything else was found genuine; no policy can accept it.

mod backend;
mod collateral;
mod judge;
mod pem;
mod platform;
mod quote;
mod rfc3339;
mod verdict;

use std::time::Duration;

use dcap_qvl::intel::parse_pck_extension_with;
use dcap_qvl::quote::Report as QvlReport;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::backend::{AwsLc, signed_by};
use self::collateral::{Collateral, Window};
use self::quote::{Certification, Quote, Report};
use crate::evidence::{
    Claims, Endorsements, Evidence, Malformed, Said, Subject, TcbStatus, Tee, Verifier,
};
use crate::facts::{DcapFacts, Facts};
use crate::measurements::Measurements;
use crate::scorecard::{CheckName, Failed, Scorecard};

pub(crate) use self::judge::judge;
pub(crate) use self::platform::{currency, platform};

/// "Intel SGX Root CA", of TDX too; valid until 2049. SHA-256 in the test of that name; published
/// at <https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer>.
const INTEL_ROOT: &[u8] = include_bytes!("dcap/intel-sgx-root-ca.der");

/// Verifies the quotes of one kind of TEE.
#[derive(Debug, Clone)]
pub struct DcapVerifier {
    tee: Tee,
    root: Vec<u8>,
}

/// What the pre-checks found, for dcap-qvl.
struct Prepared<'a> {
    quote: Quote<'a>,
    collateral: Collateral,
}

impl DcapVerifier {
    /// For SGX, with Intel's root.
    #[must_use]
    pub fn sgx() -> Self {
        Self {
            tee: Tee::Sgx,
            root: INTEL_ROOT.to_vec(),
        }
    }

    /// For TDX, with Intel's root.
    #[must_use]
    pub fn tdx() -> Self {
        Self {
            tee: Tee::Tdx,
            root: INTEL_ROOT.to_vec(),
        }
    }

    /// With another root (DER) instead of Intel's: for tests, which make their own Intel.
    #[must_use]
    pub fn with_root(self, root: Vec<u8>) -> Self {
        Self { root, ..self }
    }

    /// What a quote says, unverified; also for those inside of other evidence (Azure).
    ///
    /// # Errors
    /// [`Malformed`] if header and body are not those of this TEE. What follows them is not
    /// looked at: also a quote that will be rejected has measurements to show.
    pub fn read_quote(&self, quote: &[u8]) -> Result<Said, Malformed> {
        let report = quote::read_report(quote)?;
        if report.said.measurements.tee() == self.tee {
            Ok(report.said)
        } else {
            Err(Malformed {
                field: "kind of TEE",
            })
        }
    }

    /// Verifies a quote; also for those inside of other evidence (Azure).
    ///
    /// # Errors
    /// [`Failed`] with the name of the check.
    pub fn verify_quote(
        &self,
        quote: &[u8],
        endorsements: &Endorsements,
        now: Duration,
        card: &mut Scorecard,
    ) -> Result<Claims, Failed> {
        let prepared = self.prepare(quote, endorsements, now, card)?;
        let issued = prepared.collateral.issued();
        let report = prepared.quote.report;
        let found = QuoteVerifier::<AwsLc>::new_with_config(self.root.clone())
            // Not accepted by that: `judge` looks at both, so that the policy names them.
            .allow_debug(true)
            .allow_service_td(true)
            .verify_with_policy(
                prepared.quote.exact,
                prepared.collateral.raw,
                now.as_secs(),
                // It would accept anything; the policy that counts is ours, on these claims.
                &QuotePolicy::claims_only(now.as_secs()),
            )
            .map_err(|error| verdict::fail(&format!("{error:#}"), card))?;
        verdict::pass(card);
        if !agrees(&report, &found) {
            let expected = "one reading of the quote";
            return Err(card.fail(CheckName::EvidenceFormat, expected, "two"));
        }
        let dates = (found.earliest_expiration_date, found.latest_issue_date);
        card.require(
            CheckName::EndorsementsCurrent,
            dates.0 >= now.as_secs() && dates.1 <= now.as_secs(),
            format!("valid at {}", now.as_secs()),
            format!("valid from {} to {}", dates.1, dates.0),
        )?;
        Ok(claims(report, &found, issued))
    }

    /// Everything that can be said without verifying a signature, so that it has an exact name.
    fn prepare<'a>(
        &self,
        quote: &'a [u8],
        endorsements: &Endorsements,
        now: Duration,
        card: &mut Scorecard,
    ) -> Result<Prepared<'a>, Failed> {
        let quote = self.parse(quote, card)?;
        let mut collateral = read_collateral(endorsements, card)?;
        let chain = match &quote.certification {
            Certification::Chain(chain) => {
                // Else dcap-qvl would prefer the host's choice to what came with the quote.
                collateral.raw.pck_certificate_chain = None;
                chain.clone()
            }
            Certification::Elsewhere => collateral.pck_chain.clone().ok_or_else(|| {
                card.fail(
                    CheckName::EndorsementsPresent,
                    "a PCK certificate in quote or collateral",
                    "none",
                )
            })?,
        };
        let (leaf, leaf_issuer) = self.check_chains(&chain, &collateral, card)?;
        let pck = parse_pck_extension_with::<AwsLc>(&leaf).map_err(|error| {
            let expected = "a PCK certificate";
            card.fail(
                CheckName::CertificateChain,
                expected,
                verdict::brief(&format!("{error:#}")),
            )
        })?;
        check_match(self.tee, &pck.fmspc, &pck.pce_id, &collateral, card)?;
        let root = self.root(card)?;
        let revocable = collateral.root_crl.issuer == root.subject().as_raw()
            && collateral.pck_crl.issuer == leaf_issuer;
        card.require(
            CheckName::Revocation,
            revocable,
            "revocation lists of the root and of the PCK certificate's issuer",
            if revocable {
                "both"
            } else {
                "lists of other issuers"
            },
        )?;
        check_current(&collateral, now, card)?;
        Ok(Prepared { quote, collateral })
    }

    fn parse<'a>(&self, quote: &'a [u8], card: &mut Scorecard) -> Result<Quote<'a>, Failed> {
        let expected = match self.tee {
            Tee::Sgx => "an SGX quote of version 3",
            _ => "a TDX quote of version 4 or 5",
        };
        let name = CheckName::EvidenceFormat;
        let quote =
            quote::read(quote).map_err(|error| card.fail(name, expected, error.to_string()))?;
        let tee = quote.report.said.measurements.tee();
        let version = quote.report.version;
        card.require(
            name,
            tee == self.tee && (tee == Tee::Tdx || version == 3),
            expected,
            format!("a quote of {tee}, version {version}"),
        )?;
        Ok(quote)
    }

    fn root(&self, card: &mut Scorecard) -> Result<X509Certificate<'_>, Failed> {
        X509Certificate::from_der(&self.root)
            .map(|(_, root)| root)
            .map_err(|_| card.fail(CheckName::RootPinned, "a root certificate", "none"))
    }

    /// Leaf of the PCK chain, and its issuer's name.
    fn check_chains(
        &self,
        chain: &[Vec<u8>],
        collateral: &Collateral,
        card: &mut Scorecard,
    ) -> Result<(Vec<u8>, Vec<u8>), Failed> {
        let (Some(leaf), 2..=3) = (chain.first(), chain.len()) else {
            return Err(card.fail(
                CheckName::CertificateChain,
                "PCK certificate, its issuer, and perhaps the root",
                format!("{} certificates", chain.len()),
            ));
        };
        let root = self.root(card)?;
        let issuers = collateral.tcb_info_chain.iter();
        let collaterals = issuers.chain(&collateral.qe_identity_chain);
        // In third place nothing but the root, or unsigned bytes could hide there.
        let places = [false, false, true].into_iter();
        let all = chain.iter().zip(places);
        for (der, third) in all.chain(collaterals.map(|der| (der, false))) {
            let Ok((_, certificate)) = X509Certificate::from_der(der) else {
                return Err(card.fail(
                    CheckName::CertificateChain,
                    "certificates",
                    "no certificate",
                ));
            };
            let own_root = certificate.issuer().as_raw() == certificate.subject().as_raw();
            let pinned = der == &self.root || same_key(der, &certificate, &root);
            if (third || own_root) && !pinned {
                let got = format!("{}, but another", certificate.subject());
                let got = verdict::brief(&got);
                return Err(card.fail(CheckName::RootPinned, root.subject().to_string(), got));
            }
        }
        card.record(
            CheckName::RootPinned,
            true,
            root.subject().to_string(),
            "it",
        );
        let issuer = X509Certificate::from_der(leaf)
            .map(|(_, leaf)| leaf.issuer().as_raw().to_vec())
            .unwrap_or_default();
        Ok((leaf.clone(), issuer))
    }
}

/// Intel issued its root's certificate twice, with the same key: old quotes carry the first one,
/// valid until 2033. It is signed by the key that is pinned, and spelled as it is signed.
fn same_key(der: &[u8], certificate: &X509Certificate<'_>, root: &X509Certificate<'_>) -> bool {
    let tbs = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data[..];
    certificate.subject().as_raw() == root.subject().as_raw()
        && certificate.public_key().raw == root.public_key().raw
        && signed_by(&root.public_key().subject_public_key.data, tbs, signature)
        && backend::certificate(tbs, signature).is_some_and(|exact| exact == der)
}

fn read_collateral(
    endorsements: &Endorsements,
    card: &mut Scorecard,
) -> Result<Collateral, Failed> {
    let expected = "Intel's collateral";
    let json = match endorsements {
        Endorsements::Dcap { collateral } => collateral,
        Endorsements::None => {
            return Err(card.fail(CheckName::EndorsementsPresent, expected, "none"));
        }
        Endorsements::Snp { .. } => {
            return Err(card.fail(
                CheckName::EndorsementsPresent,
                expected,
                "AMD's certificates",
            ));
        }
    };
    card.record(CheckName::EndorsementsPresent, true, expected, expected);
    let collateral = Collateral::read(json).map_err(|error| {
        card.fail(
            CheckName::EndorsementsFormat,
            expected,
            verdict::brief(&error.0),
        )
    })?;
    card.record(CheckName::EndorsementsFormat, true, expected, expected);
    Ok(collateral)
}

fn check_match(
    tee: Tee,
    fmspc: &[u8; 6],
    pce_id: &[u8],
    collateral: &Collateral,
    card: &mut Scorecard,
) -> Result<(), Failed> {
    let (tcb_info, qe) = match tee {
        Tee::Sgx => ("SGX", "QE"),
        _ => ("TDX", "TD_QE"),
    };
    let is = |text: &str, bytes: &[u8]| text.eq_ignore_ascii_case(&hex::encode(bytes));
    let about = &collateral.tcb_info;
    let ok = about.id == tcb_info
        && collateral.qe_identity.id == qe
        && is(&about.fmspc, fmspc)
        && is(&about.pce_id, pce_id);
    card.require(
        CheckName::EndorsementsMatch,
        ok,
        format!(
            "{tcb_info}, {qe}, FMSPC {}, PCE {}",
            hex::encode(fmspc),
            hex::encode(pce_id)
        ),
        verdict::brief(&format!(
            "{}, {}, FMSPC {}, PCE {}",
            about.id,
            collateral.qe_identity.id,
            about.fmspc.to_lowercase(),
            about.pce_id
        )),
    )
}

fn check_current(
    collateral: &Collateral,
    now: Duration,
    card: &mut Scorecard,
) -> Result<(), Failed> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    for (what, Window { from, to }) in collateral.windows() {
        if now < from || now > to {
            return Err(card.fail(
                CheckName::EndorsementsCurrent,
                format!("valid at {now}"),
                format!("{what} is valid from {from} to {to}"),
            ));
        }
    }
    Ok(())
}

/// Whether dcap-qvl, whose signature check counts, read the same as we, whose values are used.
fn agrees(ours: &Report, theirs: &QuoteClaims) -> bool {
    match (&ours.said.measurements, &theirs.report) {
        (Measurements::Sgx(sgx), QvlReport::SgxEnclave(report)) => {
            let [flags @ .., _, _, _, _, _, _, _, _] = report.attributes;
            sgx.mrenclave == report.mr_enclave
                && sgx.mrsigner == report.mr_signer
                && sgx.attributes == u64::from_le_bytes(flags)
                && ours.isv_svn == report.isv_svn
                && ours.said.report_data == report.report_data
        }
        (Measurements::Tdx(tdx), report) => report.as_td10().is_some_and(|td| {
            let servtd = report.as_td15().map_or([0; 48], |td15| td15.mr_service_td);
            tdx.mrtd == td.mr_td
                && tdx.rtmr == [td.rt_mr0, td.rt_mr1, td.rt_mr2]
                && tdx.mr_config_id == td.mr_config_id
                && tdx.td_attributes == u64::from_le_bytes(td.td_attributes)
                && ours
                    .td
                    .as_ref()
                    .is_some_and(|td| td.mr_service_td == servtd)
                && ours.said.report_data == td.report_data
        }),
        _ => false,
    }
}

fn claims(report: Report, found: &QuoteClaims, issued: Duration) -> Claims {
    let mut advisories = found.tcb.advisory_ids.clone();
    // Of the level that the running module meets, where that is not the one at launch.
    let current = found.platform.current_tcb_level.iter();
    advisories.extend(current.flat_map(|level| level.advisory_ids.clone()));
    advisories.sort();
    advisories.dedup();
    let pck = &found.platform.pck;
    let flag = |flag| match flag {
        PckCertFlag::True => Some(true),
        PckCertFlag::False => Some(false),
        PckCertFlag::Undefined => None,
    };
    let facts = DcapFacts {
        advisories,
        tcb_evaluation: found.tcb.eval_data_number,
        issued,
        fmspc: pck.fmspc,
        ppid: pck.ppid.clone(),
        dynamic_platform: flag(pck.dynamic_platform),
        cached_keys: flag(pck.cached_keys),
        smt: flag(pck.smt_enabled),
        rtmr3: report.td.as_ref().map(|td| td.rtmr3),
        mr_service_td: report.td.as_ref().map(|td| td.mr_service_td),
        current_service_td: report.td.as_ref().map(|td| td.current_service_td),
        config_id: report.config_id,
        reserved_attributes: report.reserved_attributes,
    };
    Claims {
        said: report.said,
        svn: report.isv_svn.into(),
        tcb: tcb_status(found.tcb.status),
        facts: Facts::Dcap(Box::new(facts)),
    }
}

const fn tcb_status(status: dcap_qvl::TcbStatus) -> TcbStatus {
    use dcap_qvl::TcbStatus as Qvl;
    match status {
        Qvl::UpToDate => TcbStatus::UpToDate,
        Qvl::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        Qvl::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        Qvl::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        // The module was updated under a TD that was launched by an older one: what ran before
        // the update still counts.
        Qvl::OutOfDate | Qvl::TDRelaunchAdvised => TcbStatus::OutOfDate,
        Qvl::OutOfDateConfigurationNeeded | Qvl::TDRelaunchAdvisedConfigurationNeeded => {
            TcbStatus::OutOfDateConfigurationNeeded
        }
        Qvl::Revoked => TcbStatus::Revoked,
    }
}

/// The certificates of a PEM text, whatever else is in it; `None` if there are too many.
pub(crate) fn pem_certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    pem::lenient(str::from_utf8(text).ok()?)
}

impl Verifier for DcapVerifier {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        if evidence.tee != self.tee {
            return Err(Malformed {
                field: "kind of TEE",
            });
        }
        self.read_quote(&evidence.body)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let tee = subject.evidence.tee;
        if tee != self.tee {
            return Err(card.fail(CheckName::EvidenceFormat, self.tee.name(), tee.name()));
        }
        let quote = &subject.evidence.body;
        self.verify_quote(quote, subject.endorsements, subject.now, card)
    }
}

#[cfg(test)]
mod tests;
