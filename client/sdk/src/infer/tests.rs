//! Inference tests: a stand-in for the enclave that holds the real keys and seals real answers,
//! behind a real socket, and everything that the untrusted side may do to them.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use crypto::{open_request, seal_response};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use protocol::invoke::{Ciphertext, Phases, SealedResponse, StartKind, SubmittedRequest};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const E: EnclaveId = EnclaveId::new([7; 48]);
const USER: PrincipalId = PrincipalId::new([1; 32]);

fn model() -> ModelId {
    "m".parse().unwrap()
}

fn input() -> Tensor {
    Tensor::from_f32("x", vec![2], &[1.0, 2.0]).unwrap()
}

fn routed(request_id: RequestId, ciphertext: Vec<u8>) -> RoutedResponse {
    RoutedResponse {
        sealed: SealedResponse {
            request_id,
            ciphertext,
            telemetry: Telemetry {
                instance: "i-1".parse().unwrap(),
                seq: 1,
                path: StartKind::Hot,
                phases_us: Phases::default(),
            },
        },
        routing: Routing {
            function: "f".into(),
            activation: None,
            platform_cold: false,
            queue_us: 0,
            start_us: 0,
            total_us: 1,
        },
    }
}

/// What an enclave with `key` answers: the inputs as outputs.
fn echo(key: &RequestKey, request: &SealedRequest, model_name: &str) -> RoutedResponse {
    let (id, ciphertext) = seal_reply(key, request, |inputs| InferReply::Outputs {
        model_name: model_name.into(),
        model_version: "3".into(),
        outputs: inputs,
    });
    routed(id, ciphertext)
}

fn seal_reply(
    key: &RequestKey,
    request: &SealedRequest,
    reply: impl FnOnce(Vec<Tensor>) -> InferReply,
) -> (RequestId, Vec<u8>) {
    let SealedRequest {
        user,
        model,
        enclave,
        request_id,
        ciphertext,
    } = request;
    let binding = Binding {
        user,
        model,
        enclave,
        request_id,
    };
    let (opened, response_key) = open_request(key, &binding, ciphertext).unwrap();
    let inputs = InferRequest::decode(&opened).unwrap().inputs;
    let reply = reply(inputs).encode().unwrap();
    (
        *request_id,
        seal_response(&response_key, &binding, &reply).unwrap(),
    )
}

fn pending(key: &RequestKey) -> PendingAnswer {
    let payload = InferRequest {
        inputs: vec![input()],
    }
    .encode()
    .unwrap();
    PendingAnswer::seal(key, USER, &model(), E, &payload).unwrap()
}

#[test]
fn the_right_answer_opens() {
    let key = RequestKey::generate().unwrap();
    let pending = pending(&key);
    let (outputs, version) = pending.open(&echo(&key, pending.request(), "m")).unwrap();
    assert_eq!((outputs, version.as_str()), (vec![input()], "3"));
}

#[test]
fn an_answer_to_another_request_is_a_mismatch_whatever_it_says() {
    let key = RequestKey::generate().unwrap();
    let (mine, other) = (pending(&key), pending(&key));
    let theirs = echo(&key, other.request(), "m");
    let as_it_is = mine.open(&theirs).unwrap_err();
    assert!(
        matches!(as_it_is, InferError::Mismatch(Mismatch::RequestId)),
        "{as_it_is:?}"
    );
    let mut relabelled = theirs;
    relabelled.sealed.request_id = mine.request().request_id;
    let error = mine.open(&relabelled).unwrap_err();
    assert!(
        matches!(error, InferError::Mismatch(Mismatch::Ciphertext)),
        "{error:?}"
    );
    for error in [as_it_is, error] {
        assert_eq!(error.code(), ErrorCode::ResponseMismatch);
        assert!(!error.retryable());
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_a_mismatch() {
    let key = RequestKey::generate().unwrap();
    let pending = pending(&key);
    let good = echo(&key, pending.request(), "m");
    for at in 0..good.sealed.ciphertext.len() {
        let mut flipped = good.clone();
        flipped.sealed.ciphertext[at] ^= 1;
        assert!(
            matches!(pending.open(&flipped), Err(InferError::Mismatch(_))),
            "flip at {at}"
        );
        let mut cut = good.clone();
        cut.sealed.ciphertext.truncate(at);
        assert!(
            matches!(pending.open(&cut), Err(InferError::Mismatch(_))),
            "cut at {at}"
        );
    }
}

#[test]
fn the_own_request_is_not_an_answer_to_itself() {
    let key = RequestKey::generate().unwrap();
    let pending = pending(&key);
    let reflected = routed(
        pending.request().request_id,
        pending.request().ciphertext.clone(),
    );
    assert!(matches!(
        pending.open(&reflected),
        Err(InferError::Mismatch(Mismatch::Ciphertext))
    ));
}

#[test]
fn an_answer_of_another_model_is_a_mismatch_and_an_error_is_told() {
    let key = RequestKey::generate().unwrap();
    let pending = pending(&key);
    let error = pending
        .open(&echo(&key, pending.request(), "other"))
        .unwrap_err();
    assert!(
        matches!(error, InferError::Mismatch(Mismatch::Model)),
        "{error:?}"
    );
    let wire = WireError::new(
        ErrorCode::InvalidTensor,
        "input 'x': expected shape [any, 30]",
    );
    let (id, sealed) = seal_reply(&key, pending.request(), |_| InferReply::Error(wire.clone()));
    let error = pending.open(&routed(id, sealed)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidTensor);
    assert!(matches!(error, InferError::Enclave(e) if e == wire));
}

#[test]
fn requests_of_one_payload_differ_in_everything_but_the_ids() {
    let key = RequestKey::generate().unwrap();
    let (a, b) = (pending(&key), pending(&key));
    assert_ne!(a.request().request_id, b.request().request_id);
    assert_ne!(a.request().ciphertext, b.request().ciphertext);
    let payload = InferRequest {
        inputs: vec![input()],
    }
    .encode()
    .unwrap();
    let text = serde_json::to_vec(a.request()).unwrap();
    assert!(
        !text.windows(8).any(|w| w == &payload[payload.len() - 8..]),
        "no plaintext is sent"
    );
}

/// A request as an instance has it, its ciphertext fetched from the store where need be.
fn arrived(store: &Path, body: &[u8]) -> SealedRequest {
    let request: SubmittedRequest = serde_json::from_slice(body).unwrap();
    let ciphertext = match request.ciphertext {
        Ciphertext::Here(bytes) => bytes,
        Ciphertext::Stored(at) => {
            let bytes =
                std::fs::read(store.join(format!("requests/{}.sesemi", at.digest))).unwrap();
            assert_eq!(
                (bytes.len() as u64, crypto::sha256(&bytes)),
                (at.size, at.digest)
            );
            bytes
        }
    };
    SealedRequest {
        user: request.user,
        model: request.model,
        enclave: request.enclave,
        request_id: request.request_id,
        ciphertext,
    }
}

/// A FnPacker that answers by script, `attempt` counting from 0.
struct Host {
    client: InferClient,
    attempts: Arc<AtomicU32>,
    dir: tempfile::TempDir,
    _running: JoinSet<()>,
}

impl Host {
    async fn start(
        script: impl Fn(u32, &RequestKey, &SealedRequest) -> (StatusCode, Value) + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keyring = RequestKeyring::new(dir.path().join("keys"));
        keyring
            .stage(&model(), &E, false)
            .unwrap()
            .commit()
            .unwrap();
        let key = keyring.load(&model(), &E).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let attempts = Arc::new(AtomicU32::new(0));
        let folder = dir.path().to_owned();
        let shared = Arc::new((script, key, Arc::clone(&attempts), folder));
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let shared = Arc::clone(&shared);
                        async move {
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let (script, key, attempts, folder) = &*shared;
                            let request = arrived(folder, &body);
                            let attempt = attempts.fetch_add(1, Ordering::SeqCst);
                            let (status, answer) = script(attempt, key, &request);
                            let mut response =
                                Response::new(Full::new(Bytes::from(answer.to_string())));
                            *response.status_mut() = status;
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ended = server.serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        let retry = RetryPolicy {
            deadline: Duration::from_secs(20),
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(5),
        };
        let client = InferClient::new(Gateway::new(&url).unwrap(), USER, keyring, retry);
        Self {
            client,
            attempts,
            dir,
            _running: running,
        }
    }

    async fn infer(&self) -> Result<Answer, InferError> {
        self.client.infer(&model(), &E, &[input()]).await
    }

    /// With a store in the host's folder, for requests of more than `above` bytes.
    fn storing(mut self, above: usize) -> Self {
        let url = format!("file://{}", self.dir.path().display());
        let store = RequestStore::new(&url).above(above);
        self.client = self.client.clone().with_store(store);
        self
    }

    /// How many requests the store holds; absent if it never had one.
    fn stored(&self) -> Option<usize> {
        let entries = std::fs::read_dir(self.dir.path().join("requests")).ok()?;
        Some(entries.count())
    }

    fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::SeqCst)
    }
}

fn refusal(code: ErrorCode) -> (StatusCode, Value) {
    let status = StatusCode::from_u16(code.http_status()).unwrap();
    (
        status,
        serde_json::to_value(WireError::new(code, "scripted")).unwrap(),
    )
}

fn json<T: serde::Serialize>(value: &T) -> (StatusCode, Value) {
    (StatusCode::OK, serde_json::to_value(value).unwrap())
}

#[tokio::test]
async fn an_answer_comes_back_with_the_hosts_account_of_it() {
    let host = Host::start(|_, key, request| json(&echo(key, request, "m"))).await;
    let answer = host.infer().await.unwrap();
    assert_eq!(answer.outputs, [input()]);
    assert_eq!(
        (answer.attempts, answer.telemetry.path),
        (1, StartKind::Hot)
    );
    assert!(answer.sent > 0 && answer.received > 0);
}

#[tokio::test]
async fn what_may_succeed_later_is_tried_again_with_a_new_request_id() {
    let ids = std::sync::Mutex::new(Vec::new());
    let host = Host::start(move |attempt, key, request| {
        let mut ids = ids.lock().unwrap();
        assert!(!ids.contains(&request.request_id), "an id was used twice");
        ids.push(request.request_id);
        match attempt {
            0 => refusal(ErrorCode::Busy),
            1 => refusal(ErrorCode::KeyserviceUnavailable),
            2 => {
                let wire = WireError::new(ErrorCode::StoreUnavailable, "later");
                let (id, sealed) = seal_reply(key, request, |_| InferReply::Error(wire));
                json(&routed(id, sealed))
            }
            _ => json(&echo(key, request, "m")),
        }
    })
    .await;
    assert_eq!(host.infer().await.unwrap().attempts, 4);
}

#[tokio::test]
async fn what_is_final_is_told_at_once() {
    for code in ErrorCode::ALL.iter().filter(|code| !code.retryable()) {
        let host = Host::start(move |_, _, _| refusal(*code)).await;
        assert_eq!(host.infer().await.unwrap_err().code(), *code);
        assert_eq!(host.attempts(), 1, "{code}");
    }
    let host = Host::start(|_, key, request| {
        let mut answer = echo(key, request, "m");
        answer.sealed.ciphertext[40] ^= 1;
        json(&answer)
    })
    .await;
    assert_eq!(
        host.infer().await.unwrap_err().code(),
        ErrorCode::ResponseMismatch
    );
    assert_eq!(host.attempts(), 1);
}

#[tokio::test]
async fn without_a_key_nothing_is_sent() {
    let host = Host::start(|_, _, _| refusal(ErrorCode::Internal)).await;
    let other: ModelId = "other".parse().unwrap();
    let error = host.client.infer(&other, &E, &[input()]).await.unwrap_err();
    assert!(
        matches!(error, InferError::Key(KeyringError::NoRequestKey { .. })),
        "{error:?}"
    );
    assert!(error.advice().contains("sesemi key register other"));
    assert_eq!(host.attempts(), 0);
}

#[tokio::test]
async fn a_large_request_goes_through_the_store_and_is_cleared_away() {
    let host = Host::start(|_, key, request| json(&echo(key, request, "m"))).await;
    let host = host.storing(1100);
    assert_eq!(host.infer().await.unwrap().outputs, [input()]);
    assert_eq!(host.stored(), Some(0));

    let refused = Host::start(|_, _, _| refusal(ErrorCode::NotGranted)).await;
    let refused = refused.storing(0);
    assert_eq!(
        refused.infer().await.unwrap_err().code(),
        ErrorCode::NotGranted
    );
    assert_eq!(refused.stored(), Some(0));
}

#[tokio::test]
async fn a_small_request_never_touches_the_store() {
    let host = Host::start(|_, key, request| json(&echo(key, request, "m"))).await;
    let host = host.storing(2048);
    assert_eq!(host.infer().await.unwrap().outputs, [input()]);
    assert_eq!(host.stored(), None);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_sent() {
    for (url, code) in [
        ("file:///nowhere/at/all", ErrorCode::InvalidRequest),
        ("ftp://x", ErrorCode::InvalidRequest),
    ] {
        let mut host = Host::start(|_, _, _| refusal(ErrorCode::Internal)).await;
        let store = RequestStore::new(url).above(0);
        host.client = host.client.clone().with_store(store);
        let error = host.infer().await.unwrap_err();
        assert!(matches!(error, InferError::Store(_)), "{error:?}");
        assert_eq!((error.code(), host.attempts()), (code, 0));
        assert!(error.advice().contains("store"), "{}", error.advice());
    }
}
