//! The CBOR inside the sealed records: rows, log entries and the head.
//!
//! Only what KeyService sealed itself reaches the decoder, but it still checks every length: a
//! record of a later version must be an error, not a guess.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use protocol::keyservice::{LogEntry, PolicyText, WireKey};
use protocol::limits::POLICY_MAX;
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};
use zeroize::Zeroizing;

use super::StoredHead;
use crate::broker::{Chain, Entry, Head, Row};

/// Names this layout; a vault of another format is refused.
const FORMAT: u8 = 2;
const VERSION: u8 = 1;
const GRANT: u8 = 2;
const REQUEST_KEY: u8 = 3;
/// Every record is shorter, so that the buffer with a key in it never moves.
const RECORD_MAX: usize = 1024 + POLICY_MAX;

/// A record opened, but does not have the form of this version of KeyService.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record has another form than this KeyService writes")]
pub struct DecodeError;

impl From<minicbor::decode::Error> for DecodeError {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

fn encoded(write: impl FnOnce(&mut Out<'_>) -> Written) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(RECORD_MAX));
    let written = write(&mut Encoder::new(&mut *bytes));
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    debug_assert!(bytes.len() <= RECORD_MAX, "the buffer moved");
    bytes
}

pub(super) fn encode_head(head: &StoredHead) -> Zeroizing<Vec<u8>> {
    encoded(|out| {
        out.array(6)?
            .u8(FORMAT)?
            .u64(head.head.epoch)?
            .u64(head.head.chain.entries)?;
        out.bytes(head.head.chain.head.as_bytes())?
            .u64(head.slots)?;
        out.bytes(head.root.as_bytes())?;
        Ok(())
    })
}

pub(super) fn decode_head(bytes: &[u8]) -> Result<StoredHead, DecodeError> {
    let mut read = Decoder::new(bytes);
    array(&mut read, 6)?;
    if read.u8()? != FORMAT {
        return Err(DecodeError);
    }
    let epoch = read.u64()?;
    let chain = Chain {
        entries: read.u64()?,
        head: digest(&mut read)?,
    };
    let head = StoredHead {
        head: Head { epoch, chain },
        slots: read.u64()?,
        root: digest(&mut read)?,
    };
    end(&read).map(|()| head)
}

pub(super) fn encode_row(row: &Row) -> Zeroizing<Vec<u8>> {
    encoded(|out| {
        match row {
            Row::Version {
                model,
                version,
                owner,
                digest,
                key,
            } => {
                out.array(6)?
                    .u8(VERSION)?
                    .str(model.as_str())?
                    .u32(version.0)?;
                out.bytes(owner.as_bytes())?
                    .bytes(digest.as_bytes())?
                    .bytes(key.bytes())?;
            }
            Row::Grant {
                model,
                user,
                enclave,
                epoch,
                policy,
            } => {
                out.array(6)?
                    .u8(GRANT)?
                    .str(model.as_str())?
                    .bytes(user.as_bytes())?;
                out.bytes(enclave.as_bytes())?.u64(*epoch)?;
                optional_policy(out, policy.as_ref())?;
            }
            Row::RequestKey {
                user,
                model,
                enclave,
                owner,
                epoch,
                key,
                policy,
            } => {
                out.array(8)?
                    .u8(REQUEST_KEY)?
                    .bytes(user.as_bytes())?
                    .str(model.as_str())?;
                out.bytes(enclave.as_bytes())?
                    .bytes(owner.as_bytes())?
                    .u64(*epoch)?;
                out.bytes(key.bytes())?;
                optional_policy(out, policy.as_ref())?;
            }
        }
        Ok(())
    })
}

pub(super) fn decode_row(bytes: &[u8]) -> Result<Row, DecodeError> {
    let mut read = Decoder::new(bytes);
    let fields = read.array()?;
    let row = match (read.u8()?, fields) {
        (VERSION, Some(6)) => Row::Version {
            model: model(&mut read)?,
            version: ModelVersion(read.u32()?),
            owner: principal(&mut read)?,
            digest: digest(&mut read)?,
            key: WireKey::new(read.bytes()?),
        },
        (GRANT, Some(6)) => Row::Grant {
            model: model(&mut read)?,
            user: principal(&mut read)?,
            enclave: enclave(&mut read)?,
            epoch: read.u64()?,
            policy: optional(&mut read, policy)?,
        },
        (REQUEST_KEY, Some(8)) => Row::RequestKey {
            user: principal(&mut read)?,
            model: model(&mut read)?,
            enclave: enclave(&mut read)?,
            owner: principal(&mut read)?,
            epoch: read.u64()?,
            key: WireKey::new(read.bytes()?),
            policy: optional(&mut read, policy)?,
        },
        _ => return Err(DecodeError),
    };
    end(&read).map(|()| row)
}

pub(super) fn encode_entry(entry: &Entry) -> Zeroizing<Vec<u8>> {
    let published = &entry.published;
    encoded(|out| {
        out.array(9)?
            .u64(published.seq)?
            .u64(published.at)?
            .str(&published.event)?;
        out.str(published.model.as_str())?;
        optional_bytes(
            out,
            published.user.as_ref().map(|id| id.as_bytes().as_slice()),
        )?;
        optional_bytes(
            out,
            published
                .enclave
                .as_ref()
                .map(|id| id.as_bytes().as_slice()),
        )?;
        match published.version {
            Some(version) => out.u32(version.0)?,
            None => out.null()?,
        };
        optional_bytes(out, entry.owner.as_ref().map(|id| id.as_bytes().as_slice()))?;
        out.bytes(published.hash.as_bytes())?;
        Ok(())
    })
}

pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut read = Decoder::new(bytes);
    array(&mut read, 9)?;
    let (seq, at) = (read.u64()?, read.u64()?);
    let event = read.str()?.to_owned();
    let model = model(&mut read)?;
    let user = optional(&mut read, principal)?;
    let enclave = optional(&mut read, enclave)?;
    let version = optional(&mut read, |read| Ok(ModelVersion(read.u32()?)))?;
    let owner = optional(&mut read, principal)?;
    let hash = digest(&mut read)?;
    end(&read)?;
    Ok(Entry {
        published: LogEntry {
            seq,
            at,
            event,
            model,
            user,
            enclave,
            version,
            hash,
        },
        owner,
    })
}

fn optional_policy(out: &mut Out<'_>, policy: Option<&PolicyText>) -> Written {
    match policy {
        Some(policy) => out.str(policy.as_str())?,
        None => out.null()?,
    };
    Ok(())
}

fn policy(read: &mut Decoder<'_>) -> Result<PolicyText, DecodeError> {
    PolicyText::try_from(read.str()?.to_owned()).map_err(|_| DecodeError)
}

fn optional_bytes(out: &mut Out<'_>, bytes: Option<&[u8]>) -> Written {
    match bytes {
        Some(bytes) => out.bytes(bytes)?,
        None => out.null()?,
    };
    Ok(())
}

fn optional<'b, T>(
    read: &mut Decoder<'b>,
    some: impl FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if read.datatype()? == Type::Null {
        read.null()?;
        return Ok(None);
    }
    some(read).map(Some)
}

fn array(read: &mut Decoder<'_>, fields: u64) -> Result<(), DecodeError> {
    if read.array()? == Some(fields) {
        Ok(())
    } else {
        Err(DecodeError)
    }
}

fn end(read: &Decoder<'_>) -> Result<(), DecodeError> {
    if read.position() == read.input().len() {
        Ok(())
    } else {
        Err(DecodeError)
    }
}

fn model(read: &mut Decoder<'_>) -> Result<ModelId, DecodeError> {
    read.str()?.parse().map_err(|_| DecodeError)
}

fn principal(read: &mut Decoder<'_>) -> Result<PrincipalId, DecodeError> {
    PrincipalId::try_from(read.bytes()?).map_err(|_| DecodeError)
}

fn enclave(read: &mut Decoder<'_>) -> Result<EnclaveId, DecodeError> {
    EnclaveId::try_from(read.bytes()?).map_err(|_| DecodeError)
}

fn digest(read: &mut Decoder<'_>) -> Result<Digest, DecodeError> {
    Digest::try_from(read.bytes()?).map_err(|_| DecodeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 3] {
        // The longest of everything, so that RECORD_MAX is put to the test.
        let model: ModelId = "m".repeat(64).parse().unwrap();
        let (user, owner) = (PrincipalId::new([1; 32]), PrincipalId::new([2; 32]));
        let (enclave, key) = (EnclaveId::new([3; 48]), WireKey::new(&[4; 32]));
        let version = ModelVersion(u32::MAX);
        let digest = Digest::new([5; 32]);
        [
            Row::Version {
                model: model.clone(),
                version,
                owner,
                digest,
                key: key.clone(),
            },
            Row::Grant {
                model: model.clone(),
                user,
                enclave,
                epoch: u64::MAX,
                policy: Some(PolicyText::try_from("p".repeat(POLICY_MAX)).unwrap()),
            },
            Row::RequestKey {
                user,
                model,
                enclave,
                owner,
                epoch: u64::MAX,
                key,
                policy: Some(PolicyText::try_from("p".repeat(POLICY_MAX)).unwrap()),
            },
        ]
    }

    fn entry() -> Entry {
        let published = LogEntry {
            seq: u64::MAX,
            at: 1,
            event: "released".to_owned(),
            model: "m".parse().unwrap(),
            user: Some(PrincipalId::new([1; 32])),
            enclave: None,
            version: Some(ModelVersion(1)),
            hash: Digest::new([6; 32]),
        };
        Entry {
            published,
            owner: Some(PrincipalId::new([2; 32])),
        }
    }

    fn head() -> StoredHead {
        let chain = Chain {
            entries: 7,
            head: Digest::new([8; 32]),
        };
        StoredHead {
            head: Head { epoch: 9, chain },
            slots: 10,
            root: Digest::new([11; 32]),
        }
    }

    #[test]
    fn records_round_trip() {
        for row in rows() {
            let bytes = encode_row(&row);
            let again = decode_row(&bytes).unwrap();
            assert_eq!((again.key(), encode_row(&again)), (row.key(), bytes));
        }
        let bytes = encode_entry(&entry());
        assert_eq!(encode_entry(&decode_entry(&bytes).unwrap()), bytes);
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
    }

    #[test]
    fn a_record_that_is_cut_or_longer_is_refused() {
        fn check<T>(bytes: &[u8], decode: fn(&[u8]) -> Result<T, DecodeError>) {
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
            }
            assert!(decode(&[bytes, &[0]].concat()).is_err(), "longer");
        }
        for row in rows() {
            check(&encode_row(&row), decode_row);
        }
        check(&encode_entry(&entry()), decode_entry);
        check(&encode_head(&head()), decode_head);
    }

    #[test]
    fn another_format_or_kind_is_refused() {
        let mut bytes = encode_head(&head());
        bytes[1] = FORMAT + 1;
        assert_eq!(decode_head(&bytes), Err(DecodeError));
        for row in rows() {
            for kind in (0..=23).filter(|kind| *kind != encode_row(&row)[1]) {
                let mut bytes = encode_row(&row);
                bytes[1] = kind;
                assert!(decode_row(&bytes).is_err(), "kind {kind}");
            }
        }
    }
}
