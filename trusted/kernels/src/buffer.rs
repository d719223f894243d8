//! Memory whose floats start at a cache line.

#![expect(unsafe_code, reason = "alignment beyond the type's own")]

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::LANES;

/// One cache line, and one register of AVX-512.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; LANES]);

/// Zeroed floats, aligned to 64 bytes.
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// At least `floats` zeros, or `None` when there is no memory for them.
    #[must_use]
    pub fn zeroed(floats: usize) -> Option<Self> {
        let lines = floats.div_ceil(LANES);
        let mut held = Vec::new();
        held.try_reserve_exact(lines).ok()?;
        held.resize(lines, Line([0.0; LANES]));
        Some(Self { lines: held })
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` of 16 floats without padding, so `n` lines are `16 n` floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LANES) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let len = self.lines.len() * LANES;
        // SAFETY: as above; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} floats)", self.len())
    }
}

/// Little-endian floats in bytes that somebody else allocated.
pub struct Weights {
    bytes: Vec<u8>,
    /// Where in `bytes` the floats start.
    start: usize,
    /// Used instead when they do not start at a cache line, or this machine is big-endian.
    copy: Option<Buffer>,
}

impl Weights {
    /// The floats in `bytes[start..]`, used where they lie if that is the start of a cache line; an odd
    /// rest is ignored.
    #[must_use]
    pub fn new(bytes: Vec<u8>, start: usize) -> Option<Self> {
        let floats = bytes.get(start..)?;
        if floats.as_ptr().cast::<Line>().is_aligned() && cfg!(target_endian = "little") {
            let copy = None;
            return Some(Self { bytes, start, copy });
        }
        let mut copy = Buffer::zeroed(floats.len() / 4)?;
        for (to, from) in copy.iter_mut().zip(floats.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
        Some(Self {
            bytes: Vec::new(),
            start: 0,
            copy: Some(copy),
        })
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.copy.as_ref().map_or(self.bytes.len(), |c| c.len() * 4)
    }
}

impl Deref for Weights {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.copy {
            Some(copy) => copy,
            None => {
                let bytes = &self.bytes[self.start..];
                // SAFETY: `new` found the start aligned, the length is rounded down, every bit pattern
                // is an f32, and a `Vec` that nobody can change does not move its bytes.
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
            }
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({} floats)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_same_wherever_their_bytes_lie() {
        let floats: Vec<f32> = (0..100_u8).map(f32::from).collect();
        let bytes: Vec<u8> = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
        for start in 0..130 {
            let moved = [&vec![0; start][..], &bytes, &[1, 2, 3]].concat();
            let weights = Weights::new(moved, start).unwrap();
            assert_eq!(weights.as_ptr().align_offset(64), 0);
            assert_eq!(weights[..100], floats);
            assert!(weights.len() < 117 && weights.held() > 0);
        }
        assert!(Weights::new(bytes, 401).is_none());
    }
}
