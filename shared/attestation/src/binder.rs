//! What a piece of evidence is about: typed, domain-separated, and hashed into 64 bytes.

use std::fmt;

use aws_lc_rs::digest;
use protocol::PrincipalId;

use crate::cbor::Writer;
use crate::measured::ConfigHash;

const CHANNEL_LABEL: &str = "sesemi/ra/1";
/// SHA-256 in the IANA "Named Information Hash Algorithm" registry, as the CCC document uses it.
const SHA256_ALG: u64 = 1;

/// SHA-256 of a SubjectPublicKeyInfo (DER, algorithm included).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpkiHash([u8; 32]);

impl SpkiHash {
    #[must_use]
    pub fn of(spki_der: &[u8]) -> Self {
        Self(sha256(spki_der))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) const fn of_principal(principal: &PrincipalId) -> Self {
        Self(*principal.as_bytes())
    }

    /// The principal whose identity key this is; meaningful for Ed25519 identity keys only.
    pub(crate) const fn principal(&self) -> PrincipalId {
        PrincipalId::new(self.0)
    }
}

impl fmt::Debug for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiHash({})", self.principal())
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Who speaks in a channel; keeps evidence of one side from being sent back as the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Keyservice,
    Semirt,
}

impl Role {
    /// The name that is hashed; also [`crate::measured::MeasuredConfig::kind`] of that role.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyservice => "keyservice",
            Self::Semirt => "semirt",
        }
    }
}

/// Everything that fresh evidence in a channel is bound to.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinder {
    pub role: Role,
    /// TLS exporter (RFC 8446 §7.5) of this connection.
    pub exporter: [u8; 32],
    /// The nonce that the other side just drew.
    pub peer_nonce: [u8; 32],
    /// Of the attester's TLS key.
    pub own_spki: SpkiHash,
    /// Of the other side's TLS key: the exporter does not cover a client certificate.
    pub peer_spki: SpkiHash,
    pub config: ConfigHash,
    /// KeyService's epoch.
    pub epoch: u64,
}

impl fmt::Debug for ChannelBinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBinder")
            .field("role", &self.role)
            .field("own_spki", &self.own_spki)
            .field("peer_spki", &self.peer_spki)
            .field("config", &self.config)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What evidence may be asked for. There is no variant for bytes of the caller's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binder {
    /// This TLS key lives in the enclave (CCC interoperable RA-TLS).
    Certificate(SpkiHash),
    /// The enclave speaks in this channel, now.
    Channel(ChannelBinder),
}

impl Binder {
    #[must_use]
    pub fn certificate(spki_der: &[u8]) -> Self {
        Self::Certificate(SpkiHash::of(spki_der))
    }

    #[must_use]
    pub const fn channel(binder: ChannelBinder) -> Self {
        Self::Channel(binder)
    }

    /// The 64 bytes that the TEE signs.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        let mut data = [0; 64];
        match self {
            Self::Certificate(spki) => {
                let (hash, _) = data.split_at_mut(32);
                hash.copy_from_slice(&sha256(&claims_buffer(spki)));
            }
            Self::Channel(channel) => {
                let message = Writer::new()
                    .array(8)
                    .text(CHANNEL_LABEL)
                    .text(channel.role.name())
                    .bytes(&channel.exporter)
                    .bytes(&channel.peer_nonce)
                    .bytes(channel.own_spki.as_bytes())
                    .bytes(channel.peer_spki.as_bytes())
                    .bytes(channel.config.as_bytes())
                    .uint(channel.epoch)
                    .done();
                data.copy_from_slice(digest::digest(&digest::SHA512, &message).as_ref());
            }
        }
        data
    }

    /// The peer's nonce, for TEEs that have a field for it (Nitro).
    #[must_use]
    pub const fn nonce(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Certificate(_) => None,
            Self::Channel(channel) => Some(&channel.peer_nonce),
        }
    }
}

/// The CCC claims-buffer with nothing but the key's hash:
/// `{"pubkey-hash": bstr .cbor [1, SHA-256(SPKI)]}`.
pub(crate) fn claims_buffer(spki: &SpkiHash) -> Vec<u8> {
    let hash_entry = Writer::new()
        .array(2)
        .uint(SHA256_ALG)
        .bytes(spki.as_bytes())
        .done();
    Writer::new()
        .map(1)
        .text("pubkey-hash")
        .bytes(&hash_entry)
        .done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::MeasuredConfig;
    use crate::policy::AppraisalPolicy;
    use protocol::measured::KeyserviceMeasured;

    fn channel() -> ChannelBinder {
        let config = MeasuredConfig::keyservice(
            &KeyserviceMeasured { lease_ttl_s: 60 },
            &AppraisalPolicy::default(),
        )
        .unwrap();
        ChannelBinder {
            role: Role::Keyservice,
            exporter: [1; 32],
            peer_nonce: [2; 32],
            own_spki: SpkiHash::of(b"own"),
            peer_spki: SpkiHash::of(b"peer"),
            config: config.hash(),
            epoch: 5,
        }
    }

    #[test]
    fn every_field_of_a_channel_changes_the_report_data() {
        let base = channel();
        let other_config = MeasuredConfig::keyservice(
            &KeyserviceMeasured { lease_ttl_s: 61 },
            &AppraisalPolicy::default(),
        )
        .unwrap()
        .hash();
        let altered = |alter: &dyn Fn(&mut ChannelBinder)| {
            let mut binder = base.clone();
            alter(&mut binder);
            binder
        };
        let others = [
            altered(&|b| b.role = Role::Semirt),
            altered(&|b| b.exporter = [9; 32]),
            altered(&|b| b.peer_nonce = [9; 32]),
            altered(&|b| b.own_spki = SpkiHash::of(b"x")),
            altered(&|b| b.peer_spki = SpkiHash::of(b"x")),
            altered(&|b| (b.own_spki, b.peer_spki) = (b.peer_spki, b.own_spki)),
            altered(&|b| b.config = other_config),
            altered(&|b| b.epoch = 6),
        ];
        let expected = Binder::channel(base).report_data();
        for other in others {
            assert_ne!(
                Binder::channel(other.clone()).report_data(),
                expected,
                "{other:?}"
            );
        }
    }

    #[test]
    fn the_claims_buffer_is_the_one_of_the_ccc_document() {
        // Prefix of a real Gramine certificate.
        let buffer = claims_buffer(&SpkiHash::of(b"key"));
        let prefix = [
            &[0xa1, 0x6b][..],
            b"pubkey-hash",
            &[0x58, 0x24, 0x82, 0x01, 0x58, 0x20],
        ];
        assert_eq!(buffer[..buffer.len() - 32], prefix.concat());
        let data = Binder::certificate(b"key").report_data();
        assert_eq!(data[32..], [0; 32]);
        assert_eq!(data[..32], sha256(&buffer));
    }
}
