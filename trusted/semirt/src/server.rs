//! HTTP: OpenWhisk's action protocol, and the same over a binary body for platforms without it.
//!
//! `/run` answers 200 whatever a client sends: any other status makes OpenWhisk destroy the
//! instance, and with it every model that is warm in it. Every answer has a Content-Length, since
//! OpenWhisk takes one without for no answer at all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::action::{InitRequest, RunRequest};
use protocol::invoke::{Ciphertext, RunResult, SealedRequest, SubmittedRequest};
use protocol::{ErrorCode, WireError};
use serde::Serialize;
use serde_json::json;
use service::{ErrorChain, Shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::activation_log::ActivationLog;
use crate::lifecycle::{InitError, Lifecycle};
use crate::refusal::Refusal;
use crate::stored::StoredError;
use crate::workers::{Admission, Ticket};

/// Open connections: OpenWhisk allows a container 1024 open files.
const CONNECTIONS_MAX: usize = 512;
/// Largest `/init` body: addresses, and code that is not read.
const INIT_MAX: u64 = 64 * 1024;
/// Longest time for a request's headers to arrive, and for a connection to lie idle.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Longest time for a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How much of a body that is too large is read and thrown away, so that its sender comes to read
/// the answer.
const DISCARD_MAX: u64 = 16 << 20;
/// Pause after the system refused a connection (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Media type of a `COSE_Encrypt` body (RFC 9052 section 2).
const COSE: &str = "application/cose";
const JSON: &str = "application/json";
const USER: HeaderName = HeaderName::from_static("x-sesemi-user");
const MODEL: HeaderName = HeaderName::from_static("x-sesemi-model");
const ENCLAVE: HeaderName = HeaderName::from_static("x-sesemi-enclave");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-sesemi-request-id");
const TELEMETRY: HeaderName = HeaderName::from_static("x-sesemi-telemetry");

type Answer = Response<Full<Bytes>>;

/// Serves one instance.
#[derive(Debug)]
pub(crate) struct Server {
    lifecycle: Lifecycle,
    admission: Admission,
    log: ActivationLog,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) fn new(lifecycle: Lifecycle, log: ActivationLog, shutdown: Shutdown) -> Self {
        let (measured, host) = (lifecycle.config().measured(), lifecycle.config().host());
        let requests = usize::from(measured.concurrency) + usize::from(host.queue);
        let admission = Admission::new(requests, host.body_memory);
        Self {
            lifecycle,
            admission,
            log,
            shutdown,
        }
    }

    /// Accepts connections until shutdown; those with a request in flight finish it.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let stop = self.shutdown.token();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let next = async {
                let place = Arc::clone(&connections).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => next,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let server = Arc::clone(&self);
            self.shutdown.tracker().spawn(async move {
                server.connection(stream).await;
                drop(place);
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "answers may be delayed");
        }
        let stop = self.shutdown.token();
        let service = service_fn(move |request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.route(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error = %ErrorChain(&error), "connection broke");
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/init") => self.init(request).await,
            (&Method::POST, "/run") => self.run(request).await,
            (&Method::GET, "/v2") => self.metadata(),
            (&Method::GET, "/v2/health/live") => json(StatusCode::OK, &json!({ "live": true })),
            (&Method::GET, "/v2/health/ready") if self.lifecycle.ready() => {
                json(StatusCode::OK, &json!({ "ready": true }))
            }
            (&Method::GET, "/v2/health/ready") => {
                json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false }))
            }
            (_, "/init" | "/run") => method_not_allowed("POST"),
            (_, "/v2" | "/v2/health/live" | "/v2/health/ready") => method_not_allowed("GET"),
            _ => {
                let error = WireError::new(ErrorCode::NotFound, "there is nothing at this path");
                json(StatusCode::NOT_FOUND, &json!({ "error": error }))
            }
        }
    }

    /// The Open Inference Protocol's server metadata, and which enclave this claims to be.
    fn metadata(&self) -> Answer {
        let identity = self.lifecycle.identity();
        json(
            StatusCode::OK,
            &json!({
                "name": "semirt",
                "version": env!("CARGO_PKG_VERSION"),
                "extensions": ["sesemi"],
                "enclave": identity.enclave,
                "instance": identity.instance,
            }),
        )
    }

    async fn init(&self, request: Request<Incoming>) -> Answer {
        let done = match read_body(request.into_body(), INIT_MAX).await {
            Ok(body) => match serde_json::from_slice::<InitRequest>(&body) {
                Ok(init) => self.lifecycle.init(&init.value),
                Err(error) => return init_refused(StatusCode::BAD_REQUEST, &error),
            },
            Err(error) => return init_refused(StatusCode::BAD_REQUEST, &error),
        };
        match done {
            Ok(()) => json(StatusCode::OK, &json!({ "ok": true })),
            Err(error @ InitError::Again) => init_refused(StatusCode::FORBIDDEN, &error),
            Err(error) => init_refused(StatusCode::BAD_REQUEST, &error),
        }
    }

    async fn run(&self, request: Request<Incoming>) -> Answer {
        let _activation = self.log.activation();
        let Some(serve) = self.lifecycle.serving() else {
            return json(
                StatusCode::FORBIDDEN,
                &json!({ "error": "System not initialized." }),
            );
        };
        let (head, body) = request.into_parts();
        let binary = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().unwrap_or_default().trim() == COSE);
        let result = match self.take_on(&head.headers, body, binary).await {
            Ok((ticket, submitted)) => serve.serve(&ticket, submitted).await,
            // Said all the same: an instance that is started ahead of need answers nothing else, and
            // whoever started it is to know which one it is.
            Err(error) => RunResult::Error {
                error,
                telemetry: Some(serve.unread()),
            },
        };
        match result {
            RunResult::Sealed(sealed) if binary => {
                let telemetry = serde_json::to_string(&sealed.telemetry).unwrap_or_default();
                let mut answer = Response::new(Full::new(Bytes::from(sealed.ciphertext)));
                let headers = answer.headers_mut();
                headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(COSE));
                for (name, text) in [
                    (REQUEST_ID, sealed.request_id.to_string()),
                    (TELEMETRY, telemetry),
                ] {
                    if let Ok(value) = text.parse() {
                        headers.insert(name, value);
                    }
                }
                answer
            }
            result => json(StatusCode::OK, &result),
        }
    }

    /// Takes a request on: first its place, then its bytes, so that what waits is bounded.
    async fn take_on(
        &self,
        headers: &HeaderMap,
        body: Incoming,
        binary: bool,
    ) -> Result<(Ticket, SubmittedRequest), WireError> {
        let max = self.lifecycle.config().host().body_max;
        // A body that says that it is too large is never kept, so it takes no memory.
        let announced = body
            .size_hint()
            .exact()
            .map_or(max, |n| if n > max { 0 } else { n });
        let mut ticket = match self.admission.enter(announced) {
            Ok(ticket) => ticket,
            Err(full) => {
                discard(body).await;
                return Err(Refusal::from(full).wire());
            }
        };
        let body = read_body(body, max).await.map_err(|error| {
            let code = match error {
                BodyError::TooLarge(_) => ErrorCode::TooLarge,
                BodyError::Broken(_) | BodyError::TooSlow => ErrorCode::InvalidRequest,
            };
            WireError::new(code, error.to_string())
        })?;
        let submitted = if binary {
            from_headers(headers, body).map(SubmittedRequest::from)
        } else {
            from_action(&body)
        };
        let submitted =
            submitted.map_err(|text| WireError::new(ErrorCode::InvalidRequest, text))?;
        // The host names the size: what is over the bound is never fetched, and what is not takes
        // its place before it is.
        if let Ciphertext::Stored(at) = &submitted.ciphertext {
            if at.size > max {
                return Err(Refusal::from(StoredError::TooLarge).wire());
            }
            ticket
                .grow(at.size)
                .map_err(|full| Refusal::from(full).wire())?;
        }
        Ok((ticket, submitted))
    }
}

/// A request whose ids are in headers and whose ciphertext is the body.
fn from_headers(headers: &HeaderMap, body: Bytes) -> Result<SealedRequest, String> {
    fn id<T: std::str::FromStr<Err: std::fmt::Display>>(
        headers: &HeaderMap,
        name: &HeaderName,
    ) -> Result<T, String> {
        let mut values = headers.get_all(name).iter();
        let value = values
            .next()
            .ok_or_else(|| format!("header {name} is missing"))?;
        if values.next().is_some() {
            return Err(format!("header {name} is given twice"));
        }
        let text = value
            .to_str()
            .map_err(|_| format!("header {name} is not ASCII"))?;
        text.parse()
            .map_err(|error| format!("header {name}: {error}"))
    }
    Ok(SealedRequest {
        user: id(headers, &USER)?,
        model: id(headers, &MODEL)?,
        enclave: id(headers, &ENCLAVE)?,
        request_id: id(headers, &REQUEST_ID)?,
        ciphertext: body.into(),
    })
}

/// A request in OpenWhisk's form.
fn from_action(body: &[u8]) -> Result<SubmittedRequest, String> {
    serde_json::from_slice::<RunRequest<SubmittedRequest>>(body)
        .map(|run| run.value)
        .map_err(|error| format!("the body is not a sealed request in 'value': {error}"))
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    #[error("the body did not arrive in time")]
    TooSlow,
}

/// Throws a body away: a connection closed on unread bytes may lose the answer.
async fn discard(body: Incoming) {
    if let Err(BodyError::Broken(error)) = read_body(body, 0).await {
        tracing::debug!(%error, "refused body broke off");
    }
}

/// Reads a body of at most `max` bytes.
async fn read_body(mut body: Incoming, max: u64) -> Result<Bytes, BodyError> {
    let reading = async {
        let mut whole = Vec::new();
        let mut seen = 0_u64;
        let mut too_large = body.size_hint().lower() > max;
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(BodyError::Broken)?.into_data() else {
                continue;
            };
            seen = seen.saturating_add(chunk.len() as u64);
            too_large = too_large || seen > max;
            if !too_large {
                whole.extend_from_slice(&chunk);
            } else if seen > max.saturating_add(DISCARD_MAX) {
                break;
            } else {
                whole = Vec::new();
            }
        }
        if too_large {
            Err(BodyError::TooLarge(max))
        } else {
            Ok(Bytes::from(whole))
        }
    };
    tokio::time::timeout(BODY_TIME, reading)
        .await
        .unwrap_or(Err(BodyError::TooSlow))
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Every type given here has string keys, so this cannot fail; an empty body would say so.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(JSON));
    answer
}

fn init_refused(status: StatusCode, error: &(dyn std::error::Error + 'static)) -> Answer {
    let text = ErrorChain(error).to_string();
    tracing::warn!(error = text, "not initialised");
    json(status, &json!({ "error": text }))
}

fn method_not_allowed(allow: &'static str) -> Answer {
    let error = WireError::new(ErrorCode::InvalidRequest, format!("use {allow} here"));
    let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }));
    answer
        .headers_mut()
        .insert(ALLOW, http::HeaderValue::from_static(allow));
    answer
}

#[cfg(test)]
mod tests;
