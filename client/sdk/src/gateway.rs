//! The way to FnPacker: plain HTTP, since it carries ciphertext and ids only and is not trusted.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::invoke::{RoutedResponse, SealedRequest, SubmittedRequest, TIMEOUT_HEADER};
use protocol::limits::PAYLOAD_MAX;
use protocol::{ErrorCode, WireError};
use serde::Serialize;
use url::Url;

use crate::explain::{Explain, advice};

/// Largest answer that is read, in bytes: a full payload in base64, and room for the rest.
const ANSWER_MAX: usize = PAYLOAD_MAX / 3 * 4 + 1024 * 1024;
/// Longest text of an unexpected answer that is shown.
const SHOWN_MAX: usize = 200;

/// Why FnPacker gave no answer. Everything here is the untrusted side's word.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("FnPacker's address '{0}' is not of the form http://host:port")]
    Address(String),
    #[error("cannot write the request")]
    Encode(#[source] serde_json::Error),
    #[error("cannot reach FnPacker at {url}")]
    Unreachable {
        url: Url,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("FnPacker did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("the untrusted side refused the request")]
    Refused(#[source] WireError),
    #[error("FnPacker answered HTTP {status}: {text}")]
    Status {
        status: StatusCode,
        text: String,
        retry_after_ms: Option<u64>,
    },
    #[error("FnPacker's answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("FnPacker's answer broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("FnPacker's answer is not of the expected form")]
    Malformed(#[source] serde_json::Error),
}

impl Explain for GatewayError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Address(_) | Self::Encode(_) => ErrorCode::InvalidRequest,
            Self::Unreachable { .. } | Self::Broken(_) => ErrorCode::PlatformUnavailable,
            Self::Deadline(_) => ErrorCode::Deadline,
            Self::Refused(error) => error.code,
            Self::Status { status, .. } => code_of_status(*status),
            Self::TooLarge | Self::Malformed(_) => ErrorCode::Internal,
        }
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Refused(error) => error.retry_after_ms,
            Self::Status { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Address(_) => {
                "correct `url` under [inference] in the profile; requests are sealed, so plain http is right here".to_owned()
            }
            Self::Malformed(_) | Self::Status { .. } => {
                "check that the address is FnPacker's and that its version fits this client".to_owned()
            }
            Self::Refused(error) => advice(error.code).to_owned(),
            other => advice(other.code()).to_owned(),
        }
    }
}

/// What an answer without a [`WireError`] means: a proxy between, or no FnPacker at all.
fn code_of_status(status: StatusCode) -> ErrorCode {
    match status.as_u16() {
        404 => ErrorCode::NotFound,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::Busy,
        502 | 503 => ErrorCode::PlatformUnavailable,
        504 => ErrorCode::Deadline,
        400..=499 => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    }
}

/// A client of one FnPacker; clones share its connections.
#[derive(Debug, Clone)]
pub struct Gateway {
    base: Url,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Gateway {
    /// A client of FnPacker at `url` (`http://host:port`). Opens no connection yet.
    pub fn new(url: &str) -> Result<Self, GatewayError> {
        let refused = || GatewayError::Address(url.to_owned());
        let base = Url::parse(url).map_err(|_| refused())?;
        if base.scheme() != "http" || base.host().is_none() || base.query().is_some() {
            return Err(refused());
        }
        Ok(Self {
            base,
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Where FnPacker is.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.base
    }

    /// Sends one sealed request and waits for its answer, at most `timeout`.
    pub async fn infer(
        &self,
        request: &SealedRequest,
        timeout: Duration,
    ) -> Result<RoutedResponse, GatewayError> {
        self.send(request, timeout).await
    }

    /// As [`Self::infer`], for a request whose ciphertext may lie in the model store.
    pub async fn submit(
        &self,
        request: &SubmittedRequest,
        timeout: Duration,
    ) -> Result<RoutedResponse, GatewayError> {
        self.send(request, timeout).await
    }

    async fn send(
        &self,
        request: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<RoutedResponse, GatewayError> {
        let body = serde_json::to_vec(request).map_err(GatewayError::Encode)?;
        let answer = self.call(Method::POST, "v1/infer", body, timeout).await?;
        serde_json::from_slice(&answer).map_err(GatewayError::Malformed)
    }

    /// FnPacker's own account of its pools, as JSON.
    pub async fn status(&self, timeout: Duration) -> Result<serde_json::Value, GatewayError> {
        let answer = self
            .call(Method::GET, "v1/status", Vec::new(), timeout)
            .await?;
        serde_json::from_slice(&answer).map_err(GatewayError::Malformed)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, GatewayError> {
        let work = self.exchange(method, path, body, timeout);
        tokio::time::timeout(timeout, work)
            .await
            .unwrap_or(Err(GatewayError::Deadline(timeout)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, GatewayError> {
        let url = endpoint(&self.base, path);
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(TIMEOUT_HEADER, timeout.as_millis().max(1).to_string())
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| GatewayError::Address(self.base.to_string()))?;
        let response =
            self.http
                .request(request)
                .await
                .map_err(|source| GatewayError::Unreachable {
                    url: self.base.clone(),
                    source: source.into(),
                })?;
        read(response).await
    }
}

/// `path` below the base, whether or not the base ends with a slash.
fn endpoint(base: &Url, path: &str) -> String {
    format!("{}/{path}", base.as_str().trim_end_matches('/'))
}

async fn read(response: Response<Incoming>) -> Result<Bytes, GatewayError> {
    let (head, body) = response.into_parts();
    if body.size_hint().lower() > ANSWER_MAX as u64 {
        return Err(GatewayError::TooLarge);
    }
    let body = match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(GatewayError::TooLarge),
        Err(error) => return Err(GatewayError::Broken(error)),
    };
    if head.status.is_success() {
        return Ok(body);
    }
    let retry_after_ms = head
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000));
    match serde_json::from_slice::<WireError>(&body) {
        Ok(mut error) => {
            error.retry_after_ms = error.retry_after_ms.or(retry_after_ms);
            Err(GatewayError::Refused(error))
        }
        Err(_) => {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .filter(|c| !c.is_control())
                .take(SHOWN_MAX)
                .collect();
            Err(GatewayError::Status {
                status: head.status,
                text,
                retry_after_ms,
            })
        }
    }
}

#[cfg(test)]
mod tests;
