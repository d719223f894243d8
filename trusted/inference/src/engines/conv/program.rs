//! A plan that was checked, with its weights: everything that running it needs but an arena.
//!
//! SECURITY: plans come from model owners and may be hostile. After [`Program::new`], every image lies
//! inside the arena, all weights inside the weights, no step reads what it writes, every float that
//! is read was written before in the same run (an arena keeps what an earlier request left), and
//! the work of a run is bounded. The kernels check memory again themselves.

use std::ops::Range;

use kernels::image::Border;
use kernels::{Clamp, Conv, Depthwise, Image, ShapeError, Window, pooling};

use super::plan::{Bounds, FORMAT, Place, Plan, Pooling, Port, Prologue, Scale, Span, Step};
use crate::engine::LoadLimits;

mod run;

pub(crate) use run::Arena;

/// Most window elements of all convolutions together: each is an offset in memory.
const TAPS_MAX: usize = 1 << 20;

/// Why a plan is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    #[error("the plan is not well-formed")]
    Json(#[from] serde_json::Error),
    #[error("there is not enough memory")]
    Memory,
    #[error("the plan has format {0}, this engine reads {FORMAT}")]
    Format(u32),
    #[error("the plan has more than {max} {what}")]
    Limit { what: &'static str, max: u64 },
    #[error("image {0} does not exist")]
    NoImage(usize),
    #[error("image {0} does not lie in the arena")]
    Outside(usize),
    #[error("image {image}: {source}")]
    Image { image: usize, source: ShapeError },
    #[error("step {step}: {source}")]
    Step { step: usize, source: ShapeError },
    #[error("step {step}: {what} do not lie in the weights, at a multiple of 16 floats")]
    Weights { step: usize, what: &'static str },
    #[error("step {step} reads what it writes")]
    Overlap { step: usize },
    #[error("step {step} reads what nothing before it wrote")]
    Unwritten { step: usize },
    #[error("{side} '{name}' does not fit its image")]
    Port { side: &'static str, name: String },
}

/// One image: its form and its floats in the arena.
#[derive(Debug, Clone)]
struct Spot {
    image: Image,
    range: Range<usize>,
}

/// A step, ready to run.
#[derive(Debug)]
struct Task {
    from: Spot,
    to: Spot,
    residual: Option<Spot>,
    clamp: Clamp,
    kernel: Kernel,
}

#[derive(Debug)]
enum Kernel {
    Conv {
        conv: Conv,
        weights: Range<usize>,
        bias: Range<usize>,
        prologue: Option<Before>,
    },
    Depthwise {
        conv: Depthwise,
        weights: Range<usize>,
        bias: Range<usize>,
    },
    Pool(Window, pooling::Pooling),
    Pointwise(Option<(Range<usize>, Range<usize>)>),
    /// Of this many floats.
    Softmax(usize),
}

#[derive(Debug)]
struct Before {
    factor: Range<usize>,
    summand: Range<usize>,
    clamp: Clamp,
}

/// A tensor of the interface, for one image of a batch.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    /// Without the batch.
    pub(crate) shape: Vec<usize>,
    channels: usize,
    spot: Spot,
}

impl Door {
    /// Bytes of one image of the batch.
    pub(crate) fn bytes(&self) -> usize {
        self.channels * self.spot.image.pixels() * 4
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Program {
    tasks: Vec<Task>,
    pub(crate) input: Door,
    pub(crate) outputs: Vec<Door>,
    /// Floats.
    arena: usize,
    /// Floats of each worker.
    scratch: usize,
}

impl Program {
    /// What a session's arena takes.
    pub(super) const fn arena_bytes(&self) -> u64 {
        self.arena as u64 * 4
    }

    /// Checks a plan against the weights' length, in floats.
    pub(crate) fn new(plan: &Plan, weights: usize, limits: &LoadLimits) -> Result<Self, PlanError> {
        if plan.format != FORMAT {
            return Err(PlanError::Format(plan.format));
        }
        let limit = |what, is: usize, max: u64| {
            let fits = is as u64 <= max;
            fits.then_some(()).ok_or(PlanError::Limit { what, max })
        };
        limit("steps", plan.steps.len(), limits.nodes as u64)?;
        limit("images", plan.images.len(), 2 * limits.nodes as u64)?;
        limit("floats of arena", plan.arena, limits.tensor_bytes / 4)?;
        let spots = spots(plan)?;
        let mut checker = Checker {
            spots,
            weights,
            written: Written::default(),
            work: 0,
            taps: 0,
        };
        let input = checker.door("input", &plan.input)?;
        checker.written.add(&input.spot.range);
        let mut tasks = Vec::with_capacity(plan.steps.len());
        for (number, step) in plan.steps.iter().enumerate() {
            tasks.push(checker.task(number, step)?);
            if checker.work > limits.work {
                let (what, max) = ("multiply-adds", limits.work);
                return Err(PlanError::Limit { what, max });
            }
        }
        let end = plan.steps.len();
        let outputs = plan.outputs.iter().map(|port| {
            let door = checker.door("output", port)?;
            checker.read(end, &door.spot)?;
            Ok(door)
        });
        let outputs = outputs.collect::<Result<Vec<_>, PlanError>>()?;
        let scratch = tasks.iter().map(Task::scratch).max().unwrap_or(0);
        Ok(Self {
            tasks,
            input,
            outputs,
            arena: plan.arena,
            scratch,
        })
    }
}

impl Task {
    fn scratch(&self) -> usize {
        match &self.kernel {
            Kernel::Conv { conv, .. } => conv.scratch(),
            _ => 0,
        }
    }
}

fn spots(plan: &Plan) -> Result<Vec<Spot>, PlanError> {
    let spot = |(number, place): (usize, &Place)| {
        let [top, left, bottom, right] = place.border;
        let border = Border {
            top,
            left,
            bottom,
            right,
        };
        let [height, width] = place.size;
        let image = if place.rgb {
            Image::rgb(height, width, border)
        } else {
            Image::blocked(place.blocks, height, width, border)
        };
        let image = image.map_err(|source| PlanError::Image {
            image: number,
            source,
        })?;
        let range = inside(place.at, image.len(), plan.arena).ok_or(PlanError::Outside(number))?;
        Ok(Spot { image, range })
    };
    plan.images.iter().enumerate().map(spot).collect()
}

/// `at..at + len` if that starts at a multiple of 16 and ends before `end`.
fn inside(at: usize, len: usize, end: usize) -> Option<Range<usize>> {
    let range = at..at.checked_add(len)?;
    (range.end <= end && at.is_multiple_of(kernels::LANES)).then_some(range)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn window(span: &Span) -> Window {
    Window {
        kernel: span.kernel,
        stride: span.stride,
        dilation: span.dilation,
        before: span.before,
    }
}

fn clamp(bounds: Bounds) -> Clamp {
    Clamp {
        low: bounds.low.unwrap_or(f32::NEG_INFINITY),
        high: bounds.high.unwrap_or(f32::INFINITY),
    }
}

/// Floats of the arena that this run has written.
#[derive(Default)]
struct Written {
    /// Apart from each other, in order.
    ranges: Vec<Range<usize>>,
}

impl Written {
    fn add(&mut self, new: &Range<usize>) {
        let mut joined = new.clone();
        self.ranges.retain(|old| {
            let touches = old.start <= joined.end && joined.start <= old.end;
            if touches {
                joined = old.start.min(joined.start)..old.end.max(joined.end);
            }
            !touches
        });
        let place = self.ranges.partition_point(|old| old.start < joined.start);
        self.ranges.insert(place, joined);
    }

    fn holds(&self, all: &Range<usize>) -> bool {
        self.ranges
            .iter()
            .any(|r| r.start <= all.start && all.end <= r.end)
    }
}

struct Checker {
    spots: Vec<Spot>,
    weights: usize,
    written: Written,
    work: u64,
    taps: usize,
}

impl Checker {
    fn spot(&self, image: usize) -> Result<Spot, PlanError> {
        self.spots
            .get(image)
            .cloned()
            .ok_or(PlanError::NoImage(image))
    }

    fn read(&self, step: usize, spot: &Spot) -> Result<(), PlanError> {
        let held = self.written.holds(&spot.range);
        held.then_some(()).ok_or(PlanError::Unwritten { step })
    }

    fn floats(
        &self,
        step: usize,
        what: &'static str,
        at: usize,
        len: usize,
    ) -> Result<Range<usize>, PlanError> {
        inside(at, len, self.weights).ok_or(PlanError::Weights { step, what })
    }

    fn scale(
        &self,
        step: usize,
        scale: Scale,
        image: &Image,
    ) -> Result<(Range<usize>, Range<usize>), PlanError> {
        let channels = image.blocks() * kernels::LANES;
        let factor = self.floats(step, "factors", scale.factor, channels)?;
        Ok((
            factor,
            self.floats(step, "summands", scale.summand, channels)?,
        ))
    }

    fn door(&self, side: &'static str, port: &Port) -> Result<Door, PlanError> {
        let spot = self.spot(port.image)?;
        let image = &spot.image;
        let lanes = image.lanes();
        // At least one channel in every block, and the shape is another view of the same elements.
        let channels = port.channels <= image.blocks() * lanes
            && port.channels > (image.blocks() - 1) * lanes
            && (lanes == kernels::LANES || port.channels == lanes);
        let elements = port
            .shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d));
        if !channels || elements != Some(port.channels * image.pixels()) {
            let name = crate::onnx::shown(&port.name);
            return Err(PlanError::Port { side, name });
        }
        Ok(Door {
            name: port.name.clone(),
            shape: port.shape.clone(),
            channels: port.channels,
            spot,
        })
    }

    /// The kernel of a step from one image to another.
    fn kernel(
        &mut self,
        step: usize,
        it: &Step,
        (from, to): (&Image, &Image),
    ) -> Result<Kernel, PlanError> {
        let shape = |source| PlanError::Step { step, source };
        let biases = to.blocks() * kernels::LANES;
        Ok(match it {
            Step::Conv {
                span,
                weights,
                bias,
                prologue,
                ..
            } => {
                let conv =
                    Conv::new(*from, *to, window(span), prologue.is_some()).map_err(shape)?;
                self.work = self.work.saturating_add(conv.work());
                let before = |p: &Prologue| {
                    let (factor, summand) = self.scale(step, p.scale, from)?;
                    let clamp = clamp(p.bounds);
                    Ok::<_, PlanError>(Before {
                        factor,
                        summand,
                        clamp,
                    })
                };
                Kernel::Conv {
                    weights: self.floats(step, "weights", *weights, conv.weights())?,
                    bias: self.floats(step, "biases", *bias, biases)?,
                    prologue: prologue.as_ref().map(before).transpose()?,
                    conv,
                }
            }
            Step::Depthwise {
                span,
                weights,
                bias,
                ..
            } => {
                let conv = Depthwise::new(*from, *to, window(span)).map_err(shape)?;
                self.work = self.work.saturating_add(conv.work());
                Kernel::Depthwise {
                    weights: self.floats(step, "weights", *weights, conv.weights())?,
                    bias: self.floats(step, "biases", *bias, biases)?,
                    conv,
                }
            }
            Step::Pool { span, pooling, .. } => {
                let window = window(span);
                pooling::check(from, to, &window).map_err(shape)?;
                let met =
                    (window.kernel.0.min(from.height()) * window.kernel.1.min(from.width())) as u64;
                self.work = self
                    .work
                    .saturating_add(met.saturating_mul(to.len() as u64));
                let pooling = match pooling {
                    Pooling::Maximum => pooling::Pooling::Maximum,
                    Pooling::Mean => pooling::Pooling::Mean,
                    Pooling::MeanWithBorder => pooling::Pooling::MeanWithBorder,
                };
                Kernel::Pool(window, pooling)
            }
            Step::Pointwise { scale, .. } => {
                let lanes = (from.lanes(), to.lanes()) == (kernels::LANES, kernels::LANES);
                if !lanes || !from.same_size(to) {
                    return Err(shape(ShapeError::Mismatch("images of a pointwise step")));
                }
                self.work = self.work.saturating_add(to.len() as u64);
                let scale = scale.map(|s| self.scale(step, s, from)).transpose()?;
                Kernel::Pointwise(scale)
            }
            Step::Softmax { channels, .. } => {
                let one_pixel = from.len() == from.blocks() * kernels::LANES;
                if !one_pixel || *channels > from.len() {
                    return Err(shape(ShapeError::Mismatch("a softmax and its image")));
                }
                self.work = self.work.saturating_add(from.len() as u64);
                Kernel::Softmax(*channels)
            }
        })
    }

    fn task(&mut self, number: usize, step: &Step) -> Result<Task, PlanError> {
        let (from, to, residual, bounds) = match *step {
            Step::Conv {
                from,
                to,
                residual,
                bounds,
                ..
            }
            | Step::Pointwise {
                from,
                to,
                residual,
                bounds,
                ..
            } => (from, to, residual, bounds),
            Step::Depthwise {
                from, to, bounds, ..
            } => (from, to, None, bounds),
            Step::Pool { from, to, .. } => (from, to, None, Bounds::default()),
            Step::Softmax { image, .. } => (image, image, None, Bounds::default()),
        };
        let (from, to) = (self.spot(from)?, self.spot(to)?);
        let residual = residual.map(|r| self.spot(r)).transpose()?;
        let in_place = matches!(step, Step::Softmax { .. });
        for read in [Some(&from), residual.as_ref()].into_iter().flatten() {
            self.read(number, read)?;
            if !in_place && overlap(&read.range, &to.range) {
                return Err(PlanError::Overlap { step: number });
            }
        }
        if let Some(residual) = &residual {
            let lanes = residual.image.lanes() == kernels::LANES;
            if !lanes || !residual.image.same_size(&to.image) {
                let source = ShapeError::Mismatch("a residual and the output");
                return Err(PlanError::Step {
                    step: number,
                    source,
                });
            }
        }
        let kernel = self.kernel(number, step, (&from.image, &to.image))?;
        self.work = self.work.saturating_add(to.image.len() as u64);
        if let Kernel::Conv { conv, .. } = &kernel {
            self.taps += conv.taps();
        }
        if self.taps > TAPS_MAX {
            let (what, max) = ("elements of windows", TAPS_MAX as u64);
            return Err(PlanError::Limit { what, max });
        }
        self.written.add(&to.range);
        Ok(Task {
            from,
            to,
            residual,
            clamp: clamp(bounds),
            kernel,
        })
    }
}

#[cfg(test)]
mod tests;
