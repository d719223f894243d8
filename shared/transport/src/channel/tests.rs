//! The channel over real sockets: who gets in, what a break looks like, and what every call is.

use std::net::SocketAddr;
use std::sync::Mutex;

use attestation::testing::{SoftEnclave, SoftTee};
use attestation::{Allowed, AppraisalPolicy, CheckName, MeasuredConfig};
use crypto::identity::IdentityKey;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::{Digest, EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::KeyserviceClient;

const KEYSERVICE: SoftEnclave = SoftEnclave::new(1);
const TIMEOUT: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn keyservice_config() -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn e_k() -> EnclaveId {
    SoftTee::enclave_id(KEYSERVICE, &keyservice_config())
}

fn acceptor(tee: &SoftTee, enclave: SoftEnclave) -> Acceptor {
    let identity = RatlsIdentity::generate(tee.attester(enclave), keyservice_config()).unwrap();
    Acceptor::new(Arc::new(identity), tee.relying(Allowed::Any), TIMEOUT).unwrap()
}

fn user() -> ClientIdentity {
    ClientIdentity::principal(&IdentityKey::generate().unwrap()).unwrap()
}

fn instance(tee: &SoftTee) -> ClientIdentity {
    let config = MeasuredConfig::semirt(
        &SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: 1,
            key_ttl_s: 1,
            model_memory: 1,
            engines: Vec::new(),
            keyservice: e_k(),
        },
        &AppraisalPolicy::default(),
    )
    .unwrap();
    let attester = tee.attester(SoftEnclave::new(2));
    ClientIdentity::Instance(Arc::new(RatlsIdentity::generate(attester, config).unwrap()))
}

fn pinned(tee: &SoftTee) -> Arc<RelyingParty> {
    tee.relying(Allowed::These(vec![e_k()]))
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    (listener, addr.to_string())
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Accepts one connection after the other and answers every call by its path.
async fn serve(listener: TcpListener, acceptor: Acceptor, seen: Seen) {
    while let Ok((tcp, _)) = listener.accept().await {
        let Ok((stream, _)) = acceptor.accept(tcp, 7, NOW).await else {
            continue;
        };
        let service = service_fn(|request: Request<Incoming>| answer(request, Arc::clone(&seen)));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        let _ended = connection.await;
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Seen,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    let (status, text) = match line.as_str() {
        "GET /echo" => (StatusCode::OK, "{\"epoch\":7}".to_owned()),
        "POST /echo" => (StatusCode::OK, String::from_utf8_lossy(&body).into_owned()),
        "GET /denied" => {
            let error = WireError::new(ErrorCode::NotGranted, "no");
            (
                StatusCode::FORBIDDEN,
                serde_json::to_string(&error).unwrap(),
            )
        }
        "GET /garbage" => (StatusCode::OK, "<html>".to_owned()),
        "GET /garbage-error" => (StatusCode::BAD_GATEWAY, "<html>".to_owned()),
        "GET /long" => (StatusCode::OK, " ".repeat(ANSWER_MAX + 1)),
        "GET /hang" => std::future::pending().await,
        "GET /break" => return Err(io::ErrorKind::ConnectionAborted.into()),
        _ => (StatusCode::NOT_FOUND, "{}".to_owned()),
    };
    seen.lock().unwrap().push(line);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

struct Service {
    addr: String,
    seen: Seen,
    _running: JoinSet<()>,
}

async fn service(acceptor: Acceptor) -> Service {
    let (listener, addr) = listener().await;
    let seen = Seen::default();
    let mut running = JoinSet::new();
    running.spawn(serve(listener, acceptor, Arc::clone(&seen)));
    Service {
        addr,
        seen,
        _running: running,
    }
}

async fn channel(service: &Service, tee: &SoftTee) -> Channel {
    connect(&service.addr, &user(), &pinned(tee), NOW, TIMEOUT)
        .await
        .unwrap()
}

async fn get(channel: &mut Channel, path: &str) -> Result<serde_json::Value, CallError> {
    channel.call(Method::GET, path, None::<&()>).await
}

#[tokio::test]
async fn users_and_instances_call_in_an_attested_channel() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    for who in [user(), instance(&tee)] {
        let mut channel = connect(&service.addr, &who, &pinned(&tee), NOW, TIMEOUT)
            .await
            .unwrap();
        assert_eq!((channel.appraised().enclave(), channel.epoch()), (e_k(), 7));
        assert_eq!(channel.appraised().at(), NOW);
        for _ in 0..3 {
            assert_eq!(get(&mut channel, "/echo").await.unwrap()["epoch"], 7);
        }
        let sent = serde_json::json!({ "a": [1, 2, 3] });
        let echoed: serde_json::Value = channel
            .call(Method::POST, "/echo", Some(&sent))
            .await
            .unwrap();
        assert_eq!(echoed, sent);
        assert!(channel.is_alive());
    }
}

#[tokio::test]
async fn the_acceptor_tells_principals_from_instances() {
    let tee = SoftTee::new(1);
    let acceptor = acceptor(&tee, KEYSERVICE);
    let (listener, addr) = listener().await;
    for who in [user(), instance(&tee)] {
        let accept = async {
            let (tcp, _) = listener.accept().await.unwrap();
            acceptor.accept(tcp, 1, NOW).await.unwrap().1
        };
        let relying = pinned(&tee);
        let connect = connect(&addr, &who, &relying, NOW, TIMEOUT);
        let (peer, channel) = tokio::join!(accept, connect);
        channel.unwrap();
        match (&who, peer) {
            (ClientIdentity::Principal(own), AttestedPeer::Principal(seen)) => {
                assert_eq!(own.principal(), seen);
            }
            (ClientIdentity::Instance(_), AttestedPeer::Instance(appraised)) => {
                assert_eq!(appraised.config().kind(), "semirt");
            }
            (who, peer) => panic!("{who:?} is taken for {peer:?}"),
        }
    }
}

#[tokio::test]
async fn an_impostor_of_keyservice_is_refused_and_not_tried_again() {
    let tee = SoftTee::new(1);
    // Another build, and the same build signed by another vendor.
    let other_build = service(acceptor(&tee, SoftEnclave::new(9))).await;
    let other_vendor = service(acceptor(&SoftTee::new(2), KEYSERVICE)).await;
    for (service, check) in [
        (other_build, CheckName::Enclave),
        (other_vendor, CheckName::CertificateEvidence),
    ] {
        let error = connect(&service.addr, &user(), &pinned(&tee), NOW, TIMEOUT)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::NotAttested { .. }),
            "{error:?}"
        );
        assert_eq!(
            (error.code(), error.retryable()),
            (ErrorCode::NotAttested, false)
        );
        let failed = error.scorecard().unwrap().check(check).unwrap();
        assert_eq!(failed.status, attestation::Status::Fail);
    }
}

#[tokio::test]
async fn an_instance_that_is_not_attested_is_told_so() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    let who = instance(&SoftTee::new(2));
    let error = connect(&service.addr, &who, &pinned(&tee), NOW, TIMEOUT)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    assert_eq!(
        (error.code(), error.retryable()),
        (ErrorCode::NotAttested, false)
    );
}

#[tokio::test]
async fn nobody_listening_is_worth_another_try() {
    let (listener, addr) = listener().await;
    drop(listener);
    let tee = SoftTee::new(1);
    let error = connect(&addr, &user(), &pinned(&tee), NOW, TIMEOUT)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(
        (error.code(), error.retryable()),
        (ErrorCode::KeyserviceUnavailable, true)
    );
}

#[tokio::test]
async fn a_connection_that_breaks_early_is_worth_another_try() {
    let (listener, addr) = listener().await;
    let tee = SoftTee::new(1);
    let (who, relying) = (user(), pinned(&tee));
    let (error, _) = tokio::join!(connect(&addr, &who, &relying, NOW, TIMEOUT), async {
        drop(listener.accept().await.unwrap());
    });
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error:?}");
    assert!(error.retryable());
}

#[tokio::test]
async fn what_is_not_tls_is_not_attested() {
    let (listener, addr) = listener().await;
    let tee = SoftTee::new(1);
    let (who, relying) = (user(), pinned(&tee));
    let (error, _) = tokio::join!(connect(&addr, &who, &relying, NOW, TIMEOUT), async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        let _reset = tcp.read_to_end(&mut rest).await;
    });
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
    assert!(!error.retryable());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_and_a_silent_client_time_out() {
    let (listener, addr) = listener().await;
    let tee = SoftTee::new(1);
    let error = connect(&addr, &user(), &pinned(&tee), NOW, TIMEOUT)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Timeout { after: TIMEOUT, .. }),
        "{error:?}"
    );
    assert!(error.retryable());

    let (_silent, io) = tokio::io::duplex(4096);
    let error = acceptor(&tee, KEYSERVICE)
        .accept(io, 0, NOW)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AcceptError::Timeout { after: TIMEOUT }),
        "{error:?}"
    );
    drop(listener);
}

/// A client that finished TLS and now sends `frame` in place of its hello.
async fn after_tls(frame: &[u8]) -> (AcceptError, Vec<u8>) {
    let tee = SoftTee::new(1);
    let acceptor = acceptor(&tee, KEYSERVICE);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let client = async {
        let tls = TlsConnector::from(Arc::new(client_config(&user()).unwrap()));
        let mut stream = tls.connect(server_name(), ours).await.unwrap();
        stream.write_all(frame).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _eof = stream.read_to_end(&mut answer).await;
        answer
    };
    let (result, answer) = tokio::join!(acceptor.accept(theirs, 0, NOW), client);
    (result.unwrap_err(), answer)
}

#[tokio::test]
async fn hostile_frames_end_the_gate_with_a_coarse_verdict() {
    let (error, answer) = after_tls(&[0xff; 64]).await;
    assert!(
        matches!(error, AcceptError::Gate(GateError::Frame(_))),
        "{error:?}"
    );
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.contains("sesemi/gate/verdict/1") && text.contains("invalid_request"),
        "{text}"
    );

    let (error, _) = after_tls(&[0, 0, 0, 0]).await;
    assert!(
        matches!(error, AcceptError::Gate(GateError::Frame(_))),
        "{error:?}"
    );
    let (error, _) = after_tls(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(
        matches!(error, AcceptError::Gate(GateError::Frame(_))),
        "{error:?}"
    );
    // Half a frame, and nothing at all.
    let (error, _) = after_tls(&[0, 0, 0, 9, 1, 2]).await;
    assert!(matches!(error, AcceptError::Broken(_)), "{error:?}");
    let (error, _) = after_tls(&[]).await;
    assert!(matches!(error, AcceptError::Broken(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_in_the_gate_times_out() {
    let tee = SoftTee::new(1);
    let acceptor = acceptor(&tee, KEYSERVICE);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let client = async {
        let tls = TlsConnector::from(Arc::new(client_config(&user()).unwrap()));
        let mut stream = tls.connect(server_name(), ours).await.unwrap();
        stream.write_all(&[0, 0, 1, 0, 0x83]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (result, _stream) = tokio::join!(acceptor.accept(theirs, 0, NOW), client);
    assert!(matches!(result, Err(AcceptError::Timeout { .. })));
}

#[tokio::test]
async fn a_client_without_the_application_protocol_does_not_reach_the_gate() {
    let tee = SoftTee::new(1);
    let acceptor = acceptor(&tee, KEYSERVICE);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let client = async {
        let mut config = client_config(&user()).unwrap();
        config.alpn_protocols.clear();
        TlsConnector::from(Arc::new(config))
            .connect(server_name(), ours)
            .await
    };
    let (result, _client) = tokio::join!(acceptor.accept(theirs, 0, NOW), client);
    assert!(matches!(result, Err(AcceptError::NotOurs(_))));
}

#[tokio::test]
async fn an_error_of_keyservice_leaves_the_channel_open() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    let mut channel = channel(&service, &tee).await;
    let error = get(&mut channel, "/denied").await.unwrap_err();
    assert!(matches!(&error, CallError::Remote(e) if e.code == ErrorCode::NotGranted));
    assert_eq!(
        (error.code(), error.retryable()),
        (ErrorCode::NotGranted, false)
    );
    get(&mut channel, "/echo").await.unwrap();

    for path in ["/garbage", "/garbage-error", "/nowhere"] {
        let error = get(&mut channel, path).await.unwrap_err();
        assert!(
            matches!(error, CallError::Malformed { .. }),
            "{path}: {error:?}"
        );
        assert_eq!(error.code(), ErrorCode::Internal);
        get(&mut channel, "/echo").await.unwrap();
    }
}

#[tokio::test]
async fn a_broken_exchange_closes_the_channel() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    let mut broken = channel(&service, &tee).await;
    let error = get(&mut broken, "/break").await.unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error:?}");
    assert!(error.retryable() && !broken.is_alive());
    let error = get(&mut broken, "/echo").await.unwrap_err();
    assert!(matches!(error, CallError::Closed), "{error:?}");
    assert!(error.retryable());

    // An endless answer does not fill the client's memory.
    let mut long = channel(&service, &tee).await;
    let error = get(&mut long, "/long").await.unwrap_err();
    assert!(matches!(error, CallError::TooLong), "{error:?}");
    assert!(!long.is_alive());
    drop(long);
    get(&mut channel(&service, &tee).await, "/echo")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_without_an_answer_times_out() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    let mut channel = channel(&service, &tee).await;
    tokio::time::pause();
    let error = get(&mut channel, "/hang").await.unwrap_err();
    assert!(
        matches!(error, CallError::Timeout { after: TIMEOUT }),
        "{error:?}"
    );
    assert!(error.retryable() && !channel.is_alive());
}

#[tokio::test]
async fn every_typed_call_has_the_path_of_the_interface() {
    let tee = SoftTee::new(1);
    let service = service(acceptor(&tee, KEYSERVICE)).await;
    let mut client = KeyserviceClient::new(channel(&service, &tee).await);
    let model: ModelId = "m.1".parse().unwrap();
    let user = PrincipalId::new([0xaa; 32]);
    let enclave = EnclaveId::new([0xbb; 48]);
    let key = || protocol::keyservice::WireKey::new(&[1; 32]);
    // The service knows none of these paths; it is the request that matters here.
    let register = protocol::keyservice::RegisterModel {
        digest: Digest::new([1; 32]),
        key: key(),
    };
    let request_key = protocol::keyservice::RegisterRequestKey {
        owner: user,
        key: key(),
        policy: None,
    };
    let release = protocol::keyservice::ReleaseRequest {
        model: model.clone(),
        user,
    };
    let results = [
        client.status().await.is_err(),
        client
            .register_model(&model, ModelVersion(3), &register)
            .await
            .is_err(),
        client.list_models().await.is_err(),
        client.versions(&model).await.is_err(),
        client.grant(&model, &user, &enclave).await.is_err(),
        client.revoke(&model, &user, &enclave).await.is_err(),
        client.grants(&model).await.is_err(),
        client
            .register_request_key(&model, &enclave, &request_key)
            .await
            .is_err(),
        client.drop_request_key(&model, &enclave).await.is_err(),
        client.request_keys().await.is_err(),
        client.release(&release).await.is_err(),
        client.log().await.is_err(),
    ];
    assert!(results.iter().all(|failed| *failed) && client.is_alive());
    let (u, e) = ("aa".repeat(32), "bb".repeat(48));
    let expected = [
        "GET /v1/status".to_owned(),
        "PUT /v1/models/m.1/versions/3".to_owned(),
        "GET /v1/models".to_owned(),
        "GET /v1/models/m.1/versions".to_owned(),
        format!("PUT /v1/models/m.1/grants/{u}/{e}"),
        format!("DELETE /v1/models/m.1/grants/{u}/{e}"),
        "GET /v1/models/m.1/grants".to_owned(),
        format!("PUT /v1/request-keys/m.1/{e}"),
        format!("DELETE /v1/request-keys/m.1/{e}"),
        "GET /v1/request-keys".to_owned(),
        "POST /v1/release".to_owned(),
        "GET /v1/log".to_owned(),
    ];
    assert_eq!(*service.seen.lock().unwrap(), expected);
}
