//! The client against a KeyService that misbehaves, over a real attested channel (software TEE).
#![expect(clippy::unwrap_used, reason = "helpers of tests report by panic")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attestation::testing::{SoftEnclave, SoftTee};
use attestation::{Allowed, AppraisalPolicy, MeasuredConfig, RatlsIdentity, Tee, VerifierSet};
use bytes::Bytes;
use crypto::IdentityKey;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use protocol::measured::KeyserviceMeasured;
use protocol::{EnclaveId, ErrorCode, Fault, ModelId, PrincipalId, WireError};
use sdk::epochs::EpochError;
use sdk::keyservice::{KeyserviceError, PinnedKeyservice, RequestKeyError};
use sdk::{EpochMemory, Explain as _, Keyservice, RequestKeyring, RetryPolicy, WallTime};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use transport::channel::Acceptor;

const ENCLAVE: SoftEnclave = SoftEnclave::new(1);
const NOW: Duration = Duration::from_secs(1_800_000_000);
const E_S: EnclaveId = EnclaveId::new([5; 48]);

type Answers = dyn Fn(&str, &Value) -> (StatusCode, Value) + Send + Sync;

/// A KeyService with scripted answers; its channel and evidence are real.
struct Server {
    address: String,
    epoch: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<String>>>,
    /// Connections to close instead of answering their first call.
    breaks: Arc<AtomicU64>,
    tee: SoftTee,
    _running: JoinSet<()>,
}

fn config() -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

impl Server {
    async fn start(
        answers: impl Fn(&str, &Value) -> (StatusCode, Value) + Send + Sync + 'static,
    ) -> Self {
        let tee = SoftTee::new(9);
        let identity = RatlsIdentity::generate(tee.attester(ENCLAVE), config()).unwrap();
        let acceptor = Acceptor::new(
            Arc::new(identity),
            tee.relying(Allowed::Any),
            Duration::from_secs(30),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (epoch, breaks) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared {
            acceptor,
            answers: Box::new(answers),
            epoch: Arc::clone(&epoch),
            breaks: Arc::clone(&breaks),
            seen: Arc::clone(&seen),
        });
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            epoch,
            seen,
            breaks,
            tee,
            _running: running,
        }
    }

    fn pinned(&self) -> PinnedKeyservice {
        let verifiers = VerifierSet::new(vec![self.tee.verifier()]);
        let enclave = SoftTee::enclave_id(ENCLAVE, &config());
        PinnedKeyservice::new(&self.address, enclave, vec![Tee::Simulated], verifiers)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

struct Shared {
    acceptor: Acceptor,
    answers: Box<Answers>,
    epoch: Arc<AtomicU64>,
    breaks: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn serve(tcp: tokio::net::TcpStream, shared: Arc<Shared>) {
    let epoch = shared.epoch.load(Ordering::SeqCst);
    let Ok((stream, _)) = shared.acceptor.accept(tcp, epoch, NOW).await else {
        return;
    };
    let breaking = shared
        .breaks
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok();
    if breaking {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ended = connection.await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = request
        .into_body()
        .collect()
        .await
        .map(|b| b.to_bytes())
        .unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, answer) = (shared.answers)(&line, &body);
    shared.seen.lock().unwrap().push(line);
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status;
    response
}

fn error(code: ErrorCode) -> (StatusCode, Value) {
    let status = StatusCode::from_u16(code.http_status()).unwrap();
    (status, json!(WireError::new(code, "scripted")))
}

fn retry() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::from_secs(20),
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(5),
    }
}

struct Client {
    dir: tempfile::TempDir,
    identity: IdentityKey,
}

impl Client {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            identity: IdentityKey::generate().unwrap(),
        }
    }

    fn epochs(&self) -> EpochMemory {
        EpochMemory::new(self.dir.path().join("epochs.json"))
    }

    async fn connect(&self, pinned: PinnedKeyservice) -> Result<Keyservice, KeyserviceError> {
        let time = WallTime::new(|| NOW);
        Keyservice::connect(pinned, &self.identity, self.epochs(), retry(), time).await
    }
}

fn nothing(line: &str, _: &Value) -> (StatusCode, Value) {
    unreachable!("no call was expected, got {line}")
}

#[tokio::test]
async fn the_pinned_keyservice_is_accepted_and_its_epoch_remembered() {
    let server = Server::start(nothing).await;
    server.epoch.store(4, Ordering::SeqCst);
    let client = Client::new();
    let keyservice = client.connect(server.pinned()).await.unwrap();
    let enclave = keyservice.appraised().unwrap().enclave();
    assert_eq!(enclave, SoftTee::enclave_id(ENCLAVE, &config()));
    assert_eq!(client.epochs().highest(&enclave).unwrap(), 4);
    assert_eq!(keyservice.principal(), client.identity.principal());
}

#[tokio::test]
async fn another_enclave_another_vendor_and_no_verifier_are_refused_before_any_call() {
    let server = Server::start(nothing).await;
    let client = Client::new();
    let good = server.pinned();
    let other_enclave = PinnedKeyservice::new(
        &good.address,
        EnclaveId::new([3; 48]),
        vec![Tee::Simulated],
        VerifierSet::new(vec![server.tee.verifier()]),
    );
    let enclave = SoftTee::enclave_id(ENCLAVE, &config());
    let vendor = VerifierSet::new(vec![SoftTee::new(8).verifier()]);
    let other_vendor = PinnedKeyservice::new(&good.address, enclave, vec![Tee::Simulated], vendor);
    let none = VerifierSet::new(Vec::new());
    let no_verifier = PinnedKeyservice::new(&good.address, enclave, vec![Tee::Simulated], none);
    let production = VerifierSet::new(vec![server.tee.verifier()]);
    let not_named = PinnedKeyservice::new(&good.address, enclave, vec![Tee::Sgx], production);
    for (what, pinned) in [
        ("other enclave", other_enclave),
        ("other vendor", other_vendor),
        ("no verifier", no_verifier),
        ("tee not named", not_named),
    ] {
        let error = client.connect(pinned).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotAttested, "{what}: {error:?}");
        assert_eq!(error.fault(), Fault::Denied);
        assert!(error.scorecard().is_some(), "{what}");
        assert!(error.advice().contains("sesemi verify keyservice"));
    }
    assert_eq!(
        client.epochs().highest(&enclave).unwrap(),
        0,
        "nothing is learned from a stranger"
    );
}

#[tokio::test]
async fn a_keyservice_that_went_back_is_refused() {
    let server = Server::start(nothing).await;
    let client = Client::new();
    server.epoch.store(10, Ordering::SeqCst);
    drop(client.connect(server.pinned()).await.unwrap());
    server.epoch.store(9, Ordering::SeqCst);
    let error = client.connect(server.pinned()).await.unwrap_err();
    assert!(
        matches!(
            error,
            KeyserviceError::Epoch(EpochError::RolledBack {
                remembered: 10,
                offered: 9,
                ..
            })
        ),
        "{error:?}"
    );
    assert_eq!(error.fault(), Fault::Denied);
    assert!(!error.retryable());
    server.epoch.store(10, Ordering::SeqCst);
    client.connect(server.pinned()).await.unwrap();
}

#[tokio::test]
async fn an_epoch_learned_from_an_answer_counts_at_the_next_connection() {
    let grant = json!({
        "model": "m", "user": PrincipalId::new([1; 32]), "enclave": E_S, "epoch": 6,
    });
    let server = Server::start(move |_, _| (StatusCode::OK, grant.clone())).await;
    let client = Client::new();
    let mut keyservice = client.connect(server.pinned()).await.unwrap();
    let model: ModelId = "m".parse().unwrap();
    keyservice
        .owner()
        .grant(&model, &PrincipalId::new([1; 32]), &E_S)
        .await
        .unwrap();
    let error = client.connect(server.pinned()).await.unwrap_err();
    assert!(matches!(error, KeyserviceError::Epoch(_)), "{error:?}");
}

#[tokio::test]
async fn broken_connections_and_busy_answers_are_tried_again() {
    let calls = AtomicU64::new(0);
    let server = Server::start(move |_, _| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => error(ErrorCode::Busy),
        1 => error(ErrorCode::StorageFull),
        _ => (StatusCode::OK, json!({ "models": [] })),
    })
    .await;
    let client = Client::new();
    let mut keyservice = client.connect(server.pinned()).await.unwrap();
    assert!(keyservice.owner().models().await.unwrap().models.is_empty());
    assert_eq!(server.seen().len(), 3);
    // The next two connections close before they answer.
    drop(keyservice);
    server.breaks.store(2, Ordering::SeqCst);
    let mut keyservice = client.connect(server.pinned()).await.unwrap();
    keyservice.owner().models().await.unwrap();
    assert_eq!(server.breaks.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn denials_and_defects_are_not_tried_again() {
    for code in ErrorCode::ALL.iter().filter(|code| !code.retryable()) {
        let server = Server::start(move |_, _| error(*code)).await;
        let client = Client::new();
        let mut keyservice = client.connect(server.pinned()).await.unwrap();
        let error = keyservice.owner().models().await.unwrap_err();
        assert_eq!(error.code(), *code);
        assert_eq!(server.seen().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn nobody_there_ends_at_the_deadline_with_a_retryable_error() {
    let server = Server::start(nothing).await;
    let mut pinned = server.pinned();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pinned.address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let client = Client::new();
    let short = RetryPolicy {
        deadline: Duration::from_millis(50),
        ..retry()
    };
    let time = WallTime::new(|| NOW);
    let error = Keyservice::connect(pinned, &client.identity, client.epochs(), short, time)
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::KeyserviceUnavailable, "{error:?}");
    assert!(error.retryable());
}

fn record() -> Value {
    json!({ "model": "m", "enclave": E_S, "owner": PrincipalId::new([1; 32]), "epoch": 1 })
}

#[tokio::test]
async fn a_request_key_is_used_only_after_keyservice_has_it() {
    let up = Arc::new(AtomicU64::new(0));
    let is_up = Arc::clone(&up);
    let server = Server::start(move |_, _| match is_up.load(Ordering::SeqCst) {
        0 => error(ErrorCode::Internal),
        _ => (StatusCode::OK, record()),
    })
    .await;
    let client = Client::new();
    let keyring = RequestKeyring::new(client.dir.path().join("keys"));
    let (model, owner): (ModelId, _) = ("m".parse().unwrap(), PrincipalId::new([1; 32]));
    let mut keyservice = client.connect(server.pinned()).await.unwrap();
    let mut user = keyservice.user();
    user.register_request_key(&keyring, &model, &E_S, owner, false)
        .await
        .unwrap_err();
    assert!(
        keyring.load(&model, &E_S).is_err(),
        "a key that KeyService lacks is not used"
    );
    up.store(1, Ordering::SeqCst);
    let registered = user
        .register_request_key(&keyring, &model, &E_S, owner, false)
        .await
        .unwrap();
    assert!(registered.new);
    keyring.load(&model, &E_S).unwrap();
    let again = user
        .register_request_key(&keyring, &model, &E_S, owner, false)
        .await
        .unwrap();
    assert!(!again.new);
}

#[tokio::test]
async fn another_registered_key_is_replaced_only_by_rotation() {
    // As KeyService: a PUT of another key conflicts until the registered one is dropped.
    let registered = Mutex::new(Some("the key of another machine".to_owned()));
    let server = Server::start(move |line, body| {
        let mut registered = registered.lock().unwrap();
        if line.starts_with("DELETE") {
            let revoked = registered.take().is_some();
            return (
                StatusCode::OK,
                json!({ "revoked": revoked, "effective_within_s": 60 }),
            );
        }
        let key = body["key"].as_str().unwrap().to_owned();
        match &*registered {
            Some(other) if *other != key => error(ErrorCode::Conflict),
            _ => {
                *registered = Some(key);
                (StatusCode::OK, record())
            }
        }
    })
    .await;
    let client = Client::new();
    let keyring = RequestKeyring::new(client.dir.path().join("keys"));
    let (model, owner): (ModelId, _) = ("m".parse().unwrap(), PrincipalId::new([1; 32]));
    let mut keyservice = client.connect(server.pinned()).await.unwrap();
    let mut user = keyservice.user();
    let refused = user
        .register_request_key(&keyring, &model, &E_S, owner, false)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, RequestKeyError::OtherKey { .. }),
        "{refused:?}"
    );
    assert!(refused.advice().contains("--rotate"));
    assert!(keyring.load(&model, &E_S).is_err());
    user.register_request_key(&keyring, &model, &E_S, owner, true)
        .await
        .unwrap();
    let first = keyring.load(&model, &E_S).unwrap();
    user.register_request_key(&keyring, &model, &E_S, owner, true)
        .await
        .unwrap();
    assert!(
        !keyring.load(&model, &E_S).unwrap().ct_eq(&first),
        "rotated"
    );
    user.drop_request_key(&keyring, &model, &E_S).await.unwrap();
    assert!(keyring.load(&model, &E_S).is_err());
}
