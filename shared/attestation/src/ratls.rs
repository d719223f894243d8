//! RA-TLS: the TLS configurations of the attested channel, and what a finished handshake is
//! worth before the attest gate.
//!
//! TLS 1.3 only, X25519MLKEM768 only, one application protocol, both sides have a certificate,
//! nothing is resumed. The certificate proves that a key was made in an enclave at some time;
//! that the enclave is there *now* is for [`crate::gate`] to show.

mod established;
mod peer_verifier;

use std::fmt;
use std::sync::Arc;

use crypto::identity::IdentityKey;
use protocol::PrincipalId;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use crate::binder::{Binder, SpkiHash};
use crate::certificate::{EVIDENCE_OID, write_extension};
use crate::evidence::{Attester, CollectError, Endorsements};
use crate::measured::MeasuredConfig;
pub use established::{EstablishError, Established};
use peer_verifier::{Expect, PeerVerifier};

/// The application protocol of the attested channel (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"sesemi-ks/1";
/// Label of the TLS exporter that fresh evidence is bound to (RFC 8446 §7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-sesemi-attest/1";
/// rustls wants a server name; none is sent, and none is checked: the evidence is what counts.
const SERVER_NAME: &str = "attested.invalid";

/// Why a TLS identity or configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RatlsError {
    #[error("generating a TLS key")]
    Key(#[source] rcgen::Error),
    #[error("making a self-signed certificate")]
    Certificate(#[source] rcgen::Error),
    #[error("collecting evidence for the certificate")]
    Collect(#[source] CollectError),
    #[error("finding endorsements of this platform")]
    Endorsements(#[source] CollectError),
    #[error("configuring TLS")]
    Tls(#[source] rustls::Error),
}

/// An enclave's identity in a channel: a TLS key made here and never stored, evidence for it,
/// and what is needed to attest again in every channel. Make a new one every hour.
pub struct RatlsIdentity {
    key: Arc<CertifiedKey>,
    spki: SpkiHash,
    attester: Arc<dyn Attester>,
    endorsements: Endorsements,
    config: MeasuredConfig,
}

impl fmt::Debug for RatlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatlsIdentity")
            .field("spki", &self.spki)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl RatlsIdentity {
    /// Makes a P-256 key and a self-signed certificate with evidence for it. Blocks while the
    /// TEE signs.
    ///
    /// # Errors
    /// [`RatlsError`] if the TEE does not give evidence.
    pub fn generate(
        attester: Arc<dyn Attester>,
        config: MeasuredConfig,
    ) -> Result<Self, RatlsError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(RatlsError::Key)?;
        let binder = Binder::certificate(&spki_der(&key));
        let evidence = attester.collect(&binder).map_err(RatlsError::Collect)?;
        let endorsements = attester
            .endorsements(&evidence)
            .map_err(RatlsError::Endorsements)?;
        let spki = SpkiHash::of(&spki_der(&key));
        let extension =
            CustomExtension::from_oid_content(EVIDENCE_OID, write_extension(&evidence, &spki));
        let key = certified(&key, vec![extension])?;
        Ok(Self {
            key,
            spki,
            attester,
            endorsements,
            config,
        })
    }

    /// The certificate, DER. Those of SGX and TDX are of the CCC's format: see [`crate::tee::ccc`].
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |certificate| certificate)
    }

    pub(crate) const fn endorsements(&self) -> &Endorsements {
        &self.endorsements
    }

    #[must_use]
    pub const fn spki(&self) -> SpkiHash {
        self.spki
    }

    #[must_use]
    pub const fn config(&self) -> &MeasuredConfig {
        &self.config
    }

    pub(crate) fn attester(&self) -> &dyn Attester {
        &*self.attester
    }
}

/// An owner's or user's identity key, ready for TLS.
#[derive(Clone)]
pub struct PrincipalIdentity {
    key: Arc<CertifiedKey>,
    principal: PrincipalId,
}

impl fmt::Debug for PrincipalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrincipalIdentity({})", self.principal)
    }
}

impl PrincipalIdentity {
    /// # Errors
    /// [`RatlsError`] if the TLS library does not take the key.
    pub fn new(identity: &IdentityKey) -> Result<Self, RatlsError> {
        let pkcs8 = identity.pkcs8_der();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &rcgen::PKCS_ED25519,
        )
        .map_err(RatlsError::Key)?;
        let principal = SpkiHash::of(&spki_der(&key)).principal();
        Ok(Self {
            key: certified(&key, Vec::new())?,
            principal,
        })
    }

    #[must_use]
    pub const fn principal(&self) -> PrincipalId {
        self.principal
    }
}

/// As whom a client speaks.
#[derive(Debug, Clone)]
pub enum ClientIdentity {
    /// An owner or user.
    Principal(PrincipalIdentity),
    /// An enclave that attests itself.
    Instance(Arc<RatlsIdentity>),
}

impl ClientIdentity {
    /// # Errors
    /// [`RatlsError`] if the TLS library does not take the key.
    pub fn principal(identity: &IdentityKey) -> Result<Self, RatlsError> {
        PrincipalIdentity::new(identity).map(Self::Principal)
    }

    fn key(&self) -> Arc<CertifiedKey> {
        match self {
            Self::Principal(principal) => Arc::clone(&principal.key),
            Self::Instance(instance) => Arc::clone(&instance.key),
        }
    }

    /// Hash of the key that signs the client's handshake.
    #[must_use]
    pub fn spki(&self) -> SpkiHash {
        match self {
            Self::Principal(principal) => SpkiHash::of_principal(&principal.principal),
            Self::Instance(instance) => instance.spki,
        }
    }
}

fn spki_der(key: &KeyPair) -> Vec<u8> {
    rcgen::PublicKeyData::subject_public_key_info(key)
}

fn certified(
    key: &KeyPair,
    extensions: Vec<CustomExtension>,
) -> Result<Arc<CertifiedKey>, RatlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = extensions;
    let certificate = params.self_signed(key).map_err(RatlsError::Certificate)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der()));
    let signing = aws_lc_rs::sign::any_supported_type(&der).map_err(RatlsError::Tls)?;
    Ok(Arc::new(CertifiedKey::new(
        vec![certificate.der().clone()],
        signing,
    )))
}

/// The one cryptography provider: TLS 1.3 suites and the post-quantum hybrid group only.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        )
    });
    provider
}

/// KeyService's side of the channel.
///
/// # Errors
/// [`RatlsError`] if the TLS library refuses the configuration.
pub fn server_config(identity: &RatlsIdentity) -> Result<ServerConfig, RatlsError> {
    let provider = Arc::new(provider());
    let verifier = PeerVerifier::new(&provider, Expect::AnyClient);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(RatlsError::Tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The side of an owner, a user or a SeMIRT.
///
/// # Errors
/// [`RatlsError`] if the TLS library refuses the configuration.
pub fn client_config(who: &ClientIdentity) -> Result<ClientConfig, RatlsError> {
    let provider = Arc::new(provider());
    let verifier = PeerVerifier::new(&provider, Expect::Enclave);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(RatlsError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(who.key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok(config)
}

/// The name to start a client handshake with; it is not sent.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).unwrap_or(ServerName::IpAddress(
        std::net::Ipv4Addr::UNSPECIFIED.into(),
    ))
}

#[cfg(test)]
mod tests;
