//! One bounded GET: one address, one answer, no redirect, no cookie, no proxy.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From connecting to the last byte.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of an answer, in bytes. Intel's and AMD's have up to 20 KB.
pub const BODY_MAX: usize = 64 * 1024;
/// Largest head of an answer, in bytes: chains of certificates travel in headers.
const HEAD_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("connecting")]
    Connect(#[source] std::io::Error),
    #[error("speaking HTTP")]
    Http(#[source] hyper::Error),
    #[error("the answer is {0}; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer is longer than {BODY_MAX} bytes")]
    TooLong,
    #[error("the answer breaks off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("{0} is not an absolute http or https address without user and query")]
    Address(String),
    #[error("https needs the root certificates that its server is to be verified with")]
    RootsMissing,
    #[error("reading root certificates from {path}")]
    Roots {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("a root certificate is unusable")]
    Root(#[source] rustls::Error),
    #[error("the host has no name that a certificate could be for")]
    Name(#[source] InvalidDnsNameError),
    #[error("configuring TLS")]
    Tls(#[source] rustls::Error),
}

/// Where requests go.
#[derive(Clone)]
pub struct Origin {
    base: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.base)
    }
}

/// An answer with status 200.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Origin {
    /// `base` as in `http://pccs.internal:8081`, perhaps with a path; https needs `roots`: a file
    /// of certificates in PEM. TLS 1.3 only.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn new(base: &str, roots: Option<&Path>) -> Result<Self, OriginError> {
        let bad = || OriginError::Address(base.into());
        let uri: Uri = base.trim_end_matches('/').parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(bad());
        }
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => None,
            Some(scheme) if *scheme == Scheme::HTTPS => {
                let roots = roots.ok_or(OriginError::RootsMissing)?;
                let host = authority.host().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(OriginError::Name)?;
                Some((TlsConnector::from(Arc::new(tls_config(roots)?)), name))
            }
            _ => return Err(bad()),
        };
        Ok(Self { base: uri, tls })
    }

    /// The full address of a path with query.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.to_string().trim_end_matches('/'))
    }

    /// The answer to GET, if it is 200.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, FetchError> {
        tokio::time::timeout(TIMEOUT, self.exchange(path))
            .await
            .unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self, path: &str) -> Result<Answer, FetchError> {
        let host = self
            .base
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']']);
        let standard = if self.tls.is_some() { 443 } else { 80 };
        let port = self.base.port_u16().unwrap_or(standard);
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(FetchError::Connect)?;
        match &self.tls {
            None => self.ask(tcp, path).await,
            Some((connector, name)) => {
                let tls = connector
                    .connect(name.clone(), tcp)
                    .await
                    .map_err(FetchError::Connect)?;
                self.ask(tls, path).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, path: &str) -> Result<Answer, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(FetchError::Http)?;
        let answer = Box::pin(self.answer(sender, path));
        // The connection is driven here, so that nothing outlives the call.
        match select(answer, Box::pin(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, answer)) => answer.await,
        }
    }

    async fn answer(
        &self,
        mut sender: http1::SendRequest<Empty<Bytes>>,
        path: &str,
    ) -> Result<Answer, FetchError> {
        let prefix = self.base.path().trim_end_matches('/');
        let authority = self.base.authority().map_or("", |a| a.as_str());
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = format!("{prefix}{path}").parse().unwrap_or_default();
        for (name, value) in [(HOST, authority), (USER_AGENT, "sesemi"), (ACCEPT, "*/*")] {
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        }
        let response = sender
            .send_request(request)
            .await
            .map_err(FetchError::Http)?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status));
        }
        let body = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    FetchError::TooLong
                } else {
                    FetchError::Body(error)
                }
            })?;
        Ok(Answer {
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

fn tls_config(roots: &Path) -> Result<ClientConfig, OriginError> {
    let unreadable = |source| OriginError::Roots {
        path: roots.into(),
        source,
    };
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).map_err(unreadable)? {
        store
            .add(root.map_err(unreadable)?)
            .map_err(OriginError::Root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(OriginError::Tls)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests;
