//! One kept HTTP connection that costs its user little, and the least server that answers it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a server may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("connect to {address}")]
    Connect {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    #[error("answered {status}: {text}")]
    Status { status: StatusCode, text: String },
    #[error("the path or a header has no HTTP form")]
    Form,
}

/// Where requests go, and what goes with each.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
}

impl Target {
    /// Takes JSON.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(host) = address.to_string().parse() {
            headers.insert(HOST, host);
        }
        Self {
            address,
            path: path.to_owned(),
            headers,
        }
    }
}

/// A connection to a target; one request at a time.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: Driver,
}

/// The task that moves a connection's bytes; ends with its owner.
#[derive(Debug)]
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects; for a while if nobody listens yet.
    pub async fn open(target: &Target) -> Result<Self, PostError> {
        let address = target.address;
        let patience = tokio::time::Instant::now() + LISTENS_WITHIN;
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(source) if tokio::time::Instant::now() > patience => {
                    return Err(PostError::Connect { address, source });
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let connect = |source| PostError::Connect { address, source };
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "ended by its owner, the connection"
        )]
        let driver = tokio::spawn(async move {
            // The request that is under way hears of it.
            driver.await.ok();
        });
        Ok(Self {
            target: target.clone(),
            sender,
            _driver: Driver(driver),
        })
    }

    /// Posts a body and gives the body of the answer, which must be a success.
    pub async fn post(&mut self, body: Bytes) -> Result<Bytes, PostError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let path = self.target.path.parse();
        *request.uri_mut() = path.map_err(|_| PostError::Form)?;
        *request.headers_mut() = self.target.headers.clone();
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        Err(PostError::Status { status, text })
    }
}

/// A server on a thread of its own that answers each body with itself: what one hop costs at the
/// least. Lives as long as the process.
pub fn echo() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the client's connection"
        )]
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // The client sees that it broke, and counts.
            connection.await.ok();
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}
