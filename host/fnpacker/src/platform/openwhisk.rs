//! Apache OpenWhisk, and the embedded platform that speaks its REST API, over plain HTTP.
//!
//! Source: Apache OpenWhisk `docs/rest_api.md`, `core/controller` and `common/scala/…/Messages.scala`
//! (the texts by which a failed initialisation is told from a failed run).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use protocol::limits::OPENWHISK_PAYLOAD_MAX;
use protocol::openwhisk::{
    API_BASE, Accepted, Action, ActionPut, ApiError, Exec, KeyValue, LimitsPatch, OWN_NAMESPACE,
};
use tokio::time::Instant;

use super::wire::{self, ApiUrlError, Reply, Wire, excerpt};
use super::{Answer, Caps, FunctionRef, FunctionSpec, Pending, Platform, PlatformError, Record};

mod verdict;

use verdict::ActivationView;

/// The annotation that holds the whole [`FunctionSpec`] as it was deployed.
const SPEC_ANNOTATION: &str = "sesemi-spec";
/// Different in every deployment.
const DEPLOYMENT_ANNOTATION: &str = "sesemi-deployment";
/// Largest answer that is read: a result of 1 MiB, escaped, with logs and the rest.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// No credentials file is longer, in bytes.
const AUTH_MAX: u64 = 4096;
/// For calls that do not wait for a function.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// First and longest pause between two looks for a record, which grows by half each time.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(250);
/// OpenWhisk counts per minute and does not say when to come back.
const THROTTLED_RETRY: Duration = Duration::from_secs(1);

/// Why credentials were not taken. Never shows them.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("cannot read the platform's credentials from {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the platform's credentials are not of the form uuid:key")]
    Form,
}

/// Credentials, ready for the `Authorization` header, which is marked sensitive.
#[derive(Debug, Clone)]
pub struct OpenWhiskAuth(HeaderValue);

impl OpenWhiskAuth {
    /// From `uuid:key`, as OpenWhisk hands it out.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let text = text.trim();
        let form = text
            .split_once(':')
            .is_some_and(|(id, key)| !id.is_empty() && !key.is_empty());
        if !form || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(AuthError::Form);
        }
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text)))
            .map_err(|_| AuthError::Form)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// From a file that holds `uuid:key`.
    pub fn read(path: &Path) -> Result<Self, AuthError> {
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            std::fs::File::open(path)?
                .take(AUTH_MAX)
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| AuthError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text)
    }
}

/// A client of the REST API, with a pool of kept connections.
#[derive(Debug)]
pub struct OpenWhisk {
    /// `http://host:port/api/v1/namespaces/_`
    base: String,
    auth: OpenWhiskAuth,
    wire: Wire,
}

impl OpenWhisk {
    /// A client of the platform at `url`; connects when it is used.
    pub fn new(url: &str, auth: OpenWhiskAuth) -> Result<Self, ApiUrlError> {
        let api = wire::origin(url)?;
        Ok(Self {
            base: format!("{api}{API_BASE}/namespaces/{OWN_NAMESPACE}"),
            auth,
            wire: Wire::new(ANSWER_MAX),
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Reply, PlatformError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.auth.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(wire::unwritten)?;
        self.wire.call(request, patience).await
    }

    async fn ensure_function(&self, spec: &FunctionSpec) -> Result<FunctionRef, PlatformError> {
        let malformed = |source| PlatformError::Malformed { source };
        let wanted = serde_json::to_string(spec).map_err(malformed)?;
        let path = action_path(&spec.name);
        let get = format!("{path}?code=false");
        let found = self
            .call(Method::GET, &get, Bytes::new(), CALL_TIMEOUT)
            .await?;
        match found.status {
            StatusCode::OK => {
                let action: Action = serde_json::from_slice(&found.body).map_err(malformed)?;
                if action.annotation(SPEC_ANNOTATION) == Some(&wanted) {
                    return Ok(FunctionRef {
                        name: spec.name.clone(),
                        written: false,
                    });
                }
            }
            StatusCode::NOT_FOUND => {}
            _ => return Err(refusal(&spec.name, &found)),
        }
        let body = serde_json::to_vec(&put_body(spec, wanted)).map_err(malformed)?;
        let put = format!("{path}?overwrite=true");
        let written = self
            .call(Method::PUT, &put, body.into(), CALL_TIMEOUT)
            .await?;
        if written.status != StatusCode::OK {
            return Err(refusal(&spec.name, &written));
        }
        Ok(FunctionRef {
            name: spec.name.clone(),
            written: true,
        })
    }

    async fn invoke_function(
        &self,
        name: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, PlatformError> {
        let began = Instant::now();
        let path = format!("{}?blocking=true&result=false", action_path(name));
        let reply = self.call(Method::POST, &path, body, patience).await?;
        match reply.status {
            StatusCode::ACCEPTED => {
                let accepted: Accepted = serde_json::from_slice(&reply.body)
                    .map_err(|source| PlatformError::Malformed { source })?;
                self.poll(&accepted.activation_id, began, patience).await
            }
            // A record comes with 200, 502 and 500; an error of the API itself is none.
            StatusCode::OK | StatusCode::BAD_GATEWAY | StatusCode::INTERNAL_SERVER_ERROR => {
                match serde_json::from_slice::<ActivationView<'_>>(&reply.body) {
                    Ok(activation) => verdict::judge(&activation),
                    Err(source) if reply.status == StatusCode::OK => {
                        Err(PlatformError::Malformed { source })
                    }
                    Err(_) => Err(refusal(name, &reply)),
                }
            }
            _ => Err(refusal(name, &reply)),
        }
    }

    /// Waits for the record of an invocation that takes longer than the platform holds a call.
    async fn poll(
        &self,
        activation: &str,
        began: Instant,
        patience: Duration,
    ) -> Result<Answer, PlatformError> {
        let path = format!("/activations/{}", encode(activation));
        let mut pause = POLL_MIN;
        loop {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                let activation = Some(activation.to_owned());
                return Err(PlatformError::Deadline {
                    waited: patience,
                    activation,
                });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 3 / 2).min(POLL_MAX);
            let reply = self
                .call(Method::GET, &path, Bytes::new(), CALL_TIMEOUT)
                .await?;
            match reply.status {
                StatusCode::OK => {
                    let activation = serde_json::from_slice::<ActivationView<'_>>(&reply.body)
                        .map_err(|source| PlatformError::Malformed { source })?;
                    return verdict::judge(&activation);
                }
                StatusCode::NOT_FOUND => {}
                _ => return Err(refusal(activation, &reply)),
            }
        }
    }

    async fn delete_function(&self, name: &str) -> Result<(), PlatformError> {
        let path = action_path(name);
        let reply = self
            .call(Method::DELETE, &path, Bytes::new(), CALL_TIMEOUT)
            .await?;
        match reply.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(refusal(name, &reply)),
        }
    }
}

impl Platform for OpenWhisk {
    fn caps(&self) -> Caps {
        Caps {
            max_payload: OPENWHISK_PAYLOAD_MAX,
            cold_signal: true,
            delete_frees_memory: false,
        }
    }

    fn ensure<'a>(
        &'a self,
        spec: &'a FunctionSpec,
    ) -> Pending<'a, Result<FunctionRef, PlatformError>> {
        Box::pin(self.ensure_function(spec))
    }

    fn invoke<'a>(
        &'a self,
        function: &'a FunctionRef,
        body: Bytes,
        patience: Duration,
    ) -> Pending<'a, Result<Answer, PlatformError>> {
        Box::pin(self.invoke_function(&function.name, body, patience))
    }

    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), PlatformError>> {
        Box::pin(self.delete_function(name))
    }
}

fn put_body(spec: &FunctionSpec, wanted: String) -> ActionPut {
    ActionPut {
        exec: Some(Exec::blackbox(&spec.image)),
        // For `/init` only: whatever a `/run` gets must be the sealed request and nothing else.
        parameters: Some(
            spec.env
                .iter()
                .map(|(key, value)| KeyValue::for_init(key, value.as_str()))
                .collect(),
        ),
        limits: Some(LimitsPatch {
            timeout: Some(spec.timeout_ms),
            memory: Some(spec.memory_mb),
            logs: None,
            concurrency: Some(spec.concurrency),
        }),
        annotations: Some(vec![
            KeyValue::new(SPEC_ANNOTATION, wanted),
            KeyValue::new(DEPLOYMENT_ANNOTATION, unlike_any_before()),
        ]),
        ..ActionPut::default()
    }
}

/// `OpenWhisk` serves an action with a warm container of an equal action, even of one that was
/// deleted meanwhile. One with other annotations is not equal (`ExecutableWhiskAction`).
fn unlike_any_before() -> String {
    // The standard library's seed for hash tables is random, and differs from process to process.
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The error in an answer that holds no record.
fn refusal(function: &str, reply: &Reply) -> PlatformError {
    let message = serde_json::from_slice::<ApiError>(&reply.body)
        .map_or_else(|_| excerpt(&reply.body), |error| error.error);
    match reply.status {
        StatusCode::UNAUTHORIZED => PlatformError::Unauthorized,
        StatusCode::NOT_FOUND => PlatformError::NotFound {
            function: function.to_owned(),
        },
        StatusCode::PAYLOAD_TOO_LARGE => PlatformError::TooLarge { message },
        StatusCode::TOO_MANY_REQUESTS => {
            let told = reply
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok());
            let told = told
                .and_then(|text| text.parse().ok())
                .map(Duration::from_secs);
            PlatformError::Throttled {
                retry_after: told.unwrap_or(THROTTLED_RETRY),
                message,
            }
        }
        status => PlatformError::Refused {
            status: status.as_u16(),
            message,
        },
    }
}

fn action_path(name: &str) -> String {
    format!("/actions/{}", encode(name))
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                write!(out, "%{byte:02X}").unwrap_or_default();
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_deployments_are_equal_actions() {
        assert_ne!(unlike_any_before(), unlike_any_before());
    }
}
