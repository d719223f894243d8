//! Attacks from the network between a client and KeyService: replay, relay, impersonation. Against
//! the system's own processes.

use std::sync::Arc;

use attestation::gate::frame::{LENGTH_PREFIX, frame_len};
use attestation::measured::MeasuredConfig;
use attestation::ratls::{EXPORTER_LABEL, server_name};
use attestation::{
    Allowed, ChannelBinder, CheckName, ClientIdentity, Endorsements, Established, RatlsIdentity,
    Role, SpkiHash, appraise, client_config, server_config,
};
use crypto::RequestKey;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use protocol::ErrorCode;
use protocol::invoke::RunResult;
use protocol::keyservice::RegisterRequestKey;
use semirt::config::HostSettings;
use semirt::{Config, Place, Trust};
use service::{Shutdown, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use transport::KeyserviceClient;

use crate::lab::{ServerFrame, genuine_is_enough, nonce_of, of_instances, tls_identity, user};
use crate::world::{LEASE_S, NOW, World, on_world, refused_at};

type Stream = client::TlsStream<TcpStream>;

async fn read_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut prefix = [0; LENGTH_PREFIX];
    stream.read_exact(&mut prefix).await.unwrap();
    let mut body = vec![0; frame_len(prefix).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    body
}

async fn write_frame(stream: &mut (impl tokio::io::AsyncWrite + Unpin), body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    stream
        .write_all(&[&length[..], body].concat())
        .await
        .unwrap();
    stream.flush().await.unwrap();
}

/// The attacker's own connection to the genuine KeyService: anybody may have one.
async fn own_connection(addr: &str, who: &ClientIdentity) -> Stream {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let tls = TlsConnector::from(Arc::new(client_config(who).unwrap()));
    tls.connect(server_name(), tcp).await.unwrap()
}

/// Sends a hello, whoever's it is, and returns the frame that comes back.
async fn challenge(stream: &mut Stream, hello: &[u8]) -> Vec<u8> {
    write_frame(stream, hello).await;
    read_frame(stream).await
}

/// The man in the middle: ends the victim's TLS with a genuine certificate of its own, reads the
/// hello, and sends what `answer` makes of it.
async fn middle(
    identity: Arc<RatlsIdentity>,
    answer: impl FnOnce(Vec<u8>) -> BoxFuture<'static, Vec<u8>> + Send + 'static,
) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = TlsAcceptor::from(Arc::new(server_config(&identity).unwrap()));
        let mut victim = tls.accept(tcp).await.unwrap();
        let hello = read_frame(&mut victim).await;
        write_frame(&mut victim, &answer(hello).await).await;
        // Until the victim leaves.
        victim.read_to_end(&mut Vec::new()).await.ok();
    });
    (addr.to_string(), tasks)
}

/// The attacker's enclave, as a server, with the configuration that KeyService has.
fn attackers_identity(world: &World) -> Arc<RatlsIdentity> {
    let measured = crate::lab::keyservice_measured(LEASE_S);
    let config = MeasuredConfig::keyservice(&measured, &of_instances()).unwrap();
    tls_identity(Arc::new(world.hardware().attester().unwrap()), config)
}

/// A hello as a principal sends it.
fn own_hello(
    stream: &Stream,
    who: &ClientIdentity,
    world: &Arc<attestation::RelyingParty>,
) -> Vec<u8> {
    let established = Established::of(stream.get_ref().1, who.spki()).unwrap();
    let (_, hello) =
        attestation::ClientGate::new(established, who.clone(), Arc::clone(world), NOW).unwrap();
    crate::lab::one(&hello)
}

#[test]
fn attack_01_replayed_evidence() {
    on_world(async |world| {
        let pinned = world.pinned();
        let (addr, who) = (world.keyservice_addr(), user());
        let mut stream = own_connection(&addr, &who).await;
        let hello = own_hello(&stream, &who, &pinned);
        let recorded = challenge(&mut stream, &hello).await;

        // Weakened: the recorded evidence is genuine, and KeyService's.
        let frame = ServerFrame::read(&recorded);
        let e_k = world.cluster.identities().keyservice;
        let verifier = world.hardware().verifier();
        assert!(genuine_is_enough(
            &verifier,
            &frame.evidence,
            &frame.config,
            e_k
        ));

        let (replay, _task) = middle(attackers_identity(world), move |_| {
            async move { recorded }.boxed()
        })
        .await;
        let refused = world.channel(&replay, &user(), &pinned).await;
        assert_eq!(refused_at(refused), CheckName::ReportData);
        // The way through the network is fine: without the attacker, the same client gets in.
        world.client(&user()).await.status().await.unwrap();
    });
}

#[test]
fn attack_02_relayed_evidence() {
    on_world(async |world| {
        let pinned = world.pinned();
        let addr = world.keyservice_addr();
        let (tell, told) = oneshot::channel();
        let (relay, _task) = middle(attackers_identity(world), move |hello| {
            async move {
                let who = user();
                let mut stream = own_connection(&addr, &who).await;
                let frame = challenge(&mut stream, &hello).await;
                let tls = stream.get_ref().1;
                let exporter = tls
                    .export_keying_material([0; 32], EXPORTER_LABEL, None)
                    .unwrap();
                let genuine = Established::of(tls, who.spki()).unwrap().peer().spki();
                tell.send((hello, frame.clone(), exporter, genuine, who.spki()))
                    .unwrap();
                frame
            }
            .boxed()
        })
        .await;
        let refused = world.channel(&relay, &user(), &pinned).await;
        assert_eq!(refused_at(refused), CheckName::ReportData);

        // Weakened: a client that has its own nonce in the evidence and asks no more, since it takes
        // exporter and keys from whoever it speaks to.
        let (hello, frame, exporter, own_spki, peer_spki): (
            Vec<u8>,
            Vec<u8>,
            [u8; 32],
            SpkiHash,
            SpkiHash,
        ) = told.await.unwrap();
        let frame = ServerFrame::read(&frame);
        let binder = ChannelBinder {
            role: Role::Keyservice,
            exporter,
            peer_nonce: nonce_of(&hello),
            own_spki,
            peer_spki,
            config: frame.config.hash(),
            epoch: frame.epoch,
        };
        let none = Endorsements::None;
        appraise(&pinned, &frame.evidence, &none, &binder, &frame.config, NOW).unwrap();
    });
}

/// A SeMIRT in this process that the host points at `keyservice`.
pub(crate) async fn semirt_pointed_at(
    world: &World,
    keyservice: &str,
    pinned: protocol::EnclaveId,
) -> semirt::Running {
    let mut measured = world.semirt_measured();
    measured.keyservice = pinned;
    let host = HostSettings {
        keyservice: Some(keyservice.to_owned()),
        store: Some(world.cluster.store_url()),
        ..HostSettings::default()
    };
    let config = Config::new(measured, host).unwrap();
    let trust = Trust {
        attester: Arc::new(world.hardware().attester().unwrap()),
        verifiers: world.cluster.verifiers(),
    };
    let place = Place {
        listen: ([127, 0, 0, 1], 0).into(),
        instance: "i-1".parse().unwrap(),
    };
    let clock = Arc::new(SystemClock::default());
    semirt::run(config, trust, place, clock, Shutdown::new())
        .await
        .unwrap()
}

/// The code with which an instance refuses a request for an E_S that nobody has granted anything.
pub(crate) async fn code_of(semirt: &semirt::Running, world: &World) -> ErrorCode {
    let mut request = world.sealed().request().clone();
    request.enclave = semirt.enclave();
    let body = serde_json::json!({ "value": request }).to_string();
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(semirt.addr()).await.unwrap();
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    match serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap() {
        RunResult::Error { error, .. } => error.code,
        RunResult::Sealed(sealed) => panic!("{sealed:?}"),
    }
}

#[test]
fn attack_13_impersonated_keyservice() {
    on_world(async |world| {
        let verifiers = world.cluster.verifiers();
        let impostor = world.attackers_keyservice(verifiers).await;
        let users = ClientIdentity::principal(&world.identity("user")).unwrap();

        // Weakened: a client that believes the address. The impostor gets the user's key.
        let anybody = world.relying(Allowed::Any);
        let channel = world.channel(&impostor.addr, &users, &anybody).await;
        let key = RegisterRequestKey {
            owner: world.owner.principal(),
            key: RequestKey::generate().unwrap().to_wire(),
            policy: None,
        };
        let channel = channel.unwrap();
        let impostors = channel.appraised().enclave();
        KeyserviceClient::new(channel)
            .register_request_key(&world.model, &world.enclave(), &key)
            .await
            .unwrap();

        let pinned = world.pinned();
        let refused = world.channel(&impostor.addr, &users, &pinned).await;
        assert_eq!(refused_at(refused), CheckName::Enclave);

        // Weakened: a SeMIRT that is measured with whatever KeyService it is pointed at asks it, and
        // hears that there is no grant. Ours pins E_K in its own measurement.
        let believes = semirt_pointed_at(world, &impostor.addr, impostors).await;
        assert_eq!(code_of(&believes, world).await, ErrorCode::NotGranted);
        let e_k = world.cluster.identities().keyservice;
        let ours = semirt_pointed_at(world, &impostor.addr, e_k).await;
        assert_eq!(code_of(&ours, world).await, ErrorCode::NotAttested);
    });
}
