//! What rustls asks of a peer's certificate and of its handshake signature.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName as Subject, OtherError, SignatureScheme};

use crate::certificate::{CertificateError, Peer, read_peer};

const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Enclave,
    AnyClient,
}

/// Accepts certificates by their shape, and handshake signatures by the real check only: the
/// evidence in a certificate is public, so a stolen certificate must get nobody in.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    expect: Expect,
}

impl PeerVerifier {
    pub(super) fn new(provider: &CryptoProvider, expect: Expect) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
            expect,
        }
    }

    fn certificate(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if !intermediates.is_empty() {
            return Err(refuse(CertificateError::Count {
                got: intermediates.len().saturating_add(1),
            }));
        }
        let certificate = read_peer(std::slice::from_ref(end_entity)).map_err(refuse)?;
        match (self.expect, certificate.peer) {
            (Expect::Enclave, Peer::Principal(_)) => {
                Err(refuse(CertificateError::ServerIsPrincipal))
            }
            (Expect::Enclave, Peer::Instance { .. }) | (Expect::AnyClient, _) => Ok(()),
        }
    }

    // SECURITY: the signature is verified, under the key that `read_peer` found, by rustls.
    // Test: ratls::tests::a_stolen_certificate_does_not_finish_a_handshake.
    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !SCHEMES.contains(&signed.scheme) {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let certificate = read_peer(std::slice::from_ref(certificate)).map_err(refuse)?;
        let spki = SubjectPublicKeyInfoDer::from(certificate.spki_der);
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &spki,
            signed,
            &self.algorithms,
        )
    }
}

fn refuse(error: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(error))))
}

fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.certificate(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[Subject] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.certificate(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
