//! The ways from a client to an answer, each with one part more than the last.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::action::RunRequest;
use protocol::invoke::{RoutedResponse, Routing, RunResult, SealedResponse};
use protocol::openwhisk::{API_BASE, OWN_NAMESPACE};
use sdk::infer::PendingAnswer;
use serde::{Deserialize, Serialize};

use super::RouterError;
use super::connection::{Connection, Target};
use crate::real::system::Sealer;

/// How far a request goes, and who is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hops {
    /// To a server that answers with what it got: HTTP alone.
    Echo,
    /// To `SeMIRT`.
    Instance,
    /// To the platform, which calls `SeMIRT`.
    Platform,
    /// To `FnPacker`, which calls the platform.
    Router,
}

impl Hops {
    /// Every way, the shortest first.
    pub const ALL: [Self; 4] = [Self::Echo, Self::Instance, Self::Platform, Self::Router];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "bare HTTP hop",
            Self::Instance => "SeMIRT",
            Self::Platform => "platform + SeMIRT",
            Self::Router => "FnPacker + platform + SeMIRT",
        }
    }
}

/// One way, and the sealer of its requests.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) hops: Hops,
    target: Target,
    sealer: Sealer,
}

/// A request ready to be sent, and what opens its answer.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) body: Bytes,
    pending: PendingAnswer,
}

#[derive(Deserialize)]
struct Record {
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    result: RunResult,
}

impl Way {
    /// To a server that speaks this form. `authority` is `host:port`; the platform's key is used
    /// on the way to it only.
    pub(super) fn new(
        hops: Hops,
        address: SocketAddr,
        function: &str,
        key: &str,
        sealer: Sealer,
    ) -> Result<Self, RouterError> {
        let path = match hops {
            Hops::Echo => "/".to_owned(),
            Hops::Instance => "/run".to_owned(),
            Hops::Platform => format!(
                "{API_BASE}/namespaces/{OWN_NAMESPACE}/actions/{function}?blocking=true&result=false"
            ),
            Hops::Router => "/v1/infer".to_owned(),
        };
        let mut target = Target::new(address, &path);
        if hops == Hops::Platform {
            let value = format!("Basic {}", STANDARD.encode(key));
            let value = value.parse().map_err(|_| RouterError::Address)?;
            target.headers.insert(http::header::AUTHORIZATION, value);
        }
        Ok(Self {
            hops,
            target,
            sealer,
        })
    }

    pub(super) async fn connect(&self) -> Result<Connection, RouterError> {
        Ok(Connection::open(&self.target).await?)
    }

    pub(super) fn seal(&self) -> Result<Ready, RouterError> {
        let pending = self.sealer.seal()?;
        let body = match self.hops {
            Hops::Instance => serde_json::to_vec(&RunRequest {
                value: pending.request(),
                namespace: None,
                action_name: None,
                action_version: None,
                activation_id: None,
                transaction_id: None,
                deadline: None,
                api_key: None,
            }),
            Hops::Echo | Hops::Platform | Hops::Router => serde_json::to_vec(pending.request()),
        };
        let body = body.map_err(RouterError::Form)?.into();
        Ok(Ready { body, pending })
    }

    /// Opens an answer as the user would; it is an error if it is not the answer to this request.
    pub(super) fn open(&self, ready: &Ready, answer: &[u8]) -> Result<(), RouterError> {
        let routed = match self.hops {
            Hops::Echo => return Ok(()),
            Hops::Router => serde_json::from_slice(answer).map_err(RouterError::Form)?,
            Hops::Instance => routed(serde_json::from_slice(answer).map_err(RouterError::Form)?)?,
            Hops::Platform => {
                let record: Record = serde_json::from_slice(answer).map_err(RouterError::Form)?;
                routed(record.response.result)?
            }
        };
        ready.pending.open(&routed)?;
        Ok(())
    }
}

/// As `FnPacker` gives it: there was none.
fn routed(result: RunResult) -> Result<RoutedResponse, RouterError> {
    let sealed: SealedResponse = match result {
        RunResult::Sealed(sealed) => sealed,
        RunResult::Error { error, .. } => return Err(RouterError::Refused(error)),
    };
    let routing = Routing {
        function: String::new(),
        activation: None,
        platform_cold: false,
        queue_us: 0,
        start_us: 0,
        total_us: 0,
    };
    Ok(RoutedResponse { sealed, routing })
}
