//! What genuine evidence says about its platform, typed per vendor: what policies judge.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Facts that only one kind of TEE has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// The simulated TEE has none.
    None,
    /// SGX, TDX, and TDX behind Azure's vTPM.
    Dcap(Box<DcapFacts>),
    /// SEV-SNP, and SEV-SNP behind Azure's vTPM.
    Snp(Box<SnpFacts>),
    Nitro(Box<NitroFacts>),
}

/// From an Intel quote, its PCK certificate and its collateral.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DcapFacts {
    /// Intel's advisories that this platform's patch level leaves open.
    pub advisories: Vec<String>,
    /// `tcbEvaluationDataNumber`: the lower of TCB info's and QE identity's.
    pub tcb_evaluation: u32,
    /// Older `issueDate` of TCB info and QE identity, since the UNIX epoch: a lower bound of the
    /// time, and what must not go back. A fresh revocation list cannot hide an old judgement.
    pub issued: Duration,
    /// Family, model, stepping, platform type and custom SKU, in Intel's encoding.
    pub fmspc: [u8; 6],
    /// Platform provisioning id of the PCK certificate: names one machine.
    pub ppid: Vec<u8>,
    /// From the PCK certificate (platform CA); `None` where it does not say.
    pub dynamic_platform: Option<bool>,
    pub cached_keys: Option<bool>,
    pub smt: Option<bool>,
    /// TDX only: grows at run time.
    pub rtmr3: Option<[u8; 48]>,
    /// TDX only: measurement of the service TDs bound to this one; zero if none is.
    pub mr_service_td: Option<[u8; 48]>,
    /// TDX 1.5ex: those bound now, also after the TD was created; else zero.
    pub current_service_td: Option<[u8; 48]>,
    /// SGX only: CONFIGID, chosen by whoever started the enclave; zero without KSS.
    pub config_id: Option<[u8; 64]>,
    /// Attribute bits that Intel has given no meaning.
    pub reserved_attributes: u64,
}

/// AMD's product lines: each has its own root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnpProduct {
    Milan,
    Genoa,
    Turin,
}

/// Which key signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnpSigningKey {
    /// Versioned chip endorsement key: of one chip.
    Vcek,
    /// Versioned loaded endorsement key: of one cloud provider, on any of its chips.
    Vlek,
}

/// Security versions of an AMD platform's firmware, part by part (`TCB_VERSION`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpTcb {
    /// Turin and later only.
    pub fmc: u8,
    pub boot_loader: u8,
    pub tee: u8,
    pub snp: u8,
    pub microcode: u8,
}

impl SnpTcb {
    /// Whether no part is older.
    #[must_use]
    pub const fn at_least(&self, other: &Self) -> bool {
        self.fmc >= other.fmc
            && self.boot_loader >= other.boot_loader
            && self.tee >= other.tee
            && self.snp >= other.snp
            && self.microcode >= other.microcode
    }
}

impl std::fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            fmc,
            boot_loader,
            tee,
            snp,
            microcode,
        } = self;
        write!(
            f,
            "fmc {fmc}, boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}"
        )
    }
}

/// From an AMD report and its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpFacts {
    /// Of the root that the chain starts at, not of what the report says.
    pub product: SnpProduct,
    /// Version of the report's format: 2 to 5.
    pub version: u32,
    pub signing_key: SnpSigningKey,
    /// The host hides which chip this is.
    pub chip_masked: bool,
    pub chip_id: [u8; 64],
    pub reported_tcb: SnpTcb,
    pub committed_tcb: SnpTcb,
    pub launch_tcb: SnpTcb,
    pub current_tcb: SnpTcb,
    /// Major and minor version of the firmware interface that the guest's owner demands.
    pub policy_abi: (u8, u8),
    /// Committed version of the firmware: major, minor, build.
    pub firmware: (u8, u8, u8),
    /// `PLATFORM_INFO`: bit 0 SMT enabled, bit 5 memory aliases checked at boot.
    pub platform_info: u64,
}

/// From a Nitro attestation document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NitroFacts {
    /// When the hypervisor made the document, since the UNIX epoch.
    pub timestamp: Duration,
    pub module_id: String,
    pub pcrs: BTreeMap<u8, [u8; 48]>,
    pub public_key: Option<Vec<u8>>,
}
