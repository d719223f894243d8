//! The appraisal policy: which genuine evidence a relying party accepts. Typed, versioned, and
//! closed: what it does not name is refused.

mod hex;
mod reference;
mod vendor;

use aws_lc_rs::digest;
use protocol::{EnclaveId, PolicyHash};
use serde::{Deserialize, Serialize};

pub use self::hex::Hex;
use crate::cbor::{Writer, write_value};
use crate::evidence::{TcbStatus, Tee};
pub use reference::{ReferenceMeasurements, SgxProduct};
pub use vendor::{AzurePolicy, IntelPolicy, NitroPolicy, Pcr, ServiceTds, SnpPolicy};

/// Version of the policy's file format.
pub const POLICY_VERSION: u32 = 1;

/// Which enclaves are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allowed {
    /// Any enclave that passes the rest. For KeyService, which matches E_S against grants later.
    Any,
    /// These enclave ids only; an empty list accepts nothing.
    These(Vec<EnclaveId>),
}

impl Allowed {
    fn accepts(&self, enclave: &EnclaveId) -> bool {
        match self {
            Self::Any => true,
            Self::These(enclaves) => enclaves.contains(enclave),
        }
    }
}

/// Why a policy file is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("appraisal policy has version {got}, this build reads {POLICY_VERSION}")]
    Version { got: u32 },
    #[error("appraisal policy has no canonical form")]
    Encode,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    version: u32,
    accepted: Vec<Tee>,
    enclaves: Allowed,
    #[serde(default)]
    allow_debug: bool,
    #[serde(default)]
    minimum_svn: u64,
    #[serde(default = "only_up_to_date")]
    accepted_tcb: Vec<TcbStatus>,
    #[serde(default)]
    measurements: ReferenceMeasurements,
    #[serde(default)]
    intel: IntelPolicy,
    #[serde(default)]
    snp: SnpPolicy,
    #[serde(default)]
    nitro: NitroPolicy,
    #[serde(default)]
    azure: AzurePolicy,
}

fn only_up_to_date() -> Vec<TcbStatus> {
    vec![TcbStatus::UpToDate]
}

/// Which genuine evidence is accepted. In TOML:
///
/// ```toml
/// version = 1
/// accepted = ["sgx", "tdx"]        # kinds of TEE
/// enclaves = "any"                 # or { these = ["<96 hexadecimal digits>"] }
/// allow_debug = false              # default
/// minimum_svn = 0                  # default: not checked
/// accepted_tcb = ["up-to-date"]    # default
/// [measurements]                   # reference values, register by register
/// [intel]                          # what only SGX and TDX have; so [snp], [nitro], [azure]
/// minimum_tcb_evaluation = 17
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawPolicy", into = "RawPolicy")]
pub struct AppraisalPolicy {
    /// Kinds of TEE; the simulated one is accepted only where it is named.
    pub accepted: Vec<Tee>,
    pub enclaves: Allowed,
    /// Accept enclaves whose memory the host may read. Never in production.
    pub allow_debug: bool,
    /// Lowest security version; 0 leaves it unchecked.
    pub minimum_svn: u64,
    /// TCB states accepted where the TEE has them. `revoked` is refused even if it is named.
    pub accepted_tcb: Vec<TcbStatus>,
    pub measurements: ReferenceMeasurements,
    pub intel: IntelPolicy,
    pub snp: SnpPolicy,
    pub nitro: NitroPolicy,
    pub azure: AzurePolicy,
}

/// Accepts nothing.
impl Default for AppraisalPolicy {
    fn default() -> Self {
        Self::strict(Vec::new(), Allowed::These(Vec::new()))
    }
}

impl AppraisalPolicy {
    /// The strictest policy for these kinds of TEE and enclaves.
    #[must_use]
    pub fn strict(accepted: Vec<Tee>, enclaves: Allowed) -> Self {
        Self {
            accepted,
            enclaves,
            allow_debug: false,
            minimum_svn: 0,
            accepted_tcb: only_up_to_date(),
            measurements: ReferenceMeasurements::default(),
            intel: IntelPolicy::default(),
            snp: SnpPolicy::default(),
            nitro: NitroPolicy::default(),
            azure: AzurePolicy::default(),
        }
    }

    /// SHA-384 of the canonical form: what is measured of a policy.
    ///
    /// # Errors
    /// As [`Self::to_canonical`].
    pub fn hash(&self) -> Result<PolicyHash, PolicyError> {
        let digest = digest::digest(&digest::SHA384, &self.to_canonical()?);
        PolicyHash::try_from(digest.as_ref()).map_err(|_| PolicyError::Encode)
    }

    /// The canonical form (RFC 8949 §4.2.1): every setting by its name in the file, those that
    /// a file may leave out too, so that policies that accept the same are the same bytes.
    ///
    /// # Errors
    /// [`PolicyError::Encode`] does not happen for the types above.
    pub fn to_canonical(&self) -> Result<Vec<u8>, PolicyError> {
        let value = serde_json::to_value(self).map_err(|_| PolicyError::Encode)?;
        Ok(write_value(Writer::new(), &value)
            .ok_or(PolicyError::Encode)?
            .done())
    }

    pub(crate) fn accepts_tee(&self, tee: Tee) -> bool {
        self.accepted.contains(&tee)
    }

    pub(crate) fn accepts_enclave(&self, enclave: &EnclaveId) -> bool {
        self.enclaves.accepts(enclave)
    }

    pub(crate) fn accepts_tcb(&self, tcb: TcbStatus) -> bool {
        tcb != TcbStatus::Revoked && self.accepted_tcb.contains(&tcb)
    }
}

impl TryFrom<RawPolicy> for AppraisalPolicy {
    type Error = PolicyError;

    fn try_from(raw: RawPolicy) -> Result<Self, PolicyError> {
        if raw.version != POLICY_VERSION {
            return Err(PolicyError::Version { got: raw.version });
        }
        Ok(Self {
            accepted: raw.accepted,
            enclaves: raw.enclaves,
            allow_debug: raw.allow_debug,
            minimum_svn: raw.minimum_svn,
            accepted_tcb: raw.accepted_tcb,
            measurements: raw.measurements,
            intel: raw.intel,
            snp: raw.snp,
            nitro: raw.nitro,
            azure: raw.azure,
        })
    }
}

impl From<AppraisalPolicy> for RawPolicy {
    fn from(policy: AppraisalPolicy) -> Self {
        Self {
            version: POLICY_VERSION,
            accepted: policy.accepted,
            enclaves: policy.enclaves,
            allow_debug: policy.allow_debug,
            minimum_svn: policy.minimum_svn,
            accepted_tcb: policy.accepted_tcb,
            measurements: policy.measurements,
            intel: policy.intel,
            snp: policy.snp,
            nitro: policy.nitro,
            azure: policy.azure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AppraisalPolicy, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_file_does_not_say_is_strict() {
        let policy = read("version = 1\naccepted = [\"snp\", \"az-tdx\"]\nenclaves = \"any\"");
        let strict = AppraisalPolicy::strict(vec![Tee::Snp, Tee::AzTdx], Allowed::Any);
        assert_eq!(policy, Ok(strict));
    }

    #[test]
    fn a_policy_survives_writing_and_reading() {
        let enclaves = Allowed::These(vec![EnclaveId::new([0xab; 48])]);
        let mut policy = AppraisalPolicy::strict(vec![Tee::Sgx], enclaves);
        policy.minimum_svn = 7;
        policy.accepted_tcb.push(TcbStatus::SwHardeningNeeded);
        let text = toml::to_string(&policy).unwrap();
        assert_eq!(read(&text), Ok(policy), "{text}");
    }

    #[test]
    fn incomplete_unknown_and_newer_files_are_refused() {
        let id = "ab".repeat(48);
        for bad in [
            "",
            "version = 1\naccepted = [\"snp\"]",
            "version = 1\nenclaves = \"any\"",
            "accepted = [\"snp\"]\nenclaves = \"any\"",
            "version = 2\naccepted = [\"snp\"]\nenclaves = \"any\"",
            "version = 1\naccepted = [\"snp\"]\nenclaves = \"any\"\nallow_debugging = true",
            "version = 1\naccepted = [\"sev\"]\nenclaves = \"any\"",
            "version = 1\naccepted = [\"snp\"]\nenclaves = \"all\"",
            "version = 1\naccepted = [\"snp\"]\nenclaves = { these = [\"ab\"] }",
            &format!("version = 1\naccepted = [\"snp\"]\nenclaves = {{ those = [\"{id}\"] }}"),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_in_files_are_the_names_everywhere() {
        for tee in Tee::ALL {
            assert_eq!(
                serde_json::to_string(&tee).unwrap(),
                format!("\"{}\"", tee.name())
            );
            assert_eq!(Tee::from_name(tee.name()), Some(tee));
        }
        let tcb = TcbStatus::ConfigurationAndSwHardeningNeeded;
        assert_eq!(
            serde_json::to_string(&tcb).unwrap(),
            format!("\"{}\"", tcb.name())
        );
    }

    #[test]
    fn a_revoked_platform_is_refused_even_if_it_is_named() {
        let mut policy = AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any);
        policy.accepted_tcb = vec![TcbStatus::Revoked, TcbStatus::UpToDate];
        assert!(policy.accepts_tcb(TcbStatus::UpToDate));
        assert!(!policy.accepts_tcb(TcbStatus::Revoked));
        assert!(!policy.accepts_tcb(TcbStatus::OutOfDate));
    }
}
