//! A package's plaintext, pushed in order, becomes manifest, graph and weights: each allocated once.
//!
//! Nothing here may be used before [`PackageAssembler::finish`] and the artifact's own end check.

use std::collections::TryReserveError;

use protocol::package::{ALIGN, EngineName, Layout, Manifest, PREFIX_LEN, PackageError};

use crate::blob::Blob;

/// Why plaintext did not become a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    #[error("reading the model package")]
    Package(#[from] PackageError),
    #[error("model package says {said} bytes, at most {max} are allowed here")]
    TooLarge { said: u64, max: u64 },
    #[error("model package: bytes between its parts are not zero")]
    Padding,
    #[error("no memory for {0} bytes of model")]
    Memory(u64),
}

/// What is expected next.
#[derive(Debug)]
enum Stage {
    /// Magic and the manifest's length.
    Prefix(Vec<u8>),
    /// The manifest's JSON, this many bytes.
    Manifest(Vec<u8>, usize),
    Parts(Box<Parts>),
}

#[derive(Debug)]
struct Parts {
    manifest: Manifest,
    layout: Layout,
    graph: Blob,
    weights: Blob,
}

/// Takes plaintext in pieces of any size.
#[derive(Debug)]
pub struct PackageAssembler {
    package_len: u64,
    seen: u64,
    stage: Stage,
}

impl PackageAssembler {
    /// Expects a package of `package_len` bytes, which must not be more than `max`.
    pub fn new(package_len: u64, max: u64) -> Result<Self, AssembleError> {
        if package_len > max {
            return Err(AssembleError::TooLarge {
                said: package_len,
                max,
            });
        }
        Ok(Self {
            package_len,
            seen: 0,
            stage: Stage::Prefix(Vec::with_capacity(PREFIX_LEN)),
        })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), AssembleError> {
        let left = self.package_len - self.seen;
        if bytes.len() as u64 > left {
            return Err(PackageError::Trailing.into());
        }
        while !bytes.is_empty() {
            let taken = self.step(bytes)?;
            self.seen += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes some bytes off the front and says how many: at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, AssembleError> {
        match &mut self.stage {
            Stage::Prefix(prefix) => {
                let taken = fill(prefix, PREFIX_LEN, bytes);
                if let Some(prefix) = prefix.first_chunk::<PREFIX_LEN>() {
                    let len = Manifest::len_from_prefix(prefix)?;
                    if (PREFIX_LEN + len) as u64 > self.package_len || len == 0 {
                        return Err(PackageError::Truncated.into());
                    }
                    self.stage = Stage::Manifest(Vec::with_capacity(len), len);
                }
                Ok(taken)
            }
            Stage::Manifest(json, len) => {
                let taken = fill(json, *len, bytes);
                if json.len() == *len {
                    // The parts are no longer than the package, which `new` has bounded.
                    let (manifest, layout) = Manifest::parse(json, self.package_len)?;
                    let graph = reserve(manifest.graph_len, Blob::anywhere)?;
                    let weights = match manifest.engine {
                        EngineName::Rten => reserve(manifest.weights_len, Blob::anywhere)?,
                        EngineName::Conv => reserve(manifest.weights_len, Blob::aligned)?,
                    };
                    let parts = Parts {
                        manifest,
                        layout,
                        graph,
                        weights,
                    };
                    self.stage = Stage::Parts(Box::new(parts));
                }
                Ok(taken)
            }
            Stage::Parts(parts) => parts.step(self.seen, bytes),
        }
    }

    /// The parts of the package, when all its bytes have come.
    pub fn finish(self) -> Result<(Manifest, Vec<u8>, Blob), AssembleError> {
        match self.stage {
            Stage::Parts(parts) if self.seen == self.package_len => {
                Ok((parts.manifest, parts.graph.into_vec(), parts.weights))
            }
            _ => Err(PackageError::Truncated.into()),
        }
    }
}

impl Parts {
    fn step(&mut self, at: u64, bytes: &[u8]) -> Result<usize, AssembleError> {
        let graph_end = self.layout.graph + self.manifest.graph_len;
        let (part, end) = if at < self.layout.graph {
            (None, self.layout.graph)
        } else if at < graph_end {
            (Some(&mut self.graph), graph_end)
        } else if at < self.layout.weights {
            (None, self.layout.weights)
        } else {
            (Some(&mut self.weights), self.layout.end)
        };
        let room = usize::try_from(end - at).unwrap_or(usize::MAX);
        let taken = &bytes[..room.min(bytes.len())];
        match part {
            Some(part) => part.extend(taken),
            None if taken.iter().any(|b| *b != 0) => return Err(AssembleError::Padding),
            None => {}
        }
        Ok(taken.len())
    }
}

/// Fills `buffer` up to `len` and says how many bytes that took.
fn fill(buffer: &mut Vec<u8>, len: usize, bytes: &[u8]) -> usize {
    let taken = bytes.len().min(len - buffer.len());
    buffer.extend_from_slice(&bytes[..taken]);
    taken
}

fn reserve(
    len: u64,
    of: impl Fn(usize) -> Result<Blob, TryReserveError>,
) -> Result<Blob, AssembleError> {
    let size = usize::try_from(len).map_err(|_| AssembleError::Memory(len))?;
    of(size).map_err(|_| AssembleError::Memory(len))
}

/// Zeros from `at` to the next part of a package.
#[must_use]
pub(crate) fn padding(at: u64) -> usize {
    usize::try_from(at.next_multiple_of(ALIGN) - at).unwrap_or(0)
}

#[cfg(test)]
mod tests;
