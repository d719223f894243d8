//! How the files in testvectors/ are written; docs/protocol.md, "Vectors", says it in words.

use std::fs;
use std::path::PathBuf;

use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId, RequestId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) const ENVELOPE: &str = "sesemi-envelope/1";
pub(crate) const ARTIFACT: &str = "sesemi-artifact/1";

/// Bytes in hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// Bytes as they are, or the first `len` of SHA-256(seed | 0 as u64 BE), SHA-256(seed | 1), …
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Hex(Hex),
    Rule { seed: String, len: usize },
}

impl Content {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Hex(hex) => hex.0.clone(),
            Self::Rule { seed, len } => (0u64..)
                .flat_map(|n| {
                    *crypto::sha256(&[seed.as_bytes(), &n.to_be_bytes()].concat()).as_bytes()
                })
                .take(*len)
                .collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File<C> {
    pub(crate) format: String,
    pub(crate) about: String,
    pub(crate) cases: Vec<C>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Request,
    Response,
}

/// An envelope. One that opens says what it was made from; one that does not says why.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvelopeCase {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    pub(crate) key: Hex,
    pub(crate) user: PrincipalId,
    pub(crate) model: ModelId,
    pub(crate) enclave: EnclaveId,
    pub(crate) request_id: RequestId,
    pub(crate) envelope: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) opens: Option<Opens>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opens {
    pub(crate) salt: Hex,
    pub(crate) iv: Hex,
    pub(crate) payload: Content,
    /// Of a request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_key: Option<Hex>,
}

/// What the artifact was sealed with, or is opened with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Names {
    pub(crate) key: Hex,
    pub(crate) model: ModelId,
    pub(crate) version: ModelVersion,
}

/// An artifact: how to seal it, what is done to it, and what opening it gives.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactCase {
    pub(crate) name: String,
    pub(crate) seal: Names,
    pub(crate) salt: Hex,
    pub(crate) nonce_prefix: Hex,
    pub(crate) plaintext: Content,
    /// If present, the plaintext is cut so, against the rules of the format.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) segments: Vec<Cut>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) edits: Vec<Edit>,
    /// Length and SHA-256 after the edits.
    pub(crate) len: u64,
    pub(crate) sha256: Digest,
    /// All of it after the edits, if it is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact: Option<Hex>,
    /// If absent, it is opened with what it was sealed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open: Option<Names>,
    /// The length that the opener is told, if it is not the true one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) announced: Option<u64>,
    /// The digest that the owner registered, if it is not that of the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// The segment that does not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused_segment: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    pub(crate) take: usize,
    pub(crate) last: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Edit {
    /// XOR one byte.
    Flip {
        at: usize,
        mask: u8,
    },
    /// Keep the first bytes.
    Truncate {
        len: usize,
    },
    Append {
        bytes: Hex,
    },
    /// These segments of 1 MiB, in this order.
    Order {
        segments: Vec<usize>,
    },
    /// Put this segment of an artifact with another salt or plaintext, and the same names, in the
    /// place of ours.
    Splice {
        segment: usize,
        salt: Hex,
        nonce_prefix: Hex,
        plaintext: Content,
    },
}

pub(crate) const SEGMENT: usize = 1 << 20;

impl ArtifactCase {
    /// The bytes that are offered to the opener.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let plain = self.plaintext.bytes();
        let mut bytes = if self.segments.is_empty() {
            self.sealed(&self.salt, &self.nonce_prefix, &plain)
        } else {
            let mut rest = plain.as_slice();
            let segments: Vec<_> = self
                .segments
                .iter()
                .map(|cut| {
                    let (segment, later) = rest.split_at(cut.take);
                    rest = later;
                    (segment, cut.last)
                })
                .collect();
            let key = crypto::ModelKey::from_slice(&self.seal.key.0).unwrap();
            let fresh = fresh(&self.salt, &self.nonce_prefix);
            let (model, version) = (&self.seal.model, self.seal.version);
            crypto::vectors::seal_segments(&key, model, version, &segments, fresh).unwrap()
        };
        for edit in &self.edits {
            self.apply(edit, &mut bytes);
        }
        bytes
    }

    fn sealed(&self, salt: &Hex, nonce_prefix: &Hex, plain: &[u8]) -> Vec<u8> {
        let key = crypto::ModelKey::from_slice(&self.seal.key.0).unwrap();
        let fresh = fresh(salt, nonce_prefix);
        let mut out = Vec::new();
        let (model, version) = (&self.seal.model, self.seal.version);
        crypto::vectors::seal_artifact(&key, model, version, &mut &*plain, &mut out, fresh)
            .unwrap();
        out
    }

    fn apply(&self, edit: &Edit, bytes: &mut Vec<u8>) {
        match edit {
            Edit::Flip { at, mask } => bytes[*at] ^= mask,
            Edit::Truncate { len } => bytes.truncate(*len),
            Edit::Append { bytes: more } => bytes.extend_from_slice(&more.0),
            Edit::Order { segments } => {
                let old: Vec<_> = bytes.chunks(SEGMENT).map(<[u8]>::to_vec).collect();
                *bytes = segments.iter().flat_map(|&i| old[i].clone()).collect();
            }
            Edit::Splice {
                segment,
                salt,
                nonce_prefix,
                plaintext,
            } => {
                let other = self.sealed(salt, nonce_prefix, &plaintext.bytes());
                let from = segment * SEGMENT;
                let to = (from + SEGMENT).min(bytes.len());
                bytes[from..to].copy_from_slice(&other[from..to]);
            }
        }
    }
}

fn fresh(salt: &Hex, nonce_prefix: &Hex) -> crypto::vectors::ArtifactFresh {
    crypto::vectors::ArtifactFresh {
        salt: salt.array(),
        nonce_prefix: nonce_prefix.array(),
    }
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testvectors")
}

/// The cases of every file in the folder that is of this format.
pub(crate) fn cases<C: DeserializeOwned>(format: &str) -> Vec<C> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        format: String,
    }
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let text = fs::read_to_string(&path).unwrap();
            if serde_json::from_str::<Head>(&text).is_ok_and(|head| head.format == format) {
                let file: File<C> = serde_json::from_str(&text)
                    .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                cases.extend(file.cases);
            }
        }
    }
    cases
}
