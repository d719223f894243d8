//! What a policy asks of platforms, vendor by vendor. What a file leaves out is strict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hex::Hex;
use crate::facts::{SnpProduct, SnpSigningKey, SnpTcb};

/// SGX and TDX. In TOML: the table `[intel]`.
///
/// A TD that may be moved to another machine, or that the host can send page faults
/// (SEPT_VE_DISABLE clear), is never accepted: see [`crate::tee::dcap`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntelPolicy {
    /// Lowest `tcbEvaluationDataNumber`; 0 leaves it unchecked.
    pub minimum_tcb_evaluation: u32,
    /// Advisories (`INTEL-SA-00615`) that must not be open on the platform.
    pub refused_advisories: Vec<String>,
    /// If given, no other advisory may be open on the platform.
    pub accepted_advisories: Option<Vec<String>>,
    /// Packages may be added to the platform. Most cloud hosts say so.
    pub allow_dynamic_platform: bool,
    /// Intel keeps the platform's keys. Most cloud hosts say so.
    pub allow_cached_keys: bool,
    pub allow_smt: bool,
    /// TDX: service TDs that may be bound to a TD: they can read and write its state.
    pub service_tds: ServiceTds,
    /// TDX: MRCONFIGID; unchecked if absent.
    pub mr_config_ids: Option<Vec<Hex<48>>>,
    /// Machines, by the PPID of their PCK certificate; any if absent.
    pub ppids: Option<Vec<Hex<16>>>,
}

/// Service TDs, by MR_SERVICE_TD. In TOML: `"any"` or `{ these = ["<96 hexadecimal digits>"] }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceTds {
    Any,
    /// An empty list: none may be bound.
    These(Vec<Hex<48>>),
}

impl Default for IntelPolicy {
    fn default() -> Self {
        Self {
            minimum_tcb_evaluation: 0,
            refused_advisories: Vec::new(),
            accepted_advisories: None,
            allow_dynamic_platform: true,
            allow_cached_keys: true,
            allow_smt: true,
            service_tds: ServiceTds::These(Vec::new()),
            mr_config_ids: None,
            ppids: None,
        }
    }
}

/// SEV-SNP. In TOML: the table `[snp]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpPolicy {
    pub products: Vec<SnpProduct>,
    /// Privilege levels; at others than 0 something else in the guest can rule this software.
    pub vmpls: Vec<u32>,
    pub signing_keys: Vec<SnpSigningKey>,
    pub allow_masked_chip: bool,
    /// The guest may be moved by a migration agent.
    pub allow_migration_agent: bool,
    pub allow_smt: bool,
    /// Demand that the firmware looked for memory aliases at boot (BadRAM).
    pub require_alias_check: bool,
    /// Lowest firmware interface that the guest's policy demands: major, minor.
    pub minimum_abi: (u8, u8),
    /// Lowest reported and committed patch level, by product; unchecked where absent.
    pub minimum_tcb: BTreeMap<SnpProduct, SnpTcb>,
    /// HOST_DATA; unchecked if absent.
    pub host_data: Option<Vec<Hex<32>>>,
    /// Digest of the key that signed the guest's identity block; unchecked if absent.
    pub id_key_digests: Option<Vec<Hex<48>>>,
    /// Machines, by chip id; any if absent.
    pub chip_ids: Option<Vec<Hex<64>>>,
}

impl Default for SnpPolicy {
    fn default() -> Self {
        Self {
            products: vec![SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin],
            vmpls: vec![0],
            signing_keys: vec![SnpSigningKey::Vcek],
            allow_masked_chip: false,
            allow_migration_agent: false,
            allow_smt: true,
            require_alias_check: false,
            minimum_abi: (0, 0),
            minimum_tcb: BTreeMap::new(),
            host_data: None,
            id_key_digests: None,
            chip_ids: None,
        }
    }
}

/// One register, and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pcr<const N: usize> {
    pub index: u8,
    pub values: Vec<Hex<N>>,
}

/// AWS Nitro Enclaves. In TOML: the table `[nitro]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NitroPolicy {
    /// Oldest document, and furthest in the future, in seconds.
    pub max_age_s: u64,
    /// SHA-384 registers.
    pub pcrs: Vec<Pcr<48>>,
}

impl Default for NitroPolicy {
    fn default() -> Self {
        Self {
            max_age_s: 300,
            pcrs: Vec::new(),
        }
    }
}

/// Azure's confidential VMs, beside `[snp]` or `[intel]`. In TOML: the table `[azure]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzurePolicy {
    pub require_secure_boot: bool,
    /// SHA-256 registers of the vTPM.
    pub pcrs: Vec<Pcr<32>>,
}
