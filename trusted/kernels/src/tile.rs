//! The innermost loops of a convolution: a tile of pixels times one or two blocks of channels, held in
//! registers from the first weight to the clamp.

#![expect(
    unsafe_code,
    reason = "loads are checked once for a whole tile, before its loops"
)]

use crate::LANES;
use crate::isa::{Isa, Level};
#[cfg(target_arch = "x86_64")]
use crate::lanes::x86::{Avx2, Avx512};
use crate::lanes::{Lanes, Portable};
use crate::out::Out;

/// Most pixels of any tile.
pub(crate) const PIXELS_MAX: usize = 14;

/// Offsets of the input's elements that each weight row meets, relative to a pixel's first.
#[derive(Debug)]
pub(crate) struct Taps {
    offsets: Vec<usize>,
    /// Consecutive floats at each offset.
    run: usize,
    /// One past the last float that a pixel meets.
    reach: usize,
}

impl Taps {
    pub(crate) fn new(offsets: Vec<usize>, run: usize) -> Self {
        let reach = offsets.iter().max().map_or(0, |o| o + run);
        Self {
            offsets,
            run,
            reach,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.offsets.len()
    }

    /// Floats of weights of one block of output channels.
    pub(crate) fn weights(&self) -> usize {
        self.offsets.len() * self.run * LANES
    }
}

/// Repeats a block for every pixel below `P`, with the number known while compiling: a loop over 14 is
/// more than the compiler unrolls, and then the sums are in memory instead of registers.
macro_rules! each_pixel {
    ($P:ident, $p:ident, $body:block) => {
        each_pixel!(@ $P, $p, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $P:ident, $p:ident, $body:block, $($n:literal)*) => {
        $(if $n < $P {
            // Also for the kernels of fewer pixels, where it is dead.
            let $p = if $n < $P { $n } else { 0 };
            $body
        })*
    };
}

/// One tile's work. `out` and `residual` are offsets in the first block of channels.
pub(crate) struct Tile<'a> {
    pub(crate) input: &'a [f32],
    /// Offset of the first pixel.
    pub(crate) base: usize,
    pub(crate) taps: &'a Taps,
    /// Weights of the first block; the next follow, [`Taps::weights`] apart.
    pub(crate) weights: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) residual: Option<(&'a [f32], usize)>,
    pub(crate) residual_at: [usize; PIXELS_MAX],
    pub(crate) clamp: (f32, f32),
    pub(crate) out: &'a Out<'a>,
    pub(crate) out_plane: usize,
    pub(crate) out_at: [usize; PIXELS_MAX],
}

impl Tile<'_> {
    /// Panics unless every load of a tile of `P` pixels, `step` floats apart, and `B` blocks is inside.
    /// Stores check themselves.
    #[inline(always)]
    fn check<const P: usize, const B: usize>(&self, step: usize) {
        let last = self.base + (P - 1) * step + self.taps.reach;
        assert!(last <= self.input.len(), "a tile reads past its input");
        assert!(
            self.weights.len() >= B * self.taps.weights(),
            "a tile reads past its weights"
        );
        assert!(self.bias.len() >= B * LANES, "a tile reads past its bias");
        if let Some((from, plane)) = self.residual {
            let last = self.residual_at[..P].iter().fold(0, |m, at| m.max(*at));
            assert!(
                last + (B - 1) * plane + LANES <= from.len(),
                "a tile reads past its residual"
            );
        }
    }

    /// # Safety
    ///
    /// The CPU has the instructions of `L`, `check::<P, B>(STEP)` has passed, and no other task
    /// writes the same pixels of the same blocks.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "registers have numbers")]
    unsafe fn compute<L: Lanes, const P: usize, const B: usize, const STEP: usize>(&self) {
        // A run of 16 is known while compiling, so that its loop is unrolled.
        let run = if STEP >= LANES { LANES } else { self.taps.run };
        let block = self.taps.weights();
        // SAFETY: the caller's, for every call in this function. Input: `base + tap + i + p * STEP` is
        // below `base + reach + (P - 1) * STEP`. Weights: `row` grows by 16 for each of
        // `taps.weights() / 16` rows. Bias and residual: as checked.
        unsafe {
            let mut sums = [[L::all(0.0); B]; P];
            let mut row = 0;
            for tap in &self.taps.offsets {
                let from = self.base + tap;
                for i in 0..run {
                    let mut weights = [L::all(0.0); B];
                    for (b, weight) in weights.iter_mut().enumerate() {
                        *weight = L::load(self.weights, b * block + row);
                    }
                    each_pixel!(P, p, {
                        let x = L::splat(self.input, from + p * STEP + i);
                        for b in 0..B {
                            sums[p][b] = x.fma(weights[b], sums[p][b]);
                        }
                    });
                    row += LANES;
                }
            }
            let (low, high) = (L::all(self.clamp.0), L::all(self.clamp.1));
            for b in 0..B {
                let bias = L::load(self.bias, b * LANES);
                each_pixel!(P, p, {
                    let mut y = sums[p][b].add(bias);
                    if let Some((from, plane)) = self.residual {
                        y = y.add(L::load(from, self.residual_at[p] + b * plane));
                    }
                    // The bounds come first: where `y` is NaN, the result is the second operand.
                    let y = high.min(low.max(y));
                    y.store(self.out.lanes(self.out_at[p] + b * self.out_plane));
                });
            }
        }
    }
}

/// A kernel for one number of pixels and blocks.
type Kernel = unsafe fn(&Tile<'_>);

/// Kernels of one instruction set: `[distance of pixels][blocks - 1][pixels - 1]`.
struct Kernels {
    pixels: usize,
    blocks: usize,
    table: &'static [&'static [&'static [Kernel]]],
}

macro_rules! kernels {
    ($name:ident, $lanes:ty, [$($feature:literal)?], [$($p:literal)*], [$($b:literal)*]) => {
        mod $name {
            use super::{Kernel, Kernels, Lanes, Tile};

            /// # Safety
            ///
            /// The CPU has the instructions, and no other task writes the same pixels of the same
            /// blocks.
            $(#[target_feature(enable = $feature)])?
            unsafe fn tile<const P: usize, const B: usize, const STEP: usize>(tile: &Tile<'_>) {
                tile.check::<P, B>(STEP);
                // SAFETY: the caller's, and the check above.
                unsafe { tile.compute::<$lanes, P, B, STEP>() }
            }

            pub(super) const KERNELS: Kernels = Kernels {
                pixels: <$lanes as Lanes>::PIXELS,
                blocks: <$lanes as Lanes>::BLOCKS,
                table: &[
                    kernels!(@step 16, [$($p)*], [$($b)*]),
                    kernels!(@step 32, [$($p)*], [$($b)*]),
                    kernels!(@step 3, [$($p)*], [$($b)*]),
                    kernels!(@step 6, [$($p)*], [$($b)*]),
                ],
            };
        }
    };
    (@step $step:literal, $p:tt, [$($b:literal)*]) => { &[$(kernels!(@block $step, $p, $b)),*] };
    (@block $step:literal, [$($p:literal)*], $b:literal) => {
        &[$(tile::<$p, $b, $step> as Kernel),*]
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, super::Avx512, ["avx512f"], [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [1 2]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, super::Avx2, ["avx2,fma"], [1 2 3 4 5 6], [1]);
kernels!(portable, super::Portable, [], [1 2 3 4], [1]);

const fn kernels(isa: Isa) -> &'static Kernels {
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::KERNELS,
        Level::Portable => &portable::KERNELS,
    }
}

/// Distances between the pixels of a tile that there are kernels for, in floats.
pub(crate) const STEPS: [usize; 4] = [16, 32, 3, 6];

/// The kernels for pixels that are one of [`STEPS`] apart.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    kernels: &'static Kernels,
    step: usize,
}

impl Tiling {
    pub(crate) fn new(isa: Isa, step: usize) -> Option<Self> {
        let step = STEPS.iter().position(|s| *s == step)?;
        let kernels = kernels(isa);
        Some(Self { kernels, step })
    }

    /// Most pixels of one tile.
    pub(crate) const fn pixels(&self) -> usize {
        self.kernels.pixels
    }

    /// Most blocks of one tile.
    pub(crate) const fn blocks(&self) -> usize {
        self.kernels.blocks
    }

    /// Computes one tile.
    ///
    /// # Safety
    ///
    /// No other task writes the same pixels of the same blocks.
    pub(crate) unsafe fn run(&self, tile: &Tile<'_>, pixels: usize, blocks: usize) {
        let kernel = self.kernels.table[self.step][blocks - 1][pixels - 1];
        // SAFETY: an `Isa` proves that the CPU has the instructions; the rest is the caller's.
        unsafe { kernel(tile) }
    }
}
