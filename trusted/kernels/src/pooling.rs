//! Maximum and mean over windows; the border of an image is not part of it.

#![expect(
    unsafe_code,
    reason = "SIMD over checked slices, and disjoint rows of one output"
)]

use std::ops::Range;

use crate::crew::Crew;
use crate::image::{Image, LANES, ShapeError, Window};
use crate::isa::Isa;
use crate::lanes::{Lanes, for_each_isa};
use crate::out::Out;

/// What is taken of each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Maximum,
    /// Of the pixels inside the image.
    Mean,
    /// Pixels outside count as zeros.
    MeanWithBorder,
}

/// Pools every channel.
pub fn pool(
    isa: Isa,
    crew: &dyn Crew,
    (input, output, window): (Image, Image, Window),
    pooling: Pooling,
    from: &[f32],
    to: &mut [f32],
) -> Result<(), ShapeError> {
    check(&input, &output, &window)?;
    if from.len() != input.len() || to.len() != output.len() {
        return Err(ShapeError::Mismatch("an image and its memory"));
    }
    let out = Out::new(to);
    crew.each(output.blocks(), &|_, block| {
        let plane = Plane {
            input,
            window,
            pooling,
            data: &from[block * input.plane()..(block + 1) * input.plane()],
            width: output.width(),
        };
        for y in 0..output.height() {
            row(
                isa,
                &plane,
                y,
                &out,
                block * output.plane() + output.at(y, 0),
            );
        }
    });
    Ok(())
}

/// Whether a window fits images; every one must meet at least one pixel.
pub fn check(input: &Image, output: &Image, window: &Window) -> Result<(), ShapeError> {
    window.check()?;
    if (input.lanes(), output.lanes()) != (LANES, LANES) || input.blocks() != output.blocks() {
        return Err(ShapeError::Mismatch("the images of a pooling"));
    }
    let meets = |out: usize, size: usize, kernel: usize, stride: usize, before: usize| {
        before < kernel && (out - 1) * stride < size + before
    };
    let (k, s, b) = (window.kernel, window.stride, window.before);
    if window.dilation == (1, 1)
        && meets(output.height(), input.height(), k.0, s.0, b.0)
        && meets(output.width(), input.width(), k.1, s.1, b.1)
    {
        Ok(())
    } else {
        Err(ShapeError::Unsupported("pooling windows of this form"))
    }
}

/// One block.
struct Plane<'a> {
    input: Image,
    window: Window,
    pooling: Pooling,
    data: &'a [f32],
    /// Of the output.
    width: usize,
}

/// The part of a window that is inside.
fn inside(at: usize, stride: usize, kernel: usize, before: usize, size: usize) -> Range<usize> {
    let start = at * stride;
    start.saturating_sub(before)..(start + kernel).saturating_sub(before).min(size)
}

for_each_isa!(row<>, row_lanes, (plane: &Plane<'_>, y: usize, out: &Out<'_>, to: usize));

/// # Safety
///
/// The CPU has the instructions, and this row of this block is written by this task only.
#[inline(always)]
unsafe fn row_lanes<L: Lanes>(plane: &Plane<'_>, y: usize, out: &Out<'_>, to: usize) {
    let Window {
        kernel,
        stride,
        before,
        ..
    } = plane.window;
    let input = &plane.input;
    let rows = inside(y, stride.0, kernel.0, before.0, input.height());
    for x in 0..plane.width {
        let columns = inside(x, stride.1, kernel.1, before.1, input.width());
        let counted = match plane.pooling {
            Pooling::MeanWithBorder => kernel.0 * kernel.1,
            _ => rows.len() * columns.len(),
        };
        // SAFETY: the CPU and the writes by contract; each line of the window is a checked slice of
        // whole vectors.
        unsafe {
            let start = match plane.pooling {
                Pooling::Maximum => f32::NEG_INFINITY,
                _ => 0.0,
            };
            let mut result = L::all(start);
            for row in rows.clone() {
                let line = &plane.data[input.at(row, columns.start)..][..columns.len() * LANES];
                for at in (0..line.len()).step_by(LANES) {
                    let pixel = L::load(line, at);
                    result = match plane.pooling {
                        Pooling::Maximum => result.max(pixel),
                        _ => result.add(pixel),
                    };
                }
            }
            if plane.pooling != Pooling::Maximum {
                #[expect(clippy::cast_precision_loss, reason = "no window has 2^24 pixels")]
                let share = 1.0 / counted as f32;
                result = result.mul(L::all(share));
            }
            result.store(out.lanes(to + x * LANES));
        }
    }
}

#[cfg(test)]
mod tests;
