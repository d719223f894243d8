//! OpenWhisk's REST API over HTTP: the only file that accepts connections, and what every call
//! shares: request ids, CORS, authentication, bounds on bodies, the form of errors.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use protocol::openwhisk::{ApiError, REQUEST_ID_HEADER};
use serde::Serialize;
use service::SharedClock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activations::Activations;
use crate::config::LimitRules;
use crate::functions::Functions;
use crate::ids;
use crate::invocation::Invoker;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::record::{Place, Recorder};
use crate::throttle::Throttle;

mod actions;
mod activations;
mod api_docs;
mod invoke;
mod namespace;
mod query;
mod reject;
mod routes;

use reject::Reject;

/// Largest body of any call, in bytes.
const BODY_MAX: usize = 50 << 20;
/// How long a body, or the head of a request, may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// A namespace and who may use it.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) namespace: String,
    /// `uuid:secret`.
    pub(crate) key: String,
}

/// Everything that the API answers from.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) functions: Arc<Functions>,
    pub(crate) activations: Arc<Activations>,
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) throttle: Arc<Mutex<Throttle>>,
    pub(crate) rules: LimitRules,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) clock: SharedClock,
    pub(crate) tracker: TaskTracker,
}

/// One request, with what all handlers need.
struct Call {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Incoming,
    request_id: String,
    /// Monotonic time of receipt.
    received: Duration,
}

/// An answer before the headers that all answers have.
struct Reply {
    status: StatusCode,
    body: Bytes,
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<Self, Reject> {
        let body = serde_json::to_vec(body)
            .map_err(|_| Reject::internal())?
            .into();
        let headers = Vec::new();
        Ok(Self {
            status,
            body,
            content_type: "application/json",
            headers,
        })
    }

    fn ok<T: Serialize>(body: &T) -> Result<Self, Reject> {
        Self::json(StatusCode::OK, body)
    }

    fn text(body: String, content_type: &'static str) -> Self {
        Self {
            status: StatusCode::OK,
            body: body.into(),
            content_type,
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Accepts at most `connections` at once, until `stop`; then lets those under way finish.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    connections: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections));
    let next = async || {
        let place = places.clone().acquire_owned().await.ok();
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => return,
            next = next() => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (gateway, stop) = (gateway.clone(), stop.clone());
        gateway.tracker.clone().spawn(async move {
            connection(gateway, stream, stop).await;
            drop(place);
        });
    }
}

async fn connection(gateway: Arc<Gateway>, stream: TcpStream, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let service = service_fn(|request| {
        let gateway = gateway.clone();
        async move { Ok::<_, std::convert::Infallible>(gateway.handle(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL_MAX);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

impl Gateway {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let received = self.clock.monotonic();
        let (parts, body) = request.into_parts();
        let request_id = match request_id(&parts.headers) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "cannot name a request");
                "unknown".to_owned()
            }
        };
        let call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            request_id: request_id.clone(),
            received,
        };
        let reply = match self.route(call).await {
            Ok(reply) => reply,
            Err(reject) => error_reply(reject, &request_id),
        };
        self.recorder.append(Place::GatewayResponse, &reply.body);
        finish(reply, &request_id)
    }

    /// Whose call it is.
    fn authenticate(&self, headers: &HeaderMap) -> Result<&Tenant, Reject> {
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return Err(Reject::unauthorized(
                "The resource requires authentication, which was not supplied with the request",
            ));
        };
        let invalid = || Reject::unauthorized("The supplied authentication is invalid");
        let text = given.to_str().map_err(|_| invalid())?;
        let (scheme, credentials) = text.split_once(' ').ok_or_else(invalid)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(invalid());
        }
        let key = STANDARD.decode(credentials.trim()).map_err(|_| invalid())?;
        let mine = |tenant: &&Tenant| same(tenant.key.as_bytes(), &key);
        self.tenants.iter().find(mine).ok_or_else(invalid)
    }

    /// Reads a body of at most `allowed` bytes. A longer one is read and thrown away first, as far
    /// as the API takes any, so that the caller hears the answer and not a broken connection.
    async fn read_body(&self, call: &mut Call, allowed: usize) -> Result<Bytes, Reject> {
        let read = tokio::time::timeout(ARRIVAL_MAX, collect(&mut call.body, allowed)).await;
        let body = read.map_err(|_| Reject::new(StatusCode::REQUEST_TIMEOUT, SLOW_BODY))??;
        self.recorder.append(Place::GatewayRequest, &body);
        Ok(body)
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SLOW_BODY: &str = "The server was not able to produce a timely response to your request.";

async fn collect(body: &mut Incoming, allowed: usize) -> Result<Bytes, Reject> {
    let too_large = |is: u64| {
        let text = format!("Request larger than allowed: {is} > {allowed} bytes.");
        Reject::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| usize::try_from(length).is_ok_and(|l| l > BODY_MAX)) {
        return Err(too_large(announced.unwrap_or(u64::MAX)));
    }
    let (mut kept, mut total) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reject::malformed("the body ended early"))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        total += bytes.len();
        if total > BODY_MAX {
            break;
        }
        if total <= allowed {
            kept.extend_from_slice(&bytes);
        } else {
            kept.clear();
        }
    }
    if total > allowed {
        return Err(too_large(announced.unwrap_or(total as u64)));
    }
    Ok(kept.freeze())
}

/// Equal, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// The caller's id for the request, unless it looks like one of the platform's own.
fn request_id(headers: &HeaderMap) -> Result<String, ids::RandomError> {
    let given = headers
        .get(REQUEST_ID_HEADER)
        .and_then(|id| id.to_str().ok());
    match given.filter(|id| !id.is_empty() && !id.starts_with("sid_")) {
        Some(id) => Ok(id.to_owned()),
        None => ids::request_id(),
    }
}

fn error_reply(reject: Reject, request_id: &str) -> Reply {
    let Reject {
        status,
        error,
        headers,
    } = reject;
    let body = ApiError {
        error,
        code: request_id.to_owned(),
    };
    // Two strings always have a JSON form.
    let body = serde_json::to_vec(&body).unwrap_or_default().into();
    Reply {
        status,
        body,
        content_type: "application/json",
        headers,
    }
}

fn finish(reply: Reply, request_id: &str) -> Response<Full<Bytes>> {
    const ALLOWED_HEADERS: &str =
        "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent";
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, reply.content_type),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, DELETE, POST, PUT, HEAD",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static(REQUEST_ID_HEADER), id);
    }
    headers.extend(reply.headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_only_if_every_byte_is() {
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
        assert!(!same(b"", b"a"));
        assert!(same(b"abc", b"abc"));
    }

    #[test]
    fn a_callers_request_id_is_kept_unless_it_poses_as_ours() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_str(value).unwrap());
            request_id(&headers).unwrap()
        };
        assert_ne!(id("sid_unknown"), "sid_unknown");
        assert_eq!(id("sid_unknown").len(), 32);
        assert_eq!(id("mine"), "mine");
    }
}
