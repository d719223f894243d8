//! SeMIRT against the real KeyService over the real attested channel, with a folder as model store;
//! only the TEE is in software.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation::testing::{SoftEnclave, SoftTee};
use attestation::{Allowed, AppraisalPolicy, ClientIdentity, Tee, VerifierSet};
use crypto::{
    Binding, IdentityKey, ModelKey, RequestKey, open_response, random_request_id, seal_artifact,
    seal_request,
};
use inference::pack::{Check, pack};
use protocol::invoke::{RunResult, SealedRequest, StartKind, Telemetry};
use protocol::keyservice::{RegisterModel, RegisterRequestKey};
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::oip::{InferReply, InferRequest};
use protocol::package::EngineName;
use protocol::{EnclaveId, ErrorCode, ModelId, ModelVersion, Tensor};
use semirt::config::HostSettings;
use semirt::{Config, Place, Running, Trust};
use service::{Shutdown, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use transport::{KeyserviceClient, ModelStore, connect};

const LEASE_S: u32 = 300;

/// One machine: a TEE, a KeyService, a model store, an owner and a user.
struct World {
    tee: SoftTee,
    folder: tempfile::TempDir,
    owner: IdentityKey,
    user: IdentityKey,
    request_key: RequestKey,
    model: ModelId,
}

struct KeyService {
    addr: SocketAddr,
    enclave: EnclaveId,
    shutdown: Shutdown,
}

impl KeyService {
    async fn stop(self) {
        self.shutdown.cancel();
        assert!(self.shutdown.wait(Duration::from_secs(20)).await);
    }
}

impl World {
    fn new() -> Self {
        Self {
            tee: SoftTee::new(7),
            folder: tempfile::tempdir().unwrap(),
            owner: IdentityKey::generate().unwrap(),
            user: IdentityKey::generate().unwrap(),
            request_key: RequestKey::generate().unwrap(),
            model: "breast-cancer".parse().unwrap(),
        }
    }

    fn verifiers(&self) -> VerifierSet {
        VerifierSet::new(vec![self.tee.verifier()])
    }

    async fn keyservice(&self, listen: SocketAddr) -> KeyService {
        let config = keyservice::Config {
            listen,
            state_dir: self.folder.path().join("keyservice"),
            measured: KeyserviceMeasured {
                lease_ttl_s: LEASE_S,
            },
            policy: AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any),
            endorsements: Default::default(),
            limits: keyservice::broker::Limits::default(),
            connections: 16,
        };
        let shutdown = Shutdown::new();
        let attester = self.tee.attester(SoftEnclave::new(0x0a));
        let clock = Arc::new(SystemClock::default());
        let running = keyservice::run(&config, attester, self.verifiers(), clock, &shutdown)
            .await
            .unwrap();
        KeyService {
            addr: running.addr,
            enclave: running.enclave,
            shutdown,
        }
    }

    fn store_url(&self) -> String {
        let store = self.folder.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        format!("file://{}", store.display())
    }

    /// SeMIRT whose code measures as `mr`, measured with KeyService `pinned`.
    async fn semirt(&self, mr: u8, keyservice: &KeyService, pinned: EnclaveId) -> Running {
        let measured = SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: 4,
            key_ttl_s: 600,
            model_memory: 64 << 20,
            engines: vec![EngineName::Rten],
            keyservice: pinned,
        };
        let host = HostSettings {
            keyservice: Some(keyservice.addr.to_string()),
            store: Some(self.store_url()),
            ..HostSettings::default()
        };
        let config = Config::new(measured, host).unwrap();
        let trust = Trust {
            attester: self.tee.attester(SoftEnclave::new(mr)),
            verifiers: self.verifiers(),
        };
        let listen = ([127, 0, 0, 1], 0).into();
        let place = Place {
            listen,
            instance: "i-1".parse().unwrap(),
        };
        let clock = Arc::new(SystemClock::default());
        semirt::run(config, trust, place, clock, Shutdown::new())
            .await
            .unwrap()
    }

    async fn client(&self, who: &IdentityKey, keyservice: &KeyService) -> KeyserviceClient {
        let who = ClientIdentity::principal(who).unwrap();
        let relying = self.tee.relying(Allowed::These(vec![keyservice.enclave]));
        let addr = keyservice.addr.to_string();
        let time = Duration::from_secs(10);
        KeyserviceClient::new(
            connect(&addr, &who, &relying, Duration::ZERO, time)
                .await
                .unwrap(),
        )
    }

    /// The owner seals, uploads and registers the model; owner and user allow `enclave`.
    async fn publish(&self, keyservice: &KeyService, enclave: &EnclaveId) {
        let (key, version) = (ModelKey::generate().unwrap(), ModelVersion(1));
        let (inputs, expected) = (tensors("inputs.json"), tensors("expected.json"));
        let check = Check::Example {
            inputs: &inputs,
            expected: &expected,
            tolerance: 1e-4,
        };
        let package = pack(&std::fs::read(model_file("model.onnx")).unwrap(), check).unwrap();
        let mut sealed = Vec::new();
        let mut plain = package.reader().unwrap();
        let made = seal_artifact(&key, &self.model, version, &mut plain, &mut sealed).unwrap();
        let file = self.folder.path().join("artifact");
        std::fs::write(&file, sealed).unwrap();
        let store = ModelStore::open(&self.store_url()).unwrap();
        store.put_file(&made.digest, &file).await.unwrap();

        let mut owner = self.client(&self.owner, keyservice).await;
        let register = RegisterModel {
            digest: made.digest,
            key: key.to_wire(),
        };
        owner
            .register_model(&self.model, version, &register)
            .await
            .unwrap();
        owner
            .grant(&self.model, &self.user.principal(), enclave)
            .await
            .unwrap();
        self.register_key(keyservice, enclave).await;
    }

    async fn register_key(&self, keyservice: &KeyService, enclave: &EnclaveId) {
        let key = RegisterRequestKey {
            owner: self.owner.principal(),
            key: self.request_key.to_wire(),
            policy: None,
        };
        let mut user = self.client(&self.user, keyservice).await;
        user.register_request_key(&self.model, enclave, &key)
            .await
            .unwrap();
    }

    /// The user asks; the answer's outputs, or the code of the refusal.
    async fn ask(&self, semirt: &Running) -> Result<(Vec<Tensor>, Telemetry), ErrorCode> {
        let (user, request_id) = (self.user.principal(), random_request_id().unwrap());
        let enclave = semirt.enclave();
        let binding = Binding {
            user: &user,
            model: &self.model,
            enclave: &enclave,
            request_id: &request_id,
        };
        let payload = InferRequest {
            inputs: tensors("inputs.json"),
        }
        .encode()
        .unwrap();
        let (ciphertext, key) = seal_request(&self.request_key, &binding, &payload).unwrap();
        let model = self.model.clone();
        let request = SealedRequest {
            user,
            model,
            enclave,
            request_id,
            ciphertext,
        };
        match run(semirt.addr(), &request).await {
            RunResult::Error { error, .. } => Err(error.code),
            RunResult::Sealed(sealed) => {
                let opened = open_response(&key, &binding, &sealed.ciphertext).unwrap();
                match InferReply::decode(&opened).unwrap() {
                    InferReply::Outputs { outputs, .. } => Ok((outputs, sealed.telemetry)),
                    InferReply::Error(error) => Err(error.code),
                }
            }
        }
    }

    async fn right(&self, semirt: &Running) -> Telemetry {
        let (outputs, telemetry) = self.ask(semirt).await.unwrap();
        inference::pack::compare(&tensors("expected.json")[0], &outputs[0], 1e-4).unwrap();
        telemetry
    }
}

fn model_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/breast-cancer")
        .join(name)
}

fn tensors(file: &str) -> Vec<Tensor> {
    let text = std::fs::read_to_string(model_file(file)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = json.get("inputs").or_else(|| json.get("outputs")).unwrap();
    let text = serde_json::json!({ "inputs": list }).to_string();
    InferRequest::from_json(text.as_bytes()).unwrap().inputs
}

async fn run(addr: SocketAddr, request: &SealedRequest) -> RunResult {
    let body = serde_json::json!({ "value": request }).to_string();
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn free_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test]
async fn cold_attests_and_loads_and_hot_does_neither() {
    let world = World::new();
    let keyservice = world.keyservice(free_port()).await;
    let semirt = world.semirt(0x5e, &keyservice, keyservice.enclave).await;
    world.publish(&keyservice, &semirt.enclave()).await;
    let cold = world.right(&semirt).await;
    assert_eq!(cold.path, StartKind::Cold);
    assert!(cold.phases_us.attest > 0 && cold.phases_us.keys > 0 && cold.phases_us.load > 0);
    let hot = world.right(&semirt).await;
    assert_eq!(hot.path, StartKind::Hot);
    assert_eq!(
        (hot.phases_us.attest, hot.phases_us.keys, hot.phases_us.load),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn another_measurement_gets_no_keys() {
    let world = World::new();
    let keyservice = world.keyservice(free_port()).await;
    let genuine = world.semirt(0x5e, &keyservice, keyservice.enclave).await;
    world.publish(&keyservice, &genuine.enclave()).await;
    let altered = world.semirt(0x5f, &keyservice, keyservice.enclave).await;
    assert_ne!(altered.enclave(), genuine.enclave());
    // Even when the user was tricked into sealing for it.
    world.register_key(&keyservice, &altered.enclave()).await;
    assert_eq!(
        world.ask(&altered).await.unwrap_err(),
        ErrorCode::EnclaveNotAllowed
    );
    world.right(&genuine).await;
}

#[tokio::test]
async fn a_keyservice_other_than_the_measured_one_is_not_asked() {
    let world = World::new();
    let keyservice = world.keyservice(free_port()).await;
    let semirt = world
        .semirt(0x5e, &keyservice, EnclaveId::new([0xbb; 48]))
        .await;
    world.publish(&keyservice, &semirt.enclave()).await;
    assert_eq!(
        world.ask(&semirt).await.unwrap_err(),
        ErrorCode::NotAttested
    );
}

#[tokio::test]
async fn a_revoked_user_gets_nothing_from_a_new_instance() {
    let world = World::new();
    let keyservice = world.keyservice(free_port()).await;
    let semirt = world.semirt(0x5e, &keyservice, keyservice.enclave).await;
    world.publish(&keyservice, &semirt.enclave()).await;
    world.right(&semirt).await;
    let mut owner = world.client(&world.owner, &keyservice).await;
    let user = world.user.principal();
    assert!(
        owner
            .revoke(&world.model, &user, &semirt.enclave())
            .await
            .unwrap()
            .revoked
    );
    world.right(&semirt).await;
    let fresh = world.semirt(0x5e, &keyservice, keyservice.enclave).await;
    assert_eq!(fresh.enclave(), semirt.enclave());
    assert_eq!(world.ask(&fresh).await.unwrap_err(), ErrorCode::NotGranted);
}

#[tokio::test]
async fn keyservice_goes_away_and_comes_back() {
    let mut world = World::new();
    let keyservice = world.keyservice(free_port()).await;
    let addr = keyservice.addr;
    let semirt = world.semirt(0x5e, &keyservice, keyservice.enclave).await;
    world.publish(&keyservice, &semirt.enclave()).await;
    world.right(&semirt).await;
    keyservice.stop().await;
    assert_eq!(
        world.right(&semirt).await.path,
        StartKind::Hot,
        "the lease outlives it"
    );
    // Somebody whose keys are not here yet.
    let first = std::mem::replace(&mut world.user, IdentityKey::generate().unwrap());
    assert_eq!(
        world.ask(&semirt).await.unwrap_err(),
        ErrorCode::KeyserviceUnavailable
    );
    // The channel from before is dead; a new one is made without anyone noticing.
    let back = world.keyservice(addr).await;
    let mut owner = world.client(&world.owner, &back).await;
    owner
        .grant(&world.model, &world.user.principal(), &semirt.enclave())
        .await
        .unwrap();
    world.register_key(&back, &semirt.enclave()).await;
    let telemetry = world.right(&semirt).await;
    assert_eq!(telemetry.path, StartKind::Warm);
    assert!(telemetry.phases_us.attest > 0 && telemetry.phases_us.fetch == 0);
    world.user = first;
    assert_eq!(world.right(&semirt).await.path, StartKind::Hot);
}
