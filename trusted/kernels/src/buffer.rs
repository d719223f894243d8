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
    /// Used instead when `bytes` do not start at a multiple of 4, or this machine is big-endian.
    copy: Option<Buffer>,
}

impl Weights {
    /// Uses the bytes where they lie if they can be read as floats there; an odd rest is ignored.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let aligned = bytes.as_ptr().cast::<f32>().is_aligned();
        if aligned && cfg!(target_endian = "little") {
            return Some(Self { bytes, copy: None });
        }
        let mut copy = Buffer::zeroed(bytes.len() / 4)?;
        for (to, from) in copy.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
        Some(Self {
            bytes: Vec::new(),
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
            // SAFETY: `new` found the start aligned, the length is rounded down, every bit pattern
            // is an f32, and a `Vec` that nobody can change does not move its bytes.
            None => unsafe {
                std::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.bytes.len() / 4)
            },
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({} floats)", self.len())
    }
}
