//! Handshakes that must not finish, and finished ones that must not count.

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{HandshakeKind, RootCertStore};

use super::*;
use crate::certificate::Peer;
use crate::policy::AppraisalPolicy;
use crate::scorecard::CheckName;
use crate::testing::{HandshakeFailure, SoftEnclave, SoftTee, handshake};
use protocol::measured::KeyserviceMeasured;

fn config() -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn enclave() -> RatlsIdentity {
    let attester = SoftTee::new(1).attester(SoftEnclave::new(1));
    RatlsIdentity::generate(attester, config()).unwrap()
}

fn user() -> ClientIdentity {
    ClientIdentity::principal(&IdentityKey::generate().unwrap()).unwrap()
}

fn fresh_key(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<dyn rustls::sign::SigningKey> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    aws_lc_rs::sign::any_supported_type(&der).unwrap()
}

/// The victim's certificate, which anybody can record, with a key of the thief's own.
fn stolen(
    victim: &Arc<CertifiedKey>,
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> Arc<SingleCertAndKey> {
    let thief = CertifiedKey::new(victim.cert.clone(), fresh_key(algorithm));
    Arc::new(SingleCertAndKey::from(thief))
}

fn is_bad_signature(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)
    )
}

#[test]
fn a_good_handshake_says_who_is_there() {
    let identity = enclave();
    let who = user();
    let (client, server) = handshake(
        client_config(&who).unwrap(),
        server_config(&identity).unwrap(),
    )
    .unwrap();
    let at_client = Established::of(&client, who.spki()).unwrap();
    let at_server = Established::of(&server, identity.spki()).unwrap();
    assert_eq!(at_client.exporter, at_server.exporter);
    assert_eq!(at_client.peer().spki(), identity.spki());
    assert_eq!(at_server.peer(), &Peer::Principal(who.spki().principal()));
}

#[test]
fn two_connections_have_two_exporters() {
    let identity = enclave();
    let who = user();
    let exporter = || {
        let (client, _) = handshake(
            client_config(&who).unwrap(),
            server_config(&identity).unwrap(),
        )
        .unwrap();
        Established::of(&client, who.spki()).unwrap().exporter
    };
    assert_ne!(exporter(), exporter());
}

#[test]
fn a_stolen_certificate_does_not_finish_a_handshake() {
    let identity = enclave();
    // A thief as the server.
    let mut server = server_config(&identity).unwrap();
    server.cert_resolver = stolen(&identity.key, &rcgen::PKCS_ECDSA_P256_SHA256);
    match handshake(client_config(&user()).unwrap(), server) {
        Err(HandshakeFailure::Client(error)) => assert!(is_bad_signature(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    // A thief as an enclave, and as an owner or user.
    let victims = [
        (
            ClientIdentity::Instance(Arc::new(enclave())),
            &rcgen::PKCS_ECDSA_P256_SHA256,
        ),
        (user(), &rcgen::PKCS_ED25519),
    ];
    for (victim, algorithm) in victims {
        let mut client = client_config(&victim).unwrap();
        client.client_auth_cert_resolver = stolen(&victim.key(), algorithm);
        match handshake(client, server_config(&identity).unwrap()) {
            Err(HandshakeFailure::Server(error)) => assert!(is_bad_signature(&error), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_signature_of_another_kind_of_key_is_refused() {
    let identity = enclave();
    let victim = user();
    let mut client = client_config(&victim).unwrap();
    client.client_auth_cert_resolver = stolen(&victim.key(), &rcgen::PKCS_ECDSA_P256_SHA256);
    let failed = handshake(client, server_config(&identity).unwrap());
    assert!(
        matches!(failed, Err(HandshakeFailure::Server(_))),
        "{failed:?}"
    );
    // Schemes that were not offered are refused even if they verify.
    let mut client = client_config(&victim).unwrap();
    client.client_auth_cert_resolver = stolen(&victim.key(), &rcgen::PKCS_ECDSA_P384_SHA384);
    assert!(handshake(client, server_config(&identity).unwrap()).is_err());
}

#[test]
fn tls_1_2_is_refused_on_both_sides() {
    let identity = enclave();
    let who = user();
    let provider = || Arc::new(aws_lc_rs::default_provider());
    let old = &[&rustls::version::TLS12];
    let verifier = || Arc::new(PeerVerifier::new(&provider(), Expect::Enclave));

    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(old)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(who.key())));
    client.alpn_protocols = vec![ALPN.to_vec()];
    let failed = handshake(client.clone(), server_config(&identity).unwrap());
    assert!(
        matches!(
            failed,
            Err(HandshakeFailure::Server(rustls::Error::PeerIncompatible(_)))
        ),
        "{failed:?}"
    );

    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(old)
        .unwrap()
        .with_client_cert_verifier(verifier())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))));
    server.alpn_protocols = vec![ALPN.to_vec()];
    assert!(handshake(client_config(&who).unwrap(), server.clone()).is_err());
    // And if both sides spoke it after all, no signature of a TLS 1.2 handshake would verify.
    let refused = handshake(client, server);
    assert!(
        matches!(
            refused,
            Err(HandshakeFailure::Client(rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
            )))
        ),
        "{refused:?}"
    );
}

/// A client of `who` with another key exchange.
fn client_with_groups(
    who: &ClientIdentity,
    groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
) -> ClientConfig {
    let mut provider = provider();
    provider.kx_groups = groups;
    let provider = Arc::new(provider);
    let verifier = PeerVerifier::new(&provider, Expect::Enclave);
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(who.key())));
    client.alpn_protocols = vec![ALPN.to_vec()];
    client
}

#[test]
fn key_exchange_that_a_quantum_computer_breaks_is_refused() {
    let identity = enclave();
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let classical = client_with_groups(&user(), vec![X25519, SECP256R1]);
    let failed = handshake(classical, server_config(&identity).unwrap());
    assert!(
        matches!(
            failed,
            Err(HandshakeFailure::Server(rustls::Error::PeerIncompatible(_)))
        ),
        "{failed:?}"
    );
    // One that prefers a classical group is asked again, and comes through with the hybrid.
    let who = user();
    let both = client_with_groups(&who, vec![X25519, X25519MLKEM768]);
    let (client, _) = handshake(both, server_config(&identity).unwrap()).unwrap();
    Established::of(&client, who.spki()).unwrap();
}

#[test]
fn another_or_no_application_protocol_is_refused() {
    let identity = enclave();
    let who = user();
    let mut client = client_config(&who).unwrap();
    client.alpn_protocols = vec![b"h2".to_vec(), b"sesemi-ks/2".to_vec()];
    assert!(matches!(
        handshake(client, server_config(&identity).unwrap()),
        Err(HandshakeFailure::Server(
            rustls::Error::NoApplicationProtocol
        ))
    ));

    // TLS goes on if the client offers none; this protocol does not, on either side.
    let mut client = client_config(&who).unwrap();
    client.alpn_protocols.clear();
    let (client, server) = handshake(client, server_config(&identity).unwrap()).unwrap();
    let refused = |error| match error {
        EstablishError::Parameter { check, .. } => check,
        other => panic!("{other}"),
    };
    let at_server = Established::of(&server, identity.spki()).unwrap_err();
    assert_eq!(refused(at_server), CheckName::ApplicationProtocol);
    let at_client = Established::of(&client, who.spki()).unwrap_err();
    assert_eq!(refused(at_client), CheckName::ApplicationProtocol);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let identity = enclave();
    let provider = Arc::new(provider());
    let verifier = PeerVerifier::new(&provider, Expect::Enclave);
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    assert!(matches!(
        handshake(client, server_config(&identity).unwrap()),
        Err(HandshakeFailure::Server(
            rustls::Error::NoCertificatesPresented
        ))
    ));
}

#[test]
fn a_chain_of_two_certificates_is_refused() {
    let identity = enclave();
    let who = user();
    let key = who.key();
    let mut two = CertifiedKey::clone(&key);
    two.cert.push(key.cert[0].clone());
    let mut client = client_config(&who).unwrap();
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(two));
    assert!(matches!(
        handshake(client, server_config(&identity).unwrap()),
        Err(HandshakeFailure::Server(rustls::Error::InvalidCertificate(
            _
        )))
    ));
    let mut two = CertifiedKey::clone(&identity.key);
    two.cert.push(two.cert[0].clone());
    let mut server = server_config(&identity).unwrap();
    server.cert_resolver = Arc::new(SingleCertAndKey::from(two));
    assert!(matches!(
        handshake(client_config(&who).unwrap(), server),
        Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
            _
        )))
    ));
}

#[test]
fn a_server_without_evidence_is_refused() {
    let identity = enclave();
    let mut server = server_config(&identity).unwrap();
    // A principal plays the server.
    server.cert_resolver = Arc::new(SingleCertAndKey::from(user().key()));
    assert!(matches!(
        handshake(client_config(&user()).unwrap(), server),
        Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
            _
        )))
    ));
    // A P-256 key without the extension.
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut server = server_config(&identity).unwrap();
    let bare = certified(&key, Vec::new()).unwrap();
    server.cert_resolver = Arc::new(SingleCertAndKey::from(bare));
    assert!(matches!(
        handshake(client_config(&user()).unwrap(), server),
        Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
            _
        )))
    ));
}

#[test]
fn nothing_is_resumed_even_if_the_client_would() {
    let identity = enclave();
    let who = user();
    let mut eager = client_config(&who).unwrap();
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let server = server_config(&identity).unwrap();
    assert_eq!(
        (server.send_tls13_tickets, server.max_early_data_size),
        (0, 0)
    );
    assert!(!server.ticketer.enabled());
    for _ in 0..3 {
        let (client, accepted) = handshake(eager.clone(), server.clone()).unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(accepted.handshake_kind(), Some(HandshakeKind::Full));
        Established::of(&accepted, identity.spki()).unwrap();
    }
}

#[test]
fn a_web_server_s_certificate_is_refused() {
    // Signed by a root that the thief controls; roots do not count here.
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec!["attested.invalid".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = aws_lc_rs::sign::any_supported_type(&der).unwrap();
    let web = CertifiedKey::new(vec![certificate.der().clone()], signing);
    let mut server = server_config(&enclave()).unwrap();
    server.cert_resolver = Arc::new(SingleCertAndKey::from(web));
    assert!(matches!(
        handshake(client_config(&user()).unwrap(), server),
        Err(HandshakeFailure::Client(rustls::Error::InvalidCertificate(
            _
        )))
    ));
}

#[test]
fn an_unfinished_handshake_is_worth_nothing() {
    let who = user();
    let config = Arc::new(client_config(&who).unwrap());
    let client = rustls::ClientConnection::new(config, server_name()).unwrap();
    let error = Established::of(&client, who.spki()).unwrap_err();
    assert!(matches!(error, EstablishError::Handshaking));
}

#[test]
fn no_server_name_is_sent() {
    let who = user();
    let config = Arc::new(client_config(&who).unwrap());
    let mut client = rustls::ClientConnection::new(config, server_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let name = SERVER_NAME.as_bytes();
    assert!(!hello.windows(name.len()).any(|window| window == name));
}
