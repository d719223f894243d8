//! For tests: a KeyService and a store in memory, an owner and users with real keys, real models.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crypto::{
    Binding, ModelKey, RequestKey, ResponseKey, open_response, random_request_id, seal_artifact,
    seal_request,
};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use inference::pack::{Check, Package, pack};
use protocol::id::{InstanceId, LeaseId};
use protocol::invoke::{RunResult, SealedRequest, SealedResponse};
use protocol::keyservice::{Lease, Release, ReleaseRequest, WireKey};
use protocol::measured::{Isolation, SemirtMeasured};
use protocol::oip::{InferReply, InferRequest};
use protocol::package::{EngineName, Manifest};
use protocol::{
    Digest, EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId, Tensor, WireError,
};
use tokio::sync::Semaphore;

use crate::config::{Config, Endpoints, HostSettings};
use crate::lock::lock;
use crate::serve::Identity;
use crate::sources::{
    Artifact, ArtifactSource, FetchError, KeySource, KeySourceError, OpenSources, OpenSourcesError,
    Released, Sources,
};

pub(crate) const ENCLAVE: EnclaveId = EnclaveId::new([0xe5; 48]);

pub(crate) fn identity() -> Identity {
    Identity {
        enclave: ENCLAVE,
        instance: "i-test".parse::<InstanceId>().unwrap(),
    }
}

pub(crate) fn config(isolation: Isolation, concurrency: u16) -> Config {
    let measured = SemirtMeasured {
        isolation,
        concurrency,
        key_ttl_s: 60,
        model_memory: 64 << 20,
        engines: vec![EngineName::Rten],
        keyservice: EnclaveId::new([0; 48]),
    };
    Config::new(measured, HostSettings::default()).unwrap()
}

/// What happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Release,
    Fetch,
}

/// How the host misbehaves.
#[derive(Debug, Clone, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    Down,
    /// Gives this many bytes, then ends, saying that this was all.
    EndAfter(usize),
    /// Gives this many bytes, then breaks.
    BreakAfter(usize),
    /// Says this length, whatever it gives.
    SayLen(u64),
    /// Gives other bytes.
    Swap(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Registered {
    version: ModelVersion,
    owner: PrincipalId,
    digest: Digest,
    key: WireKey,
}

/// KeyService and store of one test.
#[derive(Debug)]
pub(crate) struct World {
    models: Mutex<HashMap<ModelId, Registered>>,
    grants: Mutex<HashMap<(PrincipalId, ModelId), WireKey>>,
    blobs: Mutex<HashMap<Digest, Bytes>>,
    pub(crate) keyservice_down: Mutex<bool>,
    pub(crate) store_fault: Mutex<Fault>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) lease_s: Mutex<u64>,
    /// Every fetch takes one of these first: tests that hold the store up take them away.
    pub(crate) fetches: Semaphore,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            models: Mutex::default(),
            grants: Mutex::default(),
            blobs: Mutex::default(),
            keyservice_down: Mutex::default(),
            store_fault: Mutex::default(),
            events: Mutex::default(),
            lease_s: Mutex::new(60),
            fetches: Semaphore::new(1000),
        })
    }

    /// The owner seals, uploads and registers a package.
    pub(crate) fn register(&self, name: &str, owner: u8, plain: &[u8]) -> ModelId {
        let model: ModelId = name.parse().unwrap();
        let key = ModelKey::generate().unwrap();
        let version = ModelVersion(3);
        let mut sealed = Vec::new();
        let made = seal_artifact(&key, &model, version, &mut &plain[..], &mut sealed).unwrap();
        lock(&self.blobs).insert(made.digest, sealed.into());
        let registered = Registered {
            version,
            owner: PrincipalId::new([owner; 32]),
            digest: made.digest,
            key: key.to_wire(),
        };
        lock(&self.models).insert(model.clone(), registered);
        model
    }

    /// Somebody puts bytes into the store, honestly named or not.
    pub(crate) fn put(&self, digest: Digest, bytes: &[u8]) {
        lock(&self.blobs).insert(digest, Bytes::copy_from_slice(bytes));
    }

    /// Registers the breast-cancer classifier under `name`.
    pub(crate) fn classifier(&self, name: &str, owner: u8) -> ModelId {
        self.register(name, owner, &package_bytes("breast-cancer"))
    }

    /// Owner and user agree that the user may use the model here.
    pub(crate) fn grant(&self, user: u8, model: &ModelId) -> User {
        let key = RequestKey::generate().unwrap();
        let id = PrincipalId::new([user; 32]);
        lock(&self.grants).insert((id, model.clone()), key.to_wire());
        User {
            id,
            key,
            model: model.clone(),
        }
    }

    pub(crate) fn revoke(&self, user: &User) {
        lock(&self.grants).remove(&(user.id, user.model.clone()));
    }

    pub(crate) fn artifact(&self, model: &ModelId) -> Bytes {
        let digest = lock(&self.models)[model].digest;
        lock(&self.blobs)[&digest].clone()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        *lock(&self.store_fault) = fault;
    }

    pub(crate) fn count(&self, event: Event) -> usize {
        lock(&self.events).iter().filter(|e| **e == event).count()
    }

    fn answer(&self, request: &ReleaseRequest) -> Result<Release, KeySourceError> {
        if *lock(&self.keyservice_down) {
            return Err(KeySourceError::Unreachable("connection refused".into()));
        }
        let models = lock(&self.models);
        let registered = models.get(&request.model);
        let grant = lock(&self.grants)
            .get(&(request.user, request.model.clone()))
            .cloned();
        let (Some(registered), Some(request_key)) = (registered, grant) else {
            let error = WireError::new(ErrorCode::NotGranted, "exact reason, for the log");
            return Err(KeySourceError::Refused(error));
        };
        Ok(Release {
            model: request.model.clone(),
            version: registered.version,
            owner: registered.owner,
            digest: registered.digest,
            model_key: registered.key.clone(),
            request_key,
            lease: Lease {
                id: LeaseId::new([0; 16]),
                ttl_s: *lock(&self.lease_s),
                epoch: 1,
            },
        })
    }

    fn give(&self, digest: &Digest) -> Result<Artifact, FetchError> {
        let fault = lock(&self.store_fault).clone();
        let blob = lock(&self.blobs)
            .get(digest)
            .cloned()
            .ok_or(FetchError::NotFound(*digest))?;
        let (mut len, mut bytes, mut broken) = (blob.len() as u64, blob, false);
        match fault {
            Fault::None => {}
            Fault::Down => return Err(FetchError::Unavailable("connection refused".into())),
            Fault::EndAfter(n) => bytes.truncate(n),
            Fault::BreakAfter(n) => {
                bytes.truncate(n);
                broken = true;
            }
            Fault::SayLen(n) => len = n,
            Fault::Swap(other) => {
                len = other.len() as u64;
                bytes = other.into();
            }
        }
        // Odd pieces, so that nothing depends on where they end.
        let mut chunks: Vec<_> = bytes
            .chunks(10_007)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        if broken {
            chunks.push(Err(FetchError::Unavailable("connection reset".into())));
        }
        Ok(Artifact {
            len,
            chunks: futures::stream::iter(chunks).boxed(),
        })
    }
}

/// The world as a source, so that it can be shared.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<World>);

impl KeySource for Shared {
    fn release<'a>(
        &'a self,
        request: &'a ReleaseRequest,
    ) -> BoxFuture<'a, Result<Released, KeySourceError>> {
        async move {
            lock(&self.0.events).push(Event::Release);
            let took = Duration::from_millis(5);
            tokio::time::sleep(took).await;
            let release = self.0.answer(request)?;
            Ok(Released {
                release,
                attest: took,
                keys: took,
            })
        }
        .boxed()
    }
}

impl ArtifactSource for Shared {
    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Artifact, FetchError>> {
        async move {
            lock(&self.0.events).push(Event::Fetch);
            self.0.fetches.acquire().await.unwrap().forget();
            self.0.give(digest)
        }
        .boxed()
    }
}

impl OpenSources for Shared {
    fn open(&self, endpoints: &Endpoints) -> Result<Sources, OpenSourcesError> {
        if endpoints.store.starts_with("nonsense:") {
            let address = endpoints.store.clone();
            return Err(OpenSourcesError {
                what: "the model store",
                address,
                cause: "no such scheme".into(),
            });
        }
        Ok(self.sources())
    }
}

impl Shared {
    pub(crate) fn sources(&self) -> Sources {
        Sources {
            keys: Arc::new(self.clone()),
            artifacts: Arc::new(self.clone()),
            requests: Arc::new(self.clone()),
        }
    }
}

/// A model user's side: seals, and opens what comes back.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: PrincipalId,
    pub(crate) key: RequestKey,
    pub(crate) model: ModelId,
}

/// What the user keeps to open an answer.
#[derive(Debug)]
pub(crate) struct Pending(pub(crate) SealedRequest, ResponseKey);

impl User {
    /// A request with the model's own test inputs.
    pub(crate) fn ask(&self) -> Pending {
        self.ask_with(inputs("breast-cancer"))
    }

    pub(crate) fn ask_with(&self, inputs: Vec<Tensor>) -> Pending {
        self.ask_bytes(&InferRequest { inputs }.encode().unwrap())
    }

    pub(crate) fn ask_bytes(&self, payload: &[u8]) -> Pending {
        let request_id = random_request_id().unwrap();
        let (user, model) = (&self.id, &self.model);
        let binding = Binding {
            user,
            model,
            enclave: &ENCLAVE,
            request_id: &request_id,
        };
        let (ciphertext, key) = seal_request(&self.key, &binding, payload).unwrap();
        let request = SealedRequest {
            user: self.id,
            model: self.model.clone(),
            enclave: ENCLAVE,
            request_id,
            ciphertext,
        };
        Pending(request, key)
    }
}

impl Pending {
    pub(crate) fn open(&self, response: &SealedResponse) -> InferReply {
        assert_eq!(response.request_id, self.0.request_id);
        let Self(
            SealedRequest {
                user,
                model,
                enclave,
                request_id,
                ..
            },
            key,
        ) = self;
        let binding = Binding {
            user,
            model,
            enclave,
            request_id,
        };
        InferReply::decode(&open_response(key, &binding, &response.ciphertext).unwrap()).unwrap()
    }

    /// The outputs of a result that must have some.
    pub(crate) fn outputs(&self, result: &RunResult) -> Vec<Tensor> {
        let RunResult::Sealed(sealed) = result else {
            panic!("{result:?}")
        };
        match self.open(sealed) {
            InferReply::Outputs { outputs, .. } => outputs,
            InferReply::Error(error) => panic!("{error}"),
        }
    }

    /// The error under the seal of a result that must have one.
    pub(crate) fn sealed_error(&self, result: &RunResult) -> WireError {
        let RunResult::Sealed(sealed) = result else {
            panic!("{result:?}")
        };
        match self.open(sealed) {
            InferReply::Outputs { .. } => panic!("outputs where an error was due"),
            InferReply::Error(error) => error,
        }
    }
}

/// The code of an error that the host may read.
pub(crate) fn plain_code(result: &RunResult) -> ErrorCode {
    let RunResult::Error { error, .. } = result else {
        panic!("{result:?}")
    };
    error.code
}

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(model)
}

fn tensors(model: &str, file: &str) -> Vec<Tensor> {
    let text = std::fs::read_to_string(folder(model).join(file)).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = json.as_object_mut().unwrap();
    let list = list
        .remove("inputs")
        .or_else(|| list.remove("outputs"))
        .unwrap();
    let text = serde_json::json!({ "inputs": list }).to_string();
    InferRequest::from_json(text.as_bytes()).unwrap().inputs
}

pub(crate) fn inputs(model: &str) -> Vec<Tensor> {
    tensors(model, "inputs.json")
}

/// Asserts that `outputs` are the right answers to the test inputs.
pub(crate) fn assert_right(model: &str, outputs: &[Tensor]) {
    let expected = tensors(model, "expected.json");
    assert_eq!(outputs.len(), expected.len());
    for (got, want) in outputs.iter().zip(&expected) {
        inference::pack::compare(want, got, 1e-4).unwrap();
    }
}

/// A model of the repository, packed and checked as an owner does it, as bytes.
pub(crate) fn package_bytes(model: &str) -> Vec<u8> {
    static PACKED: OnceLock<Mutex<HashMap<String, Vec<u8>>>> = OnceLock::new();
    let mut packed = lock(PACKED.get_or_init(Mutex::default));
    let bytes = packed.entry(model.into()).or_insert_with(|| {
        let onnx = std::fs::read(folder(model).join("model.onnx")).unwrap();
        let (inputs, expected) = (inputs(model), tensors(model, "expected.json"));
        let check = Check::Example {
            inputs: &inputs,
            expected: &expected,
            tolerance: 1e-4,
        };
        let mut bytes = Vec::new();
        pack(&onnx, check).unwrap().write_to(&mut bytes).unwrap();
        bytes
    });
    bytes.clone()
}

/// A well-formed package around any bytes as its graph, which no owner's tool would make.
pub(crate) fn package_around(graph: &[u8]) -> Vec<u8> {
    let manifest = Manifest {
        engine: EngineName::Rten,
        inputs: vec![],
        outputs: vec![],
        graph_len: graph.len() as u64,
        weights_len: 0,
        weights_name: None,
        example: None,
    };
    let mut bytes = Vec::new();
    let package = Package {
        manifest,
        graph: graph.to_vec(),
        weights: vec![],
    };
    package.write_to(&mut bytes).unwrap();
    bytes
}

/// A package with the right manifest around a graph that was never loaded.
pub(crate) fn package_unchecked(onnx: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let package = inference::testing::packed(EngineName::Rten, onnx).unwrap();
    package.write_to(&mut bytes).unwrap();
    bytes
}
