//! One HTTP call to a sandbox's server, as OpenWhisk's invoker makes it.
//!
//! The answer must say its length: chunked or unknown length, and 204, count as no answer.
//! One connection per call, unless the image declares that its server keeps connections.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

use crate::verdict::Answer;

/// Connections kept per sandbox, at most.
const IDLE_MAX: usize = 64;

/// Calls the server of one sandbox.
#[derive(Debug)]
pub(crate) struct Caller {
    address: SocketAddr,
    keep_alive: bool,
    idle: Mutex<Vec<Connection>>,
}

/// A connection is driven by the call that uses it; an idle one is at rest.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>,
    /// The same socket, to look whether the peer closed it; only where connections are kept.
    socket: Option<OwnedFd>,
}

impl Connection {
    /// Asks the kernel, not the reactor: a server that ended a moment ago must be noticed before
    /// a request is sent to it, since afterwards nobody knows whether it was begun.
    fn is_open(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut byte = [0; 1];
        let looked = |socket| rustix::net::recv(socket, &mut byte, peek);
        let silent = self.socket.as_ref().map(looked);
        matches!(silent, Some(Err(Errno::AGAIN))) && !self.sender.is_closed()
    }
}

impl Caller {
    #[must_use]
    pub(crate) fn new(address: SocketAddr, keep_alive: bool) -> Self {
        Self {
            address,
            keep_alive,
            idle: Mutex::default(),
        }
    }

    /// Posts `body` to `path`; at most `allowed` bytes of the answer are kept. Waits as long as
    /// the server does: time limits are the caller's.
    pub(crate) async fn post(&self, path: &str, body: Bytes, allowed: usize) -> Answer {
        match self.try_post(path, body, allowed).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "no answer from a sandbox");
                Answer::Nothing
            }
        }
    }

    async fn try_post(&self, path: &str, body: Bytes, allowed: usize) -> hyper::Result<Answer> {
        let Some(mut connection) = self.connect().await? else {
            return Ok(Answer::Refused);
        };
        let request = self.request(path, body);
        let Connection { sender, driver, .. } = &mut connection;
        let exchange = async {
            let response = sender.send_request(request).await?;
            read(response, allowed).await
        };
        let (answer, whole) = drive(driver, exchange).await?;
        if whole && connection.is_open() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        Ok(answer)
    }

    /// A kept connection that is still open, or a new one; `None` if nobody listens.
    async fn connect(&self) -> hyper::Result<Option<Connection>> {
        loop {
            let kept = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let Some(mut connection) = kept else {
                break;
            };
            if !connection.is_open() {
                continue;
            }
            let Connection { sender, driver, .. } = &mut connection;
            if drive(driver, sender.ready()).await.is_ok() {
                return Ok(Some(connection));
            }
        }
        let Ok(stream) = TcpStream::connect(self.address).await else {
            return Ok(None);
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set nodelay");
        }
        // Without a second handle the connection is used once, which is always right.
        let socket = self
            .keep_alive
            .then(|| stream.as_fd().try_clone_to_owned().ok())
            .flatten();
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Some(Connection {
            sender,
            driver: Some(driver),
            socket,
        }))
    }

    fn request(&self, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        let json = header::HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        if let Ok(host) = self.address.to_string().parse() {
            headers.insert(header::HOST, host);
        }
        request
    }
}

/// Polls the connection together with what waits for it, in the caller's own task.
async fn drive<T>(
    driver: &mut Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(connection) = driver.as_mut()
            && Pin::new(connection).poll(cx).is_ready()
        {
            *driver = None;
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(out),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The answer, and whether the body was read to its end.
async fn read(response: Response<Incoming>, allowed: usize) -> hyper::Result<(Answer, bool)> {
    let status = response.status();
    let mut body = response.into_body();
    let Some(length) = body
        .size_hint()
        .exact()
        .filter(|_| status != StatusCode::NO_CONTENT)
    else {
        return Ok((Answer::Nothing, false));
    };
    let fits = usize::try_from(length).is_ok_and(|length| length <= allowed);
    let mut kept = BytesMut::new();
    while kept.len() < allowed || fits {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Ok(bytes) = frame?.into_data() {
            let room = allowed - kept.len();
            kept.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        }
    }
    let (status, head) = (status.as_u16(), kept.freeze());
    if fits {
        return Ok((Answer::Complete { status, body: head }, true));
    }
    let allowed = u64::try_from(allowed).unwrap_or(u64::MAX);
    Ok((
        Answer::TooLong {
            status,
            head,
            length,
            allowed,
        },
        false,
    ))
}
