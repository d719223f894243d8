//! Kept connections to platforms. Each is driven by the call that uses it, in that call's
//! own task: an idle one is at rest, and no task hands bytes to another.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::time::Instant;

type Body = Full<Bytes>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections that are kept, at most.
const IDLE_MAX: usize = 256;
/// How long one is kept: less than any server waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The request was surely not sent.
    Unreachable(Failure),
    /// It may have been taken.
    Broken(Failure),
}

/// Connections that no call is on, by `host:port`.
#[derive(Debug, Default)]
pub(super) struct Connections {
    idle: Mutex<HashMap<Authority, Vec<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Body>,
    driver: Option<http1::Connection<TokioIo<TcpStream>, Body>>,
    /// The same socket, to look whether the peer closed it.
    socket: OwnedFd,
    used: Instant,
}

impl Connection {
    /// Asks the kernel, not the reactor: a request must not be lost on a connection that its
    /// server closed a moment ago.
    fn is_open(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let silent = rustix::net::recv(&self.socket, &mut [0; 1], peek);
        matches!(silent, Err(Errno::AGAIN)) && !self.sender.is_closed()
    }
}

impl Connections {
    /// Sends one request to the `host:port` of its URI and reads its answer, of at most `limit` bytes. Time limits are the
    /// caller's.
    pub(super) async fn call(
        &self,
        mut request: Request<Body>,
        limit: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let authority = aim(&mut request).map_err(CallError::Unreachable)?;
        loop {
            let (mut connection, kept) = match self.kept(&authority) {
                Some(connection) => (connection, true),
                None => {
                    let new = connect(&authority).await.map_err(CallError::Unreachable)?;
                    (new, false)
                }
            };
            let Connection { sender, driver, .. } = &mut connection;
            let sent = drive(driver, async {
                if sender.ready().await.is_err() {
                    return Err(Some(request));
                }
                match sender.try_send_request(request).await {
                    Ok(response) => Ok(read(response, limit).await),
                    Err(mut unsent) => match unsent.take_message() {
                        Some(request) => Err(Some(request)),
                        None => Ok(Err(unsent.into_error().into())),
                    },
                }
            });
            match sent.await {
                Ok(answer) => {
                    let answer = answer.map_err(CallError::Broken)?;
                    self.keep(&authority, connection);
                    return Ok(answer);
                }
                // It was closed before the request was sent: another one will do.
                Err(Some(unsent)) if kept => request = unsent,
                Err(_) => {
                    let closed = "the platform closed a new connection at once";
                    return Err(CallError::Unreachable(closed.into()));
                }
            }
        }
    }

    fn kept(&self, authority: &Authority) -> Option<Connection> {
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = idle.get_mut(authority)?.pop()?;
            drop(idle);
            if connection.used.elapsed() < IDLE_TIMEOUT && connection.is_open() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, authority: &Authority, mut connection: Connection) {
        // Whether it is still open is asked before it is used again.
        if connection.driver.is_none() {
            return;
        }
        connection.used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.get_mut(authority) {
            Some(idle) if idle.len() >= IDLE_MAX => {}
            Some(idle) => idle.push(connection),
            None => drop(idle.insert(authority.clone(), vec![connection])),
        }
    }
}

/// Where a request goes; what goes on the wire has only the path, and the header `Host`.
fn aim(request: &mut Request<Body>) -> Result<Authority, Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let authority = parts.authority.take().ok_or("a request without a host")?;
    parts.scheme = None;
    *request.uri_mut() = Uri::from_parts(parts)?;
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(authority)
}

async fn connect(authority: &Authority) -> Result<Connection, Failure> {
    let address = (
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    );
    let connecting = TcpStream::connect(address);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
    stream.set_nodelay(true)?;
    let socket = stream.as_fd().try_clone_to_owned()?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    Ok(Connection {
        sender,
        driver: Some(driver),
        socket,
        used: Instant::now(),
    })
}

async fn read(
    response: Response<hyper::body::Incoming>,
    limit: usize,
) -> Result<Response<Bytes>, Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Polls the connection together with what waits for it.
async fn drive<T>(
    driver: &mut Option<http1::Connection<TokioIo<TcpStream>, Body>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(connection) = driver.as_mut()
            && Pin::new(connection).poll(cx).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}
