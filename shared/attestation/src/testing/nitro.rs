//! A Nitro hypervisor in software: attestation documents with any content, genuinely signed below
//! a root that is not AWS's.

use std::time::Duration;

use super::p384::{P384Chain, authority, leaf};
use crate::cbor::Writer;
use crate::evidence::{Evidence, Tee};
use crate::tee::nitro::{NitroVerifier, sig_structure};

/// When its documents are made unless they say otherwise: 2026-07-01T00:00:00Z.
pub const NITRO_NOW: Duration = Duration::from_secs(1_782_864_000);

/// Plays AWS: what one signs, another does not accept.
#[derive(Debug)]
pub struct FakeNitro {
    pub chain: P384Chain,
}

/// Fields of a document. [`FakeNitro::document`] fills them as hardware does; a test changes what
/// it is about, also to what hardware never says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NitroDocument {
    pub module_id: String,
    pub digest: String,
    /// Since the UNIX epoch.
    pub timestamp: Duration,
    pub pcrs: Vec<(u64, Vec<u8>)>,
    pub certificate: Vec<u8>,
    /// From the root down.
    pub cabundle: Vec<Vec<u8>>,
    pub public_key: Option<Vec<u8>>,
    pub user_data: Option<Vec<u8>>,
    pub nonce: Option<Vec<u8>>,
    /// Newer hypervisors write the payload's map with an indefinite length.
    pub indefinite: bool,
}

impl Default for FakeNitro {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNitro {
    /// With a chain like AWS's: root, region, zone, instance, enclave.
    #[must_use]
    pub fn new() -> Self {
        Self {
            chain: P384Chain::issue(&[
                authority("test.nitro-enclaves", 3),
                authority("region.test.nitro-enclaves", 2),
                authority("zone.region.test.nitro-enclaves", 1),
                authority("i-0.region.test.nitro-enclaves", 0),
                leaf("i-0-enc0.region.test"),
            ]),
        }
    }

    /// Trusts this fake's root, and no other.
    #[must_use]
    pub fn verifier(&self) -> NitroVerifier {
        NitroVerifier::with_root(&self.chain.certificates[0])
    }

    /// A production enclave's document: PCR0 to PCR2 are all 0x10, 0x11 and 0x12.
    #[must_use]
    pub fn document(&self) -> NitroDocument {
        let (certificate, cabundle) = self.chain.certificates.split_last().unwrap();
        let pcr = |index: u8| match index {
            0..=2 => vec![0x10 + index; 48],
            4 => vec![0x44; 48],
            _ => vec![0; 48],
        };
        NitroDocument {
            module_id: "i-0-enc0".into(),
            digest: "SHA384".into(),
            timestamp: NITRO_NOW,
            pcrs: (0..16).map(|index| (index.into(), pcr(index))).collect(),
            certificate: certificate.clone(),
            cabundle: cabundle.to_vec(),
            public_key: None,
            user_data: Some(vec![0xda; 64]),
            nonce: None,
            indefinite: true,
        }
    }

    /// The document as evidence, signed.
    #[must_use]
    pub fn sign(&self, document: &NitroDocument) -> Evidence {
        self.sign_payload(&document.payload())
    }

    /// Any payload as evidence, signed.
    #[must_use]
    pub fn sign_payload(&self, payload: &[u8]) -> Evidence {
        let signature = self.chain.sign(&sig_structure(payload));
        Evidence {
            tee: Tee::Nitro,
            body: Writer::new()
                .array(4)
                .bytes(&[0xa1, 0x01, 0x38, 0x22])
                .map(0)
                .bytes(payload)
                .bytes(&signature)
                .done(),
        }
    }
}

impl NitroDocument {
    /// The members of the payload's map: names, and values in CBOR.
    #[must_use]
    pub fn members(&self) -> Vec<(String, Vec<u8>)> {
        let millis = u64::try_from(self.timestamp.as_millis()).unwrap();
        let pcrs = self.pcrs.iter().fold(
            Writer::new().map(self.pcrs.len()),
            |writer, (index, value)| writer.uint(*index).bytes(value),
        );
        let cabundle = self
            .cabundle
            .iter()
            .fold(Writer::new().array(self.cabundle.len()), |writer, der| {
                writer.bytes(der)
            });
        let nullable = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => Writer::new().bytes(bytes).done(),
            None => vec![0xf6],
        };
        let member = |name: &str, value| (name.to_owned(), value);
        vec![
            member("module_id", Writer::new().text(&self.module_id).done()),
            member("digest", Writer::new().text(&self.digest).done()),
            member("timestamp", Writer::new().uint(millis).done()),
            member("pcrs", pcrs.done()),
            member("certificate", Writer::new().bytes(&self.certificate).done()),
            member("cabundle", cabundle.done()),
            member("public_key", nullable(&self.public_key)),
            member("user_data", nullable(&self.user_data)),
            member("nonce", nullable(&self.nonce)),
        ]
    }

    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        payload(&self.members(), self.indefinite)
    }
}

/// A payload of any members.
#[must_use]
pub fn payload(members: &[(String, Vec<u8>)], indefinite: bool) -> Vec<u8> {
    let mut payload = if indefinite {
        vec![0xbf]
    } else {
        Writer::new().map(members.len()).done()
    };
    for (name, value) in members {
        payload.extend(Writer::new().text(name).done());
        payload.extend(value);
    }
    if indefinite {
        payload.push(0xff);
    }
    payload
}
