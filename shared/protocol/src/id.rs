//! Identifiers: parsed once at the edge, opaque inside, exact in length.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MODEL_ID_MAX;

/// Why a text is not the identifier it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    #[error("a {kind} is {expected} hexadecimal digits in lower case, got {got} characters")]
    HexLength {
        kind: &'static str,
        expected: usize,
        got: usize,
    },
    #[error("a {kind} has only the digits 0-9 and a-f")]
    HexDigit { kind: &'static str },
    #[error(
        "a {kind} is 1 to {MODEL_ID_MAX} characters of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit"
    )]
    Name { kind: &'static str },
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes; the text form has twice as many characters.
            pub const LEN: usize = $len;

            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// First eight hexadecimal digits, for people; never for comparison.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdError;

            fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| ParseIdError::HexLength {
                    kind: $kind,
                    expected: $len * 2,
                    got: bytes.len() * 2,
                })
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != $len * 2 {
                    return Err(ParseIdError::HexLength {
                        kind: $kind,
                        expected: $len * 2,
                        got: text.chars().count(),
                    });
                }
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(ParseIdError::HexDigit { kind: $kind });
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseIdError::HexDigit { kind: $kind })?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        text_serde!($name);
    };
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}

bytes_id! {
    /// A model owner or model user: SHA-256 of the Ed25519 SubjectPublicKeyInfo (DER) in the
    /// caller's self-signed TLS certificate.
    PrincipalId, "principal id", 32
}
bytes_id! {
    /// SHA-384 of an appraisal policy in its canonical form (see `attestation::policy`).
    PolicyHash, "policy hash", 48
}
bytes_id! {
    /// E_S of a SeMIRT or E_K of a KeyService: SHA-384 over the TEE, its measurements and the
    /// measured configuration (see `attestation::identity`).
    EnclaveId, "enclave id", 48
}
bytes_id! {
    /// SHA-256 of an encrypted model artifact.
    Digest, "digest", 32
}
bytes_id! {
    /// Names one request; drawn at random by the client, never reused.
    RequestId, "request id", 16
}
bytes_id! {
    /// Names one lease that KeyService handed out.
    LeaseId, "lease id", 16
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
                let rest_ok = text.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                });
                if first_ok && rest_ok && text.len() <= MODEL_ID_MAX {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseIdError::Name { kind: $kind })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        text_serde!($name);
    };
}

name_id! {
    /// A model's name, unique within one KeyService; it belongs to whoever registered it first.
    ModelId, "model id"
}
name_id! {
    /// A function deployed on a platform: image, measured configuration and limits.
    FunctionId, "function id"
}
name_id! {
    /// A sandbox that runs a function.
    InstanceId, "instance id"
}

/// Version of a model; versions of one model only grow, and start at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ModelVersion(pub u32);

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_round_trip() {
        let id = PrincipalId::new([0xab; 32]);
        assert_eq!(id.to_string().parse::<PrincipalId>(), Ok(id));
        assert_eq!(
            serde_json::to_string(&id).unwrap(),
            format!("\"{}\"", "ab".repeat(32))
        );
    }

    #[test]
    fn hex_ids_refuse_every_other_length_case_and_digit() {
        for bad in [
            "",
            "ab",
            &"ab".repeat(31),
            &"ab".repeat(33),
            &"AB".repeat(32),
            &"zz".repeat(32),
        ] {
            assert!(bad.parse::<PrincipalId>().is_err(), "{bad}");
        }
        // Non-ASCII of the right byte length must not panic.
        assert!("é".repeat(32).parse::<PrincipalId>().is_err());
    }

    #[test]
    fn names_refuse_what_could_be_confused() {
        for good in ["a", "breast-cancer", "efficientnet-lite0", "m.1_x"] {
            assert!(good.parse::<ModelId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "A",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad}");
        }
    }
}
