//! Apache OpenWhisk, and the embedded platform that speaks its REST API, over plain HTTP.
//!
//! Source: Apache OpenWhisk `docs/rest_api.md`, `core/controller` and `common/scala/…/Messages.scala`
//! (the texts by which a failed initialisation is told from a failed run).

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use protocol::limits::OPENWHISK_PAYLOAD_MAX;
use protocol::openwhisk::{
    API_BASE, Accepted, Action, ActionPut, ApiError, Exec, KeyValue, LimitsPatch, OWN_NAMESPACE,
};
use tokio::time::Instant;

use super::{Answer, Caps, FunctionRef, FunctionSpec, Pending, Platform, PlatformError, Record};

mod verdict;

use verdict::ActivationView;

/// The annotation that holds the whole [`FunctionSpec`] as it was deployed.
const SPEC_ANNOTATION: &str = "sesemi-spec";
/// Largest answer that is read: a result of 1 MiB, escaped, with logs and the rest.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// No credentials file is longer, in bytes.
const AUTH_MAX: u64 = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For calls that do not wait for a function.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS: usize = 256;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
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

/// The platform's address is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address of the form http://host:port")]
pub struct ApiUrlError(pub String);

/// A client of the REST API, with a pool of kept connections.
#[derive(Debug)]
pub struct OpenWhisk {
    /// `http://host:port/api/v1/namespaces/_`
    base: String,
    api: String,
    auth: OpenWhiskAuth,
    http: Client<HttpConnector, Full<Bytes>>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl OpenWhisk {
    /// A client of the platform at `url`; connects when it is used.
    pub fn new(url: &str, auth: OpenWhiskAuth) -> Result<Self, ApiUrlError> {
        let refused = || ApiUrlError(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() {
            return Err(refused());
        }
        let api = format!("http://{authority}");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self {
            base: format!("{api}{API_BASE}/namespaces/{OWN_NAMESPACE}"),
            api,
            auth,
            http,
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Reply, PlatformError> {
        let late = |_| PlatformError::Deadline {
            waited: patience,
            activation: None,
        };
        tokio::time::timeout(patience, self.exchange(method, path, body))
            .await
            .map_err(late)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, PlatformError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.auth.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|source| PlatformError::Broken {
                source: source.into(),
            })?;
        let response = self.http.request(request).await.map_err(|source| {
            if source.is_connect() {
                PlatformError::Unreachable {
                    api: self.api.clone(),
                    source: source.into(),
                }
            } else {
                PlatformError::Broken {
                    source: source.into(),
                }
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body
            .map_err(|source| PlatformError::Broken { source })?
            .to_bytes();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
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
        annotations: Some(vec![KeyValue::new(SPEC_ANNOTATION, wanted)]),
        ..ActionPut::default()
    }
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

/// The beginning of a text that somebody else wrote.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
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
