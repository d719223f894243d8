//! What a finished handshake agreed on, checked rather than believed.

use std::fmt;

use rustls::{ConnectionCommon, HandshakeKind, NamedGroup, ProtocolVersion};

use super::{ALPN, EXPORTER_LABEL};
use crate::binder::SpkiHash;
use crate::certificate::{CertificateError, Peer, read_peer};
use crate::scorecard::{CheckName, Failed, Scorecard};

/// Why a finished handshake is not one of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum EstablishError {
    #[error("the TLS handshake is not finished")]
    Handshaking,
    #[error("{check}: expected {expected}, got {got}")]
    Parameter {
        check: CheckName,
        expected: String,
        got: String,
    },
    #[error("reading the peer's certificate")]
    Certificate(#[source] CertificateError),
    #[error("deriving the TLS exporter")]
    Exporter(#[source] rustls::Error),
}

/// A finished TLS handshake of this protocol. Not attested yet: the gate takes it.
pub struct Established {
    pub(crate) exporter: [u8; 32],
    pub(crate) own_spki: SpkiHash,
    pub(crate) peer: Peer,
    pub(crate) card: Scorecard,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("own_spki", &self.own_spki)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Established {
    /// Checks what the handshake agreed on: rustls goes on without ALPN when the other side
    /// offers none, and the rest is checked rather than believed. `own_spki` is of the key that
    /// this side's configuration signs with.
    ///
    /// # Errors
    /// [`EstablishError`] names what is not as this protocol demands.
    pub fn of<Side>(
        connection: &ConnectionCommon<Side>,
        own_spki: SpkiHash,
    ) -> Result<Self, EstablishError> {
        if connection.is_handshaking() {
            return Err(EstablishError::Handshaking);
        }
        let mut card = Scorecard::new(CheckName::CHANNEL);
        agreed(connection, &mut card).map_err(|failed| {
            let name = failed.check();
            let (expected, got) = card
                .check(name)
                .map(|check| (check.expected.clone(), check.got.clone()))
                .unwrap_or_default();
            EstablishError::Parameter {
                check: name,
                expected,
                got,
            }
        })?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = read_peer(chain).map_err(EstablishError::Certificate)?.peer;
        let exporter = connection
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(EstablishError::Exporter)?;
        Ok(Self {
            exporter,
            own_spki,
            peer,
            card,
        })
    }

    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}

fn agreed<Side>(connection: &ConnectionCommon<Side>, card: &mut Scorecard) -> Result<(), Failed> {
    let version = connection.protocol_version();
    card.require(
        CheckName::TlsVersion,
        version == Some(ProtocolVersion::TLSv1_3),
        "TLSv1_3",
        version.map_or_else(|| "none".into(), |version| format!("{version:?}")),
    )?;
    let group = connection
        .negotiated_key_exchange_group()
        .map(|group| group.name());
    card.require(
        CheckName::KeyExchange,
        group == Some(NamedGroup::X25519MLKEM768),
        "X25519MLKEM768",
        group.map_or_else(|| "none".into(), |group| format!("{group:?}")),
    )?;
    let alpn = connection.alpn_protocol();
    card.require(
        CheckName::ApplicationProtocol,
        alpn == Some(ALPN),
        String::from_utf8_lossy(ALPN),
        alpn.map_or_else(
            || "none".into(),
            |alpn| String::from_utf8_lossy(alpn).into_owned(),
        ),
    )?;
    let kind = connection.handshake_kind();
    let full = matches!(
        kind,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
    );
    card.require(
        CheckName::FullHandshake,
        full,
        "Full",
        kind.map_or_else(|| "none".into(), |kind| format!("{kind:?}")),
    )
}
