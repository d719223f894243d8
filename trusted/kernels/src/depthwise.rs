//! Depthwise convolution: each channel with a window of its own, 3, 5 or 7 pixels square.

#![expect(
    unsafe_code,
    reason = "SIMD behind checks of a whole row, and disjoint rows of one output"
)]

use crate::crew::Crew;
use crate::image::{Image, LANES, ShapeError, Window};
use crate::isa::Isa;
use crate::lanes::{Lanes, for_each_isa};
use crate::out::Out;
use crate::pointwise::Clamp;

/// A depthwise convolution of known shapes.
#[derive(Debug)]
pub struct Depthwise {
    input: Image,
    output: Image,
    window: Window,
}

/// What it computes with.
#[derive(Debug)]
pub struct DepthwiseArgs<'a> {
    pub input: &'a [f32],
    /// `[blocks][kh][kw][16]`.
    pub weights: &'a [f32],
    /// One for each channel.
    pub bias: &'a [f32],
    pub clamp: Clamp,
    pub output: &'a mut [f32],
}

impl Depthwise {
    /// From `input` to `output`, of as many blocks.
    pub fn new(input: Image, output: Image, window: Window) -> Result<Self, ShapeError> {
        window.check()?;
        window.fits(&input, &output)?;
        if (input.lanes(), output.lanes()) != (LANES, LANES) || input.blocks() != output.blocks() {
            return Err(ShapeError::Mismatch(
                "the images of a depthwise convolution",
            ));
        }
        let square = window.kernel.0 == window.kernel.1 && window.stride.0 == window.stride.1;
        let known = matches!(window.kernel.0, 3 | 5 | 7) && matches!(window.stride.0, 1 | 2);
        if !square || !known || window.dilation != (1, 1) {
            return Err(ShapeError::Unsupported("depthwise windows of this form"));
        }
        Ok(Self {
            input,
            output,
            window,
        })
    }

    /// Floats of weights.
    #[must_use]
    pub const fn weights(&self) -> usize {
        self.input.blocks() * self.window.kernel.0 * self.window.kernel.1 * LANES
    }

    /// Multiply-adds, counting padded channels.
    #[must_use]
    pub const fn work(&self) -> u64 {
        (self.output.pixels() as u64).saturating_mul(self.weights() as u64)
    }

    /// Computes it.
    pub fn run(
        &self,
        isa: Isa,
        crew: &dyn Crew,
        args: &mut DepthwiseArgs<'_>,
    ) -> Result<(), ShapeError> {
        let (input, output) = (&self.input, &self.output);
        let fits = args.input.len() == input.len()
            && args.output.len() == output.len()
            && args.weights.len() == self.weights()
            && args.bias.len() == input.blocks() * LANES;
        if !fits {
            return Err(ShapeError::Mismatch("the parts of a depthwise convolution"));
        }
        let Window {
            kernel,
            stride,
            before,
            ..
        } = self.window;
        let kernels = self.weights() / input.blocks();
        let row = match (kernel.0, stride.0) {
            (3, 1) => row::<3, 1>,
            (3, _) => row::<3, 2>,
            (5, 1) => row::<5, 1>,
            (5, _) => row::<5, 2>,
            (_, 1) => row::<7, 1>,
            _ => row::<7, 2>,
        };
        let out = Out::new(&mut *args.output);
        let corner = input.at(0, 0) - before.0 * input.row() - before.1 * LANES;
        crew.each(input.blocks(), &|_, block| {
            let line = Line {
                input: args.input,
                row: input.row(),
                weights: &args.weights[block * kernels..(block + 1) * kernels],
                bias: &args.bias[block * LANES..(block + 1) * LANES],
                clamp: args.clamp,
                width: output.width(),
            };
            for y in 0..output.height() {
                let from = block * input.plane() + corner + y * stride.0 * input.row();
                row(
                    isa,
                    &line,
                    from,
                    &out,
                    block * output.plane() + output.at(y, 0),
                );
            }
        });
        Ok(())
    }
}

/// What all rows of a block share.
struct Line<'a> {
    input: &'a [f32],
    /// Floats from a row of the input to the next.
    row: usize,
    weights: &'a [f32],
    bias: &'a [f32],
    clamp: Clamp,
    width: usize,
}

/// Most vectors of input that a tile meets in one row of its window: 7 pixels, stride 2, window 7.
const SPAN_MAX: usize = 2 * 6 + 7;

for_each_isa!(row<K, S>, row_lanes, (
    line: &Line<'_>,
    from: usize,
    out: &Out<'_>,
    to: usize,
));

/// A row of the output, from the input at `from` on.
///
/// # Safety
///
/// The CPU has the instructions, and this row of this block is written by this task only.
#[inline(always)]
unsafe fn row_lanes<L: Lanes, const K: usize, const S: usize>(
    line: &Line<'_>,
    from: usize,
    out: &Out<'_>,
    to: usize,
) {
    let last = from + (K - 1) * line.row + ((line.width - 1) * S + K) * LANES;
    assert!(last <= line.input.len(), "a row reads past its input");
    assert!(line.weights.len() >= K * K * LANES, "K rows of K weights");
    assert!(line.bias.len() >= LANES, "16 summands");
    let mut x = 0;
    // SAFETY: the CPU and the writes by contract; loads by the assertions, since tiles are
    // pixels `x..x + P` with `x + P <= width`.
    unsafe {
        if L::DEPTHWISE == 7 {
            while x + 7 <= line.width {
                tile::<L, K, S, 7>(line, from + x * S * LANES, out, to + x * LANES);
                x += 7;
            }
        }
        while x + 4 <= line.width {
            tile::<L, K, S, 4>(line, from + x * S * LANES, out, to + x * LANES);
            x += 4;
        }
        while x < line.width {
            tile::<L, K, S, 1>(line, from + x * S * LANES, out, to + x * LANES);
            x += 1;
        }
    }
}

/// `P` pixels of a row.
///
/// # Safety
///
/// As for [`row_lanes`], whose assertions have passed for these pixels.
#[inline(always)]
unsafe fn tile<L: Lanes, const K: usize, const S: usize, const P: usize>(
    line: &Line<'_>,
    from: usize,
    out: &Out<'_>,
    to: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [L::load(line.bias, 0); P];
        for ky in 0..K {
            let row = from + ky * line.row;
            // Neighbouring windows overlap: each vector is loaded once.
            let mut span = [L::all(0.0); SPAN_MAX];
            for (i, vector) in span.iter_mut().enumerate().take((P - 1) * S + K) {
                *vector = L::load(line.input, row + i * LANES);
            }
            for kx in 0..K {
                let weight = L::load(line.weights, (ky * K + kx) * LANES);
                for p in 0..P {
                    sums[p] = span[p * S + kx].fma(weight, sums[p]);
                }
            }
        }
        let (low, high) = (L::all(line.clamp.low), L::all(line.clamp.high));
        for (p, sum) in sums.into_iter().enumerate() {
            high.min(low.max(sum)).store(out.lanes(to + p * LANES));
        }
    }
}

#[cfg(test)]
mod tests;
