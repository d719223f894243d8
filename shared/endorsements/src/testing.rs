//! For tests only: a PCCS and a KDS that answer what the fake vendors of `attestation` sign, and
//! misbehave on demand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "compiled for tests only, where a panic is the way to report"
)]

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use attestation::Endorsements;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::fetch::BODY_MAX;

/// How a server misbehaves on its next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFault {
    /// Takes the request and never answers.
    Hang,
    /// Answers the head and never the body.
    HangInBody,
    /// Another status, with the right answer as its body.
    Status(u16),
    /// Sends the client to a place that has the right answer.
    Redirect,
    /// A body longer than its reader takes, announced or not.
    TooLong { announced: bool },
    /// Half of the body, and then the end.
    BreakOff,
    /// None of the headers that belong to the answer.
    NoHeaders,
    /// A head longer than its reader takes.
    HugeHead,
    /// Bytes that are not what the path stands for.
    Garbage,
}

/// What is at a path.
#[derive(Debug, Clone, Default)]
struct Page {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By path with query.
    pages: Mutex<HashMap<String, Page>>,
    script: Mutex<VecDeque<ServerFault>>,
    requests: Mutex<Vec<String>>,
}

/// A server on a port of this machine; it ends when dropped.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

impl FakeServer {
    /// Has no page yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    /// Its address, as in `http://127.0.0.1:4711`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Faults, one for each request.
    pub fn script(&self, faults: impl IntoIterator<Item = ServerFault>) {
        self.shared.script.lock().unwrap().extend(faults);
    }

    /// Paths that were asked for, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Puts a page; without a body it is gone.
    pub fn put(&self, path: &str, body: Option<&[u8]>) {
        let mut pages = self.shared.pages.lock().unwrap();
        match body {
            Some(body) => {
                let page = pages.entry(path.into()).or_default();
                page.body = body.to_vec();
            }
            None => drop(pages.remove(path)),
        }
    }

    /// Serves collateral (`QuoteCollateralV3` in JSON) for `fmspc` as a PCCS does: chains in
    /// headers, the root's revocation list in hexadecimal. `tee` is `sgx` or `tdx`, `ca`
    /// `processor` or `platform`.
    pub fn put_collateral(&self, tee: &str, fmspc: &[u8; 6], ca: &str, collateral: &[u8]) {
        let json: Value = serde_json::from_slice(collateral).unwrap();
        let text = |member: &str| json[member].as_str().unwrap().to_owned();
        let signed = |name: &str, member: &str| {
            let signature = text(&format!("{member}_signature"));
            format!(r#"{{"{name}":{},"signature":"{signature}"}}"#, text(member)).into_bytes()
        };
        let fmspc = hex::encode_upper(fmspc);
        let pages = [
            (
                format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
                Some(("SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain")),
                hex::decode(text("pck_crl")).unwrap(),
            ),
            (
                format!("/{tee}/certification/v4/tcb?fmspc={fmspc}"),
                Some(("TCB-Info-Issuer-Chain", "tcb_info_issuer_chain")),
                signed("tcbInfo", "tcb_info"),
            ),
            (
                format!("/{tee}/certification/v4/qe/identity"),
                Some((
                    "SGX-Enclave-Identity-Issuer-Chain",
                    "qe_identity_issuer_chain",
                )),
                signed("enclaveIdentity", "qe_identity"),
            ),
            (
                "/sgx/certification/v4/rootcacrl".into(),
                None,
                text("root_ca_crl").into_bytes(),
            ),
        ];
        let mut all = self.shared.pages.lock().unwrap();
        for (path, header, body) in pages {
            let headers = header
                .map(|(name, member)| (name, percent_encoded(&text(member))))
                .into_iter()
                .collect();
            all.insert(path, Page { headers, body });
        }
    }

    /// Serves a VEK under `path`, and its issuers, as a KDS does. `line` is as in `vcek/v1/Milan`.
    pub fn put_vek(&self, line: &str, path: &str, endorsements: &Endorsements) {
        let Endorsements::Snp { vek, chain } = endorsements else {
            return;
        };
        let chain: String = chain
            .iter()
            .map(|der| attestation::testing::dcap::pem(der))
            .collect();
        self.put(path, Some(vek));
        self.put(&format!("/{line}/cert_chain"), Some(chain.as_bytes()));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    shared.requests.lock().unwrap().push(path.clone());
    let fault = shared.script.lock().unwrap().pop_front();
    let page = shared.pages.lock().unwrap().get(&path).cloned();
    let found = page.is_some();
    let mut page = page.unwrap_or_default();
    let mut status = if found { 200 } else { 404 };
    let mut cut = page.body.len();
    match fault {
        Some(ServerFault::Hang) => std::future::pending().await,
        Some(ServerFault::HangInBody) => cut = 0,
        Some(ServerFault::Status(other)) => status = other,
        Some(ServerFault::Redirect) => {
            status = 302;
            page.headers.push(("Location", path));
        }
        Some(ServerFault::TooLong { .. }) => {
            page.body.resize(BODY_MAX + 1, b' ');
            cut = page.body.len();
        }
        Some(ServerFault::BreakOff) => cut /= 2,
        Some(ServerFault::NoHeaders) => page.headers.clear(),
        Some(ServerFault::HugeHead) => page.headers.push(("X-Huge", "x".repeat(200_000))),
        Some(ServerFault::Garbage) => {
            page.body = b"{garbage".to_vec();
            cut = page.body.len();
        }
        None => {}
    }
    let mut answer = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    if fault != Some(ServerFault::TooLong { announced: false }) {
        write!(answer, "Content-Length: {}\r\n", page.body.len()).unwrap();
    }
    for (name, value) in &page.headers {
        write!(answer, "{name}: {value}\r\n").unwrap();
    }
    answer.push_str("\r\n");
    let mut wire = answer.into_bytes();
    wire.extend(&page.body[..cut]);
    // A client that has read enough goes away.
    stream.write_all(&wire).await.ok();
    if fault == Some(ServerFault::HangInBody) {
        std::future::pending::<()>().await;
    }
}
