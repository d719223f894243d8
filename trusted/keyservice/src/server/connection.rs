//! One attested connection: who is there is settled once, then calls come over HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use attestation::RelyingParty;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::limits::KEYSERVICE_BODY_MAX;
use protocol::{ErrorCode, WireError};
use service::ErrorChain;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use transport::Acceptor;
use zeroize::Zeroizing;

use super::answers;
use crate::broker::Caller;
use crate::command::{Answer, Command};
use crate::keeper::KeeperHandle;
use crate::memory::{Memory, MemoryError};
use crate::metrics::Metrics;
use crate::routes;

/// A connection without a call for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The verdict of the gate is worth this long; then the peer must attest again.
const CHANNEL_TTL: Duration = Duration::from_secs(900);
/// A body that is not complete after this long is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call under way may take when the connection must end.
const GRACE: Duration = Duration::from_secs(5);
/// Request line and headers, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// What serves one connection.
pub(super) struct Connection {
    pub(super) acceptor: Acceptor,
    pub(super) handle: KeeperHandle,
    pub(super) metrics: Metrics,
    pub(super) relying: Arc<RelyingParty>,
    pub(super) memory: Arc<Memory>,
    /// Host time, for the verifiers.
    pub(super) now: Duration,
    pub(super) token: CancellationToken,
}

impl Connection {
    pub(super) async fn serve(self, tcp: TcpStream) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let accepted = self.acceptor.accept(tcp, self.handle.epoch(), self.now);
        let Some(accepted) = self.token.run_until_cancelled(accepted).await else {
            return;
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.metrics.refused_connection();
                tracing::info!(error = %ErrorChain(&error), "a connection is refused");
                return;
            }
        };
        if let Err(error) = self.remember().await {
            tracing::error!(error = %ErrorChain(&error), "a connection is refused");
            return;
        }
        let caller = Caller::from(&peer);
        self.metrics.connected();
        self.serve_calls(TokioIo::new(stream), caller).await;
        self.metrics.disconnected();
    }

    /// Before the first call: what was accepted once must count after a crash, too.
    async fn remember(&self) -> Result<(), MemoryError> {
        let (relying, memory) = (Arc::clone(&self.relying), Arc::clone(&self.memory));
        let kept = tokio::task::spawn_blocking(move || memory.keep(|| relying.verifiers.newest()));
        let kept = kept.await;
        kept.unwrap_or(Err(MemoryError::Seal))
    }

    async fn serve_calls(&self, io: TokioIo<transport::ChannelStream>, caller: Caller) {
        let caller = &caller;
        let calls =
            service_fn(
                |request| async move { Ok::<_, Infallible>(self.answer(request, caller).await) },
            );
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_MAX)
                .max_buf_size(HEAD_MAX)
                .serve_connection(io, calls)
        );
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a channel broke");
                }
                return;
            }
            () = self.token.cancelled() => {}
            () = sleep(CHANNEL_TTL) => {}
        }
        connection.as_mut().graceful_shutdown();
        if timeout(GRACE, connection).await.is_err() {
            tracing::debug!("a channel was cut");
        }
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let route = routes::parse(&head.method, head.uri.path(), head.uri.query());
        let operation = route.as_ref().map_or("unknown", |(spec, _)| spec.operation);
        let answered = match route {
            Ok((_, route)) => self.call(route, body, caller).await,
            Err(error) => Err(answers::of_route_error(&error)),
        };
        self.metrics.called(
            operation,
            answered.as_ref().map(|_| ()).map_err(|error| error.code),
        );
        match answered {
            Ok(answer) => answers::response(&answer),
            Err(error) => answers::error_response(&error),
        }
    }

    async fn call(
        &self,
        route: routes::Route,
        body: Incoming,
        caller: &Caller,
    ) -> Result<Answer, WireError> {
        let body = read(body).await?;
        let command =
            Command::of(route, &body, caller).map_err(|error| answers::of_command_error(&error))?;
        drop(body);
        self.handle.call(command).await.map_err(|refusal| {
            let error = answers::of_refusal(&refusal);
            // The peer learns the code; the log has the reason. No reason holds key bytes.
            tracing::info!(?caller, reason = %ErrorChain(&refusal), code = %error.code, "refused");
            error
        })
    }
}

/// The whole body, which may hold a key: overwritten when dropped.
async fn read(body: Incoming) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let too_large = || {
        let message = format!("a body has at most {KEYSERVICE_BODY_MAX} bytes");
        WireError::new(ErrorCode::TooLarge, message)
    };
    if body.size_hint().lower() > KEYSERVICE_BODY_MAX as u64 {
        return Err(too_large());
    }
    let collected = timeout(
        BODY_TIMEOUT,
        Limited::new(body, KEYSERVICE_BODY_MAX).collect(),
    )
    .await;
    match collected {
        Ok(Ok(body)) => Ok(Zeroizing::new(body.to_bytes().into())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(WireError::new(
            ErrorCode::InvalidRequest,
            "the body ended before its length",
        )),
        Err(_) => Err(WireError::new(
            ErrorCode::Deadline,
            "the body did not come in time",
        )),
    }
}
