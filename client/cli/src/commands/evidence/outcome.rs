//! What came of an examination, in the one form of `verify`, `explain` and `--json`.

use attestation::{
    AppraisalPolicy, Check, CheckName, Claims, Examination, Measurements, Scorecard, Status,
};
use protocol::EnclaveId;
use serde_json::{Value, json};

use crate::args::EvidenceKind;

/// What NVIDIA's reports have in place of one measurement.
const SPDM_BLOCKS: &str = "SPDM measurement blocks";

/// The verdict and what it rests on.
#[derive(Debug)]
pub struct Outcome {
    pub kind: EvidenceKind,
    pub accepted: bool,
    pub card: Scorecard,
    /// What the evidence says, genuine or not; `None` if it cannot be read.
    pub measurement: Option<String>,
    /// What it says, if it is genuine.
    pub claims: Option<Claims>,
    /// E_S, if it is genuine and the measured configuration was given.
    pub enclave: Option<EnclaveId>,
    pub policy: AppraisalPolicy,
}

impl Outcome {
    pub(super) fn of(kind: EvidenceKind, found: Examination, policy: AppraisalPolicy) -> Self {
        let accepted = found.accepted();
        Self {
            kind,
            accepted,
            measurement: found.said.map(|said| measurement(&said.measurements)),
            claims: found.claims,
            enclave: found.enclave,
            card: found.card,
            policy,
        }
    }

    /// Of a GPU's report, which has measurements, but none that stands for all.
    pub(super) fn of_gpu(card: Scorecard, policy: AppraisalPolicy) -> Self {
        let format = card.check(CheckName::EvidenceFormat);
        let readable = format.is_some_and(|check| check.status == Status::Pass);
        Self {
            kind: EvidenceKind::Nvidia,
            accepted: card.first_failure().is_none(),
            measurement: readable.then(|| SPDM_BLOCKS.to_owned()),
            claims: None,
            enclave: None,
            card,
            policy,
        }
    }

    #[must_use]
    pub fn checks(&self) -> &[Check] {
        self.card.checks()
    }

    /// The check that the verdict names.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Check> {
        self.failures().next()
    }

    /// The checks that failed, without the one that only sums up others.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        let failed = |check: &&Check| check.status == Status::Fail;
        let several = self.checks().iter().filter(failed).count() > 1;
        self.checks()
            .iter()
            .filter(failed)
            .filter(move |check| !(several && check.name == CheckName::EvidenceGenuine))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "verdict": if self.accepted { "accept" } else { "reject" },
            "tee": self.kind.name(),
            "checks": self.checks(),
            "measurement": self.measurement,
            "e_s": self.enclave.filter(|_| self.accepted),
        })
    }
}

/// The value that stands for the code, as vendors write it.
fn measurement(measurements: &Measurements) -> String {
    match measurements {
        Measurements::Sgx(sgx) => format!("MRENCLAVE={}", hex::encode(sgx.mrenclave)),
        Measurements::Tdx(tdx) => format!("MRTD={}", hex::encode(tdx.mrtd)),
        Measurements::AzTdx(azure) => format!("MRTD={}", hex::encode(azure.hardware.mrtd)),
        Measurements::Snp(snp) => hex::encode(snp.measurement),
        Measurements::AzSnp(azure) => hex::encode(azure.hardware.measurement),
        Measurements::Nitro(nitro) => match nitro.pcr {
            [pcr0, ..] if pcr0 == [0; 48] => "PCR0=zero".to_owned(),
            [pcr0, ..] => format!("PCR0={}", hex::encode(pcr0)),
        },
        Measurements::Simulated(simulated) => hex::encode(simulated.mr),
    }
}
