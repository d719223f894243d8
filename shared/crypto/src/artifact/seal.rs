//! Seals an artifact in one pass: bounded memory, encrypting and hashing at the same time.

use std::io::{self, Read, Write};

use protocol::limits::PACKAGE_MAX;
use protocol::{Digest, ModelId, ModelVersion};
use zeroize::Zeroizing;

use super::{
    ArtifactError, DigestWriter, HEADER_LEN, HEADER_LEN_BYTE, ModelKey, PREFIX_LEN, SALT_LEN,
    SEGMENT_LEN, SegmentCipher, TAG_LEN, THREADS_MAX, associated_bytes,
};
use crate::aead;
use crate::random;
use crate::workers;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedArtifact {
    /// Length in bytes.
    pub len: u64,
    /// SHA-256 of all of it: the name of the artifact in the store and in KeyService.
    pub digest: Digest,
}

/// Seals all that `plain` gives, on one thread.
pub fn seal_artifact(
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    plain: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<SealedArtifact, ArtifactError> {
    seal_artifact_on(1, key, model, version, plain, out)
}

/// [`seal_artifact`] on `threads` threads (clamped to 1..=64). Memory: twice as many segments.
pub fn seal_artifact_on(
    threads: usize,
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    plain: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<SealedArtifact, ArtifactError> {
    let fresh = Fresh {
        salt: random::array()?,
        prefix: random::array()?,
    };
    seal_artifact_with(&fresh, threads, key, model, version, plain, out)
}

/// What must be new for every artifact.
pub(crate) struct Fresh {
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) prefix: [u8; PREFIX_LEN],
}

/// [`seal_artifact_on`] with a given salt and nonce prefix: for vectors only.
pub(crate) fn seal_artifact_with(
    fresh: &Fresh,
    threads: usize,
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    plain: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<SealedArtifact, ArtifactError> {
    let threads = threads.clamp(1, THREADS_MAX);
    let cipher = SegmentCipher::new(
        key,
        &fresh.salt,
        fresh.prefix,
        &associated_bytes(model, version),
    )
    .map_err(|aead::Refused| ArtifactError::Cipher)?;
    let mut source = Source::new(plain)?;
    let mut digest = DigestWriter::new();
    let mut current = Batch::new(threads);
    // The batch before, already written, which is hashed while the next is encrypted.
    let mut previous = Batch::new(threads);
    let mut next_segment = 0;
    let mut len = 0;
    loop {
        let mut segments = current.fill(&mut source, &mut next_segment, fresh)?;
        let mut jobs = Vec::with_capacity(segments.len() + 1);
        jobs.push(Job::Hash(&mut digest, previous.bytes()));
        jobs.extend(segments.iter_mut().map(Job::Seal));
        workers::run(threads, jobs, |job| job.run(&cipher));
        if segments.iter().any(|segment| !segment.sealed) {
            return Err(ArtifactError::Cipher);
        }
        out.write_all(current.bytes())
            .map_err(ArtifactError::Write)?;
        len += current.bytes().len() as u64;
        std::mem::swap(&mut current, &mut previous);
        if source.is_at_end() {
            digest.update(previous.bytes());
            out.flush().map_err(ArtifactError::Write)?;
            return Ok(SealedArtifact {
                len,
                digest: digest.finish(),
            });
        }
    }
}

/// Seals `segments` as they are, with the flag that says whether one is the last, though together
/// they may not be an artifact: for vectors that must fail.
pub(crate) fn seal_segments(
    fresh: &Fresh,
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    segments: &[(&[u8], bool)],
) -> Result<Vec<u8>, ArtifactError> {
    let cipher = SegmentCipher::new(
        key,
        &fresh.salt,
        fresh.prefix,
        &associated_bytes(model, version),
    )
    .map_err(|aead::Refused| ArtifactError::Cipher)?;
    let mut out = fresh.header().to_vec();
    for (&(plain, last), index) in segments.iter().zip(0..) {
        let mut segment = plain.to_vec();
        let tag = cipher
            .seal(index, last, &mut segment)
            .map_err(|aead::Refused| ArtifactError::Cipher)?;
        out.extend_from_slice(&segment);
        out.extend_from_slice(&tag);
    }
    Ok(out)
}

/// The plaintext, one byte ahead: whether a segment is the last is part of its nonce.
struct Source<'a> {
    src: &'a mut dyn Read,
    ahead: Option<u8>,
    taken: u64,
}

impl<'a> Source<'a> {
    fn new(src: &'a mut dyn Read) -> Result<Self, ArtifactError> {
        let mut source = Self {
            src,
            ahead: None,
            taken: 0,
        };
        source.look_ahead()?;
        Ok(source)
    }

    fn is_at_end(&self) -> bool {
        self.ahead.is_none()
    }

    fn look_ahead(&mut self) -> Result<(), ArtifactError> {
        let mut byte = [0];
        let read = read_full(self.src, &mut byte)?;
        self.ahead = byte.first().copied().filter(|_| read == 1);
        Ok(())
    }

    /// Fills `buffer` as far as there is plaintext, and returns how far that is.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize, ArtifactError> {
        let Some((first, rest)) = buffer.split_first_mut() else {
            return Ok(0);
        };
        let Some(byte) = self.ahead.take() else {
            return Ok(0);
        };
        *first = byte;
        let len = 1 + read_full(self.src, rest)?;
        self.look_ahead()?;
        self.taken += len as u64;
        if self.taken > PACKAGE_MAX {
            return Err(ArtifactError::TooLarge { len: self.taken });
        }
        Ok(len)
    }
}

fn read_full(src: &mut dyn Read, mut buffer: &mut [u8]) -> Result<usize, ArtifactError> {
    let mut len = 0;
    while !buffer.is_empty() {
        match src.read(buffer) {
            Ok(0) => break,
            Ok(read) => {
                len += read;
                buffer = buffer.get_mut(read..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ArtifactError::Read(e)),
        }
    }
    Ok(len)
}

/// Consecutive segments, first as plaintext, then as ciphertext in the same place.
struct Batch {
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Batch {
    fn new(segments: usize) -> Self {
        Self {
            buffer: Zeroizing::new(vec![0; segments * SEGMENT_LEN]),
            filled: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    /// Lays down header, plaintext and room for tags. The very first segment is there even if
    /// there is no plaintext.
    fn fill(
        &mut self,
        source: &mut Source<'_>,
        next_segment: &mut u32,
        fresh: &Fresh,
    ) -> Result<Vec<Segment<'_>>, ArtifactError> {
        self.filled = 0;
        let mut segments = Vec::new();
        for slot in self.buffer.chunks_mut(SEGMENT_LEN) {
            let index = *next_segment;
            if index > 0 && source.is_at_end() {
                break;
            }
            let slot = if index == 0 {
                let (header, slot) = slot.split_at_mut(HEADER_LEN);
                header.copy_from_slice(&fresh.header());
                self.filled += HEADER_LEN;
                slot
            } else {
                slot
            };
            let len = source.take(slot.split_at_mut(slot.len() - TAG_LEN).0)?;
            self.filled += len + TAG_LEN;
            let (plain, rest) = slot.split_at_mut(len);
            let tag = rest.split_at_mut(TAG_LEN).0;
            segments.push(Segment {
                index,
                last: source.is_at_end(),
                plain,
                tag,
                sealed: false,
            });
            // PACKAGE_MAX keeps the number of segments far below this.
            *next_segment = index.checked_add(1).ok_or(ArtifactError::Cipher)?;
        }
        Ok(segments)
    }
}

impl Fresh {
    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [HEADER_LEN_BYTE; HEADER_LEN];
        let fresh = self.salt.iter().chain(&self.prefix);
        header
            .iter_mut()
            .skip(1)
            .zip(fresh)
            .for_each(|(to, from)| *to = *from);
        header
    }
}

struct Segment<'a> {
    index: u32,
    last: bool,
    plain: &'a mut [u8],
    tag: &'a mut [u8],
    sealed: bool,
}

enum Job<'j, 'a> {
    Hash(&'j mut DigestWriter, &'j [u8]),
    Seal(&'j mut Segment<'a>),
}

impl Job<'_, '_> {
    fn run(self, cipher: &SegmentCipher) {
        match self {
            Self::Hash(digest, bytes) => digest.update(bytes),
            Self::Seal(segment) => {
                if let Ok(tag) = cipher.seal(segment.index, segment.last, segment.plain) {
                    segment.tag.copy_from_slice(&tag);
                    segment.sealed = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plaintext_beyond_the_limit_is_refused_where_it_passes_it() {
        let mut plain: &[u8] = &[1; 30];
        let mut source = Source::new(&mut plain).unwrap();
        source.taken = PACKAGE_MAX - 20;
        assert_eq!(source.take(&mut [0; 20]).unwrap(), 20);
        let more = source.take(&mut [0; 20]);
        let len = PACKAGE_MAX + 10;
        assert!(
            matches!(more, Err(ArtifactError::TooLarge { len: l }) if l == len),
            "{more:?}"
        );
    }
}
