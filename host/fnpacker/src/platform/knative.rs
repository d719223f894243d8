//! Knative Serving: functions are Services, made through the Kubernetes API by server-side apply, and
//! invoked by HTTP.
//!
//! Three verbs on one resource need no client library: `kube` without TLS still brings a scheduler of
//! watches, discovery and the types of all of Kubernetes. The API is reached over plain HTTP, through
//! `kubectl proxy` in the same pod, which holds the credentials and speaks TLS: the host's own code
//! has neither.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::wire::{self, ApiUrlError, Reply, Wire, excerpt};
use super::{Answer, Caps, FunctionRef, FunctionSpec, Pending, Platform, PlatformError, Record};

mod manifest;

use manifest::{Readiness, Wanted};

/// Who owns the fields that we apply (Kubernetes, server-side apply).
const FIELD_MANAGER: &str = "sesemi-fnpacker";
/// Largest answer that is read beyond a payload.
const ANSWER_BESIDE: usize = 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Attempts at a write that somebody else's write overtakes.
const WRITES: u32 = 4;
/// First and longest pause between two looks at a Service, which grows by half each time.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// A full queue does not say when to come back.
const OVERLOADED_RETRY: Duration = Duration::from_secs(1);

/// `[knative]` of the configuration file: where it is, and what every function there has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnativeConfig {
    /// `http://host:port` of `kubectl proxy`.
    pub api: String,
    pub namespace: String,
    /// `http://host:port` that takes invocations for all functions, told apart by `Host`; without
    /// it each is asked for by its own name.
    #[serde(default)]
    pub ingress: Option<String>,
    /// Ends a function's host name: `NAME.NAMESPACE.DOMAIN`.
    #[serde(default = "default_domain")]
    pub domain: String,
    /// CPUs of an instance, as a Kubernetes quantity.
    #[serde(default = "default_cpu")]
    pub cpu: String,
    /// Further limits of an instance, such as `sgx.intel.com/enclave = "1"`.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
    /// `RuntimeClass` of confidential containers, such as `kata-qemu-tdx`.
    #[serde(default)]
    pub runtime_class: Option<String>,
    /// User that the instance runs as, where not the image's own: configfs-tsm wants 0.
    #[serde(default)]
    pub user: Option<u32>,
    #[serde(default)]
    pub min_scale: u32,
    /// Instances of one function. FnPacker counts on one.
    #[serde(default = "default_max_scale")]
    pub max_scale: u32,
    /// How long the last idle instance stays; at most an hour (Knative).
    #[serde(default = "default_keep_alive", with = "service::units::duration")]
    pub keep_alive: Duration,
    /// How long a new Service may take until it is ready: its image is pulled, one instance started.
    #[serde(default = "default_ready", with = "service::units::duration")]
    pub ready: Duration,
    /// Largest invocation; not above SeMIRT's `body_max`.
    #[serde(default = "default_max_payload", with = "service::units::bytes")]
    pub max_payload: u64,
}

fn default_domain() -> String {
    "svc.cluster.local".to_owned()
}

fn default_cpu() -> String {
    "1".to_owned()
}

const fn default_max_scale() -> u32 {
    1
}

const fn default_keep_alive() -> Duration {
    Duration::from_secs(180)
}

const fn default_ready() -> Duration {
    Duration::from_secs(120)
}

const fn default_max_payload() -> u64 {
    31 << 20
}

/// What is wrong with `[knative]`, or with a function that it would have to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnativeConfigError {
    #[error(
        "the function '{0}' cannot be a Knative Service: pool names there have small letters, digits and '-', and are short"
    )]
    Name(String),
    #[error("{0} in [pool.init] is set by Knative itself")]
    Reserved(&'static str),
    #[error("namespace '{0}' of [knative] is no name of a Kubernetes namespace")]
    Namespace(String),
    #[error("{0} of [knative] is out of range")]
    Range(&'static str),
}

impl KnativeConfig {
    /// Checks what can be checked without asking Knative.
    pub fn check<'a>(
        &self,
        mut functions: impl Iterator<Item = &'a FunctionSpec>,
    ) -> Result<(), KnativeConfigError> {
        if !manifest::is_dns_label(&self.namespace) {
            return Err(KnativeConfigError::Namespace(self.namespace.clone()));
        }
        let hour = Duration::from_secs(3600);
        let checks = [
            ("max_scale", self.max_scale >= self.min_scale.max(1)),
            ("keep_alive", self.keep_alive <= hour),
            (
                "max_payload",
                usize::try_from(self.max_payload).is_ok_and(|n| n > 0),
            ),
        ];
        if let Some((field, _)) = checks.into_iter().find(|(_, fits)| !fits) {
            return Err(KnativeConfigError::Range(field));
        }
        functions.try_for_each(manifest::check)
    }
}

/// A client of the Kubernetes API and of the functions.
#[derive(Debug)]
pub struct Knative {
    config: KnativeConfig,
    /// `http://host:port/apis/serving.knative.dev/v1/namespaces/NAMESPACE/services`
    services: String,
    ingress: Option<String>,
    wire: Wire,
}

impl Knative {
    /// A client for `config`; connects when it is used.
    pub fn new(config: KnativeConfig) -> Result<Self, ApiUrlError> {
        let api = wire::origin(&config.api)?;
        let ingress = config.ingress.as_deref().map(wire::origin).transpose()?;
        let max = usize::try_from(config.max_payload).unwrap_or(usize::MAX);
        Ok(Self {
            services: format!(
                "{api}/apis/serving.knative.dev/v1/namespaces/{}/services",
                config.namespace
            ),
            ingress,
            wire: Wire::new(max.saturating_add(ANSWER_BESIDE)),
            config,
        })
    }

    async fn api(
        &self,
        method: Method,
        name: &str,
        query: &str,
        body: Bytes,
    ) -> Result<Reply, PlatformError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{name}{query}", self.services))
            // JSON is YAML.
            .header(CONTENT_TYPE, "application/apply-patch+yaml")
            .body(Full::new(body))
            .map_err(wire::unwritten)?;
        self.wire.call(request, CALL_TIMEOUT).await
    }

    /// The Service as it is; absent is no error.
    async fn look(&self, name: &str) -> Result<Option<Value>, PlatformError> {
        let reply = self.api(Method::GET, name, "", Bytes::new()).await?;
        match reply.status {
            StatusCode::OK => read(&reply).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(&reply)),
        }
    }

    /// Writes the Service, taking over fields that others had set: whoever edits it by hand is told
    /// so by `kubectl`, and a new specification counts.
    async fn apply(&self, name: &str, wanted: &Wanted) -> Result<Value, PlatformError> {
        let query = format!("?fieldManager={FIELD_MANAGER}&force=true");
        let body = Bytes::from(wanted.service.to_string());
        let mut writes = 1;
        loop {
            let reply = self.api(Method::PATCH, name, &query, body.clone()).await?;
            match reply.status {
                StatusCode::OK | StatusCode::CREATED => return read(&reply),
                // Two writers at once: the API server wants the loser to try again.
                StatusCode::CONFLICT if writes < WRITES => writes += 1,
                _ => return Err(refusal(&reply)),
            }
        }
    }

    async fn ensure_service(&self, spec: &FunctionSpec) -> Result<FunctionRef, PlatformError> {
        let began = Instant::now();
        let wanted = manifest::service(&self.config, spec);
        let found = self.look(&spec.name).await?;
        let same = found.filter(|is| manifest::deployed_spec(is) == Some(wanted.spec.as_str()));
        let written = same.is_none();
        let mut service = match same {
            Some(service) => service,
            None => self.apply(&spec.name, &wanted).await?,
        };
        let mut pause = LOOK_MIN;
        loop {
            match manifest::readiness(&service) {
                Readiness::Ready => {
                    return Ok(FunctionRef {
                        name: spec.name.clone(),
                        written,
                    });
                }
                Readiness::Failed(why) => return Err(not_begun(format!("not ready: {why}"))),
                Readiness::NotYet => {}
            }
            let left = self.config.ready.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(PlatformError::Deadline {
                    waited: self.config.ready,
                    activation: None,
                });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 3 / 2).min(LOOK_MAX);
            // Somebody may delete it while we wait.
            service = self.look(&spec.name).await?.unwrap_or_default();
        }
    }

    async fn invoke_service(
        &self,
        name: &str,
        body: &Bytes,
        patience: Duration,
    ) -> Result<Answer, PlatformError> {
        let host = format!("{name}.{}.{}", self.config.namespace, self.config.domain);
        let base = self
            .ingress
            .clone()
            .unwrap_or_else(|| format!("http://{host}"));
        let request = Request::post(format!("{base}/run"))
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(run_body(body)))
            .map_err(wire::unwritten)?;
        let began = Instant::now();
        let reply = self.wire.call(request, patience).await?;
        judge(name, &reply, began.elapsed())
    }

    /// Deletes the Service and waits until it is gone, its pods before it: a dying one looks ready,
    /// and whoever took it for the next one would meet the former tenants.
    async fn delete_service(&self, name: &str) -> Result<(), PlatformError> {
        let began = Instant::now();
        let foreground = "?propagationPolicy=Foreground";
        let reply = self
            .api(Method::DELETE, name, foreground, Bytes::new())
            .await?;
        match reply.status {
            StatusCode::NOT_FOUND => return Ok(()),
            StatusCode::OK | StatusCode::ACCEPTED => {}
            _ => return Err(refusal(&reply)),
        }
        let mut pause = LOOK_MIN;
        while self.look(name).await?.is_some() {
            let left = self.config.ready.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(PlatformError::Deadline {
                    waited: self.config.ready,
                    activation: None,
                });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 3 / 2).min(LOOK_MAX);
        }
        Ok(())
    }
}

impl Platform for Knative {
    fn caps(&self) -> Caps {
        Caps {
            max_payload: usize::try_from(self.config.max_payload).unwrap_or(usize::MAX),
            cold_signal: false,
            delete_frees_memory: true,
        }
    }

    fn ensure<'a>(
        &'a self,
        spec: &'a FunctionSpec,
    ) -> Pending<'a, Result<FunctionRef, PlatformError>> {
        Box::pin(self.ensure_service(spec))
    }

    fn invoke<'a>(
        &'a self,
        function: &'a FunctionRef,
        body: Bytes,
        patience: Duration,
    ) -> Pending<'a, Result<Answer, PlatformError>> {
        Box::pin(async move { self.invoke_service(&function.name, &body, patience).await })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), PlatformError>> {
        Box::pin(self.delete_service(name))
    }
}

/// The body of SeMIRT's `/run` around a request, which is passed on as it came.
fn run_body(request: &Bytes) -> Bytes {
    [b"{\"value\":", request.as_ref(), b"}"].concat().into()
}

/// What came back from the function, or from what stands before it: the ingress, the activator and
/// the queue-proxy. The platform keeps no record; `duration` is what passed here.
fn judge(name: &str, reply: &Reply, duration: Duration) -> Result<Answer, PlatformError> {
    let record = Record {
        duration,
        ..Record::default()
    };
    let message = || excerpt(&reply.body);
    match reply.status {
        StatusCode::OK => Ok(Answer {
            body: reply.body.clone(),
            record,
        }),
        // Nobody knows the name yet, or any more.
        StatusCode::NOT_FOUND => Err(PlatformError::NotFound {
            function: name.to_owned(),
        }),
        // SeMIRT's word for "not initialised".
        StatusCode::FORBIDDEN => Err(not_begun(message())),
        // The instance went away while it worked.
        StatusCode::BAD_GATEWAY => Err(PlatformError::InstanceFailed {
            message: message(),
            executed: true,
            record,
        }),
        StatusCode::GATEWAY_TIMEOUT => Err(PlatformError::TimeLimit {
            message: message(),
            record,
        }),
        _ => Err(refusal(reply)),
    }
}

fn not_begun(message: String) -> PlatformError {
    PlatformError::InstanceFailed {
        message,
        executed: false,
        record: Record::default(),
    }
}

/// The error in an answer of the Kubernetes API (a `Status`), or of what stands before a function.
fn refusal(reply: &Reply) -> PlatformError {
    let status = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let message = status["message"]
        .as_str()
        .map_or_else(|| excerpt(&reply.body), ToOwned::to_owned);
    match reply.status {
        StatusCode::UNAUTHORIZED => PlatformError::Unauthorized,
        StatusCode::PAYLOAD_TOO_LARGE => PlatformError::TooLarge { message },
        // Every place is taken, and those of the queue.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let told = reply.headers.get(RETRY_AFTER);
            let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
            PlatformError::Throttled {
                retry_after: told.map_or(OVERLOADED_RETRY, Duration::from_secs),
                message,
            }
        }
        status => PlatformError::Refused {
            status: status.as_u16(),
            message,
        },
    }
}

fn read(reply: &Reply) -> Result<Value, PlatformError> {
    serde_json::from_slice(&reply.body).map_err(|source| PlatformError::Malformed { source })
}
