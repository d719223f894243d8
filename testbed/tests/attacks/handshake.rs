//! Attacks on the handshake: stolen certificates and keys, resumption, certificates that say two
//! things. All of it in memory, with our TLS configurations.

use std::sync::Arc;

use attestation::certificate::EVIDENCE_OID;
use attestation::ratls::EstablishError;
use attestation::testing::{HandshakeFailure, SoftTee, handshake};
use attestation::{
    Binder, CheckName, ClientIdentity, Established, Peer, client_config, server_config,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData as _};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};

use crate::lab::{
    KEYSERVICE, Lab, OTHER, TwoFaced, e_k, failed, genuine_is_enough, keyservice_config, sent,
    signing_key, stolen, tls_identity, user,
};

/// The classic total break: any certificate is good, and any signature under it.
#[derive(Debug)]
struct Waives;

impl ServerCertVerifier for Waives {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

/// Our client, but for what it asks of certificate and signature.
fn waiving(who: &ClientIdentity) -> ClientConfig {
    let mut config = client_config(who).unwrap();
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Waives));
    config
}

/// The certificate that whoever connects to KeyService is shown.
fn recorded_certificate(lab: &Lab) -> CertificateDer<'static> {
    let tls = Lab::connect(&user(), &lab.keyservice);
    tls.client.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[test]
fn attack_12_stolen_certificate() {
    let lab = Lab::new();
    let who = user();
    let mut thief = server_config(&lab.keyservice).unwrap();
    let behind = stolen(recorded_certificate(&lab));
    thief.cert_resolver = Arc::new(SingleCertAndKey::from(behind));

    // Weakened: the thief is taken for KeyService, evidence and all.
    let (client, _) = handshake(waiving(&who), thief.clone()).unwrap();
    let Peer::Instance { evidence, spki } =
        Established::of(&client, who.spki()).unwrap().peer().clone()
    else {
        panic!("no enclave")
    };
    assert_eq!(spki, lab.keyservice.spki());
    let verifier = lab.tee.verifier();
    assert!(genuine_is_enough(
        &*verifier,
        &evidence,
        &keyservice_config(),
        e_k()
    ));

    match handshake(client_config(&who).unwrap(), thief) {
        Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
            rustls::CertificateError::BadSignature,
        ))) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn attack_03_stolen_tls_key() {
    let lab = Lab::new();
    let verifier = lab.tee.verifier();
    let who = user();
    // The thief has KeyService's TLS key and certificate, and an enclave of its own.
    let thief = tls_identity(
        Arc::new(TwoFaced {
            certificate: lab.tee.attester(KEYSERVICE),
            channel: lab.tee.attester(OTHER),
        }),
        keyservice_config(),
    );
    let tls = Lab::connect(&who, &thief);

    // Weakened: a client that stops at the certificate, as RA-TLS without a gate does.
    let established = Established::of(&tls.client, who.spki()).unwrap();
    let Peer::Instance { evidence, .. } = established.peer() else {
        panic!("no enclave")
    };
    assert!(genuine_is_enough(
        &*verifier,
        evidence,
        &keyservice_config(),
        e_k()
    ));
    // Weakened: a genuine KeyService that signs whatever it is given. With such an oracle, the
    // thief passes our own gate: that collectors take typed binders only is what stops it.
    let oracle = tls_identity(lab.tee.attester(KEYSERVICE), keyservice_config());
    let with_oracle = Lab::connect(&who, &oracle);
    let (mut client, hello) = lab.client_gate(&with_oracle);
    let signed = sent(
        lab.server_gate(&with_oracle, &oracle)
            .on_frame(&hello)
            .unwrap(),
    );
    client.on_frame(&signed).unwrap();

    // Ours: fresh evidence has to be of the enclave in the certificate, which the thief is not.
    let (mut client, hello) = lab.client_gate(&tls);
    let answer = sent(lab.server_gate(&tls, &thief).on_frame(&hello).unwrap());
    assert_eq!(failed(client.on_frame(&answer)), CheckName::SameEnclave);
    // Nor does the genuine enclave attest for the thief's channel: it says its own exporter.
    let (mut client, hello) = lab.client_gate(&tls);
    let own = Lab::connect(&user(), &lab.keyservice);
    let answer = sent(
        lab.server_gate(&own, &lab.keyservice)
            .on_frame(&hello)
            .unwrap(),
    );
    assert_eq!(failed(client.on_frame(&answer)), CheckName::ReportData);
}

#[test]
fn attack_04_resumption() {
    let lab = Lab::new();
    let who = user();
    let mut eager = client_config(&who).unwrap();
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;

    // Weakened: a server with session tickets. The second connection has no certificate in it, and
    // whoever remembers "this session was attested" lets it in without a gate.
    let mut lax = server_config(&lab.keyservice).unwrap();
    lax.send_tls13_tickets = 2;
    lax.session_storage = ServerSessionMemoryCache::new(8);
    let (first, _) = handshake(eager.clone(), lax.clone()).unwrap();
    assert!(first.tls13_tickets_received() > 0);
    let (client, server) = handshake(eager.clone(), lax).unwrap();
    let remembers = |kind| kind == Some(HandshakeKind::Resumed);
    assert!(remembers(server.handshake_kind()));

    // Ours refuses the very same connection, on both ends, before the gate.
    for refused in [
        Established::of(&client, who.spki()),
        Established::of(&server, lab.keyservice.spki()),
    ] {
        match refused {
            Err(EstablishError::Parameter { check, .. }) => {
                assert_eq!(check, CheckName::FullHandshake);
            }
            other => panic!("{other:?}"),
        }
    }
    // And our server gives nothing to resume with.
    let ours = server_config(&lab.keyservice).unwrap();
    for _ in 0..2 {
        let (client, server) = handshake(eager.clone(), ours.clone()).unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
    assert_eq!(ours.max_early_data_size, 0);
}

/// Evidence of `enclave` for `key`, as the value of the extension in a genuine certificate.
fn genuine_extension(tee: &SoftTee, key: &KeyPair) -> (CustomExtension, Vec<u8>) {
    let binder = Binder::certificate(&key.subject_public_key_info());
    let evidence = tee.attester(OTHER).collect(&binder).unwrap();
    let mut claims = minicbor::Encoder::new(Vec::new());
    let mut hash = minicbor::Encoder::new(Vec::new());
    hash.array(2).unwrap().u8(1).unwrap();
    hash.bytes(crypto::sha256(&key.subject_public_key_info()).as_bytes())
        .unwrap();
    claims.map(1).unwrap().str("pubkey-hash").unwrap();
    claims.bytes(&hash.into_writer()).unwrap();
    let mut value = minicbor::Encoder::new(Vec::new());
    value
        .tag(minicbor::data::Tag::new(0x7365_53ff))
        .unwrap()
        .array(2)
        .unwrap();
    value.bytes(&evidence.body).unwrap();
    value.bytes(&claims.into_writer()).unwrap();
    let value = value.into_writer();
    (
        CustomExtension::from_oid_content(EVIDENCE_OID, value.clone()),
        value,
    )
}

fn with_extensions(key: &KeyPair, extensions: Vec<CustomExtension>) -> CertifiedKey {
    let mut params = CertificateParams::default();
    params.custom_extensions = extensions;
    let certificate = params.self_signed(key).unwrap();
    CertifiedKey::new(vec![certificate.der().clone()], signing_key(key))
}

/// The evidence in the value of an extension, however it is encoded: what lenient readers do.
fn lenient(value: &[u8]) -> Option<Vec<u8>> {
    let mut cbor = minicbor::Decoder::new(value);
    cbor.tag().ok()?;
    cbor.array().ok()?;
    let mut body = Vec::new();
    for part in cbor.bytes_iter().ok()? {
        body.extend_from_slice(part.ok()?);
    }
    Some(body)
}

/// The own evidence, with claims that name two keys under one name. Readers differ in which counts.
fn two_keys(own_value: &[u8]) -> Vec<u8> {
    let body = lenient(own_value).unwrap();
    let mut claims = minicbor::Encoder::new(Vec::new());
    claims.map(2).unwrap();
    for key in [b"first", b"last!"] {
        claims.str("pubkey-hash").unwrap().bytes(key).unwrap();
    }
    let claims = claims.into_writer();
    let mut read = minicbor::Decoder::new(&claims);
    let entries: Vec<_> = read
        .map_iter::<&str, &minicbor::bytes::ByteSlice>()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let last_wins: std::collections::HashMap<_, _> = entries.iter().copied().collect();
    assert_ne!(entries[0].1, last_wins["pubkey-hash"], "weakened");
    let mut value = minicbor::Encoder::new(own_value[..5].to_vec());
    value.array(2).unwrap().bytes(&body).unwrap();
    value.bytes(&claims).unwrap();
    value.into_writer()
}

/// The extension of KeyService's certificate, cut out of it, and the evidence in it: both are public.
fn public_extension(lab: &Lab, own_value: &[u8]) -> (CustomExtension, Vec<u8>) {
    let public = lab.public_evidence().body;
    let recorded = recorded_certificate(lab);
    let start = recorded
        .windows(public.len())
        .position(|bytes| bytes == public)
        .unwrap();
    let head = own_value
        .windows(public.len())
        .position(|bytes| bytes.starts_with(&public[..20]))
        .unwrap();
    let recorded_value = recorded[start - head..][..own_value.len()].to_vec();
    assert_eq!(lenient(&recorded_value).unwrap(), public);
    let copied = CustomExtension::from_oid_content(EVIDENCE_OID, recorded_value);
    (copied, public)
}

#[test]
fn attack_11_ambiguous_certificate() {
    let lab = Lab::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (own, own_value) = genuine_extension(&lab.tee, &key);
    let (copied, public) = public_extension(&lab, &own_value);

    // Weakened: one reader takes the last extension for "whose key is it", another the first for
    // "which enclave is it". Between them they accept the attacker's key as KeyService's.
    let two = with_extensions(&key, vec![copied, own.clone()]);
    let values = [lenient_values(&two, 0), lenient_values(&two, 1)];
    let pins = |body: &[u8]| {
        let evidence = attestation::Evidence {
            tee: attestation::Tee::Simulated,
            body: body.to_vec(),
        };
        genuine_is_enough(&*lab.tee.verifier(), &evidence, &keyservice_config(), e_k())
    };
    let binds = |body: &[u8]| {
        body.windows(64)
            .any(|data| data == Binder::certificate(&key.subject_public_key_info()).report_data())
    };
    assert!(values.iter().any(|v| pins(v)) && values.iter().any(|v| binds(v)));
    assert!(
        !values.iter().any(|v| pins(v) && binds(v)),
        "neither is both: there is no such enclave"
    );

    // Weakened: a reader that takes any CBOR. The same evidence under another encoding is another
    // certificate to whoever compares bytes, and the same one to it.
    let mut long_head = own_value.clone();
    assert_eq!(long_head[5], 0x82, "an array of two");
    long_head.splice(5..6, [0x98, 2]);
    assert_eq!(lenient(&long_head), lenient(&own_value));
    let mut pieces = own_value[..5].to_vec();
    pieces.push(0x9f);
    pieces.extend(&own_value[6..]);
    pieces.push(0xff);
    assert_eq!(lenient(&pieces), lenient(&own_value));

    // Ours: exactly one extension, in exactly one encoding.
    let extension = |value: Vec<u8>| CustomExtension::from_oid_content(EVIDENCE_OID, value);
    let legacy = CustomExtension::from_oid_content(&[1, 2, 840, 113741, 1337, 6], public);
    let twice = extension(two_keys(&own_value));
    let mut trailing = own_value.clone();
    trailing.push(0);
    let cases = [
        (two, "extensions"),
        (with_extensions(&key, vec![twice]), "another key"),
        (
            with_extensions(&key, vec![legacy.clone()]),
            "not the evidence",
        ),
        (
            with_extensions(&key, vec![own.clone(), legacy]),
            "extensions",
        ),
        (
            with_extensions(&key, vec![extension(long_head)]),
            "evidence extension",
        ),
        (
            with_extensions(&key, vec![extension(pieces)]),
            "evidence extension",
        ),
        (
            with_extensions(&key, vec![extension(trailing)]),
            "evidence extension",
        ),
    ];
    let against = |certificate: CertifiedKey| {
        let mut server = server_config(&lab.keyservice).unwrap();
        server.cert_resolver = Arc::new(SingleCertAndKey::from(certificate));
        handshake(client_config(&user()).unwrap(), server)
    };
    for (certificate, says) in cases {
        match against(certificate) {
            Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
                rustls::CertificateError::Other(why),
            ))) => assert!(why.to_string().contains(says), "{why}"),
            other => panic!("{says}: {other:?}"),
        }
    }
    against(with_extensions(&key, vec![own])).unwrap();
}

/// What a lenient reader finds in the `n`th evidence extension.
fn lenient_values(certificate: &CertifiedKey, n: usize) -> Vec<u8> {
    // Tag 0x736553ff opens each value; a DER parser is not needed to find them.
    let der = certificate.cert[0].as_ref();
    let starts: Vec<_> = (0..der.len())
        .filter(|at| der[*at..].starts_with(&[0xda, 0x73, 0x65, 0x53, 0xff]))
        .collect();
    lenient(&der[starts[n]..]).unwrap()
}
