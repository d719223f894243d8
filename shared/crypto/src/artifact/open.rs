//! Opens an artifact as its bytes arrive: bounded memory, several segments at once.

use std::fmt;
use std::io::{self, Read};

use protocol::{Digest, ModelId, ModelVersion};
use zeroize::Zeroizing;

use super::{
    ArtifactError, DigestWriter, HEADER_LEN, HEADER_LEN_BYTE, Layout, ModelKey, PREFIX_LEN,
    PlaintextSink, SALT_LEN, SEGMENT_LEN, SegmentCipher, TAG_LEN, THREADS_MAX, associated_bytes,
};
use crate::workers;

/// Opens one artifact whose bytes are pushed to it, so that asynchronous code can feed it.
///
/// Memory: `threads` segments of ciphertext and as many of plaintext, never more than the artifact
/// has. Time: hashing and decrypting share the `threads` threads, of which the caller's is one;
/// other threads live only while a call to [`Self::push`] or [`Self::finish`] lasts.
///
/// A segment that does not open ends the writing to the sink, but not the hashing: at the end, the
/// error tells "these are not the registered bytes" ([`ArtifactError::Digest`]) from "these are,
/// and they do not open" ([`ArtifactError::CannotOpen`]), because the first is the host's doing and
/// the second the owner's. After any error no later call can succeed.
pub struct ArtifactOpener {
    key: ModelKey,
    associated: Vec<u8>,
    expected: Digest,
    layout: Layout,
    threads: usize,
    received: u64,
    /// Ciphertext that waits to be opened; its length is the batch's capacity.
    batch: Box<[u8]>,
    filled: usize,
    opened: Zeroizing<Vec<u8>>,
    cipher: Option<SegmentCipher>,
    next_segment: u32,
    digest: DigestWriter,
    begun: bool,
    failed: Option<u32>,
}

impl ArtifactOpener {
    /// For an artifact of `ciphertext_len` bytes with this digest. `threads` is clamped to 1..=64.
    pub fn new(
        key: &ModelKey,
        model: &ModelId,
        version: ModelVersion,
        expected_digest: Digest,
        ciphertext_len: u64,
        threads: usize,
    ) -> Result<Self, ArtifactError> {
        let layout = Layout::of_ciphertext(ciphertext_len)?;
        let threads = threads.clamp(1, THREADS_MAX);
        let capacity = usize::try_from(ciphertext_len)
            .map_or(usize::MAX, |len| len)
            .min(threads * SEGMENT_LEN);
        Ok(Self {
            key: key.duplicate(),
            associated: associated_bytes(model, version),
            expected: expected_digest,
            layout,
            threads,
            received: 0,
            batch: vec![0; capacity].into(),
            filled: 0,
            opened: Zeroizing::new(vec![0; capacity]),
            cipher: None,
            next_segment: 0,
            digest: DigestWriter::new(),
            begun: false,
            failed: None,
        })
    }

    /// Takes the next bytes of the artifact, as many as have arrived. Blocks while it decrypts.
    pub fn push(
        &mut self,
        mut chunk: &[u8],
        sink: &mut dyn PlaintextSink,
    ) -> Result<(), ArtifactError> {
        if chunk.len() as u64 > self.missing() {
            self.fail();
            return Err(ArtifactError::TooLong {
                len: self.layout.ciphertext_len,
            });
        }
        while !chunk.is_empty() {
            let room = self.room();
            let (now, later) = chunk.split_at(room.len().min(chunk.len()));
            let Some(room) = room.get_mut(..now.len()) else {
                break;
            };
            room.copy_from_slice(now);
            self.take_in(now.len(), sink)?;
            chunk = later;
        }
        Ok(())
    }

    /// Ends the artifact. Only when this returns `Ok` is what the sink got the whole of what the
    /// owner registered.
    pub fn finish(mut self, sink: &mut dyn PlaintextSink) -> Result<(), ArtifactError> {
        self.begin(sink)?;
        if self.missing() > 0 {
            return Err(ArtifactError::Truncated {
                missing: self.missing(),
            });
        }
        let got = self.digest.finish();
        if got != self.expected {
            return Err(ArtifactError::Digest {
                expected: self.expected,
                got,
            });
        }
        match self.failed {
            Some(segment) => Err(ArtifactError::CannotOpen { segment }),
            None => Ok(()),
        }
    }

    /// Bytes that its buffers hold for as long as it lives.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.batch.len() + self.opened.len()
    }

    /// Reads all of `src`, without a copy in between, and finishes.
    fn read_from(
        mut self,
        src: &mut dyn Read,
        sink: &mut dyn PlaintextSink,
    ) -> Result<(), ArtifactError> {
        while self.missing() > 0 {
            match src.read(self.room()) {
                Ok(0) => {
                    return Err(ArtifactError::Truncated {
                        missing: self.missing(),
                    });
                }
                Ok(read) => self.take_in(read, sink)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ArtifactError::Read(e)),
            }
        }
        // Whoever can add bytes unseen could also say that the artifact is another: refuse them.
        let mut beyond = [0];
        loop {
            match src.read(&mut beyond) {
                Ok(0) => return self.finish(sink),
                Ok(_) => {
                    return Err(ArtifactError::TooLong {
                        len: self.layout.ciphertext_len,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ArtifactError::Read(e)),
            }
        }
    }

    fn missing(&self) -> u64 {
        self.layout.ciphertext_len - self.received
    }

    /// Where the next bytes go: never more than are missing, and never empty while some are.
    fn room(&mut self) -> &mut [u8] {
        let free = self.batch.len() - self.filled;
        let missing = usize::try_from(self.missing()).unwrap_or(usize::MAX);
        self.batch
            .get_mut(self.filled..self.filled + free.min(missing))
            .unwrap_or_default()
    }

    /// Accounts for `len` bytes that were written to [`Self::room`].
    fn take_in(&mut self, len: usize, sink: &mut dyn PlaintextSink) -> Result<(), ArtifactError> {
        self.filled += len;
        self.received += len as u64;
        self.begin(sink)?;
        if self.filled == self.batch.len() || self.missing() == 0 {
            self.open_batch(sink)?;
        }
        Ok(())
    }

    fn begin(&mut self, sink: &mut dyn PlaintextSink) -> Result<(), ArtifactError> {
        if !self.begun {
            self.begun = true;
            sink.begin(self.layout.plaintext_len)
                .inspect_err(|_| self.fail())?;
        }
        Ok(())
    }

    /// Makes sure that [`Self::finish`] cannot succeed.
    fn fail(&mut self) {
        self.failed.get_or_insert(self.next_segment);
    }

    /// Hashes and opens what the batch holds, and hands it to the sink.
    fn open_batch(&mut self, sink: &mut dyn PlaintextSink) -> Result<(), ArtifactError> {
        let batch = self.batch.get(..self.filled).unwrap_or_default();
        if self.next_segment == 0 && self.failed.is_none() {
            self.cipher = cipher_of(&self.key, batch, &self.associated);
        }
        self.filled = 0;
        let Some(cipher) = self.cipher.as_ref().filter(|_| self.failed.is_none()) else {
            self.failed.get_or_insert(self.next_segment);
            self.digest.update(batch);
            return Ok(());
        };

        let mut segments = Vec::with_capacity(self.threads);
        let mut outs = self.opened.as_mut_slice();
        for (sealed, index) in batch.chunks(SEGMENT_LEN).zip(self.next_segment..) {
            let header = if index == 0 { HEADER_LEN } else { 0 };
            let sealed = sealed.get(header..).unwrap_or_default();
            let (out, rest) = outs.split_at_mut(sealed.len().saturating_sub(TAG_LEN));
            outs = rest;
            let last = self.layout.is_last(index);
            segments.push(Segment {
                index,
                last,
                sealed,
                out,
                authentic: false,
            });
        }
        let mut jobs = Vec::with_capacity(segments.len() + 1);
        // Hashing is one long sequential job, so it starts first.
        jobs.push(Job::Hash(&mut self.digest, batch));
        jobs.extend(segments.iter_mut().map(Job::Open));
        workers::run(self.threads, jobs, |job| job.run(cipher));

        for segment in &segments {
            if !segment.authentic {
                self.failed = Some(segment.index);
                return Ok(());
            }
            self.next_segment = segment.index.saturating_add(1);
            if let Err(e) = sink.write(segment.out) {
                self.failed = Some(segment.index);
                return Err(e.into());
            }
        }
        Ok(())
    }
}

/// Never the buffers, which hold plaintext.
impl fmt::Debug for ArtifactOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactOpener")
            .field("layout", &self.layout)
            .field("received", &self.received)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Opens an artifact from a reader that must end exactly after `ciphertext_len` bytes.
#[expect(
    clippy::too_many_arguments,
    reason = "all of them name the one artifact and its way"
)]
pub fn open_artifact(
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    expected_digest: Digest,
    src: &mut dyn Read,
    ciphertext_len: u64,
    threads: usize,
    sink: &mut dyn PlaintextSink,
) -> Result<(), ArtifactError> {
    ArtifactOpener::new(
        key,
        model,
        version,
        expected_digest,
        ciphertext_len,
        threads,
    )?
    .read_from(src, sink)
}

/// The cipher for an artifact that starts with `bytes`, if they are a header.
fn cipher_of(key: &ModelKey, bytes: &[u8], associated: &[u8]) -> Option<SegmentCipher> {
    let (salt, rest) = bytes
        .strip_prefix(&[HEADER_LEN_BYTE])?
        .split_first_chunk::<SALT_LEN>()?;
    let prefix = rest.first_chunk::<PREFIX_LEN>()?;
    SegmentCipher::new(key, salt, *prefix, associated).ok()
}

struct Segment<'a> {
    index: u32,
    last: bool,
    sealed: &'a [u8],
    out: &'a mut [u8],
    authentic: bool,
}

enum Job<'j, 'a> {
    Hash(&'j mut DigestWriter, &'a [u8]),
    Open(&'j mut Segment<'a>),
}

impl Job<'_, '_> {
    fn run(self, cipher: &SegmentCipher) {
        match self {
            Self::Hash(digest, bytes) => digest.update(bytes),
            Self::Open(s) => {
                s.authentic = cipher.open(s.index, s.last, s.sealed, s.out).is_ok();
            }
        }
    }
}
