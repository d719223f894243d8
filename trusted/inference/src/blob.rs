//! A package's weights in memory, from where the kernels want them on.

use std::collections::TryReserveError;
use std::fmt;
use std::ops::Deref;

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;

/// Bytes of one allocation, from some place in it on.
///
/// A `Vec`'s bytes start where the allocator likes, mostly 16 bytes into a cache line. Kernels that
/// read whole lines are slower then, and moving the weights of a large model costs time and
/// memory: so they are put into the right place as they come.
#[derive(Default)]
pub struct Blob {
    bytes: Vec<u8>,
    start: usize,
}

impl Blob {
    /// An empty one with room for `len` bytes that start at a cache line.
    pub fn aligned(len: usize) -> Result<Self, TryReserveError> {
        let mut bytes = Vec::<u8>::new();
        bytes.try_reserve_exact(len.saturating_add(LINE))?;
        // `usize::MAX` is allowed as an answer, and means no better place.
        let start = Some(bytes.as_ptr().align_offset(LINE)).filter(|start| *start < LINE);
        let start = start.unwrap_or(0);
        bytes.resize(start, 0);
        Ok(Self { bytes, start })
    }

    /// An empty one with room for `len` bytes, wherever they start.
    pub fn anywhere(len: usize) -> Result<Self, TryReserveError> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        Ok(bytes.into())
    }

    /// Appends; within the room, nothing moves.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The allocation, and where in it the bytes start.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.bytes, self.start)
    }

    /// The bytes alone; they move if they do not start where the allocation does.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_at_a_line_and_never_move() {
        for len in [0, 1, 1000, 1 << 20] {
            let mut blob = Blob::aligned(len).unwrap();
            let start = blob.as_ptr();
            assert_eq!(start.align_offset(LINE), 0);
            (0..len).for_each(|i| blob.extend(&i.to_le_bytes()[..1]));
            assert_eq!((blob.as_ptr(), blob.len()), (start, len));
            assert!(
                blob.iter()
                    .zip(0..len)
                    .all(|(b, i)| *b == i.to_le_bytes()[0])
            );
            let whole = blob.to_vec();
            assert_eq!(blob.into_vec(), whole);
        }
        assert!(Blob::aligned(usize::MAX).is_err());
    }
}
