//! FnPacker's one configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::openwhisk::is_entity_name;
use protocol::{EnclaveId, ModelId};
use serde::Deserialize;

use crate::packing::Limits;
use crate::platform::{FunctionSpec, KnativeConfig, KnativeConfigError};

mod models;
mod policy;

use models::RawModel;
pub use models::{ModelConfig, Models};
pub use policy::PolicyName;

const MIB: u64 = 1024 * 1024;
/// Most endpoints of one pool.
const ENDPOINTS_MAX: u32 = 4096;

/// A valid configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawConfig")]
pub struct Config {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// A folder to which every request and answer is appended as it crossed this process: the
    /// operator's view, for demonstrations and tests.
    pub record: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
    /// How long a request may take, queue included, if its caller names no time; callers may name
    /// less, or more up to `patience_max`.
    pub patience: Duration,
    pub patience_max: Duration,
    pub platform: PlatformConfig,
    pub pools: Vec<PoolConfig>,
    pub models: Models,
}

/// Which platform runs the functions: `[platform]` or `[knative]` of the file.
#[derive(Debug, Clone)]
pub enum PlatformConfig {
    OpenWhisk(OpenWhiskConfig),
    Knative(KnativeConfig),
}

/// Where Apache OpenWhisk is, or the embedded platform.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenWhiskConfig {
    /// `http://host:port` of an OpenWhisk API.
    pub url: String,
    /// A file with `uuid:key`.
    pub auth_file: PathBuf,
}

/// Functions of one E_S, and how models are packed onto them.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: String,
    /// E_S of the instances that these functions run.
    pub enclave: EnclaveId,
    pub image: String,
    /// Memory of one instance, in MiB.
    pub memory_mb: u64,
    /// Requests that one instance serves at once; as measured in E_S.
    pub concurrency: u32,
    /// Functions in the pool.
    pub endpoints: u32,
    /// Time limit of a function, for its start and for each run.
    pub timeout: Duration,
    pub policy: PolicyName,
    /// Seconds of waiting that a GB-second of memory is worth; for policies that weigh the two.
    pub memory_price: f64,
    pub queue: usize,
    pub queue_per_user: usize,
    pub in_flight: u32,
    /// Models believed to fit into one instance.
    pub models_per_instance: usize,
    /// How long the platform keeps an idle instance.
    pub keep_alive: Duration,
    /// Environment of a starting instance; nothing measured, nothing secret.
    pub init: BTreeMap<String, String>,
}

impl PoolConfig {
    /// The bounds of its packing.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            queue: self.queue,
            queue_per_user: self.queue_per_user,
            in_flight: self.in_flight,
            capacity: self.concurrency,
            models_per_instance: self.models_per_instance,
            keep_alive: self.keep_alive,
            ..Limits::default()
        }
    }

    /// Seconds of waiting that the memory of one instance is worth for each second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "MiB, below 2^53")]
    pub fn rent(&self) -> f64 {
        self.memory_price * self.memory_mb as f64 / 1024.0
    }

    /// Its functions, as they should be deployed.
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionSpec> {
        let function = |number| FunctionSpec {
            name: format!("sesemi-{}-{number}", self.name),
            image: self.image.clone(),
            memory_mb: self.memory_mb,
            concurrency: self.concurrency,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            env: self.init.clone(),
        };
        (0..self.endpoints).map(function).collect()
    }
}

/// What is wrong with a configuration file that has the right form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("there is no [[pool]], so there is nothing to route to")]
    NoPool,
    #[error("the pool name '{0}' is taken twice, or is not 1 to 64 letters, digits, '-' and '_'")]
    PoolName(String),
    #[error("the pools '{0}' and '{1}' have the same enclave; requests name only the enclave")]
    SameEnclave(String, String),
    #[error("{field} of pool '{pool}' is not {expected}")]
    OutOfRange {
        pool: String,
        field: &'static str,
        expected: String,
    },
    #[error("the model '{0}' is named twice")]
    ModelTwice(ModelId),
    #[error("the model '{0}' is to live with its owner's, but its owner is not named")]
    NoOwner(ModelId),
    #[error("patience is longer than patience_max")]
    Patience,
    #[error("name one platform: [platform] for OpenWhisk, or [knative]")]
    OnePlatform,
    #[error(transparent)]
    Knative(#[from] KnativeConfigError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: SocketAddr,
    #[serde(default)]
    record: Option<PathBuf>,
    #[serde(default = "default_connections")]
    connections: usize,
    #[serde(default = "default_patience", with = "service::units::duration")]
    patience: Duration,
    #[serde(default = "default_patience_max", with = "service::units::duration")]
    patience_max: Duration,
    #[serde(default)]
    platform: Option<OpenWhiskConfig>,
    #[serde(default)]
    knative: Option<KnativeConfig>,
    #[serde(default)]
    pool: Vec<RawPool>,
    #[serde(default)]
    model: Vec<RawModel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    name: String,
    enclave: EnclaveId,
    image: String,
    #[serde(with = "service::units::bytes")]
    memory: u64,
    concurrency: u32,
    endpoints: u32,
    #[serde(with = "service::units::duration")]
    timeout: Duration,
    #[serde(default)]
    policy: PolicyName,
    #[serde(default = "default_memory_price")]
    memory_price: f64,
    #[serde(default = "default_queue")]
    queue: usize,
    #[serde(default = "default_queue_per_user")]
    queue_per_user: usize,
    #[serde(default = "default_in_flight")]
    in_flight: u32,
    #[serde(default = "default_models_per_instance")]
    models_per_instance: usize,
    #[serde(default = "default_keep_alive", with = "service::units::duration")]
    keep_alive: Duration,
    #[serde(default)]
    init: BTreeMap<String, String>,
}

const fn default_connections() -> usize {
    1024
}

const fn default_patience() -> Duration {
    Duration::from_secs(60)
}

const fn default_patience_max() -> Duration {
    Duration::from_secs(300)
}

fn default_queue() -> usize {
    Limits::default().queue
}

fn default_queue_per_user() -> usize {
    Limits::default().queue_per_user
}

fn default_in_flight() -> u32 {
    Limits::default().in_flight
}

fn default_models_per_instance() -> usize {
    Limits::default().models_per_instance
}

/// See docs/packing.md for what other prices come to.
const fn default_memory_price() -> f64 {
    0.1
}

fn default_keep_alive() -> Duration {
    Limits::default().keep_alive
}

impl TryFrom<RawConfig> for Config {
    type Error = InvalidConfig;

    fn try_from(raw: RawConfig) -> Result<Self, InvalidConfig> {
        if raw.pool.is_empty() {
            return Err(InvalidConfig::NoPool);
        }
        if raw.patience > raw.patience_max {
            return Err(InvalidConfig::Patience);
        }
        let (mut names, mut enclaves) = (BTreeSet::new(), BTreeMap::new());
        for pool in &raw.pool {
            if !is_pool_name(&pool.name) || !names.insert(pool.name.clone()) {
                return Err(InvalidConfig::PoolName(pool.name.clone()));
            }
            if let Some(other) = enclaves.insert(pool.enclave, pool.name.clone()) {
                return Err(InvalidConfig::SameEnclave(other, pool.name.clone()));
            }
        }
        let pools: Vec<PoolConfig> = raw
            .pool
            .into_iter()
            .map(PoolConfig::try_from)
            .collect::<Result<_, _>>()?;
        let platform = match (raw.platform, raw.knative) {
            (Some(openwhisk), None) => PlatformConfig::OpenWhisk(openwhisk),
            (None, Some(knative)) => {
                let functions: Vec<_> = pools.iter().flat_map(PoolConfig::functions).collect();
                knative.check(functions.iter())?;
                PlatformConfig::Knative(knative)
            }
            _ => return Err(InvalidConfig::OnePlatform),
        };
        Ok(Self {
            listen: raw.listen,
            record: raw.record,
            connections: raw.connections.max(1),
            patience: raw.patience,
            patience_max: raw.patience_max,
            platform,
            pools,
            models: models::checked(raw.model)?,
        })
    }
}

impl TryFrom<RawPool> for PoolConfig {
    type Error = InvalidConfig;

    fn try_from(raw: RawPool) -> Result<Self, InvalidConfig> {
        let models = Limits::default().models;
        let checks: [(&'static str, bool, String); 7] = [
            (
                "memory",
                raw.memory >= MIB && raw.memory.is_multiple_of(MIB),
                "a whole number of MiB".to_owned(),
            ),
            ("concurrency", raw.concurrency > 0, "at least 1".to_owned()),
            (
                "endpoints",
                (1..=ENDPOINTS_MAX).contains(&raw.endpoints),
                format!("1 to {ENDPOINTS_MAX}"),
            ),
            (
                "timeout",
                raw.timeout >= Duration::from_millis(100),
                "at least 100ms".to_owned(),
            ),
            (
                "memory_price",
                (0.0..1e9).contains(&raw.memory_price),
                "seconds of waiting for a GB-second, from 0".to_owned(),
            ),
            ("in_flight", raw.in_flight > 0, "at least 1".to_owned()),
            (
                // Each of them may be of a model of its own, and all of those are remembered.
                "queue and in_flight together",
                usize::try_from(raw.in_flight).is_ok_and(|n| n.saturating_add(raw.queue) < models),
                format!("less than {models}"),
            ),
        ];
        if let Some((field, _, expected)) = checks.into_iter().find(|(_, ok, _)| !*ok) {
            return Err(InvalidConfig::OutOfRange {
                pool: raw.name,
                field,
                expected,
            });
        }
        Ok(Self {
            name: raw.name,
            enclave: raw.enclave,
            image: raw.image,
            memory_mb: raw.memory / MIB,
            concurrency: raw.concurrency,
            endpoints: raw.endpoints,
            timeout: raw.timeout,
            policy: raw.policy,
            memory_price: raw.memory_price,
            queue: raw.queue,
            queue_per_user: raw.queue_per_user,
            in_flight: raw.in_flight,
            models_per_instance: raw.models_per_instance,
            keep_alive: raw.keep_alive,
            init: raw.init,
        })
    }
}

/// It becomes a part of a function's name.
fn is_pool_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.len() <= 64 && is_entity_name(name) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Company;

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        service::load_config(file.path()).map_err(|error| service::ErrorChain(&error).to_string())
    }

    fn shipped() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/fnpacker.toml");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let config = load(&shipped()).unwrap();
        let functions = config.pools[0].functions();
        assert_eq!(functions.len(), config.pools[0].endpoints as usize);
        for function in functions {
            assert!(is_entity_name(&function.name), "{}", function.name);
        }
    }

    #[test]
    fn a_policy_has_one_name() {
        for policy in PolicyName::ALL {
            assert_eq!(policy.policy(0.1).name(), policy.name());
            let text = shipped().replace("\"ect-p\"", &format!("\"{}\"", policy.name()));
            assert_eq!(load(&text).unwrap().pools[0].policy, policy);
        }
    }

    #[test]
    fn a_model_is_shared_and_nobodys_unless_the_operator_says_more() {
        let owner = "ab".repeat(32);
        let said = format!(
            "{}\n[[model]]\nname = \"scan\"\nowner = \"{owner}\"\ncompany = \"alone\"\n\
             [[model]]\nname = \"notes\"\n",
            shipped()
        );
        let models = load(&said).unwrap().models;
        let of = |name: &str| models.get(&name.parse::<ModelId>().unwrap()).copied();
        let scan = of("scan").unwrap();
        assert_eq!(scan.company, Company::Alone);
        assert_eq!(scan.owner.unwrap().to_string(), owner);
        assert_eq!(of("notes"), Some(ModelConfig::default()));
        assert_eq!(of("other"), None);
        for (more, expected) in [
            ("name = \"scan\"", "'scan' is named twice"),
            (
                "name = \"x\"\ncompany = \"same-owner\"",
                "its owner is not named",
            ),
            ("name = \"x\"\ncompany = \"any\"", "any"),
            ("name = \"X Y\"", "X Y"),
            ("name = \"x\"\nowner = \"12\"", "12"),
        ] {
            let error = load(&format!("{said}\n[[model]]\n{more}\n")).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let pool = shipped()
            .split_once("[[pool]]")
            .map(|(_, rest)| rest.to_owned())
            .unwrap();
        let second = format!(
            "{}\n[[pool]]{}",
            shipped(),
            pool.replace("\"main\"", "\"other\"")
        );
        let hex = "0".repeat(96);
        for (text, expected) in [
            (
                shipped().replace("endpoints = 5", "endpoints = 0"),
                "endpoints of pool 'main'",
            ),
            (
                shipped().replace("endpoints = 5", "endpoints = 5\nendpionts = 1"),
                "endpionts",
            ),
            (
                shipped().replace("concurrency = 4", "concurrency = 0"),
                "concurrency of pool",
            ),
            (
                shipped().replace("\"512MiB\"", "\"1000B\""),
                "a whole number of MiB",
            ),
            (shipped().replace("\"main\"", "\"a b\""), "pool name 'a b'"),
            (shipped().replace("\"ect-p\"", "\"best\""), "best"),
            (shipped().replace(&hex, "00"), "96"),
            (format!("{}\n[[pool]]{pool}", shipped()), "pool name 'main'"),
            (second, "'main' and 'other' have the same enclave"),
            (
                shipped().split_once("[[pool]]").unwrap().0.to_owned(),
                "no [[pool]]",
            ),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
