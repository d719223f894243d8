//! The platform's configuration: one TOML file, human units, secrets only as paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::limits::OPENWHISK_PAYLOAD_MAX;
use protocol::openwhisk::{ActionLimits, is_entity_name};
use serde::Deserialize;

/// Everything that an operator sets. Relative paths are relative to the working folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API listens; port 0 takes a free one.
    pub listen: String,
    /// Connections served at once; more wait to be accepted.
    #[serde(default = "many_connections")]
    pub connections: usize,
    /// Where actions are kept.
    pub state_dir: PathBuf,
    /// Each namespace and the file with its key, `uuid:secret`. A file that is absent is made,
    /// with a fresh key, readable by its owner only.
    pub namespaces: BTreeMap<String, PathBuf>,
    /// Memory for all sandboxes together; a sandbox counts as its action's memory limit.
    #[serde(with = "service::units::bytes")]
    pub memory: u64,
    /// The images that actions may name.
    #[serde(default)]
    pub images: BTreeMap<String, Image>,
    /// How long a sandbox may idle.
    #[serde(default = "ten_minutes", with = "service::units::duration")]
    pub idle_timeout: Duration,
    /// How long an invocation waits for memory before later ones must stand behind it.
    #[serde(default = "one_second", with = "service::units::duration")]
    pub patience: Duration,
    /// How long running invocations may go on when the platform stops.
    #[serde(default = "one_second", with = "service::units::duration")]
    pub grace: Duration,
    /// What sandboxes get as `__OW_API_HOST`; by default this platform's own URL.
    #[serde(default)]
    pub api_host: Option<String>,
    /// The operator's view: a folder where every body that passes is appended.
    #[serde(default)]
    pub record: Option<PathBuf>,
    /// A cgroup v2 folder of ours in which a group per sandbox is made; without it, memory is
    /// watched from outside.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    #[serde(default)]
    pub activations: ActivationBounds,
    #[serde(default)]
    pub limits: LimitRules,
}

/// How to run an image here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Program and arguments. The program is a path.
    pub command: Vec<String>,
    /// Environment beside `PORT` and `__OW_API_HOST`; nothing else is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its server takes many calls on one connection and does not close idle ones.
    #[serde(default)]
    pub keep_alive: bool,
    /// It writes the log sentinel to stdout and stderr after each run.
    #[serde(default)]
    pub sentinel: bool,
}

/// How many activation records are kept, in memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActivationBounds {
    pub count: usize,
    #[serde(with = "service::units::bytes")]
    pub memory: u64,
}

impl Default for ActivationBounds {
    fn default() -> Self {
        Self {
            count: 10_000,
            memory: 256 << 20,
        }
    }
}

/// What callers may ask for. The pairs are minimum and maximum.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitRules {
    pub memory_mb: (u64, u64),
    pub timeout_ms: (u64, u64),
    pub logs_mb: (u64, u64),
    pub concurrency: (u32, u32),
    /// For an action that does not say.
    pub memory_mb_default: u64,
    pub timeout_ms_default: u64,
    pub logs_mb_default: u64,
    pub concurrency_default: u32,
    /// Longest code of an action, in bytes.
    pub code_max: usize,
    /// Parameters, and annotations, of an action, in bytes.
    pub parameters_max: usize,
    /// An invocation's body, and a sandbox's answer, in bytes.
    pub payload_max: usize,
    pub max_actions: usize,
    pub invocations_per_minute: u64,
    pub concurrent_invocations: u64,
}

impl Default for LimitRules {
    fn default() -> Self {
        Self {
            memory_mb: (128, 2048),
            timeout_ms: (100, 300_000),
            logs_mb: (0, 10),
            concurrency: (1, 64),
            memory_mb_default: 256,
            timeout_ms_default: 60_000,
            logs_mb_default: 10,
            concurrency_default: 1,
            code_max: 48 << 20,
            parameters_max: 1 << 20,
            payload_max: OPENWHISK_PAYLOAD_MAX,
            max_actions: 1000,
            invocations_per_minute: 1_000_000,
            concurrent_invocations: 256,
        }
    }
}

impl LimitRules {
    /// The limits of an action that sets none.
    #[must_use]
    pub fn standard(&self) -> ActionLimits {
        ActionLimits {
            timeout: self.timeout_ms_default,
            memory: self.memory_mb_default,
            logs: self.logs_mb_default,
            concurrency: self.concurrency_default,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("the namespace '{0}' is not an entity name")]
    Namespace(String),
    #[error("no namespace is configured, so nobody could call")]
    NoNamespace,
    #[error("the image '{0}' has no command")]
    NoCommand(String),
    #[error("the program of image '{image}' is not there: {program}", program = program.display())]
    NoProgram {
        image: String,
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("limits.{0}: minimum, default and maximum are not in this order")]
    Order(&'static str),
    #[error("memory of {capacity_mb} MB does not hold one sandbox of the default size")]
    Memory { capacity_mb: u64 },
    #[error("limits.concurrency must be at least 1")]
    Concurrency,
    #[error(
        "connections must be between 1 and {}",
        tokio::sync::Semaphore::MAX_PERMITS
    )]
    Connections,
}

impl Config {
    /// Checks what the types cannot, and makes the images' programs absolute: a sandbox has no
    /// search path and another working folder would change what runs.
    pub(crate) fn checked(mut self) -> Result<Self, CheckError> {
        if self.namespaces.is_empty() {
            return Err(CheckError::NoNamespace);
        }
        if let Some(name) = self.namespaces.keys().find(|name| !is_entity_name(name)) {
            return Err(CheckError::Namespace(name.clone()));
        }
        for (name, image) in &mut self.images {
            let Some(program) = image.command.first_mut() else {
                return Err(CheckError::NoCommand(name.clone()));
            };
            let absolute = std::path::absolute(Path::new(program))
                .and_then(|path| path.metadata().map(|_| path));
            *program = match absolute {
                Ok(path) => path.to_string_lossy().into_owned(),
                Err(source) => {
                    let (image, program) = (name.clone(), PathBuf::from(program.as_str()));
                    return Err(CheckError::NoProgram {
                        image,
                        program,
                        source,
                    });
                }
            };
        }
        // What does not fit into the machine is refused when it is created, not when it is called.
        let capacity_mb = self.memory >> 20;
        if capacity_mb < self.limits.memory_mb_default {
            return Err(CheckError::Memory { capacity_mb });
        }
        self.limits.memory_mb.1 = self.limits.memory_mb.1.min(capacity_mb);
        let l = &self.limits;
        let in_order = [
            ("memory_mb", l.memory_mb, l.memory_mb_default),
            ("timeout_ms", l.timeout_ms, l.timeout_ms_default),
            ("logs_mb", l.logs_mb, l.logs_mb_default),
            (
                "concurrency",
                (l.concurrency.0.into(), l.concurrency.1.into()),
                l.concurrency_default.into(),
            ),
        ];
        for (name, (min, max), default) in in_order {
            if !(min <= default && default <= max) {
                return Err(CheckError::Order(name));
            }
        }
        if l.concurrency.0 == 0 {
            return Err(CheckError::Concurrency);
        }
        if !(1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&self.connections) {
            return Err(CheckError::Connections);
        }
        Ok(self)
    }
}

fn many_connections() -> usize {
    1024
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    const SMALL: &str = "listen = '127.0.0.1:0'\nstate_dir = 's'\nmemory = '1GiB'\n";

    #[test]
    fn the_shipped_file_is_valid_but_for_programs_not_yet_built() {
        let text = include_str!("../../../config/platform.toml");
        let mut config = parse(text);
        for image in config.images.values_mut() {
            image.command[0] = "/bin/sh".into();
        }
        config.checked().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let none = parse(&format!("{SMALL}[namespaces]\n"));
        assert!(matches!(none.checked(), Err(CheckError::NoNamespace)));
        let bad = parse(&format!("{SMALL}[namespaces]\n'a/b' = 'f'\n"));
        assert!(matches!(bad.checked(), Err(CheckError::Namespace(_))));
        let guest = format!("{SMALL}[namespaces]\nguest = 'f'\n");
        let absent = parse(&format!(
            "{guest}[images.x]\ncommand = ['/no/such/program']\n"
        ));
        assert!(matches!(
            absent.checked(),
            Err(CheckError::NoProgram { .. })
        ));
        let order = parse(&format!("{guest}[limits]\nmemory_mb = [300, 400]\n"));
        assert!(matches!(
            order.checked(),
            Err(CheckError::Order("memory_mb"))
        ));
        let small = parse(&guest.replace("1GiB", "255MiB"));
        assert!(matches!(
            small.checked(),
            Err(CheckError::Memory { capacity_mb: 255 })
        ));
        assert_eq!(
            parse(&guest).checked().unwrap().limits.memory_mb,
            (128, 1024)
        );
        let deaf = parse(&format!("connections = 0\n{guest}"));
        assert!(matches!(deaf.checked(), Err(CheckError::Connections)));
        assert!(toml::from_str::<Config>(&format!("{guest}typo = 1\n")).is_err());
    }
}
