//! Convolution over all channels: of blocked images, and of RGB images as they come.
//!
//! A task is a chunk of output pixels times some blocks of output channels. Its input stays in the
//! second-level cache while the weights of one or two blocks pass by; each tile of it keeps its sums
//! in registers until bias, residual and clamp are done, so that the output is written once.

#![expect(unsafe_code, reason = "writes disjoint tiles of one output: see `Out`")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::buffer::Buffer;
use crate::crew::Crew;
use crate::image::{Image, LANES, ShapeError, Window};
use crate::isa::Isa;
use crate::out::Out;
use crate::pointwise::{Clamp, scale_run};
use crate::tile::{PIXELS_MAX, Taps, Tile, Tiling};

/// Floats of input that a chunk may have: a good part of a second-level cache.
const CHUNK_FLOATS: usize = 96 << 10;
/// Floats of a scaled copy of a chunk.
const SCRATCH_FLOATS: usize = 48 << 10;

/// A convolution of known shapes. What it is given later is checked against them.
#[derive(Debug)]
pub struct Conv {
    input: Image,
    output: Image,
    window: Window,
    taps: Taps,
    prologue: Option<Scaled>,
}

/// The convolution's own copy of a chunk of its input, scaled and clamped.
#[derive(Debug)]
struct Scaled {
    /// Pixels that the copy has room for, in each block.
    pixels: usize,
    taps: Taps,
}

/// `clamp(x * scale + shift)` of the input, before it is convolved: batch normalisation and ReLU that
/// stand before their convolution.
#[derive(Debug, Clone, Copy)]
pub struct Prologue<'a> {
    /// One factor for each input channel, and one summand.
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub clamp: Clamp,
    /// One buffer of [`Conv::scratch`] floats for each worker.
    pub scratch: &'a [Mutex<Buffer>],
}

/// What a convolution computes with.
#[derive(Debug)]
pub struct ConvArgs<'a> {
    pub input: &'a [f32],
    /// `[out / 16][in / 16][kh][kw][16 in][16 out]`, or `[out / 16][kh][kw][3][16 out]` of RGB images.
    pub weights: &'a [f32],
    /// One for each output channel.
    pub bias: &'a [f32],
    /// Added before the clamp: an image of the output's size.
    pub residual: Option<(&'a [f32], Image)>,
    pub prologue: Option<Prologue<'a>>,
    pub clamp: Clamp,
    pub output: &'a mut [f32],
}

impl Conv {
    /// A convolution from `input` to `output`. `scaled` is whether it will have a prologue, which only
    /// a window of one pixel may.
    pub fn new(
        input: Image,
        output: Image,
        window: Window,
        scaled: bool,
    ) -> Result<Self, ShapeError> {
        window.check()?;
        window.fits(&input, &output)?;
        if output.lanes() != LANES {
            return Err(ShapeError::Unsupported("outputs that are not blocked"));
        }
        if window == Window::PIXEL
            && (input.height(), input.width()) != (output.height(), output.width())
        {
            return Err(ShapeError::Mismatch("the images of a 1x1 convolution"));
        }
        if window.stride.1 > 2 {
            return Err(ShapeError::Unsupported("strides above 2"));
        }
        let (kh, kw) = window.kernel;
        let taps = if input.lanes() == LANES {
            let elements = input
                .blocks()
                .checked_mul(kh)
                .and_then(|n| n.checked_mul(kw));
            if elements.is_none_or(|n| n > 1 << 20) {
                return Err(ShapeError::Unsupported("windows this large"));
            }
            let mut offsets = Vec::new();
            for block in 0..input.blocks() {
                for y in 0..kh {
                    let row = block * input.plane() + y * window.dilation.0 * input.row();
                    offsets.extend((0..kw).map(|x| row + x * window.dilation.1 * LANES));
                }
            }
            Taps::new(offsets, LANES)
        } else if window.dilation == (1, 1) {
            // A row of the window is one run of floats: its pixels are neighbours.
            Taps::new(
                (0..kh).map(|y| y * input.row()).collect(),
                kw * input.lanes(),
            )
        } else {
            return Err(ShapeError::Unsupported("dilated windows over RGB images"));
        };
        let prologue = match scaled {
            false => None,
            true if window == Window::PIXEL && input.lanes() == LANES => {
                let room = SCRATCH_FLOATS / (LANES * input.blocks());
                let pixels = room.clamp(2 * PIXELS_MAX, 1 << 12).min(input.pixels());
                let offsets = (0..input.blocks()).map(|b| b * pixels * LANES).collect();
                let taps = Taps::new(offsets, LANES);
                Some(Scaled { pixels, taps })
            }
            true => return Err(ShapeError::Unsupported("scaled inputs of larger windows")),
        };
        Ok(Self {
            input,
            output,
            window,
            taps,
            prologue,
        })
    }

    /// Floats of weights.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.output.blocks() * self.taps.weights()
    }

    /// Offsets held: one for each element of the window in each block.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.taps.count() + self.prologue.as_ref().map_or(0, |s| s.taps.count())
    }

    /// Floats of each worker's scratch buffer: 0 without a prologue.
    #[must_use]
    pub fn scratch(&self) -> usize {
        self.prologue
            .as_ref()
            .map_or(0, |s| s.pixels * LANES * self.input.blocks())
    }

    /// Multiply-adds, counting padded channels.
    #[must_use]
    pub fn work(&self) -> u64 {
        (self.output.pixels() as u64).saturating_mul(self.weights() as u64)
    }

    fn check(&self, args: &ConvArgs<'_>, workers: usize) -> Result<(), ShapeError> {
        let channels = LANES * self.input.blocks();
        let scratch = self.scratch();
        let fits = args.input.len() == self.input.len()
            && args.output.len() == self.output.len()
            && args.weights.len() == self.weights()
            && args.bias.len() == self.output.blocks() * LANES;
        let residual = args.residual.is_none_or(|(from, image)| {
            from.len() == image.len() && image.lanes() == LANES && image.same_size(&self.output)
        });
        let prologue = match &args.prologue {
            None => self.prologue.is_none(),
            Some(p) => {
                self.prologue.is_some()
                    && p.scale.len() == channels
                    && p.shift.len() == channels
                    && p.scratch.len() >= workers
                    && p.scratch
                        .iter()
                        .all(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len() >= scratch)
            }
        };
        if fits && residual && prologue {
            Ok(())
        } else {
            Err(ShapeError::Mismatch("the parts of a convolution"))
        }
    }

    /// Computes it.
    pub fn run(
        &self,
        isa: Isa,
        crew: &dyn Crew,
        args: &mut ConvArgs<'_>,
    ) -> Result<(), ShapeError> {
        self.check(args, crew.workers())?;
        let step = self.window.stride.1 * self.input.lanes();
        let tiling = Tiling::new(isa, step).ok_or(ShapeError::Unsupported("this stride"))?;
        let work = Work {
            conv: self,
            input: args.input,
            weights: args.weights,
            bias: args.bias,
            residual: args.residual,
            clamp: args.clamp,
            out: Out::new(&mut *args.output),
            isa,
            tiling,
        };
        let plan = work.split(crew.workers());
        crew.each(plan.chunks * plan.parts, &|worker, task| {
            let lines = cut(work.lines(), plan.chunks, task / plan.parts);
            let groups = cut(work.groups(), plan.parts, task % plan.parts);
            match &args.prologue {
                None => work.chunk(None, lines, groups),
                Some(prologue) => {
                    let scratch = &prologue.scratch[worker];
                    let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
                    work.scale(prologue, work.pixels(&lines), &mut scratch);
                    work.chunk(Some(&scratch), lines, groups);
                }
            }
        });
        Ok(())
    }
}

/// The `index`-th of `parts` nearly equal parts of `0..len`.
fn cut(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

/// How a convolution is cut into tasks.
struct Split {
    chunks: usize,
    /// Parts of the output's blocks.
    parts: usize,
}

struct Work<'a> {
    conv: &'a Conv,
    input: &'a [f32],
    weights: &'a [f32],
    bias: &'a [f32],
    residual: Option<(&'a [f32], Image)>,
    clamp: Clamp,
    out: Out<'a>,
    isa: Isa,
    tiling: Tiling,
}

impl Work<'_> {
    /// Whether pixels are neighbours in the input as they are in the output, over ends of rows.
    fn is_flat(&self) -> bool {
        self.conv.prologue.is_some()
            || (self.conv.window == Window::PIXEL
                && self.conv.input.is_flat()
                && self.conv.input.lanes() == LANES)
    }

    /// Rows of the output; of a flat one, tiles.
    fn lines(&self) -> usize {
        if self.is_flat() {
            self.conv.output.pixels().div_ceil(self.tiling.pixels())
        } else {
            self.conv.output.height()
        }
    }

    /// Tiles' worth of output blocks.
    fn groups(&self) -> usize {
        self.conv.output.blocks().div_ceil(self.tiling.blocks())
    }

    /// Output pixels of some lines, counted along the rows.
    fn pixels(&self, lines: &Range<usize>) -> Range<usize> {
        let (all, count) = (self.conv.output.pixels(), self.lines());
        all * lines.start / count..all * lines.end / count
    }

    fn split(&self, workers: usize) -> Split {
        let conv = self.conv;
        let lines = self.lines();
        let chunks = match &conv.prologue {
            Some(scaled) => lines.div_ceil((scaled.pixels / self.tiling.pixels()).max(1)),
            None => (conv.input.len() / CHUNK_FLOATS).clamp(1, lines),
        };
        if workers == 1 {
            return Split { chunks, parts: 1 };
        }
        // Some more tasks than workers, since one of them may be slower. Cutting the side that is
        // read less often costs less.
        let wanted = 4 * workers;
        if chunks >= wanted {
            return Split { chunks, parts: 1 };
        }
        if conv.weights() > conv.input.len() && conv.prologue.is_none() {
            let parts = wanted.div_ceil(chunks).min(self.groups());
            Split { chunks, parts }
        } else {
            let chunks = wanted.min(lines);
            let parts = wanted.div_ceil(chunks).min(self.groups()).min(workers);
            Split { chunks, parts }
        }
    }

    /// Fills `scratch` with the scaled pixels.
    fn scale(&self, prologue: &Prologue<'_>, pixels: Range<usize>, scratch: &mut [f32]) {
        let (image, width) = (&self.conv.input, self.conv.input.width());
        let room = self.conv.scratch() / image.blocks();
        for block in 0..image.blocks() {
            let channels = block * LANES..(block + 1) * LANES;
            let (scale, shift) = (&prologue.scale[channels.clone()], &prologue.shift[channels]);
            let (mut pixel, mut to) = (pixels.start, block * room);
            while pixel < pixels.end {
                let (y, x) = (pixel / width, pixel % width);
                // To the end of the row, or of the image when there is no gap after a row.
                let run = if image.is_flat() {
                    pixels.end - pixel
                } else {
                    width - x
                };
                let run = run.min(pixels.end - pixel);
                let from = block * image.plane() + image.at(y, x);
                scale_run(
                    self.isa,
                    (scale, shift, prologue.clamp),
                    &self.input[from..from + run * LANES],
                    &mut scratch[to..to + run * LANES],
                );
                pixel += run;
                to += run * LANES;
            }
        }
    }

    /// Computes the blocks of `groups` in the pixels of `lines`.
    fn chunk(&self, scaled: Option<&[f32]>, lines: Range<usize>, groups: Range<usize>) {
        let (input, output) = (&self.conv.input, &self.conv.output);
        let Window { stride, before, .. } = self.conv.window;
        let first = self.pixels(&lines);
        for group in groups {
            if self.is_flat() {
                for line in lines.clone() {
                    let pixels = self.pixels(&(line..line + 1));
                    let base = match scaled {
                        Some(_) => (pixels.start - first.start) * LANES,
                        None => input.at(0, 0) + pixels.start * LANES,
                    };
                    self.tile(scaled, base, pixels, group);
                }
                continue;
            }
            let corner = input.at(0, 0) - before.0 * input.row() - before.1 * input.lanes();
            let width = output.width();
            let tiles = width.div_ceil(self.tiling.pixels());
            for y in lines.clone() {
                let row = corner + y * stride.0 * input.row();
                for index in 0..tiles {
                    let x = cut(width, tiles, index);
                    let base = row + x.start * stride.1 * input.lanes();
                    self.tile(None, base, y * width + x.start..y * width + x.end, group);
                }
            }
        }
    }

    /// Computes one tile: the output's `pixels`, from the input at `base` on.
    fn tile(&self, scaled: Option<&[f32]>, base: usize, pixels: Range<usize>, group: usize) {
        let output = &self.conv.output;
        let block = group * self.tiling.blocks();
        let blocks = self.tiling.blocks().min(output.blocks() - block);
        let taps = match (&self.conv.prologue, scaled) {
            (Some(prologue), Some(_)) => &prologue.taps,
            _ => &self.conv.taps,
        };
        let mut out_at = [0; PIXELS_MAX];
        places(output, block, &pixels, &mut out_at);
        let mut residual_at = [0; PIXELS_MAX];
        let residual = self.residual.map(|(from, image)| {
            places(&image, block, &pixels, &mut residual_at);
            (from, image.plane())
        });
        let tile = Tile {
            input: scaled.unwrap_or(self.input),
            base,
            taps,
            weights: &self.weights[block * taps.weights()..],
            bias: &self.bias[block * LANES..],
            residual,
            residual_at,
            clamp: (self.clamp.low, self.clamp.high),
            out: &self.out,
            out_plane: output.plane(),
            out_at,
        };
        // SAFETY: tasks differ in chunk or part, and so in pixels or blocks.
        unsafe { self.tiling.run(&tile, pixels.len(), blocks) }
    }
}

/// Offsets of consecutive pixels in a block.
fn places(image: &Image, block: usize, pixels: &Range<usize>, at: &mut [usize; PIXELS_MAX]) {
    let (mut y, mut x) = (pixels.start / image.width(), pixels.start % image.width());
    let plane = block * image.plane();
    for (place, _) in at.iter_mut().zip(pixels.clone()) {
        *place = plane + image.at(y, x);
        x += 1;
        if x == image.width() {
            (y, x) = (y + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests;
