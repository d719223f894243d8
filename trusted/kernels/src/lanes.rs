//! Sixteen f32 that are computed with together: one register, two, or an array.
//!
//! Kernels are written once, over [`Lanes`]. The portable implementation checks the bounds of every
//! load: it is the twin that shows (in tests, and wherever no SIMD is to be had) that a kernel's
//! indices are right, since the others run the same code.

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::LANES;

/// Operations on 16 lanes.
///
/// # Safety of the methods
///
/// All of them may only be called on a CPU with the implementation's instructions; [`Lanes::load`] also
/// demands `at + 16 <= from.len()`, [`Lanes::splat`] `at < from.len()`.
#[expect(unsafe_code, reason = "SIMD: see the safety section")]
pub(crate) trait Lanes: Copy {
    /// Output pixels of a convolution's tile.
    const PIXELS: usize;
    /// Output pixels of a depthwise convolution's tile.
    const DEPTHWISE: usize;
    /// Blocks of output channels of a convolution's tile.
    const BLOCKS: usize;

    unsafe fn all(value: f32) -> Self;
    unsafe fn load(from: &[f32], at: usize) -> Self;
    unsafe fn splat(from: &[f32], at: usize) -> Self;
    unsafe fn store(self, to: &mut [f32; LANES]);
    /// `self * by + plus`, rounded once or twice.
    unsafe fn fma(self, by: Self, plus: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
}

/// Plain arrays and checked indices.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        self
    }
}

#[expect(unsafe_code, reason = "the trait's; nothing here is unsafe")]
impl Lanes for Portable {
    const PIXELS: usize = 4;
    const DEPTHWISE: usize = 4;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: &[f32], at: usize) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&from[at..at + LANES]);
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn splat(from: &[f32], at: usize) -> Self {
        Self([from[at]; LANES])
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        // Not `mul_add`: without the instruction that is a call of a library, 30 times as slow.
        self.zip(by, |a, b| a * b).zip(plus, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // As the instruction: the second operand where one is NaN.
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
}

/// Defines `fn name<N…>(isa, …)`, which runs `body::<L, N…>(…)` compiled for the instructions of `isa`.
macro_rules! for_each_isa {
    ($name:ident<$($n:ident),*>, $body:ident, ($($arg:ident: $type:ty),* $(,)?)) => {
        #[inline]

        fn $name<$(const $n: usize),*>(isa: $crate::Isa, $($arg: $type),*) {
            use $crate::isa::Level;
            /// # Safety: the CPU has the instructions.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]

            unsafe fn avx512<$(const $n: usize),*>($($arg: $type),*) {
                // SAFETY: the caller's.
                unsafe { $body::<$crate::lanes::x86::Avx512, $($n),*>($($arg),*) }
            }
            /// # Safety: the CPU has the instructions.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]

            unsafe fn avx2<$(const $n: usize),*>($($arg: $type),*) {
                // SAFETY: the caller's.
                unsafe { $body::<$crate::lanes::x86::Avx2, $($n),*>($($arg),*) }
            }
            // SAFETY: an `Isa` proves that the CPU has the instructions; the bodies check bounds.
            unsafe {
                match isa.0 {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => avx512::<$($n),*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => avx2::<$($n),*>($($arg),*),
                    Level::Portable => $body::<$crate::lanes::Portable, $($n),*>($($arg),*),
                }
            }
        }
    };
}

pub(crate) use for_each_isa;
