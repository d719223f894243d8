//! The captured evidence: one folder a case, with what its `meta.json` says about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::tee::azure;
use attestation::{AppraisalPolicy, Endorsements, Expected};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cli::args::EvidenceKind;
use cli::commands::evidence::{Exhibit, Outcome, judge};
use serde_json::Value;

/// How many cases there are.
pub(crate) const CASES: usize = 29;

fn shared() -> PathBuf {
    std::env::var_os("SESEMI_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    )
}

/// The folder of the evidence. Panics, and so fails the test, if it is missing.
pub(crate) fn evidence() -> PathBuf {
    let folder = shared().join("evidence");
    assert!(folder.is_dir(), "{} is missing", folder.display());
    folder
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The DER of every certificate of a PEM file.
pub(crate) fn pem(text: &str) -> Vec<Vec<u8>> {
    let bodies = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let ders = bodies.map(|body| {
        let (body, _) = body.split_once("-----END CERTIFICATE-----").unwrap();
        BASE64
            .decode(body.split_ascii_whitespace().collect::<String>())
            .unwrap()
    });
    ders.collect()
}

/// One captured piece of evidence with its endorsements.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: EvidenceKind,
    pub(crate) folder: PathBuf,
    pub(crate) meta: Value,
    pub(crate) body: Vec<u8>,
    pub(crate) endorsements: Endorsements,
    pub(crate) device_chain: Vec<u8>,
    pub(crate) at: u64,
}

impl Case {
    pub(crate) fn load(name: &str) -> Self {
        let folder = evidence().join(name);
        let meta: Value = serde_json::from_slice(&read(&folder.join("meta.json"))).unwrap();
        let kind = match name.split('/').next().unwrap() {
            "sgx" => EvidenceKind::Sgx,
            "tdx" => EvidenceKind::Tdx,
            "snp" => EvidenceKind::Snp,
            "nitro" => EvidenceKind::Nitro,
            "az-snp" => EvidenceKind::AzSnp,
            "az-tdx" => EvidenceKind::AzTdx,
            "ratls" => EvidenceKind::Ratls,
            "nvidia" => EvidenceKind::Nvidia,
            other => panic!("no kind of evidence: {other}"),
        };
        let mut case = Self {
            name: name.to_owned(),
            kind,
            at: meta["verify_at"].as_u64().unwrap(),
            meta,
            body: Vec::new(),
            endorsements: Endorsements::None,
            device_chain: Vec::new(),
            folder,
        };
        case.body = read(&case.evidence_file());
        if kind == EvidenceKind::Nvidia {
            let digits: String = String::from_utf8(case.body).unwrap();
            case.body = hex::decode(digits.split_ascii_whitespace().collect::<String>()).unwrap();
            case.device_chain = read(&case.folder.join("chain.pem"));
        }
        case.endorsements = case.load_endorsements();
        case
    }

    /// The file for `--evidence`.
    pub(crate) fn evidence_file(&self) -> PathBuf {
        self.folder.join(match self.kind {
            EvidenceKind::Sgx | EvidenceKind::Tdx => "quote.bin",
            EvidenceKind::Snp => "report.bin",
            EvidenceKind::Nitro => "doc.cose",
            EvidenceKind::AzSnp | EvidenceKind::AzTdx => "evidence.json",
            EvidenceKind::Ratls => "cert.der",
            EvidenceKind::Nvidia => "report.hex",
        })
    }

    fn text(&self, file: &str) -> String {
        String::from_utf8(read(&self.folder.join(file))).unwrap()
    }

    fn load_endorsements(&self) -> Endorsements {
        let collateral = self.folder.join("collateral.json");
        if collateral.is_file() {
            return Endorsements::Dcap {
                collateral: read(&collateral),
            };
        }
        match self.kind {
            EvidenceKind::Snp => Endorsements::Snp {
                vek: read(&self.folder.join("vek.der")),
                chain: pem(&self.text("ca.pem")),
            },
            EvidenceKind::AzSnp => Endorsements::Snp {
                vek: azure::endorsements_in(&self.body).unwrap(),
                chain: pem(&self.text("ca.pem")),
            },
            _ => Endorsements::None,
        }
    }

    /// What `meta.json` expects.
    pub(crate) fn expect(&self, key: &str) -> &Value {
        &self.meta["expect"][key]
    }

    /// The first and the last second in which all endorsements are valid.
    pub(crate) fn window(&self) -> Option<(u64, u64)> {
        let window = &self.meta["window"];
        Some((window[0].as_u64()?, window[1].as_u64()?))
    }

    pub(crate) fn collateral(&self) -> Value {
        let Endorsements::Dcap { collateral } = &self.endorsements else {
            panic!("{} has no collateral", self.name);
        };
        serde_json::from_slice(collateral).unwrap()
    }

    pub(crate) fn set_collateral(&mut self, collateral: &Value) {
        self.endorsements = Endorsements::Dcap {
            collateral: serde_json::to_vec(collateral).unwrap(),
        };
    }

    /// Through the library, asking for no binding.
    pub(crate) fn judge(&self, policy: &AppraisalPolicy) -> Outcome {
        self.judge_expecting(policy, &Expected::default())
    }

    pub(crate) fn judge_expecting(&self, policy: &AppraisalPolicy, expected: &Expected) -> Outcome {
        let exhibit = Exhibit {
            kind: self.kind,
            body: self.body.clone(),
            endorsements: self.endorsements.clone(),
            device_chain: self.device_chain.clone(),
        };
        let now = Duration::from_secs(self.at);
        judge(exhibit, policy.clone(), expected, None, now)
    }
}
