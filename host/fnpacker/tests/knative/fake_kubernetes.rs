//! The part of the Kubernetes API that FnPacker uses, with Knative's controller behind it, and the
//! ingress to the functions: real HTTP, and does as told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use service::Shutdown;
use tokio::net::TcpListener;

/// How the controller takes a new generation.
#[derive(Debug, Clone)]
pub(crate) enum Controller {
    /// Ready after so many looks.
    ReadyAfter(u32),
    Fails {
        reason: &'static str,
        message: &'static str,
    },
    /// Never says anything.
    Asleep,
}

#[derive(Debug)]
struct Inner {
    services: BTreeMap<String, Value>,
    controller: Controller,
    looks: u32,
    /// Statuses that the next calls of the API get, in place of what they asked for.
    api_script: VecDeque<(u16, &'static str)>,
    /// Statuses and bodies of the next invocations.
    run_script: VecDeque<(u16, String)>,
    calls: Vec<String>,
    applied: Vec<Value>,
    runs: Vec<(String, Value)>,
}

/// The server's memory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Fake {
    pub(crate) async fn start(shutdown: &Shutdown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            addr: listener.local_addr().unwrap(),
            inner: Arc::new(Mutex::new(Inner {
                services: BTreeMap::new(),
                controller: Controller::ReadyAfter(2),
                looks: 0,
                api_script: VecDeque::new(),
                run_script: VecDeque::new(),
                calls: Vec::new(),
                applied: Vec::new(),
                runs: Vec::new(),
            })),
        };
        let services = "/apis/serving.knative.dev/v1/namespaces/models/services/{name}";
        let app = Router::new()
            .route(services, get(look).patch(apply).delete(delete))
            .route("/run", post(run))
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

    pub(crate) fn controller(&self, controller: Controller) {
        self.with(|inner| inner.controller = controller);
    }

    pub(crate) fn api_says(&self, answers: impl IntoIterator<Item = (u16, &'static str)>) {
        self.with(|inner| inner.api_script.extend(answers));
    }

    pub(crate) fn run_says(&self, status: u16, body: &str) {
        self.with(|inner| inner.run_script.push_back((status, body.to_owned())));
    }

    /// Verbs and names, since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.with(|inner| std::mem::take(&mut inner.calls))
    }

    /// What was applied, in order.
    pub(crate) fn applied(&self) -> Vec<Value> {
        self.with(|inner| inner.applied.clone())
    }

    /// Hosts and bodies of invocations.
    pub(crate) fn runs(&self) -> Vec<(String, Value)> {
        self.with(|inner| inner.runs.clone())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.with(|inner| inner.services.contains_key(name))
    }

    /// Somebody changes the Service by hand.
    pub(crate) fn edit(&self, name: &str, pointer: &str, value: Value) {
        self.with(|inner| {
            let service = inner.services.get_mut(name).unwrap();
            *service.pointer_mut(pointer).unwrap() = value;
        });
    }
}

impl Inner {
    fn scripted(&mut self, call: &str, name: &str) -> Option<Response> {
        self.calls.push(format!("{call} {name}"));
        let (code, message) = self.api_script.pop_front()?;
        // 0 stands for "as usual".
        (code != 0).then(|| status(code, message))
    }

    /// The Service with the status that the controller has come to.
    fn observe(&mut self, name: &str) -> Value {
        self.looks += 1;
        let mut service = self.services[name].clone();
        let generation = service["metadata"]["generation"].clone();
        let condition = match self.controller.clone() {
            Controller::ReadyAfter(looks) if self.looks > looks => {
                json!({ "type": "Ready", "status": "True" })
            }
            Controller::ReadyAfter(_) => json!({ "type": "Ready", "status": "Unknown" }),
            Controller::Fails { reason, message } => {
                json!({ "type": "Ready", "status": "False", "reason": reason, "message": message })
            }
            Controller::Asleep => return service,
        };
        service["status"] = json!({
            "observedGeneration": generation,
            "conditions": [{ "type": "RoutesReady", "status": "Unknown" }, condition],
        });
        service
    }
}

/// A Kubernetes `Status`.
fn status(code: u16, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

async fn look(State(fake): State<Fake>, Path(name): Path<String>) -> Response {
    fake.with(|inner| {
        if let Some(scripted) = inner.scripted("GET", &name) {
            return scripted;
        }
        if !inner.services.contains_key(&name) {
            return status(404, "services.serving.knative.dev not found");
        }
        axum::Json(inner.observe(&name)).into_response()
    })
}

/// Server-side apply, as strict about its form as the API server.
async fn apply(
    State(fake): State<Fake>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    fake.with(|inner| {
        if let Some(scripted) = inner.scripted("PATCH", &name) {
            return scripted;
        }
        if headers["content-type"] != "application/apply-patch+yaml" {
            return status(415, "the body of the request was in an unknown format");
        }
        if !query.contains_key("fieldManager") {
            return status(422, "fieldManager: Required value");
        }
        let wanted: Value = serde_json::from_slice(&body).unwrap();
        let fits = wanted["apiVersion"] == "serving.knative.dev/v1"
            && wanted["kind"] == "Service"
            && wanted["metadata"]["name"] == name.as_str()
            && wanted["metadata"]["namespace"] == "models";
        if !fits || wanted["metadata"].get("managedFields").is_some() {
            return status(400, "the object does not fit its path");
        }
        inner.applied.push(wanted.clone());
        inner.looks = 0;
        let old = inner.services.get(&name);
        let generation = old.map_or(0, |old| old["metadata"]["generation"].as_u64().unwrap());
        let changed = old.is_none_or(|old| old["spec"] != wanted["spec"]);
        let code = if old.is_none() { 201 } else { 200 };
        let mut service = wanted;
        service["metadata"]["generation"] = (generation + u64::from(changed)).into();
        inner.services.insert(name.clone(), service.clone());
        let code = StatusCode::from_u16(code).unwrap();
        (code, axum::Json(service)).into_response()
    })
}

async fn delete(State(fake): State<Fake>, Path(name): Path<String>) -> Response {
    fake.with(|inner| {
        if let Some(scripted) = inner.scripted("DELETE", &name) {
            return scripted;
        }
        match inner.services.remove(&name) {
            Some(_) => axum::Json(json!({ "kind": "Status", "status": "Success" })).into_response(),
            None => status(404, "services.serving.knative.dev not found"),
        }
    })
}

async fn run(State(fake): State<Fake>, headers: HeaderMap, body: Bytes) -> Response {
    fake.with(|inner| {
        let host = headers["host"].to_str().unwrap().to_owned();
        let value = serde_json::from_slice(&body).unwrap();
        inner.runs.push((host, value));
        let (code, body) = inner.run_script.pop_front().unwrap();
        (StatusCode::from_u16(code).unwrap(), body).into_response()
    })
}
