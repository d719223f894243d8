//! A system of its own for one measurement: `sesemi-dev up` in a temporary folder, models that are
//! encrypted, registered and granted by its command line, and requests sealed for them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use protocol::{EnclaveId, ModelId, PrincipalId};
use sdk::RequestKeyring;
use sdk::infer::PendingAnswer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The name of the genuine instances in the profile that `sesemi-dev up` writes.
const ENCLAVE: &str = "semirt";
/// The executable that plays every part, on a simulated TEE.
const DEV: &str = "sesemi-dev";

/// Why there is no system to measure.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error("{} is not there; build it: cargo build --release -p sesemi-testbed", .0.display())]
    NotBuilt(PathBuf),
    #[error("run {}", program.display())]
    Run {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("make a temporary folder")]
    Folder(#[source] std::io::Error),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the system did not come up; its logs are in {}", logs.display())]
    NotUp { logs: PathBuf },
    #[error("`sesemi {command}` failed: {said}")]
    Refused { command: String, said: String },
    #[error("what the system wrote for its users")]
    Profile(#[from] service::ConfigError),
    #[error("the profile does not name {0}")]
    Unnamed(&'static str),
    #[error("the input of the model")]
    Input(#[from] protocol::oip::OipError),
    #[error("one row of the input")]
    Row(#[from] protocol::tensor::TensorError),
    #[error("the input has no rows")]
    NoRows,
    #[error("the user's request key")]
    Key(#[from] sdk::keyring::KeyringError),
    #[error("seal a request")]
    Seal(#[from] sdk::InferError),
    #[error("find a free port")]
    Port(#[source] std::io::Error),
}

/// What the system is to be like.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The `sesemi-dev` executable.
    pub dev: PathBuf,
    /// Functions that FnPacker packs onto.
    pub endpoints: u32,
    /// Requests at once in one instance.
    pub concurrency: u16,
    /// `None` leaves it to the defaults of `sesemi-dev up`.
    pub packing: Option<Packing>,
}

/// How models are packed, and into how much memory.
#[derive(Debug, Clone)]
pub struct Packing {
    pub policy: String,
    /// Models that FnPacker believes to fit into one instance.
    pub models_per_instance: usize,
    /// Memory for loaded models in one instance, in MiB.
    pub model_memory_mb: u64,
    /// What the platform sets aside for one instance, in MiB.
    pub instance_memory_mb: u64,
    /// Instances that the platform has memory for.
    pub instances: usize,
    /// How long an idle instance is kept.
    pub keep_alive: Duration,
    /// Seconds of waiting that a GB-second is worth; absent: FnPacker's own.
    pub price: Option<f64>,
}

impl Packing {
    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--models-per-instance", self.models_per_instance as u64),
            ("--model-memory-mb", self.model_memory_mb),
            ("--instance-memory-mb", self.instance_memory_mb),
            (
                "--platform-memory-mb",
                self.instances as u64 * self.instance_memory_mb,
            ),
            (
                "--keep-alive-ms",
                protocol::invoke::micros(self.keep_alive) / 1000,
            ),
            // A comparison is of policies, not of queue lengths.
            ("--queue", 2000),
            // No lease ends while it is measured.
            ("--lease-ttl-s", 3600),
        ];
        let mut policy = vec!["--policy".to_owned(), self.policy.clone()];
        if let Some(price) = self.price {
            policy.extend(["--memory-price".to_owned(), price.to_string()]);
        }
        let numbers = numbers.map(|(name, number)| [name.to_owned(), number.to_string()]);
        policy
            .into_iter()
            .chain(numbers.into_iter().flatten())
            .collect()
    }
}

/// A running system; stopped, and its folder removed, when dropped.
#[derive(Debug)]
pub struct System {
    wishes: Wishes,
    child: Child,
    folder: tempfile::TempDir,
    fnpacker: FnPackerFile,
    user: Profile,
}

/// The files of one model, as `models/` has them.
#[derive(Debug, Clone)]
pub struct Source {
    pub onnx: PathBuf,
    pub inputs: PathBuf,
    pub expected: PathBuf,
}

impl Source {
    /// From a folder with `model.onnx`, `inputs.json` and `expected.json`.
    #[must_use]
    pub fn folder(folder: &Path) -> Self {
        let [onnx, inputs, expected] =
            ["model.onnx", "inputs.json", "expected.json"].map(|file| folder.join(file));
        Self {
            onnx,
            inputs,
            expected,
        }
    }
}

/// Seals requests of the system's user for one model; each has the first row of its inputs.
#[derive(Debug)]
pub struct Sealer {
    key: crypto::RequestKey,
    user: PrincipalId,
    model: ModelId,
    enclave: EnclaveId,
    payload: Vec<u8>,
}

impl Sealer {
    /// A fresh request: an instance answers each only once.
    pub fn seal(&self) -> Result<PendingAnswer, SystemError> {
        let sealed = PendingAnswer::seal(
            &self.key,
            self.user,
            &self.model,
            self.enclave,
            &self.payload,
        );
        Ok(sealed?)
    }
}

/// One SeMIRT process that nobody but the bench talks to, initialised as the platform would.
#[derive(Debug)]
pub struct Direct {
    child: Child,
    pub address: SocketAddr,
    /// The body of its `/init`.
    pub init: String,
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

#[derive(Debug, Deserialize)]
struct Profile {
    identity: PathBuf,
    inference: Inference,
    enclaves: BTreeMap<String, EnclaveId>,
    principals: BTreeMap<String, PrincipalId>,
}

#[derive(Debug, Deserialize)]
struct Inference {
    url: String,
}

#[derive(Debug, Deserialize)]
struct FnPackerFile {
    platform: PlatformPart,
    pool: Vec<PoolPart>,
}

#[derive(Debug, Deserialize)]
struct PlatformPart {
    url: String,
    auth_file: PathBuf,
}

#[derive(Debug, Deserialize)]
struct PoolPart {
    name: String,
    init: BTreeMap<String, String>,
}

impl System {
    /// `sesemi-dev` beside `own`, the executable that runs; it must be built.
    pub fn sibling(own: &Path) -> Result<PathBuf, SystemError> {
        let dev = own.with_file_name(DEV);
        if dev.is_file() {
            Ok(dev)
        } else {
            Err(SystemError::NotBuilt(dev))
        }
    }

    /// Starts every part and waits until each serves.
    pub fn start(wishes: Wishes) -> Result<Self, SystemError> {
        let folder = tempfile::tempdir().map_err(SystemError::Folder)?;
        let run = |source| SystemError::Run {
            program: wishes.dev.clone(),
            source,
        };
        let mut child = Command::new(&wishes.dev)
            .args(["up", "--attended", "--state"])
            .arg(folder.path())
            .args(["--endpoints", &wishes.endpoints.to_string()])
            .args(["--concurrency", &wishes.concurrency.to_string()])
            .args(wishes.packing.iter().flat_map(Packing::arguments))
            // It ends when this pipe does: also when this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for this process.
            .process_group(0)
            .spawn()
            .map_err(run)?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut said).map_err(run)?;
        }
        if !said.starts_with('{') {
            stop(&mut child);
            let logs = folder.keep().join("logs");
            return Err(SystemError::NotUp { logs });
        }
        let load = || {
            let fnpacker = read(&folder.path().join("config/fnpacker.toml"))?;
            Ok::<_, SystemError>((fnpacker, read(&folder.path().join("user.toml"))?))
        };
        match load() {
            Ok((fnpacker, user)) => Ok(Self {
                wishes,
                child,
                folder,
                fnpacker,
                user,
            }),
            Err(error) => {
                stop(&mut child);
                Err(error)
            }
        }
    }

    /// `http://host:port` of FnPacker.
    #[must_use]
    pub fn fnpacker_url(&self) -> &str {
        &self.user.inference.url
    }

    /// `http://host:port` of the platform.
    #[must_use]
    pub fn platform_url(&self) -> &str {
        &self.fnpacker.platform.url
    }

    /// `uuid:key` of the platform's namespace.
    pub fn platform_key(&self) -> Result<String, SystemError> {
        let path = &self.fnpacker.platform.auth_file;
        let text = std::fs::read_to_string(path).map_err(|source| SystemError::Read {
            path: path.clone(),
            source,
        })?;
        Ok(text.trim().to_owned())
    }

    /// E_S of the instances.
    pub fn enclave(&self) -> Result<EnclaveId, SystemError> {
        let enclave = self.user.enclaves.get(ENCLAVE).copied();
        enclave.ok_or(SystemError::Unnamed("the enclave"))
    }

    /// A folder of the system's own, which goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The id of the process that runs the system: the parent of every part.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// As owner: packs, encrypts and registers a model, and lets the user use it. As user:
    /// registers a request key for it.
    pub fn publish(&self, model: &ModelId, source: &Source) -> Result<(), SystemError> {
        let [onnx, inputs, expected] = [&source.onnx, &source.inputs, &source.expected]
            .map(|path| path.to_string_lossy().into_owned());
        let model = model.as_str();
        let publish = [
            "model",
            "publish",
            &onnx,
            "--model",
            model,
            "--example-input",
            &inputs,
            "--example-output",
            &expected,
        ];
        self.cli("owner", &publish)?;
        self.cli("owner", &["grant", "add", model, "--user", "user"])?;
        self.cli("user", &["key", "register", model, "--owner", "owner"])
    }

    /// Seals requests for a published model, with the first row of its inputs.
    pub fn sealer(&self, model: &ModelId, source: &Source) -> Result<Sealer, SystemError> {
        let text = std::fs::read(&source.inputs).map_err(|error| SystemError::Read {
            path: source.inputs.clone(),
            source: error,
        })?;
        let whole = InferRequest::from_json(&text)?.inputs;
        let inputs = whole.iter().map(first_row).collect::<Result<_, _>>()?;
        let user = self.user.principals.get("user").copied();
        let enclave = self.enclave()?;
        let keyring = RequestKeyring::new(self.user.identity.with_extension("keys"));
        Ok(Sealer {
            key: keyring.load(model, &enclave)?,
            user: user.ok_or(SystemError::Unnamed("the user"))?,
            model: model.clone(),
            enclave,
            payload: InferRequest { inputs }.encode()?,
        })
    }

    /// Starts one more SeMIRT, for requests that take no way around.
    pub fn direct(&self) -> Result<Direct, SystemError> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
        let address = free.map_err(SystemError::Port)?;
        let at = |path: &str| self.folder.path().join(path);
        let child = Command::new(&self.wishes.dev)
            .args(["role", "semirt", "--config"])
            .arg(at("config/semirt.toml"))
            .arg("--hardware")
            .arg(at("simulated-hardware"))
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| SystemError::Run {
                program: self.wishes.dev.clone(),
                source,
            })?;
        let genuine = self.fnpacker.pool.iter().find(|pool| pool.name == ENCLAVE);
        let env = &genuine.ok_or(SystemError::Unnamed("the pool"))?.init;
        let init = serde_json::json!({"value": {"name": "direct", "main": "main", "binary": false, "env": env}});
        Ok(Direct {
            child,
            address,
            init: init.to_string(),
        })
    }

    /// Runs the command line as this person.
    fn cli(&self, who: &str, arguments: &[&str]) -> Result<(), SystemError> {
        let profile = self.folder.path().join(format!("{who}.toml"));
        let done = Command::new(&self.wishes.dev)
            .args(["cli", "--profile"])
            .arg(profile)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| SystemError::Run {
                program: self.wishes.dev.clone(),
                source,
            })?;
        if done.status.success() {
            return Ok(());
        }
        Err(SystemError::Refused {
            command: arguments.join(" "),
            said: String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Ends its input, which ends every part, and waits.
fn stop(child: &mut Child) {
    drop(child.stdin.take());
    // This may fail only if it was waited for already.
    child.wait().ok();
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, SystemError> {
    Ok(service::load_config(path)?)
}

/// The first row of a tensor whose first dimension counts rows.
fn first_row(whole: &Tensor) -> Result<Tensor, SystemError> {
    let (rows, rest) = whole.shape().split_first().ok_or(SystemError::NoRows)?;
    let rows = usize::try_from(*rows).ok().filter(|rows| *rows > 0);
    let length = whole.data().len() / rows.ok_or(SystemError::NoRows)?;
    let shape = std::iter::once(1).chain(rest.iter().copied()).collect();
    let row = whole.data()[..length].to_vec();
    Ok(Tensor::new(whole.name(), whole.datatype(), shape, row)?)
}
