//! Checks the audit log's hash chain, as far as the caller may see it.

use std::convert::Infallible;

use minicbor::encode::Error;
use protocol::Digest;
use protocol::keyservice::{LogEntry, LogPage};

/// First element of what is hashed (docs/protocol.md, audit log).
const ENTRY_LABEL: &str = "sesemi/log/1";

/// What the chain says about the entries of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainCheck {
    /// Entries whose predecessor is also here, and whose hash follows from it.
    pub linked: usize,
    /// Entries whose predecessor concerns somebody else: nothing can be checked.
    pub unlinked: usize,
    /// The first entry (by `seq`) that contradicts its predecessor, the order or the head.
    pub broken_at: Option<u64>,
}

/// Follows the chain through a page. Entries of others are not shown to the caller, so a gap is
/// normal; an entry that does not follow from the one right before it is not.
#[must_use]
pub fn check_chain(page: &LogPage) -> ChainCheck {
    let mut check = ChainCheck {
        linked: 0,
        unlinked: 0,
        broken_at: None,
    };
    let mut previous: Option<&LogEntry> = None;
    for entry in &page.entries {
        let before = match previous {
            None if entry.seq == 1 => Some(Digest::new([0; 32])),
            Some(last) if last.seq.checked_add(1) == Some(entry.seq) => Some(last.hash),
            _ => None,
        };
        let in_order = previous.is_none_or(|last| last.seq < entry.seq);
        match before {
            Some(hash) if entry.hash == entry_hash(&hash, entry) => check.linked += 1,
            None if in_order => check.unlinked += 1,
            _ => check.broken_at = check.broken_at.or(Some(entry.seq)),
        }
        previous = Some(entry);
    }
    check
}

/// SHA-256 over the previous hash and the canonical CBOR array
/// `["sesemi/log/1", seq, at, event, model, user, enclave, version]`; absent is null.
fn entry_hash(previous: &Digest, entry: &LogEntry) -> Digest {
    let mut hashed = previous.as_bytes().to_vec();
    let encoded = encode(&mut hashed, entry);
    debug_assert!(encoded.is_ok(), "writing to a Vec cannot fail");
    crypto::sha256(&hashed)
}

fn encode(out: &mut Vec<u8>, entry: &LogEntry) -> Result<(), Error<Infallible>> {
    let mut encoder = minicbor::Encoder::new(out);
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{EnclaveId, ModelVersion, PrincipalId};

    fn entry(seq: u64, previous: &Digest) -> LogEntry {
        let mut entry = LogEntry {
            seq,
            at: 1_700_000_000,
            event: "granted".into(),
            model: "m".parse().unwrap(),
            user: Some(PrincipalId::new([1; 32])),
            enclave: Some(EnclaveId::new([2; 48])),
            version: None,
            hash: *previous,
        };
        entry.hash = entry_hash(previous, &entry);
        entry
    }

    fn page(len: u64) -> LogPage {
        let mut head = Digest::new([0; 32]);
        let mut entries = Vec::new();
        for seq in 1..=len {
            entries.push(entry(seq, &head));
            head = entries.last().unwrap().hash;
        }
        LogPage { entries, head }
    }

    #[test]
    fn the_hash_is_the_one_of_the_protocol() {
        // The same value stands in KeyService's tests; it was computed outside of both.
        let entry = LogEntry {
            seq: 1,
            at: 1_700_000_000,
            event: "model_registered".into(),
            model: "model-0".parse().unwrap(),
            user: None,
            enclave: None,
            version: Some(ModelVersion(1)),
            hash: Digest::new([0; 32]),
        };
        assert_eq!(
            entry_hash(&Digest::new([0; 32]), &entry).to_string(),
            "44663d2288091cbffbe79e3e7673a32971887722b8a672912bdc2dc8d7756c9c"
        );
    }

    #[test]
    fn a_whole_chain_is_linked_and_gaps_are_not_an_error() {
        let mut page = page(5);
        let whole = ChainCheck {
            linked: 5,
            unlinked: 0,
            broken_at: None,
        };
        assert_eq!(check_chain(&page), whole);
        page.entries.remove(2);
        let gap = ChainCheck {
            linked: 3,
            unlinked: 1,
            broken_at: None,
        };
        assert_eq!(check_chain(&page), gap);
    }

    #[test]
    fn every_change_breaks_the_chain_there() {
        let changes: [fn(&mut LogEntry); 7] = [
            |e| e.at += 1,
            |e| e.event = "revoked".into(),
            |e| e.model = "other".parse().unwrap(),
            |e| e.user = None,
            |e| e.enclave = None,
            |e| e.version = Some(ModelVersion(1)),
            |e| e.hash = Digest::new([9; 32]),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut page = page(4);
            change(&mut page.entries[1]);
            assert_eq!(check_chain(&page).broken_at, Some(2), "change {n}");
        }
        let mut swapped = page(4);
        swapped.entries.swap(1, 2);
        assert!(check_chain(&swapped).broken_at.is_some());
    }
}
