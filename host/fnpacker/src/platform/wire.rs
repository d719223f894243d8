//! One HTTP exchange with a platform: plain HTTP, since it carries ciphertext and settings only, and
//! since the host links nothing that encrypts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Full;

use super::PlatformError;
use super::connections::{CallError, Connections};

/// Most characters that are shown of a text that somebody else wrote.
const EXCERPT_MAX: usize = 200;

/// The address is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address of the form http://host:port")]
pub struct ApiUrlError(pub String);

/// A client with a pool of kept connections.
#[derive(Debug)]
pub(super) struct Wire {
    http: Connections,
    /// Largest answer that is read, in bytes.
    answer_max: usize,
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// `http://host:port`, and nothing more, from an address in a configuration file.
pub(super) fn origin(url: &str) -> Result<String, ApiUrlError> {
    let refused = || ApiUrlError(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let authority = uri.authority().ok_or_else(refused)?;
    if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() {
        return Err(refused());
    }
    Ok(format!("http://{authority}"))
}

impl Wire {
    pub(super) fn new(answer_max: usize) -> Self {
        let http = Connections::default();
        Self { http, answer_max }
    }

    /// Sends `request` and reads the whole answer, in at most `patience`.
    pub(super) async fn call(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Reply, PlatformError> {
        let late = |_| PlatformError::Deadline {
            waited: patience,
            activation: None,
        };
        tokio::time::timeout(patience, self.exchange(request))
            .await
            .map_err(late)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, PlatformError> {
        let api = request.uri().authority().cloned();
        let answer = self.http.call(request, self.answer_max).await;
        let (head, body) = answer
            .map_err(|error| match error {
                CallError::Unreachable(source) => PlatformError::Unreachable {
                    api: api.map_or_else(String::new, |api| format!("http://{api}")),
                    source,
                },
                CallError::Broken(source) => PlatformError::Broken { source },
            })?
            .into_parts();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

/// A request that cannot be written was not sent.
pub(super) fn unwritten(source: http::Error) -> PlatformError {
    PlatformError::Broken {
        source: source.into(),
    }
}

/// The beginning of a text that somebody else wrote.
pub(super) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(EXCERPT_MAX)]).into_owned()
}
