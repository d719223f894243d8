//! The audit log as a hash chain: what an entry is, what it commits to, and who may see it.

use std::fmt;
use std::time::Duration;

use protocol::keyservice::LogEntry;
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};

/// First element of what is hashed, so that an entry's hash is a hash of nothing else.
const ENTRY_LABEL: &str = "sesemi/log/1";

/// What happened. The names are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    ModelRegistered,
    Granted,
    Revoked,
    RequestKeyRegistered,
    RequestKeyDropped,
    Released,
}

impl Event {
    /// Every event, in the order of docs/protocol.md.
    pub const ALL: &'static [Self] = &[
        Self::ModelRegistered,
        Self::Granted,
        Self::Revoked,
        Self::RequestKeyRegistered,
        Self::RequestKeyDropped,
        Self::Released,
    ];

    /// The name on the wire and in the vault.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ModelRegistered => "model_registered",
            Self::Granted => "granted",
            Self::Revoked => "revoked",
            Self::RequestKeyRegistered => "request_key_registered",
            Self::RequestKeyDropped => "request_key_dropped",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One entry as it is stored: what is published, and the owner who may see it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub published: LogEntry,
    /// The owner of the model, where the event concerns the owner. Registering and dropping a
    /// request key is the user's own affair.
    pub owner: Option<PrincipalId>,
}

impl Entry {
    /// Those who may see this entry.
    pub fn audience(&self) -> impl Iterator<Item = PrincipalId> {
        let user = self.published.user.filter(|user| Some(*user) != self.owner);
        self.owner.into_iter().chain(user)
    }
}

/// What an entry says, before it has a place in the log.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) event: Event,
    pub(super) model: ModelId,
    pub(super) user: Option<PrincipalId>,
    pub(super) enclave: Option<EnclaveId>,
    pub(super) version: Option<ModelVersion>,
    pub(super) owner: Option<PrincipalId>,
}

/// The end of the log: number of entries, and hash of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    pub entries: u64,
    pub head: Digest,
}

impl Chain {
    /// Before the first entry.
    pub const EMPTY: Self = Self {
        entries: 0,
        head: Digest::new([0; 32]),
    };

    /// Gives `draft` the next place in the log. `now` is the host's time: advisory.
    pub(super) fn append(&mut self, draft: Draft, now: Duration) -> Entry {
        let mut published = LogEntry {
            seq: self.entries + 1,
            at: now.as_secs(),
            event: draft.event.name().to_owned(),
            model: draft.model,
            user: draft.user,
            enclave: draft.enclave,
            version: draft.version,
            hash: self.head,
        };
        published.hash = entry_hash(&self.head, &published);
        *self = Self {
            entries: published.seq,
            head: published.hash,
        };
        Entry {
            published,
            owner: draft.owner,
        }
    }

    /// The end of the log after `entry`, if that is the next one of this chain.
    #[must_use]
    pub fn follow(self, entry: &LogEntry) -> Option<Self> {
        let fits = entry.seq == self.entries + 1 && entry.hash == entry_hash(&self.head, entry);
        fits.then_some(Self {
            entries: entry.seq,
            head: entry.hash,
        })
    }
}

/// SHA-256 over the previous hash (32 bytes) and the canonical CBOR array
/// `["sesemi/log/1", seq, at, event, model, user, enclave, version]`; ids are byte strings, what is
/// absent is null.
#[must_use]
pub fn entry_hash(previous: &Digest, entry: &LogEntry) -> Digest {
    let mut hashed = previous.as_bytes().to_vec();
    let mut encoder = minicbor::Encoder::new(&mut hashed);
    let written = (|| {
        encoder
            .array(8)?
            .str(ENTRY_LABEL)?
            .u64(entry.seq)?
            .u64(entry.at)?;
        encoder.str(&entry.event)?.str(entry.model.as_str())?;
        match &entry.user {
            Some(user) => encoder.bytes(user.as_bytes())?,
            None => encoder.null()?,
        };
        match &entry.enclave {
            Some(enclave) => encoder.bytes(enclave.as_bytes())?,
            None => encoder.null()?,
        };
        match entry.version {
            Some(version) => encoder.u32(version.0)?,
            None => encoder.null()?,
        };
        Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
    })();
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    crypto::sha256(&hashed)
}
