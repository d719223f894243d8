//! SeMIRT's one configuration file: what is measured into E_S, and what the host may choose.

use std::path::Path;
use std::time::Duration;

use attestation::{Allowed, AppraisalPolicy, Tee};
use endorsements::Sources;
use protocol::limits::PAYLOAD_MAX;
use protocol::measured::{Isolation, SemirtMeasured};
use serde::{Deserialize, Serialize};
use service::units;

/// A sealed payload is at most an eighth longer than the payload (padding), and base64 in JSON
/// takes a third more: no larger body can be a request.
const BODY_CEILING: u64 = PAYLOAD_MAX as u64 * 2;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("read SeMIRT's configuration")]
    Read(#[from] service::ConfigError),
    #[error("[measured] concurrency is 0; it must be at least 1")]
    NoWorkers,
    #[error("[measured] isolation is sequential, so concurrency must be 1, not {0}")]
    SequentialMeansOne(u16),
    #[error("[measured] engines is empty; name at least one")]
    NoEngine,
    #[error("[measured] {0} is 0; no request could be served")]
    Zero(&'static str),
    #[error("[host] body_max must be between 4KiB and {BODY_CEILING} bytes, got {0}")]
    BodyMax(u64),
    #[error("[host] body_memory ({memory} bytes) must be at least body_max ({max} bytes)")]
    BodyMemory { memory: u64, max: u64 },
}

/// Where SeMIRT finds what it does not bring. Neither is trusted: KeyService proves itself in the
/// attest gate, and an artifact is checked against the digest that KeyService names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `host:port` of KeyService.
    pub keyservice: String,
    /// URL of the model store: `file:///dir`, `s3://bucket/prefix`, …
    pub store: String,
}

/// What the operator may choose without changing what a user relies on: addresses, and how much
/// the instance takes on before it says that it is busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSettings {
    /// `host:port` of KeyService; without it, `/init` must give `SESEMI_KEYSERVICE`.
    pub keyservice: Option<String>,
    /// URL of the model store; without it, `/init` must give `SESEMI_STORE`.
    pub store: Option<String>,
    /// Requests that may wait beyond those being served.
    pub queue: u16,
    /// Longest time that a request waits for a worker or for memory.
    #[serde(with = "units::duration")]
    pub queue_wait: Duration,
    /// Largest request body, in bytes.
    #[serde(with = "units::bytes")]
    pub body_max: u64,
    /// All request bodies together, in bytes.
    #[serde(with = "units::bytes")]
    pub body_memory: u64,
    /// How long a stop waits for requests in flight.
    #[serde(with = "units::duration")]
    pub grace: Duration,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            keyservice: None,
            store: None,
            queue: 64,
            queue_wait: Duration::from_secs(30),
            body_max: 32 << 20,
            body_memory: 128 << 20,
            grace: Duration::from_secs(25),
        }
    }
}

impl HostSettings {
    /// Both addresses, when both are known; `env` (of `/init`) comes before the file.
    #[must_use]
    pub fn endpoints<'a>(&'a self, env: impl Fn(&str) -> Option<&'a str>) -> Option<Endpoints> {
        let choose = |name, own: &'a Option<String>| {
            env(name)
                .filter(|v| !v.is_empty())
                .or(own.as_deref())
                .map(str::to_owned)
        };
        Some(Endpoints {
            keyservice: choose("SESEMI_KEYSERVICE", &self.keyservice)?,
            store: choose("SESEMI_STORE", &self.store)?,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    measured: SemirtMeasured,
    #[serde(default = "strict")]
    policy: AppraisalPolicy,
    #[serde(default)]
    endorsements: Sources,
    #[serde(default)]
    host: HostSettings,
}

/// E_K covers the kind of TEE and its debug flag, so the pin decides which KeyService it is;
/// patch levels are not part of it, and those are strict unless the file says otherwise.
fn strict() -> AppraisalPolicy {
    AppraisalPolicy::strict(Tee::ALL.to_vec(), Allowed::Any)
}

/// A configuration that can be run: every bound checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    measured: SemirtMeasured,
    policy: AppraisalPolicy,
    endorsements: Sources,
    host: HostSettings,
}

impl Config {
    /// Reads and checks the TOML file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = service::load_config(path)?;
        let config = Self::new(raw.measured, raw.host)?;
        Ok(Self {
            endorsements: raw.endorsements,
            ..config.with_policy(raw.policy)
        })
    }

    /// Checks the settings.
    pub fn new(measured: SemirtMeasured, host: HostSettings) -> Result<Self, ConfigError> {
        match measured.concurrency {
            0 => return Err(ConfigError::NoWorkers),
            n if n > 1 && measured.isolation == Isolation::Sequential => {
                return Err(ConfigError::SequentialMeansOne(n));
            }
            _ => {}
        }
        if measured.engines.is_empty() {
            return Err(ConfigError::NoEngine);
        }
        if measured.key_ttl_s == 0 {
            return Err(ConfigError::Zero("key_ttl_s"));
        }
        if measured.model_memory == 0 {
            return Err(ConfigError::Zero("model_memory"));
        }
        if !(4096..=BODY_CEILING).contains(&host.body_max) {
            return Err(ConfigError::BodyMax(host.body_max));
        }
        if host.body_memory < host.body_max {
            return Err(ConfigError::BodyMemory {
                memory: host.body_memory,
                max: host.body_max,
            });
        }
        Ok(Self {
            measured,
            policy: strict(),
            endorsements: Sources::default(),
            host,
        })
    }

    /// What E_S is made from.
    #[must_use]
    pub const fn measured(&self) -> &SemirtMeasured {
        &self.measured
    }

    /// With another policy for KeyService's evidence than the strict one.
    #[must_use]
    pub fn with_policy(self, policy: AppraisalPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Which evidence of the pinned KeyService is accepted; its hash is part of E_S.
    #[must_use]
    pub fn policy(&self) -> AppraisalPolicy {
        AppraisalPolicy {
            enclaves: Allowed::These(vec![self.measured.keyservice]),
            ..self.policy.clone()
        }
    }

    /// Where endorsements of this machine come from.
    #[must_use]
    pub const fn endorsements(&self) -> &Sources {
        &self.endorsements
    }

    /// What the operator chose.
    #[must_use]
    pub const fn host(&self) -> &HostSettings {
        &self.host
    }

    /// Takes addresses from the process's environment, for platforms without `/init`.
    #[must_use]
    pub fn with_endpoints(mut self, keyservice: Option<String>, store: Option<String>) -> Self {
        self.host.keyservice = keyservice.or(self.host.keyservice);
        self.host.store = store.or(self.host.store);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn shipped() -> Config {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config/semirt.toml");
        Config::load(&path).unwrap()
    }

    #[test]
    fn the_shipped_file_is_valid() {
        assert_eq!(shipped().measured().isolation, Isolation::Shared);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let good = shipped();
        type Break = fn(&mut SemirtMeasured, &mut HostSettings);
        let breaks: [(Break, &str); 7] = [
            (|m, _| m.concurrency = 0, "concurrency is 0"),
            (
                |m, _| m.isolation = Isolation::Sequential,
                "concurrency must be 1",
            ),
            (|m, _| m.engines.clear(), "engines is empty"),
            (|m, _| m.key_ttl_s = 0, "key_ttl_s is 0"),
            (|m, _| m.model_memory = 0, "model_memory is 0"),
            (|_, h| h.body_max = u64::MAX, "body_max"),
            (|_, h| h.body_memory = 1, "body_memory"),
        ];
        for (break_it, names) in breaks {
            let (mut measured, mut host) = (good.measured.clone(), good.host.clone());
            break_it(&mut measured, &mut host);
            let error = Config::new(measured, host).unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        }
    }

    #[test]
    fn init_comes_before_the_file_and_both_addresses_are_needed() {
        let mut host = HostSettings {
            store: Some("file:///m".into()),
            ..HostSettings::default()
        };
        assert_eq!(host.endpoints(|_| None), None);
        host.keyservice = Some("ks:1".into());
        let env = |name: &str| (name == "SESEMI_KEYSERVICE").then_some("other:2");
        let endpoints = host.endpoints(env).unwrap();
        assert_eq!(
            (endpoints.keyservice.as_str(), endpoints.store.as_str()),
            ("other:2", "file:///m")
        );
    }
}
