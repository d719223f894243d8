//! Addresses, and HTTPS to a server with a certificate of the test's own.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

#[test]
fn addresses_that_are_none_are_refused() {
    for bad in [
        "",
        "pccs.internal",
        "/path",
        "ftp://pccs.internal",
        "http://user@pccs.internal",
        "http://pccs.internal?x=1",
    ] {
        assert!(Origin::new(bad, None).is_err(), "{bad}");
    }
    let https = Origin::new("https://pccs.internal", None);
    assert!(matches!(https, Err(OriginError::RootsMissing)));
    let origin = Origin::new("http://pccs.internal:8081/cache/", None).unwrap();
    assert_eq!(origin.url("/x?y"), "http://pccs.internal:8081/cache/x?y");
    let origin = Origin::new("http://[::1]:80", None).unwrap();
    assert_eq!(origin.url("/x"), "http://[::1]:80/x");
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    roots: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let roots = TempDir::new().unwrap();
        let pem = attestation::testing::dcap::pem(root.der());
        std::fs::write(roots.path().join("roots.pem"), pem).unwrap();
        Self { params, key, roots }
    }

    fn roots(&self) -> PathBuf {
        self.roots.path().join("roots.pem")
    }

    /// Answers one request on each connection.
    async fn serve(&self, name: &str, tasks: &mut JoinSet<()>) -> u16 {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let leaf = CertificateParams::new(vec![name.into()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    continue;
                };
                assert_ne!(tls.read(&mut [0; 4096]).await.unwrap(), 0);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                tls.write_all(answer).await.ok();
                tls.shutdown().await.ok();
            }
        });
        port
    }
}

#[tokio::test]
async fn https_trusts_the_named_roots_only() {
    let mut tasks = JoinSet::new();
    let (ours, other) = (Authority::new(), Authority::new());
    let get = async |port: u16, roots: &Path| {
        let origin = Origin::new(&format!("https://127.0.0.1:{port}"), Some(roots)).unwrap();
        origin.get("/x").await
    };
    let port = ours.serve("127.0.0.1", &mut tasks).await;
    let answer = get(port, &ours.roots()).await.unwrap();
    assert_eq!(&answer.body[..], b"hi");
    let refused = get(port, &other.roots()).await.unwrap_err();
    assert!(matches!(refused, FetchError::Connect(_)), "{refused}");
    let misnamed = ours.serve("elsewhere.test", &mut tasks).await;
    assert!(get(misnamed, &ours.roots()).await.is_err());
    let missing = Origin::new("https://x.test", Some(Path::new("/nowhere")));
    assert!(matches!(missing, Err(OriginError::Roots { .. })));
}
