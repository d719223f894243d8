//! The measured configuration in its one canonical encoding, and its hash.

use std::fmt;

use aws_lc_rs::digest;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::package::EngineName;
use protocol::{EnclaveId, PolicyHash};

use crate::cbor::{CborError, Reader, Writer, require_at_most, require_canonical};
use crate::policy::AppraisalPolicy;

/// Largest encoded configuration, in bytes.
pub const CONFIG_MAX: usize = 4096;

const WHAT: &str = "a measured configuration";
const SEMIRT: &str = "sesemi/measured/semirt/2";
const KEYSERVICE: &str = "sesemi/measured/keyservice/2";
const ENGINES_MAX: u64 = 16;

/// SHA-384 of the canonical encoding of a measured configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfigHash([u8; 48]);

impl ConfigHash {
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigHash({self})")
    }
}

/// What a configuration configures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    Semirt(SemirtMeasured),
    Keyservice(KeyserviceMeasured),
}

impl Measured {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Semirt(_) => "semirt",
            Self::Keyservice(_) => "keyservice",
        }
    }
}

/// A measured configuration with its canonical CBOR, which is what is sent and hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredConfig {
    measured: Measured,
    policy: PolicyHash,
    bytes: Vec<u8>,
}

impl MeasuredConfig {
    /// `policy`: which evidence of the pinned KeyService is accepted.
    ///
    /// # Errors
    /// [`CborError`] if it is longer than [`CONFIG_MAX`] or names too many engines.
    pub fn semirt(measured: &SemirtMeasured, policy: &AppraisalPolicy) -> Result<Self, CborError> {
        Self::new(Measured::Semirt(measured.clone()), policy)
    }

    /// `policy`: which evidence of instances is accepted.
    ///
    /// # Errors
    /// [`CborError`] if it is longer than [`CONFIG_MAX`].
    pub fn keyservice(
        measured: &KeyserviceMeasured,
        policy: &AppraisalPolicy,
    ) -> Result<Self, CborError> {
        Self::new(Measured::Keyservice(measured.clone()), policy)
    }

    fn new(measured: Measured, policy: &AppraisalPolicy) -> Result<Self, CborError> {
        let policy = policy.hash().map_err(|_| CborError::Shape { what: WHAT })?;
        if let Measured::Semirt(semirt) = &measured
            && semirt.engines.len() as u64 > ENGINES_MAX
        {
            return Err(CborError::Shape { what: WHAT });
        }
        let bytes = encode(&measured, &policy);
        require_at_most(WHAT, bytes.len(), CONFIG_MAX)?;
        Ok(Self {
            measured,
            policy,
            bytes,
        })
    }

    /// Reads what a peer sent; accepts the canonical encoding only.
    ///
    /// # Errors
    /// [`CborError`] for everything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        require_at_most(WHAT, bytes.len(), CONFIG_MAX)?;
        let (measured, policy) = decode(bytes)?;
        require_canonical(WHAT, bytes, &encode(&measured, &policy))?;
        Ok(Self {
            measured,
            policy,
            bytes: bytes.to_vec(),
        })
    }

    /// The canonical CBOR.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn hash(&self) -> ConfigHash {
        let mut hash = [0; 48];
        hash.copy_from_slice(digest::digest(&digest::SHA384, &self.bytes).as_ref());
        ConfigHash(hash)
    }

    #[must_use]
    pub const fn measured(&self) -> &Measured {
        &self.measured
    }

    /// The appraisal policy that it judges its peers by.
    #[must_use]
    pub const fn policy(&self) -> &PolicyHash {
        &self.policy
    }

    /// `semirt` or `keyservice`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.measured.kind()
    }
}

const fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Shared => "shared",
        Isolation::PerOwner => "per-owner",
        Isolation::Sequential => "sequential",
    }
}

const fn engine_name(engine: EngineName) -> &'static str {
    match engine {
        EngineName::Rten => "rten",
        EngineName::Conv => "conv",
    }
}

// Destructured without `..`: a new setting does not compile until it is measured.
fn encode(measured: &Measured, policy: &PolicyHash) -> Vec<u8> {
    let writer = match measured {
        Measured::Semirt(SemirtMeasured {
            isolation,
            concurrency,
            key_ttl_s,
            model_memory,
            engines,
            keyservice,
        }) => {
            let writer = Writer::new()
                .array(8)
                .text(SEMIRT)
                .text(isolation_name(*isolation))
                .uint(u64::from(*concurrency))
                .uint(u64::from(*key_ttl_s))
                .uint(*model_memory)
                .array(engines.len());
            let writer = engines
                .iter()
                .fold(writer, |writer, e| writer.text(engine_name(*e)));
            writer.bytes(keyservice.as_bytes())
        }
        Measured::Keyservice(KeyserviceMeasured { lease_ttl_s }) => Writer::new()
            .array(3)
            .text(KEYSERVICE)
            .uint(u64::from(*lease_ttl_s)),
    };
    writer.bytes(policy.as_bytes()).done()
}

fn decode(bytes: &[u8]) -> Result<(Measured, PolicyHash), CborError> {
    let mut reader = Reader::new(WHAT, bytes);
    let fields = reader.any_array()?;
    let measured = match (reader.text()?, fields) {
        (SEMIRT, 8) => {
            let name = reader.text()?;
            let isolation = [
                Isolation::Shared,
                Isolation::PerOwner,
                Isolation::Sequential,
            ]
            .into_iter()
            .find(|isolation| isolation_name(*isolation) == name)
            .ok_or_else(|| reader.wrong())?;
            let concurrency = narrow(&mut reader)?;
            let key_ttl_s = narrow(&mut reader)?;
            let model_memory = reader.uint()?;
            let count = reader.any_array()?;
            if count > ENGINES_MAX {
                return Err(reader.wrong());
            }
            let engines = (0..count)
                .map(|_| {
                    let name = reader.text()?;
                    [EngineName::Rten, EngineName::Conv]
                        .into_iter()
                        .find(|engine| engine_name(*engine) == name)
                        .ok_or_else(|| reader.wrong())
                })
                .collect::<Result<_, _>>()?;
            let keyservice = EnclaveId::new(reader.fixed()?);
            Measured::Semirt(SemirtMeasured {
                isolation,
                concurrency,
                key_ttl_s,
                model_memory,
                engines,
                keyservice,
            })
        }
        (KEYSERVICE, 3) => Measured::Keyservice(KeyserviceMeasured {
            lease_ttl_s: narrow(&mut reader)?,
        }),
        _ => return Err(reader.wrong()),
    };
    Ok((measured, PolicyHash::new(reader.fixed()?)))
}

fn narrow<T: TryFrom<u64>>(reader: &mut Reader<'_>) -> Result<T, CborError> {
    T::try_from(reader.uint()?).map_err(|_| reader.wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn semirt() -> SemirtMeasured {
        SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: 4,
            key_ttl_s: 60,
            model_memory: 1 << 30,
            engines: vec![EngineName::Rten],
            keyservice: EnclaveId::new([7; 48]),
        }
    }

    #[test]
    fn round_trips_and_every_setting_changes_the_hash() {
        let base = semirt();
        let config = MeasuredConfig::semirt(&base, &AppraisalPolicy::default()).unwrap();
        assert_eq!(
            MeasuredConfig::from_bytes(config.as_bytes()).unwrap(),
            config
        );
        let others = [
            SemirtMeasured {
                isolation: Isolation::Sequential,
                ..base.clone()
            },
            SemirtMeasured {
                concurrency: 5,
                ..base.clone()
            },
            SemirtMeasured {
                key_ttl_s: 61,
                ..base.clone()
            },
            SemirtMeasured {
                model_memory: 1,
                ..base.clone()
            },
            SemirtMeasured {
                engines: vec![],
                ..base.clone()
            },
            SemirtMeasured {
                keyservice: EnclaveId::new([8; 48]),
                ..base
            },
        ];
        for other in others {
            let hash = MeasuredConfig::semirt(&other, &AppraisalPolicy::default())
                .unwrap()
                .hash();
            assert_ne!(hash, config.hash(), "{other:?}");
        }
        let keyservice = MeasuredConfig::keyservice(
            &KeyserviceMeasured { lease_ttl_s: 60 },
            &AppraisalPolicy::default(),
        )
        .unwrap();
        assert_eq!(
            MeasuredConfig::from_bytes(keyservice.as_bytes()).unwrap(),
            keyservice
        );
        assert_ne!(keyservice.hash(), config.hash());
        // Whom it accepts is what its peers rely on, too.
        let any = AppraisalPolicy::strict(vec![crate::Tee::Sgx], crate::Allowed::Any);
        let other = MeasuredConfig::semirt(&semirt(), &any).unwrap();
        assert_ne!(other.hash(), config.hash());
    }

    #[test]
    fn only_the_canonical_encoding_is_read() {
        let config = MeasuredConfig::keyservice(
            &KeyserviceMeasured { lease_ttl_s: 60 },
            &AppraisalPolicy::default(),
        )
        .unwrap();
        let bytes = config.as_bytes();
        let mut trailing = bytes.to_vec();
        trailing.push(0);
        assert!(MeasuredConfig::from_bytes(&trailing).is_err());
        // 60 in two bytes more than it needs.
        let at = bytes.len() - 52;
        let mut long = bytes[..at].to_vec();
        long.extend([0x19, 0, 60]);
        long.extend(&bytes[at + 2..]);
        assert_eq!(
            MeasuredConfig::from_bytes(&long),
            Err(CborError::NotCanonical { what: WHAT })
        );
        for cut in 0..bytes.len() {
            assert!(MeasuredConfig::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(MeasuredConfig::from_bytes(&[0; CONFIG_MAX + 1]).is_err());
    }
}
