//! KeyService's configuration file: what is measured, and what only this machine cares about.

use std::net::SocketAddr;
use std::path::PathBuf;

use attestation::AppraisalPolicy;
use endorsements::Sources;
use protocol::measured::KeyserviceMeasured;
use serde::Deserialize;

use crate::broker::Limits;

/// Longest lease that may be configured, in seconds: a day is as late as a revocation may be.
const LEASE_TTL_MAX_S: u32 = 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: SocketAddr,
    state_dir: PathBuf,
    measured: KeyserviceMeasured,
    policy: AppraisalPolicy,
    #[serde(default)]
    endorsements: Sources,
    #[serde(default)]
    limits: RawLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    rows: usize,
    rows_per_principal: usize,
    connections: usize,
}

impl Default for RawLimits {
    fn default() -> Self {
        let Limits {
            rows,
            rows_per_principal,
        } = Limits::default();
        Self {
            rows,
            rows_per_principal,
            connections: 1024,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("measured.lease_ttl_s must be from 1 to {LEASE_TTL_MAX_S} seconds")]
    LeaseTtl,
    #[error("policy.accepted names no kind of TEE, so nobody could ever be released a key")]
    NoTee,
    #[error("limits.{0} must be at least 1")]
    Zero(&'static str),
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawConfig")]
pub struct Config {
    pub listen: SocketAddr,
    /// Folder of the vault; made if absent.
    pub state_dir: PathBuf,
    /// Part of E_K: owners and users rely on it.
    pub measured: KeyserviceMeasured,
    /// Which evidence of instances is accepted; its hash is part of E_K, too.
    pub policy: AppraisalPolicy,
    /// Where endorsements of this machine come from.
    pub endorsements: Sources,
    pub limits: Limits,
    /// Connections served at once; more wait in the listener's queue.
    pub connections: usize,
}

impl TryFrom<RawConfig> for Config {
    type Error = InvalidConfig;

    fn try_from(raw: RawConfig) -> Result<Self, InvalidConfig> {
        let RawConfig {
            listen,
            state_dir,
            measured,
            policy,
            endorsements,
            limits,
        } = raw;
        if !(1..=LEASE_TTL_MAX_S).contains(&measured.lease_ttl_s) {
            return Err(InvalidConfig::LeaseTtl);
        }
        if policy.accepted.is_empty() {
            return Err(InvalidConfig::NoTee);
        }
        let RawLimits {
            rows,
            rows_per_principal,
            connections,
        } = limits;
        for (name, value) in [
            ("rows", rows),
            ("rows_per_principal", rows_per_principal),
            ("connections", connections),
        ] {
            if value == 0 {
                return Err(InvalidConfig::Zero(name));
            }
        }
        let limits = Limits {
            rows,
            rows_per_principal,
        };
        Ok(Self {
            listen,
            state_dir,
            measured,
            policy,
            endorsements,
            limits,
            connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shipped() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/keyservice.toml");
        std::fs::read_to_string(path).unwrap()
    }

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_shipped_file_is_valid_and_accepts_no_simulation() {
        let config = parse(&shipped()).unwrap();
        assert!(
            !config
                .policy
                .accepted
                .contains(&attestation::Tee::Simulated)
        );
        assert!(!config.policy.allow_debug);
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let text = shipped();
        let changes = [
            ("lease_ttl_s = 300", "lease_ttl_s = 0", "lease_ttl_s"),
            ("lease_ttl_s = 300", "lease_ttl_s = 86401", "lease_ttl_s"),
            ("lease_ttl_s = 300", "lease_ttl_s = 300\nextra = 1", "extra"),
            ("rows = 1000000", "rows = 0", "limits.rows"),
            ("listen = ", "listen_on = ", "listen"),
        ];
        for (from, to, named) in changes {
            assert!(text.contains(from), "{from}");
            let error = parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let accepted = text
            .lines()
            .find(|line| line.starts_with("accepted"))
            .unwrap();
        let error = parse(&text.replace(accepted, "accepted = []")).unwrap_err();
        assert!(error.to_string().contains("policy.accepted"), "{error}");
    }
}
