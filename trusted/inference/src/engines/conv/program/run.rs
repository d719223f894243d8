//! Running a program over the images of a batch, without allocating.

use std::sync::Mutex;

use kernels::layout::{read_planes, write_planes};
use kernels::pointwise::{PointwiseArgs, clear_border, pointwise};
use kernels::vector::softmax;
use kernels::{Buffer, ConvArgs, Crew, DepthwiseArgs, Isa, Prologue, ShapeError, pooling};

use super::{Kernel, Program, Spot, Task};

/// Memory that one run at a time computes in. It keeps what the last one left.
#[derive(Debug)]
pub(crate) struct Arena {
    floats: Buffer,
    /// One for each worker.
    scratch: Vec<Mutex<Buffer>>,
}

impl Arena {
    /// For runs with so many workers; `None` when there is no memory.
    pub(crate) fn new(program: &Program, workers: usize) -> Option<Self> {
        let scratch = (0..workers).map(|_| Buffer::zeroed(program.scratch).map(Mutex::new));
        Some(Self {
            floats: Buffer::zeroed(program.arena)?,
            scratch: scratch.collect::<Option<_>>()?,
        })
    }
}

impl Program {
    /// Runs one image: reads its little-endian floats and appends each output's to its vector.
    ///
    /// The program's check promises that no kernel refuses anything; an error is a fault of ours.
    pub(crate) fn run(
        &self,
        (isa, crew): (Isa, &dyn Crew),
        weights: &[f32],
        arena: &mut Arena,
        input: &[u8],
        outputs: &mut [Vec<u8>],
    ) -> Result<(), ShapeError> {
        let spot = &self.input.spot;
        let floats = &mut arena.floats[spot.range.clone()];
        clear_border(&spot.image, floats)?;
        read_planes(input, self.input.channels, &spot.image, floats)?;
        for task in &self.tasks {
            task.run((isa, crew), weights, &mut arena.floats, &arena.scratch)?;
        }
        for (door, to) in self.outputs.iter().zip(outputs) {
            let floats = &arena.floats[door.spot.range.clone()];
            write_planes(&door.spot.image, floats, door.channels, to)?;
        }
        Ok(())
    }
}

/// Input, residual (or nothing) and output in the arena.
fn parts<'a>(floats: &'a mut [f32], task: &Task) -> Option<(&'a [f32], &'a [f32], &'a mut [f32])> {
    let (from, to) = (task.from.range.clone(), task.to.range.clone());
    Some(match &task.residual {
        Some(r) if r.range != from => {
            let [from, more, to] = floats.get_disjoint_mut([from, r.range.clone(), to]).ok()?;
            (from, more, to)
        }
        more => {
            let [from, to] = floats.get_disjoint_mut([from, to]).ok()?;
            let from: &[f32] = from;
            (from, if more.is_some() { from } else { &[] }, to)
        }
    })
}

impl Task {
    fn run(
        &self,
        (isa, crew): (Isa, &dyn Crew),
        weights: &[f32],
        floats: &mut [f32],
        scratch: &[Mutex<Buffer>],
    ) -> Result<(), ShapeError> {
        if let Kernel::Softmax(channels) = self.kernel {
            softmax(&mut floats[self.to.range.clone()][..channels]);
            return Ok(());
        }
        let (input, more, output) =
            parts(floats, self).ok_or(ShapeError::Mismatch("parts of the arena"))?;
        let Spot { image: to, .. } = &self.to;
        clear_border(to, output)?;
        let residual = self.residual.as_ref().map(|spot| (more, spot.image));
        let clamp = self.clamp;
        match &self.kernel {
            Kernel::Conv {
                conv,
                weights: w,
                bias,
                prologue,
            } => {
                let prologue = prologue.as_ref().map(|before| Prologue {
                    scale: &weights[before.factor.clone()],
                    shift: &weights[before.summand.clone()],
                    clamp: before.clamp,
                    scratch,
                });
                let (weights, bias) = (&weights[w.clone()], &weights[bias.clone()]);
                let mut args = ConvArgs {
                    input,
                    weights,
                    bias,
                    residual,
                    prologue,
                    clamp,
                    output,
                };
                conv.run(isa, crew, &mut args)
            }
            Kernel::Depthwise {
                conv,
                weights: w,
                bias,
            } => {
                let (weights, bias) = (&weights[w.clone()], &weights[bias.clone()]);
                let mut args = DepthwiseArgs {
                    input,
                    weights,
                    bias,
                    clamp,
                    output,
                };
                conv.run(isa, crew, &mut args)
            }
            Kernel::Pool(window, pooling) => {
                let sides = (self.from.image, *to, *window);
                pooling::pool(isa, crew, sides, *pooling, input, output)
            }
            Kernel::Pointwise(scale) => {
                let scale = scale.as_ref();
                let mut args = PointwiseArgs {
                    input,
                    scale: scale.map(|(a, b)| (&weights[a.clone()], &weights[b.clone()])),
                    residual,
                    clamp,
                    output,
                };
                pointwise(isa, crew, (self.from.image, *to), &mut args)
            }
            Kernel::Softmax(_) => Ok(()),
        }
    }
}
