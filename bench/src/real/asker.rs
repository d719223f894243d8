//! Questions whose right answer is known, and who asks them: seals, sends, opens, checks.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::invoke::{Routing, Telemetry};
use protocol::{ModelId, Tensor};
use sdk::gateway::GatewayError;
use sdk::{Gateway, InferError, RetryPolicy};
use serde::Deserialize;
use tokio::time::Instant;

use super::models::{ModelError, Specimen};
use super::system::{Sealer, Source, System, SystemError};

/// A request that can be sealed any number of times, and the right answer to it.
#[derive(Debug)]
pub struct Question {
    sealer: Sealer,
    expected: Tensor,
}

/// Why a model cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    #[error("cannot make the model")]
    Model(#[from] ModelError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot publish the model")]
    System(#[from] SystemError),
}

impl Question {
    /// Publishes the specimen under this name, with a key of its own, for the system's user.
    pub fn offer(system: &System, model: &ModelId, made: &Specimen) -> Result<Self, OfferError> {
        let folder = system.folder().join("specimen");
        let failed = |path: PathBuf| move |source| OfferError::Write { path, source };
        std::fs::create_dir_all(&folder).map_err(failed(folder.clone()))?;
        let source = Source::folder(&folder);
        let input = json_of("inputs", &made.input);
        let expected = json_of("outputs", &made.expected);
        for (path, bytes) in [
            (&source.onnx, &made.onnx),
            (&source.inputs, &input),
            (&source.expected, &expected),
        ] {
            std::fs::write(path, bytes).map_err(failed(path.clone()))?;
        }
        system.publish(model, &source)?;
        Ok(Self {
            sealer: system.sealer(model, &source)?,
            expected: made.expected.clone(),
        })
    }
}

/// One tensor in the JSON of the Open Inference Protocol.
fn json_of(what: &str, tensor: &Tensor) -> Vec<u8> {
    let tensor = serde_json::json!({
        "name": tensor.name(),
        "shape": tensor.shape(),
        "datatype": "FP32",
        "data": tensor.to_f32().unwrap_or_default(),
    });
    serde_json::json!({ what: [tensor] })
        .to_string()
        .into_bytes()
}

/// Why a question has no right answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("cannot seal the request")]
    Seal(#[from] SystemError),
    #[error("no answer")]
    Infer(#[from] InferError),
    #[error("the answer is wrong")]
    Wrong,
}

/// How a question was answered: rightly.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Attempts beyond the first.
    pub retries: u32,
    pub telemetry: Telemetry,
    pub routing: Routing,
}

/// Sends questions through one FnPacker. Clones share connections.
#[derive(Debug, Clone)]
pub struct Asker {
    gateway: Gateway,
    retry: RetryPolicy,
}

impl Asker {
    /// Asks FnPacker at `url`; a question has an answer within `patience`, or none.
    pub fn new(url: &str, patience: Duration) -> Result<Self, GatewayError> {
        Ok(Self {
            gateway: Gateway::new(url)?,
            retry: RetryPolicy::with_deadline(patience),
        })
    }

    /// Asks until there is an answer, or no time for another attempt.
    pub async fn ask(&self, question: &Question) -> Result<Asked, AskError> {
        let began = Instant::now();
        let mut retries = 0;
        loop {
            let left = self.retry.remaining(began.elapsed());
            let error = match self.attempt(question, left).await {
                Ok((telemetry, routing)) => {
                    return Ok(Asked {
                        retries,
                        telemetry,
                        routing,
                    });
                }
                Err(AskError::Infer(error)) => error,
                Err(error) => return Err(error),
            };
            retries += 1;
            match self.retry.pause(retries, began.elapsed(), &error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error.into()),
            }
        }
    }

    async fn attempt(
        &self,
        question: &Question,
        left: Duration,
    ) -> Result<(Telemetry, Routing), AskError> {
        let pending = question.sealer.seal()?;
        let routed = self
            .gateway
            .infer(pending.request(), left)
            .await
            .map_err(InferError::from)?;
        let (outputs, _) = pending.open(&routed)?;
        if Specimen::is_right(&question.expected, &outputs) {
            Ok((routed.sealed.telemetry, routed.routing))
        } else {
            Err(AskError::Wrong)
        }
    }
}

/// What the platform counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub provisioned_gb_seconds: f64,
    pub busy_gb_seconds: f64,
    pub billed_gb_seconds: f64,
    pub memory_mb: u64,
    pub instances: u64,
    pub idle_instances: u64,
    pub waiting_invocations: u64,
    pub sandboxes_started: u64,
}

/// Why the platform's account is not known.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("cannot read the platform's key")]
    Key(#[from] SystemError),
    #[error("cannot ask the platform")]
    Ask(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the platform's account is not of the expected form")]
    Form(#[from] serde_json::Error),
}

/// Reads the platform's meter.
#[derive(Debug, Clone)]
pub struct Meter {
    url: String,
    authorization: String,
    http: Client<HttpConnector, Empty<Bytes>>,
}

impl Meter {
    /// The meter of this system's platform.
    pub fn new(system: &System) -> Result<Self, SystemError> {
        Ok(Self {
            url: format!("{}/api/v1/namespaces/_/usage", system.platform_url()),
            authorization: format!("Basic {}", STANDARD.encode(system.platform_key()?)),
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// What is counted until now.
    pub async fn usage(&self) -> Result<Usage, UsageError> {
        let request = http::Request::get(&self.url)
            .header(http::header::AUTHORIZATION, &self.authorization)
            .body(Empty::new())
            .map_err(|error| UsageError::Ask(error.into()))?;
        let answer = self.http.request(request).await;
        let body = answer
            .map_err(|error| UsageError::Ask(error.into()))?
            .into_body()
            .collect()
            .await
            .map_err(|error| UsageError::Ask(error.into()))?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }
}
