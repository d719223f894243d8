//! The attested channel: TCP, TLS, the attest gate, and then HTTP/1.1 with JSON bodies.

mod error;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use attestation::ratls::server_name;
use attestation::{
    Appraised, AttestedPeer, ClientGate, ClientIdentity, Established, GateError, RatlsError,
    RatlsIdentity, RelyingParty, ServerGate, client_config, server_config,
};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use protocol::WireError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout as within;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::gate::{PassError, pass};
pub use error::{AcceptError, CallError, ConnectError, RequestError};

/// Largest answer of KeyService that a client reads, in bytes: lists are longer than requests.
pub const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// The `Host` of every call; the peer is who its evidence says, not who DNS says.
const HOST: &str = "keyservice";

/// KeyService's end of a channel whose gate is open.
pub type ChannelStream<S = TcpStream> = server::TlsStream<S>;

/// An attested connection to KeyService. Calls go one after the other; when it breaks, connect
/// again: a verdict is of one connection only.
pub struct Channel {
    appraised: Appraised,
    epoch: u64,
    http: SendRequest<Full<Bytes>>,
    /// Drives the connection; aborted when the channel is dropped.
    driver: JoinSet<()>,
    timeout: Duration,
    broken: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("enclave", &self.appraised.enclave())
            .field("epoch", &self.epoch)
            .field("driver", &self.driver.len())
            .finish_non_exhaustive()
    }
}

/// Connects to the KeyService at `addr` (`host:port`) as `who`, and appraises it: the policy's
/// `enclaves` pin E_K. `now` is time since the UNIX epoch, for verifiers. `timeout` bounds the
/// whole attempt, and later each call.
///
/// # Errors
/// [`ConnectError`]; [`ConnectError::retryable`] says whether to try again.
pub async fn connect(
    addr: &str,
    who: &ClientIdentity,
    relying: &Arc<RelyingParty>,
    now: Duration,
    timeout: Duration,
) -> Result<Channel, ConnectError> {
    let attempt = async {
        let tcp = TcpStream::connect(addr)
            .await
            .map_err(|source| ConnectError::Unreachable {
                addr: addr.into(),
                source,
            })?;
        // Requests are small and wait for answers.
        tcp.set_nodelay(true)
            .map_err(|source| ConnectError::Broken {
                addr: addr.into(),
                source,
            })?;
        connect_over(tcp, addr, who, relying, now, timeout).await
    };
    within(timeout, attempt).await.unwrap_or_else(|_| {
        Err(ConnectError::Timeout {
            addr: addr.into(),
            after: timeout,
        })
    })
}

async fn connect_over<S>(
    io: S,
    addr: &str,
    who: &ClientIdentity,
    relying: &Arc<RelyingParty>,
    now: Duration,
    timeout: Duration,
) -> Result<Channel, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = client_config(who).map_err(ConnectError::Prepare)?;
    let mut stream = TlsConnector::from(Arc::new(tls))
        .connect(server_name(), io)
        .await
        .map_err(|source| {
            broken_or(source, addr, |addr, source| ConnectError::Handshake {
                addr,
                source,
            })
        })?;
    let server = pass_client(&mut stream, addr, who, relying, now).await?;
    let (http, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http {
            addr: addr.into(),
            source,
        })?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "channel to keyservice ended");
        }
    });
    Ok(Channel {
        appraised: server.appraised,
        epoch: server.epoch,
        http,
        driver,
        timeout,
        broken: false,
    })
}

async fn pass_client<S>(
    stream: &mut client::TlsStream<S>,
    addr: &str,
    who: &ClientIdentity,
    relying: &Arc<RelyingParty>,
    now: Duration,
) -> Result<attestation::AttestedServer, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (_, connection) = stream.get_ref();
    let established =
        Established::of(connection, who.spki()).map_err(|source| ConnectError::NotOurs {
            addr: addr.into(),
            source,
        })?;
    let (gate, hello) = ClientGate::new(established, who.clone(), Arc::clone(relying), now)
        .map_err(|source| ConnectError::Attest {
            addr: addr.into(),
            source,
        })?;
    let broken = |source| {
        broken_or(source, addr, |addr, source| ConnectError::Broken {
            addr,
            source,
        })
    };
    tokio::io::AsyncWriteExt::write_all(stream, &hello)
        .await
        .map_err(broken)?;
    tokio::io::AsyncWriteExt::flush(stream)
        .await
        .map_err(broken)?;
    pass(stream, gate).await.map_err(|error| match error {
        PassError::Io(source) => {
            // In TLS 1.3 a server refuses a client's certificate after the client's handshake.
            broken_or(source, addr, |addr, source| ConnectError::Handshake {
                addr,
                source,
            })
        }
        PassError::Gate(GateError::Refused(source)) => ConnectError::Refused {
            addr: addr.into(),
            source,
        },
        PassError::Gate(
            source @ (GateError::Collect(_)
            | GateError::Random
            | GateError::Write(_)
            | GateError::OtherIdentity),
        ) => ConnectError::Attest {
            addr: addr.into(),
            source,
        },
        PassError::Gate(source) => ConnectError::NotAttested {
            addr: addr.into(),
            source,
        },
    })
}

/// TLS errors (and alerts) come as `InvalidData`; everything else is the network.
fn broken_or(
    source: io::Error,
    addr: &str,
    tls: impl FnOnce(String, io::Error) -> ConnectError,
) -> ConnectError {
    let addr = addr.to_owned();
    if source.kind() == io::ErrorKind::InvalidData {
        tls(addr, source)
    } else {
        ConnectError::Broken { addr, source }
    }
}

impl Channel {
    /// The KeyService on the other end.
    #[must_use]
    pub const fn appraised(&self) -> &Appraised {
        &self.appraised
    }

    /// KeyService's epoch, bound by its evidence.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether another call makes sense.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.broken && !self.http.is_closed()
    }

    /// Sends one request and reads its answer, both JSON. `path` starts with `/`.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::Remote`] the channel can be used again.
    pub async fn call<B, R>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<R, CallError>
    where
        B: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let request = request(method, path, body).map_err(CallError::Request)?;
        if !self.is_alive() {
            return Err(CallError::Closed);
        }
        // An exchange that ended half-way, or was cancelled, leaves the connection unusable.
        self.broken = true;
        let (status, answer) = within(self.timeout, exchange(&mut self.http, request))
            .await
            .unwrap_or(Err(CallError::Timeout {
                after: self.timeout,
            }))?;
        self.broken = false;
        let malformed = |source| CallError::Malformed {
            status: status.as_u16(),
            source,
        };
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(malformed)
        } else {
            let error: WireError = serde_json::from_slice(&answer).map_err(malformed)?;
            Err(CallError::Remote(error))
        }
    }
}

fn request<B: Serialize + ?Sized>(
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<Request<Full<Bytes>>, RequestError> {
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(RequestError::Body)?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(RequestError::Head)
}

async fn exchange(
    http: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(http::StatusCode, Bytes), CallError> {
    http.ready().await.map_err(CallError::Broken)?;
    let response = http
        .send_request(request)
        .await
        .map_err(CallError::Broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await
        .map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => CallError::Broken(*error),
            Err(error) if error.is::<LengthLimitError>() => CallError::TooLong,
            Err(_) => CallError::Closed,
        })?;
    Ok((status, body.to_bytes()))
}

/// KeyService's end: turns accepted connections into attested ones.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    identity: Arc<RatlsIdentity>,
    relying: Arc<RelyingParty>,
    timeout: Duration,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("identity", &self.identity)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// `relying` appraises instances; `timeout` bounds handshake and gate together.
    ///
    /// # Errors
    /// [`RatlsError`] if the TLS library refuses the configuration.
    pub fn new(
        identity: Arc<RatlsIdentity>,
        relying: Arc<RelyingParty>,
        timeout: Duration,
    ) -> Result<Self, RatlsError> {
        let tls = TlsAcceptor::from(Arc::new(server_config(&identity)?));
        Ok(Self {
            tls,
            identity,
            relying,
            timeout,
        })
    }

    /// Runs handshake and gate on an accepted connection. `epoch` is KeyService's; `now` is time
    /// since the UNIX epoch, for verifiers. The caller bounds how many run at once.
    ///
    /// # Errors
    /// [`AcceptError`]; the peer was told as little as possible.
    pub async fn accept<S>(
        &self,
        io: S,
        epoch: u64,
        now: Duration,
    ) -> Result<(ChannelStream<S>, AttestedPeer), AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let attempt = async {
            let mut stream = self.tls.accept(io).await.map_err(AcceptError::Handshake)?;
            let (_, connection) = stream.get_ref();
            let established =
                Established::of(connection, self.identity.spki()).map_err(AcceptError::NotOurs)?;
            let gate = ServerGate::new(
                established,
                Arc::clone(&self.identity),
                Arc::clone(&self.relying),
                epoch,
                now,
            )
            .map_err(AcceptError::Gate)?;
            let peer = pass(&mut stream, gate).await.map_err(|error| match error {
                PassError::Io(source) => AcceptError::Broken(source),
                PassError::Gate(source) => AcceptError::Gate(source),
            })?;
            Ok((stream, peer))
        };
        within(self.timeout, attempt)
            .await
            .unwrap_or(Err(AcceptError::Timeout {
                after: self.timeout,
            }))
    }
}

#[cfg(test)]
mod tests;
