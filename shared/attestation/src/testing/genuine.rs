//! Genuine evidence of every kind of TEE, with all that it takes to show that it is: made here,
//! or captured from hardware. Fuzzing starts from it, benchmarks verify it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::azure::FakeAzure;
use super::dcap::{FakeIntel, FakePck, FakeReport, FakeTd, TdBody};
use super::nitro::{FakeNitro, NITRO_NOW};
use super::nvidia::{FakeGpu, GpuReport};
use super::snp::{FAKE_NOW, FakeAmd, FakeChip};
use crate::evidence::{Claims, Endorsements, Evidence, Subject, Tee, Verifier};
use crate::facts::{SnpProduct, SnpSigningKey};
use crate::scorecard::{Failed, Scorecard};
use crate::tee::azure::{AzSnpVerifier, AzTdxVerifier, endorsements_in};
use crate::tee::dcap::DcapVerifier;
use crate::tee::nitro::NitroVerifier;
use crate::tee::nvidia::{GpuSaid, GpuVerifier};
use crate::tee::snp::SnpVerifier;

/// A piece of evidence that its verifier calls genuine at `now`. It need not be acceptable.
#[derive(Debug, Clone)]
pub struct Genuine {
    /// What it is, for people.
    pub name: String,
    pub verifier: Arc<dyn Verifier>,
    pub evidence: Evidence,
    pub endorsements: Endorsements,
    /// Since the UNIX epoch.
    pub now: Duration,
    pub claims: Claims,
}

impl Genuine {
    /// `None` if it is not genuine.
    fn find(
        name: impl Into<String>,
        verifier: Arc<dyn Verifier>,
        body: Vec<u8>,
        endorsements: Endorsements,
        now: Duration,
    ) -> Option<Self> {
        let tee = verifier.tee();
        let evidence = Evidence { tee, body };
        let subject = Subject {
            evidence: &evidence,
            endorsements: &endorsements,
            now,
        };
        let claims = verifier.verify(&subject, &mut Scorecard::new(&[])).ok()?;
        Some(Self {
            name: name.into(),
            verifier,
            evidence,
            endorsements,
            now,
            claims,
        })
    }

    /// Verifies other evidence or endorsements in place of these.
    ///
    /// # Errors
    /// [`Failed`] as the verifier gives it.
    pub fn verify(
        &self,
        evidence: &Evidence,
        endorsements: &Endorsements,
        card: &mut Scorecard,
    ) -> Result<Claims, Failed> {
        let subject = Subject {
            evidence,
            endorsements,
            now: self.now,
        };
        self.verifier.verify(&subject, card)
    }
}

/// A genuine report of a GPU, which is no TEE.
#[derive(Debug, Clone)]
pub struct GenuineGpu {
    /// What it is, for people.
    pub name: String,
    pub verifier: GpuVerifier,
    pub report: Vec<u8>,
    pub chain_pem: Vec<u8>,
    /// Since the UNIX epoch.
    pub now: Duration,
    pub said: GpuSaid,
}

impl GenuineGpu {
    fn find(
        name: impl Into<String>,
        verifier: GpuVerifier,
        report: Vec<u8>,
        chain_pem: Vec<u8>,
        now: Duration,
    ) -> Option<Self> {
        let card = &mut Scorecard::new(&[]);
        let said = verifier
            .examine(&report, &chain_pem, None, now, card)
            .ok()?;
        Some(Self {
            name: name.into(),
            verifier,
            report,
            chain_pem,
            now,
            said,
        })
    }
}

/// Made here: at least one piece of every kind, other ones in every process.
#[must_use]
pub fn made() -> Vec<Genuine> {
    let mut all = made_by_intel();
    all.extend(made_by_amd());
    let nitro = FakeNitro::new();
    all.push(must(Genuine::find(
        "Nitro",
        Arc::new(nitro.verifier()),
        nitro.sign(&nitro.document()).body,
        Endorsements::None,
        NITRO_NOW,
    )));
    all
}

/// A GPU's, made here.
#[must_use]
pub fn made_gpu() -> GenuineGpu {
    let gpu = FakeGpu::new();
    let report = gpu.sign(&GpuReport::default());
    GenuineGpu::find("GPU", gpu.verifier(), report, gpu.chain_pem(), NITRO_NOW).unwrap()
}

fn must(genuine: Option<Genuine>) -> Genuine {
    genuine.expect("what is made here is genuine")
}

fn made_by_intel() -> Vec<Genuine> {
    let intel = FakeIntel::new();
    let platform = intel.platform(&FakePck::default());
    let now = NITRO_NOW;
    let td = |body| {
        FakeReport::Td(Box::new(FakeTd {
            body,
            ..FakeTd::new(0x22)
        }))
    };
    let reports = [
        ("SGX v3", FakeReport::sgx(0x11)),
        ("TDX v4", td(TdBody::Td10)),
        ("TDX v5", td(TdBody::Td10V5)),
        ("TDX v5, TD 1.5", td(TdBody::Td15)),
        ("TDX v5, TD 1.5ex", td(TdBody::Td15Ex)),
    ];
    let quote = |(name, report): (&str, FakeReport)| {
        must(Genuine::find(
            name,
            Arc::new(intel.verifier(report.tee())),
            platform.quote(&report, &[0xda; 64]),
            intel.endorsements(report.tee(), now.as_secs()),
            now,
        ))
    };
    let mut all: Vec<_> = reports.into_iter().map(quote).collect();
    let azure = FakeAzure::new(b"nonce");
    let quote = platform.quote(&td(TdBody::Td10), &azure.report_data());
    all.push(must(Genuine::find(
        "Azure, TDX",
        Arc::new(AzTdxVerifier::with_root(intel.root())),
        azure.tdx_evidence(&quote).to_string().into_bytes(),
        intel.endorsements(Tee::Tdx, now.as_secs()),
        now,
    )));
    all
}

fn made_by_amd() -> Vec<Genuine> {
    let amd = FakeAmd::new();
    let chips = [
        ("Milan, VCEK", SnpProduct::Milan, SnpSigningKey::Vcek),
        ("Milan, VLEK", SnpProduct::Milan, SnpSigningKey::Vlek),
        ("Genoa, VCEK", SnpProduct::Genoa, SnpSigningKey::Vcek),
        ("Turin, VCEK", SnpProduct::Turin, SnpSigningKey::Vcek),
    ];
    let report = |(name, product, kind)| {
        let chip = FakeChip::new(product, kind);
        must(Genuine::find(
            format!("SNP {name}"),
            Arc::new(amd.verifier()),
            chip.sign(chip.report().to_bytes()),
            amd.endorsements(&chip),
            FAKE_NOW,
        ))
    };
    let mut all: Vec<_> = chips.into_iter().map(report).collect();
    let chip = FakeChip::new(SnpProduct::Milan, SnpSigningKey::Vcek);
    let azure = FakeAzure::new(b"nonce");
    let mut report = chip.report();
    report.report_data = azure.report_data();
    let report = chip.sign(report.to_bytes());
    let endorsements = amd.endorsements(&chip);
    let Endorsements::Snp { vek, .. } = &endorsements else {
        unreachable!("AMD's endorsements");
    };
    all.push(must(Genuine::find(
        "Azure, SNP",
        Arc::new(AzSnpVerifier::with_roots(amd.roots())),
        azure.snp_evidence(&report, vek).to_string().into_bytes(),
        endorsements,
        FAKE_NOW,
    )));
    all
}

/// The captured cases in `folder` (with its `meta.json` in each) that are genuine under the
/// vendors' roots. `folder` is the one that holds `sgx`, `tdx` and so on.
#[must_use]
pub fn captured(folder: &Path) -> Vec<Genuine> {
    let mut all = Vec::new();
    for verifier in hardware() {
        let tee = verifier.tee();
        for (name, case, now) in cases(folder, tee.name()) {
            let body = body(tee, &case);
            let endorsements = endorsements(tee, &case, &body);
            let verifier = Arc::clone(&verifier);
            all.extend(Genuine::find(name, verifier, body, endorsements, now));
        }
    }
    all
}

fn hardware() -> [Arc<dyn Verifier>; 6] {
    [
        Arc::new(DcapVerifier::sgx()),
        Arc::new(DcapVerifier::tdx()),
        Arc::new(SnpVerifier::amd()),
        Arc::new(NitroVerifier::aws()),
        Arc::new(AzSnpVerifier::amd()),
        Arc::new(AzTdxVerifier::intel()),
    ]
}

/// The captured GPUs.
#[must_use]
pub fn captured_gpus(folder: &Path) -> Vec<GenuineGpu> {
    let found = cases(folder, "nvidia")
        .into_iter()
        .filter_map(|(name, case, now)| {
            let text = fs::read_to_string(case.join("report.hex")).unwrap();
            let report = hex::decode(text.trim()).unwrap();
            let chain = fs::read(case.join("chain.pem")).unwrap();
            GenuineGpu::find(name, GpuVerifier::nvidia(), report, chain, now)
        });
    found.collect()
}

/// Name, folder and time of the cases of one kind, by name.
fn cases(folder: &Path, kind: &str) -> Vec<(String, std::path::PathBuf, Duration)> {
    let Ok(entries) = fs::read_dir(folder.join(kind)) else {
        return Vec::new();
    };
    let mut all: Vec<_> = entries
        .map(|entry| {
            let case = entry.unwrap().path();
            let name = format!("{kind}/{}", case.file_name().unwrap().to_string_lossy());
            let meta = fs::read(case.join("meta.json")).unwrap();
            let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
            let now = Duration::from_secs(meta["verify_at"].as_u64().unwrap_or_default());
            (name, case, now)
        })
        .collect();
    all.sort();
    all
}

fn body(tee: Tee, case: &Path) -> Vec<u8> {
    let file = match tee {
        Tee::Sgx | Tee::Tdx => "quote.bin",
        Tee::Snp => "report.bin",
        Tee::Nitro => "doc.cose",
        Tee::AzSnp | Tee::AzTdx => "evidence.json",
        Tee::Simulated => unreachable!("no verifier of hardware"),
    };
    fs::read(case.join(file)).unwrap()
}

fn endorsements(tee: Tee, case: &Path, body: &[u8]) -> Endorsements {
    match tee {
        Tee::Sgx | Tee::Tdx | Tee::AzTdx => Endorsements::Dcap {
            collateral: fs::read(case.join("collateral.json")).unwrap(),
        },
        Tee::Snp | Tee::AzSnp => Endorsements::Snp {
            vek: match tee {
                Tee::AzSnp => endorsements_in(body).unwrap(),
                _ => fs::read(case.join("vek.der")).unwrap(),
            },
            chain: ders(&fs::read_to_string(case.join("ca.pem")).unwrap()),
        },
        Tee::Nitro | Tee::Simulated => Endorsements::None,
    }
}

fn ders(pem: &str) -> Vec<Vec<u8>> {
    let bodies = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let der = |body: &str| {
        let (body, _) = body.split_once("-----END").unwrap();
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).unwrap()
    };
    bodies.map(der).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tee::real_verifiers;

    #[test]
    fn there_is_genuine_evidence_of_every_tee() {
        let all = made();
        for tee in real_verifiers().tees() {
            assert!(
                all.iter().any(|genuine| genuine.evidence.tee == tee),
                "{tee}"
            );
        }
        assert!(!made_gpu().said.measurements.is_empty());
    }
}
