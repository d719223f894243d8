//! AVX-512 and AVX2 with FMA.
//!
//! Loads do not check bounds in release builds: `tile` checks a whole tile's at once, and the other
//! kernels a row's.

#![expect(
    unsafe_code,
    reason = "intrinsics: the CPU's features are checked by `Isa`, bounds by the callers"
)]

use std::arch::x86_64::{
    __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps,
};

use super::Lanes;
use crate::LANES;

/// One register of AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY (of every block below): the trait demands the CPU feature of the caller, and for loads
// also the bounds; debug builds check them.
impl Lanes for Avx512 {
    // 28 accumulators, 2 weights, 1 input: 31 of 32 registers.
    const PIXELS: usize = 14;
    const DEPTHWISE: usize = 7;
    const BLOCKS: usize = 2;

    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: &[f32], at: usize) -> Self {
        debug_assert!(at + LANES <= from.len());
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from.as_ptr().add(at)) })
    }

    #[inline(always)]
    unsafe fn splat(from: &[f32], at: usize) -> Self {
        debug_assert!(at < from.len());
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(*from.get_unchecked(at)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see above; `to` is 16 floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
}

/// Two registers of AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

impl Lanes for Avx2 {
    // 12 accumulators, 2 weights, 1 input: 15 of 16 registers.
    const PIXELS: usize = 6;
    const DEPTHWISE: usize = 4;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        // SAFETY: see above.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn load(from: &[f32], at: usize) -> Self {
        debug_assert!(at + LANES <= from.len());
        // SAFETY: see above.
        unsafe {
            let from = from.as_ptr().add(at);
            Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn splat(from: &[f32], at: usize) -> Self {
        debug_assert!(at < from.len());
        // SAFETY: see above.
        let half = unsafe { _mm256_set1_ps(*from.get_unchecked(at)) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see above; `to` is 16 floats.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_fmadd_ps(self.0, by.0, plus.0),
                _mm256_fmadd_ps(self.1, by.1, plus.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_add_ps(self.0, other.0),
                _mm256_add_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_mul_ps(self.0, other.0),
                _mm256_mul_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_max_ps(self.0, other.0),
                _mm256_max_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_min_ps(self.0, other.0),
                _mm256_min_ps(self.1, other.1),
            )
        }
    }
}
