//! FnPacker's HTTP face, the only file that knows about it: routes, bounds, errors to codes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use protocol::invoke::micros;
use protocol::{ErrorCode, WireError};
use service::{ErrorChain, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Ended;
use crate::packing::Rejection;
use crate::platform::PlatformError;
use crate::record::Recorder;
use crate::router::{InferError, Router};
use crate::status;

/// How long a caller may take to send its body, and its next request's headers.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that is too large is still read up to here, so that its sender hears why.
const DRAIN_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone)]
struct App {
    router: Arc<Router>,
    recorder: Option<Arc<Recorder>>,
    registry: Arc<Registry>,
}

/// Serves until shutdown; every connection is tracked by it.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    recorder: Option<Recorder>,
    registry: Registry,
    connections: usize,
    shutdown: Shutdown,
) {
    let app = App {
        router,
        recorder: recorder.map(Arc::new),
        registry: Arc::new(registry),
    };
    let routes = axum::Router::new()
        .route("/v1/infer", post(infer))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    let free = Arc::new(Semaphore::new(connections));
    let stop = shutdown.token();
    loop {
        // Beyond the bound, connections wait in the listener's backlog.
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            both = async {
                (Arc::clone(&free).acquire_owned().await, listener.accept().await)
            } => both,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be closed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        shutdown.tracker().spawn(async move {
            let _permit = permit;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "cannot set TCP_NODELAY");
            }
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = %ErrorChain(&error), %peer, "connection ended badly");
            }
        });
    }
}

async fn infer(State(app): State<App>, request: Request) -> Response {
    let received = app.router.now();
    let (head, body) = request.into_parts();
    let answer = match read(&app, &head.headers, body).await {
        Ok((body, patience)) => app.router.infer(body, patience).await,
        Err(error) => Err(error),
    };
    let total = app.router.now().saturating_sub(received);
    let (ended, response) = match answer {
        Ok(json) => {
            if let Some(recorder) = &app.recorder {
                recorder.answer(&json);
            }
            let json_type = HeaderValue::from_static("application/json");
            (
                Ended::Served,
                ([(CONTENT_TYPE, json_type)], json).into_response(),
            )
        }
        Err(error) => {
            let wire = explain(&error);
            log(&error, &wire, total);
            if let Some(recorder) = &app.recorder {
                recorder.answer(wire.message.as_bytes());
            }
            (how_it_ended(&error), refuse(&wire))
        }
    };
    app.router.metrics().ended(ended, total);
    response
}

/// The body, and how long its sender will wait for an answer.
async fn read(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Option<Duration>), InferError> {
    let patience = headers.get(protocol::invoke::TIMEOUT_HEADER).map(|value| {
        let millis = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        millis
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis)
            .ok_or(InferError::Timeout)
    });
    let patience = patience.transpose()?;
    let limit = app.router.max_payload();
    let told = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let reading = async {
        if let Some(size) = told.filter(|size| *size > limit) {
            return Err(drain(body, size, limit).await);
        }
        // One byte more than allowed tells "too much" from "broke off".
        let mut body = body;
        let mut kept = Vec::with_capacity(told.unwrap_or_default());
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(InferError::BrokeOff);
            };
            let Ok(part) = frame.into_data() else {
                continue;
            };
            if kept.len() + part.len() > limit {
                let size = kept.len() + part.len();
                return Err(drain(body, size, limit).await);
            }
            kept.extend_from_slice(&part);
        }
        Ok(Bytes::from(kept))
    };
    let read = tokio::time::timeout(READ_TIMEOUT, reading).await;
    let body = read.unwrap_or(Err(InferError::BrokeOff))?;
    if let Some(recorder) = &app.recorder {
        recorder.request(&body);
    }
    Ok((body, patience))
}

/// Reads the rest of a body that is too large, within reason: a caller that is cut off in the
/// middle of its sending sees a broken connection and not the reason.
async fn drain(body: Body, size: usize, limit: usize) -> InferError {
    let mut body = Limited::new(body, DRAIN_MAX);
    while let Some(Ok(_)) = body.frame().await {}
    InferError::TooLarge { size, limit }
}

async fn status(State(app): State<App>) -> Response {
    axum::Json(status::status(&app.router)).into_response()
}

async fn metrics(State(app): State<App>) -> Response {
    let (mut queued, mut in_flight) = (0, 0);
    for pool in app.router.pools() {
        pool.inspect(|packing, _| {
            queued += packing.queued();
            in_flight += packing.fleet().in_flight();
        });
    }
    app.router.metrics().load(queued, in_flight);
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &app.registry).is_err() {
        let wire = WireError::new(ErrorCode::Internal, "cannot write the metrics");
        return refuse(&wire);
    }
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, HeaderValue::from_static(form))], text).into_response()
}

async fn unknown(request: Request) -> Response {
    let message = format!(
        "no route {} {}; there are POST /v1/infer, GET /v1/status, GET /metrics, GET /healthz",
        request.method(),
        request.uri().path()
    );
    refuse(&WireError::new(ErrorCode::NotFound, message))
}

async fn wrong_method(request: Request) -> Response {
    let message = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    let mut response = refuse(&WireError::new(ErrorCode::InvalidRequest, message));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn refuse(wire: &WireError) -> Response {
    let status = StatusCode::from_u16(wire.code.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(wire)).into_response();
    if let Some(after) = wire.retry_after_ms {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(after.div_ceil(1000)));
    }
    response
}

const fn how_it_ended(error: &InferError) -> Ended {
    match error {
        InferError::Refused(_) => Ended::Refused,
        InferError::Form(_)
        | InferError::Timeout
        | InferError::BrokeOff
        | InferError::TooLarge { .. }
        | InferError::NoPool(_)
        | InferError::Rejected(_) => Ended::Rejected,
        _ => Ended::Failed,
    }
}

fn log(error: &InferError, wire: &WireError, total: Duration) {
    let (code, total_us) = (wire.code, micros(total));
    if how_it_ended(error) == Ended::Failed {
        tracing::warn!(error = %ErrorChain(error), %code, total_us, "request failed");
    } else {
        tracing::debug!(error = %ErrorChain(error), %code, total_us, "request refused");
    }
}

/// The error as its caller sees it: whose fault it is, and what to do.
fn explain(error: &InferError) -> WireError {
    let text = ErrorChain(error).to_string();
    match error {
        InferError::Form(_) | InferError::Timeout | InferError::BrokeOff => {
            WireError::new(ErrorCode::InvalidRequest, text)
        }
        InferError::TooLarge { size, limit } => too_large(&format!("{size} bytes"), *limit),
        InferError::NoPool(enclave) => WireError::new(
            ErrorCode::NotFound,
            format!(
                "no pool of this FnPacker serves enclave {enclave}; its pools are listed by \
                 GET /v1/status"
            ),
        ),
        InferError::Rejected(rejection) => explain_rejection(*rejection),
        InferError::Late(_) => WireError::new(
            ErrorCode::Deadline,
            format!("{text}; it may still be running: send it again with a new request id"),
        ),
        InferError::Deploy(error) | InferError::Invoke(error) => explain_platform(error, &text),
        InferError::Refused(error) => error.clone(),
        InferError::AnswerTooLong(_) => WireError::new(
            ErrorCode::TooLarge,
            format!("{text}; ask for fewer or smaller outputs"),
        ),
        InferError::Unexpected { .. } => WireError::new(ErrorCode::Internal, text),
        InferError::Stopping => busy(ErrorCode::PlatformUnavailable, text, Duration::from_secs(1)),
    }
}

fn explain_rejection(rejection: Rejection) -> WireError {
    let full = |what: &str, after| {
        busy(
            ErrorCode::Busy,
            format!("{what}; send it again after the time given"),
            after,
        )
    };
    match rejection {
        Rejection::QueueFull { retry_after } => full("the queue is full", retry_after),
        Rejection::UserQueueFull { retry_after } => full(
            "as many of your requests wait already as one user may have waiting",
            retry_after,
        ),
        Rejection::Shed { retry_after } => full("every function is busy", retry_after),
        Rejection::Deadline => WireError::new(
            ErrorCode::Deadline,
            "the request cannot be answered before its deadline, and was not begun",
        ),
    }
}

fn explain_platform(error: &PlatformError, text: &str) -> WireError {
    let text = text.to_owned();
    match error {
        PlatformError::Throttled { retry_after, .. } => busy(ErrorCode::Busy, text, *retry_after),
        PlatformError::TooLarge { .. } => WireError::new(
            ErrorCode::TooLarge,
            format!("{text}; send fewer or smaller tensors"),
        ),
        PlatformError::Deadline { .. } | PlatformError::TimeLimit { .. } => {
            WireError::new(ErrorCode::Deadline, text)
        }
        PlatformError::InstanceFailed { executed, .. } => WireError::new(
            ErrorCode::InstanceFailed,
            if *executed {
                format!("{text}; it may have executed: send it again with a new request id")
            } else {
                format!("{text}; it was not begun, and a second try failed too")
            },
        ),
        PlatformError::Malformed { .. } => WireError::new(ErrorCode::Internal, text),
        PlatformError::NotFound { .. }
        | PlatformError::Unauthorized
        | PlatformError::Unreachable { .. }
        | PlatformError::Broken { .. }
        | PlatformError::Refused { .. } => WireError::new(ErrorCode::PlatformUnavailable, text),
    }
}

fn too_large(size: &str, limit: usize) -> WireError {
    let plain = limit / 4 * 3 / 1000;
    WireError::new(
        ErrorCode::TooLarge,
        format!(
            "the sealed request has {size}, and the platform takes at most {limit} (about \
             {plain} kB before base64): send a smaller batch, a lower resolution or a narrower \
             datatype"
        ),
    )
}

fn busy(code: ErrorCode, message: String, after: Duration) -> WireError {
    let retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
    WireError {
        code,
        message,
        retry_after_ms,
    }
}
