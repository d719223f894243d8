//! Small inputs that make careless parsers allocate, recurse or loop without end.

use std::sync::Arc;
use std::time::Duration;

use attestation::evidence::{Evidence, VerifierSet};
use attestation::gate::frame::{FrameError, frame_len};
use attestation::measured::MeasuredConfig;
use attestation::tee::real_verifiers;
use attestation::testing::dcap::{FakeIntel, FakePck, FakeReport};
use attestation::testing::{FakeNitro, HandshakeFailure, handshake};
use attestation::{
    Allowed, AppraisalPolicy, CheckName, ClientIdentity, Endorsements, Expected, Failed,
    RelyingParty, Tee, client_config, examine, server_config,
};
use crypto::{ArtifactError, ArtifactOpener, Binding, ModelKey, RequestKey};
use http::Method;
use inference::pack::{Check, pack};
use inference::testing::graphs;
use protocol::limits::{GATE_FRAME_MAX, KEYSERVICE_BODY_MAX};
use protocol::oip::InferRequest;
use protocol::package::{MAGIC, Manifest, PREFIX_LEN, PackageError};
use protocol::{Digest, EnclaveId, ErrorCode, ModelVersion, PrincipalId, RequestId};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::time::Instant;
use transport::CallError;

use crate::lab::{Lab, signing_key, user};
use crate::world::on_world;

/// More than this for a few bytes of input is the attacker's success.
const MUCH: u64 = 1 << 30;
/// Longest time for any of these inputs, in the profile of tests.
const SOON: Duration = Duration::from_secs(5);

/// A weakened reader: makes room for what a length says.
fn room_for(length: &[u8]) -> u64 {
    length.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// A weakened reader: one call inside the other for each bracket.
fn depth_of(text: &[u8]) -> usize {
    text.iter().take_while(|byte| **byte == b'[').count()
}

fn reject(evidence: &Evidence, endorsements: &Endorsements, verifiers: VerifierSet) -> CheckName {
    let relying = RelyingParty {
        verifiers,
        policy: AppraisalPolicy::strict(vec![evidence.tee], Allowed::Any),
    };
    let now = Duration::from_secs(1_800_000_000);
    let expected = Expected::default();
    let examined = examine(&relying, evidence, endorsements, &expected, None, now);
    examined.card.first_failure().map(Failed::check).unwrap()
}

fn evidence_bombs() {
    // Quotes: a certification that says it has 4 GiB, at the end of a genuine one.
    let intel = FakeIntel::new();
    let quote = intel
        .platform(&FakePck::default())
        .quote(&FakeReport::sgx(1), &[0; 64]);
    assert!(room_for(&[0xff; 4]) > MUCH);
    for at in 432..quote.len().min(1100) {
        let mut bomb = quote.clone();
        bomb[at..at + 4].fill(0xff);
        let evidence = Evidence {
            tee: Tee::Sgx,
            body: bomb,
        };
        let verifiers = VerifierSet::new(vec![Arc::new(intel.verifier(Tee::Sgx))]);
        reject(
            &evidence,
            &intel.endorsements(Tee::Sgx, 1_800_000_000),
            verifiers,
        );
    }
    // Collateral nested deeper than a stack.
    let genuine = Evidence {
        tee: Tee::Sgx,
        body: quote,
    };
    let deep = vec![b'['; 60_000];
    assert!(depth_of(&deep) > 50_000);
    let collateral = Endorsements::Dcap { collateral: deep };
    let verifiers = VerifierSet::new(vec![Arc::new(intel.verifier(Tee::Sgx))]);
    let refused = reject(&genuine, &collateral, verifiers);
    assert_eq!(refused, CheckName::EndorsementsFormat);
    // Nitro: CBOR that says it is long, many, or deep.
    let nitro = FakeNitro::new();
    let bombs: [Vec<u8>; 5] = [
        [&[0x84, 0x5b][..], &[0xff; 8]].concat(),
        [&[0x9b][..], &[0xff; 8]].concat(),
        [&[0xbb][..], &[0xff; 8]].concat(),
        vec![0x81; 40_000],
        vec![0x9f; 40_000],
    ];
    for body in bombs {
        let evidence = Evidence {
            tee: Tee::Nitro,
            body,
        };
        let refused = reject(&evidence, &Endorsements::None, real_verifiers());
        assert_eq!(refused, CheckName::EvidenceFormat);
    }
    // In what AWS signed, too: the payload is as hostile as the rest until it is.
    for payload in [[&[0xbb][..], &[0xff; 8]].concat(), vec![0xa1; 10_000]] {
        let evidence = nitro.sign_payload(&payload);
        let verifiers = VerifierSet::new(vec![Arc::new(nitro.verifier())]);
        let refused = reject(&evidence, &Endorsements::None, verifiers);
        assert_eq!(refused, CheckName::EvidenceFormat);
    }
}

fn certificate_bombs() {
    let lab = Lab::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let values = [
        // An extension whose text is 2^63 bytes long, and one that is really long.
        [
            &[0xda, 0x73, 0x65, 0x53, 0xff, 0x82, 0x5b, 0x7f][..],
            &[0xff; 7],
        ]
        .concat(),
        vec![0x81; 20_000],
        vec![0; 61 * 1024],
    ];
    for value in values {
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            attestation::certificate::EVIDENCE_OID,
            value,
        )];
        let certificate = params.self_signed(&key).unwrap();
        let behind = CertifiedKey::new(vec![certificate.der().clone()], signing_key(&key));
        let mut server = server_config(&lab.keyservice).unwrap();
        server.cert_resolver = Arc::new(SingleCertAndKey::from(behind));
        match handshake(client_config(&user()).unwrap(), server) {
            Err(HandshakeFailure::Client(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn frame_bombs() {
    let says = u32::MAX.to_be_bytes();
    assert!(room_for(&says) > MUCH);
    assert_eq!(
        frame_len(says),
        Err(FrameError::Length {
            got: u64::from(u32::MAX)
        })
    );
    assert_eq!(
        frame_len((u32::try_from(GATE_FRAME_MAX).unwrap() + 1).to_be_bytes()).map(drop),
        Err(FrameError::Length {
            got: GATE_FRAME_MAX as u64 + 1
        })
    );
    for bomb in [
        [&[0x9b][..], &[0xff; 8]].concat(),
        vec![0x81; 4000],
        vec![0; 5000],
    ] {
        assert!(MeasuredConfig::from_bytes(&bomb).is_err());
        let lab = Lab::new();
        let tls = Lab::connect(&user(), &lab.keyservice);
        assert!(
            lab.server_gate(&tls, &lab.keyservice)
                .on_frame(&bomb)
                .is_err()
        );
    }
}

/// A protobuf field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend_from_slice(bytes);
    out
}

fn model_bombs() {
    // Protobuf: a body inside an operator's attribute, and so on, deeper than a stack; operators one
    // behind the other, along which engines walk by recursion.
    let mut deep = Vec::new();
    for _ in 0..3000 {
        let attribute = field(6, &deep);
        deep = field(1, &field(5, &attribute));
    }
    for (what, graph) in [
        ("bodies in bodies", field(7, &deep)),
        ("bodies in bodies of a sound graph", graphs::nested(12)),
        ("operators one behind the other", graphs::chain_of(100_000)),
        (
            "a length without its bytes",
            vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ),
    ] {
        assert!(pack(&graph, Check::AllowUnchecked).is_err(), "{what}");
    }
    // A manifest that says it has 4 GiB, in a package of twelve bytes.
    let mut head = [0xff; PREFIX_LEN];
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    assert!(room_for(&head[MAGIC.len()..]) > MUCH);
    assert!(matches!(
        Manifest::len_from_prefix(&head),
        Err(PackageError::TooLarge)
    ));
    // An artifact and an envelope that say they are larger than any.
    let (key, model) = (ModelKey::generate().unwrap(), "m".parse().unwrap());
    let opener = |len| {
        ArtifactOpener::new(&key, &model, ModelVersion(1), Digest::new([0; 32]), len, 64).map(drop)
    };
    assert!(matches!(
        opener(u64::MAX),
        Err(ArtifactError::TooLarge { .. } | ArtifactError::Length { .. })
    ));
    let (user, enclave, id) = (
        PrincipalId::new([1; 32]),
        EnclaveId::new([2; 48]),
        RequestId::new([3; 16]),
    );
    let binding = Binding {
        user: &user,
        model: &model,
        enclave: &enclave,
        request_id: &id,
    };
    let mut envelope = crypto::seal_request(&RequestKey::generate().unwrap(), &binding, b"x")
        .unwrap()
        .0;
    envelope.splice(22..24, [0x5a, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(
        crypto::open_request(&RequestKey::generate().unwrap(), &binding, &envelope).unwrap_err(),
        crypto::OpenError::Malformed
    );
}

fn request_bombs() {
    // Tensors that say more than there is; JSON as deep as it is long.
    let says = r#"{"inputs":[{"name":"x","shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[1]}]}"#;
    assert!(InferRequest::from_json(says.as_bytes()).is_err());
    let deep = [b"{\"inputs\":".to_vec(), vec![b'['; 200_000]].concat();
    assert!(depth_of(&deep[10..]) >= 200_000);
    assert!(InferRequest::from_json(&deep).is_err());
    for header in [&b"\xff\xff\xff\xff"[..], &[0xff; 12], &[0; 4]] {
        assert!(InferRequest::decode(header).is_err());
    }
}

#[test]
fn attack_24_parser_bombs() {
    let start = Instant::now();
    evidence_bombs();
    certificate_bombs();
    frame_bombs();
    model_bombs();
    request_bombs();
    assert!(start.elapsed() < 4 * SOON, "{:?}", start.elapsed());
    on_world(async |world| {
        // KeyService, on an attested channel: who passed the gate is not trusted with its memory.
        let who = ClientIdentity::principal(&world.identity("user")).unwrap();
        let addr = world.keyservice_addr();
        let mut channel = world.channel(&addr, &who, &world.pinned()).await.unwrap();
        let path = format!("/v1/request-keys/m/{}", world.enclave());
        let body = "a".repeat(KEYSERVICE_BODY_MAX);
        let refused = channel
            .call::<_, serde_json::Value>(Method::PUT, &path, Some(&body))
            .await;
        match refused {
            Err(CallError::Remote(error)) => assert_eq!(error.code, ErrorCode::TooLarge),
            other => panic!("{other:?}"),
        }
        // SeMIRT: a payload that opens, and says that it has 4 GiB, fails alone and under the seal.
        let key = world
            .user
            .request_key(&world.model, &world.enclave())
            .unwrap();
        let bomb = sdk::infer::PendingAnswer::seal(
            &key,
            world.user.principal(),
            &world.model,
            world.enclave(),
            &[0xff; 64],
        )
        .unwrap();
        let answer = world.send(bomb.request()).await.unwrap();
        match bomb.open(&answer) {
            Err(sdk::infer::InferError::Enclave(error)) => {
                assert_eq!(error.code, ErrorCode::TooLarge);
            }
            other => panic!("{other:?}"),
        }
        world.still_right().await;
    });
}
