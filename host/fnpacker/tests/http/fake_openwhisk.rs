//! A server that speaks the part of OpenWhisk's REST API that FnPacker uses, and does as told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use base64::Engine as _;
use http::{HeaderMap, StatusCode};
use protocol::WireError;
use protocol::openwhisk::{ActivationResponse, Outcome};
use serde_json::{Value, json};
use service::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub(crate) const AUTH: &str = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:key";

/// What the next invocation meets.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    /// An answer, cold or not.
    Answer {
        cold: bool,
    },
    AppError(WireError),
    /// Ends so, with this text as the error; `timeout` is the annotation.
    Fail {
        outcome: Outcome,
        text: String,
        timeout: bool,
    },
    /// 202, and a record after so many looks.
    Later {
        looks: u32,
    },
    /// An error of the API itself.
    Api {
        status: u16,
        text: &'static str,
    },
    /// The connection ends without an answer.
    Hangup,
    /// Something that is no record.
    Nonsense,
    /// A result of this text.
    Raw(Value),
    /// Waits for [`Fake::open_gate`], and then answers.
    Gated,
}

#[derive(Debug, Default)]
struct Inner {
    actions: BTreeMap<String, Value>,
    gets: Vec<String>,
    puts: Vec<(String, Value)>,
    invocations: Vec<(String, String)>,
    script: VecDeque<Next>,
    records: BTreeMap<String, (u32, Value)>,
    seq: u64,
    refuse_put: Option<&'static str>,
}

/// The server's memory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    gate: Arc<Semaphore>,
    invoked: watch::Sender<usize>,
}

impl Fake {
    pub(crate) async fn start(shutdown: &Shutdown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            addr: listener.local_addr().unwrap(),
            inner: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            invoked: watch::Sender::new(0),
        };
        let actions = "/api/v1/namespaces/_/actions/{name}";
        let app = Router::new()
            .route(actions, put(write).get(read).delete(delete).post(invoke))
            .route("/api/v1/namespaces/_/activations/{id}", get(record))
            .with_state(fake.clone());
        let stop = shutdown.token();
        let serve = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
        shutdown
            .tracker()
            .spawn(async move { serve.await.unwrap() });
        fake
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock().unwrap())
    }

    pub(crate) fn next(&self, steps: impl IntoIterator<Item = Next>) {
        self.with(|inner| inner.script.extend(steps));
    }

    pub(crate) fn refuse_put(&self, text: Option<&'static str>) {
        self.with(|inner| inner.refuse_put = text);
    }

    /// Lets so many gated invocations go on.
    pub(crate) fn open_gate(&self, invocations: usize) {
        self.gate.add_permits(invocations);
    }

    /// Waits until there were so many invocations.
    pub(crate) async fn wait_for_invocations(&self, count: usize) {
        let mut invoked = self.invoked.subscribe();
        let wait = invoked.wait_for(|seen| *seen >= count);
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        waited.expect("the invocation comes").unwrap();
    }

    pub(crate) fn gets(&self) -> usize {
        self.with(|inner| inner.gets.len())
    }

    pub(crate) fn puts(&self) -> Vec<(String, Value)> {
        self.with(|inner| inner.puts.clone())
    }

    /// Function and body of every invocation.
    pub(crate) fn invocations(&self) -> Vec<(String, String)> {
        self.with(|inner| inner.invocations.clone())
    }

    /// Loses a function behind FnPacker's back.
    pub(crate) fn lose(&self, name: &str) {
        self.with(|inner| inner.actions.remove(name));
    }
}

fn api_error(status: u16, text: &str) -> Response {
    let body = axum::Json(json!({"error": text, "code": "sid_1"}));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn known(headers: &HeaderMap) -> bool {
    let expected = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(AUTH)
    );
    headers
        .get("authorization")
        .is_some_and(|value| *value == *expected)
}

async fn read(State(fake): State<Fake>, Path(name): Path<String>, request: Request) -> Response {
    assert_eq!(request.uri().query(), Some("code=false"));
    if !known(request.headers()) {
        return api_error(401, "The supplied authentication is invalid.");
    }
    fake.with(|inner| {
        inner.gets.push(name.clone());
        match inner.actions.get(&name) {
            Some(action) => axum::Json(action.clone()).into_response(),
            None => api_error(404, "The requested resource does not exist."),
        }
    })
}

async fn write(
    State(fake): State<Fake>,
    Path(name): Path<String>,
    headers: HeaderMap,
    axum::Json(put): axum::Json<Value>,
) -> Response {
    assert!(known(&headers));
    fake.with(|inner| {
        inner.puts.push((name.clone(), put.clone()));
        if let Some(text) = inner.refuse_put {
            return api_error(400, text);
        }
        let mut limits = json!({"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1});
        for (key, value) in put["limits"].as_object().unwrap() {
            limits[key] = value.clone();
        }
        let action = json!({"namespace": "guest", "name": name, "version": "0.0.1",
            "publish": false, "exec": put["exec"], "parameters": put["parameters"],
            "limits": limits, "annotations": put["annotations"], "updated": 1});
        inner.actions.insert(name, action.clone());
        axum::Json(action).into_response()
    })
}

async fn delete(State(fake): State<Fake>, Path(name): Path<String>) -> Response {
    fake.with(|inner| match inner.actions.remove(&name) {
        Some(action) => axum::Json(action).into_response(),
        None => api_error(404, "The requested resource does not exist."),
    })
}

async fn invoke(
    State(fake): State<Fake>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !known(&headers) {
        return api_error(401, "The supplied authentication is invalid.");
    }
    let next = fake.with(|inner| {
        if !inner.actions.contains_key(&name) {
            return None;
        }
        inner.invocations.push((name.clone(), body.clone()));
        Some(
            inner
                .script
                .pop_front()
                .unwrap_or(Next::Answer { cold: false }),
        )
    });
    let Some(next) = next else {
        return api_error(404, "The requested resource does not exist.");
    };
    fake.invoked.send_modify(|seen| *seen += 1);
    if matches!(next, Next::Gated) {
        fake.gate.acquire().await.unwrap().forget();
    }
    fake.with(|inner| respond(inner, &name, &body, next))
}

/// What SeMIRT would answer, with a ciphertext of its own.
fn sealed(inner: &mut Inner, name: &str, body: &str, path: &str) -> ActivationResponse {
    let request: Value = serde_json::from_str(body).unwrap_or_default();
    inner.seq += 1;
    let load = if path == "hot" { 0 } else { 5000 };
    let result = json!({"request_id": request["request_id"], "ciphertext": "c2VhbGVk",
        "telemetry": {"instance": format!("{name}-i1"), "seq": inner.seq, "path": path,
            "phases_us": {"run": 1000, "load": load}}});
    ActivationResponse::new(Outcome::Success, result, None)
}

fn respond(inner: &mut Inner, name: &str, body: &str, next: Next) -> Response {
    match next {
        Next::Answer { cold: true } => answer(&sealed(inner, name, body, "cold"), true, false),
        Next::Answer { cold: false } | Next::Gated => {
            answer(&sealed(inner, name, body, "hot"), false, false)
        }
        Next::AppError(error) => {
            let error = serde_json::to_value(error).unwrap();
            let response = ActivationResponse::error(Outcome::ApplicationError, error, None);
            answer(&response, false, false)
        }
        Next::Fail {
            outcome,
            text,
            timeout,
        } => answer(
            &ActivationResponse::error(outcome, text, None),
            true,
            timeout,
        ),
        Next::Later { looks } => {
            let response = sealed(inner, name, body, "warm");
            let id = format!("{:032x}", inner.seq);
            let record = activation(&response, false, false);
            inner.records.insert(id.clone(), (looks, record));
            (
                StatusCode::ACCEPTED,
                axum::Json(json!({"activationId": id})),
            )
                .into_response()
        }
        Next::Raw(result) => answer(
            &ActivationResponse::new(Outcome::Success, result, None),
            false,
            false,
        ),
        Next::Api { status, text } => api_error(status, text),
        Next::Nonsense => "no record at all".into_response(),
        // A body that breaks off makes the server close the connection.
        Next::Hangup => {
            let broken =
                futures::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("x"))]);
            axum::body::Body::from_stream(broken).into_response()
        }
    }
}

async fn record(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    fake.with(|inner| match inner.records.get_mut(&id) {
        Some((0, record)) => axum::Json(record.clone()).into_response(),
        Some((looks, _)) => {
            *looks -= 1;
            api_error(404, "The requested resource does not exist.")
        }
        None => api_error(404, "The requested resource does not exist."),
    })
}

fn activation(response: &ActivationResponse, cold: bool, timeout: bool) -> Value {
    let mut annotations = json!([{"key": "waitTime", "value": 40},
        {"key": "timeout", "value": timeout}]);
    if cold {
        annotations
            .as_array_mut()
            .unwrap()
            .push(json!({"key": "initTime", "value": 25}));
    }
    json!({"namespace": "guest", "name": "f", "version": "0.0.1", "subject": "guest",
        "activationId": "0123456789abcdef0123456789abcdef", "start": 1, "end": 9, "duration": 8,
        "publish": false, "annotations": annotations, "logs": [], "response": response})
}

fn answer(response: &ActivationResponse, cold: bool, timeout: bool) -> Response {
    let status = StatusCode::from_u16(response.outcome().http_status()).unwrap();
    (status, axum::Json(activation(response, cold, timeout))).into_response()
}
