//! ONNX to plan and weights, on the owner's machine: [`read`] the graph, [`fuse`] what one kernel does,
//! [`place`] images in an arena, [`emit`] weights as the kernels want them.
//!
//! Pure: bytes in, bytes out. What a model needs beyond this is [`Uncovered`], and another engine's.

use kernels::{ShapeError, Window, pooling::Pooling};

use crate::onnx::{self, Interface};

mod emit;
mod fuse;
mod place;
mod read;

/// Why this engine cannot run a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Uncovered {
    #[error("operator {op} '{node}': {what}")]
    Operator {
        op: String,
        node: String,
        what: &'static str,
    },
    #[error("{what} '{name}' is not one that is covered")]
    Interface { what: &'static str, name: String },
    #[error("{0} is not covered")]
    Feature(&'static str),
    #[error("laying out images")]
    Shape(#[from] ShapeError),
    #[error("writing the plan")]
    Json(#[from] serde_json::Error),
}

/// What `pack` puts into the package.
#[derive(Debug)]
pub struct Compiled {
    /// The package's "graph".
    pub plan: Vec<u8>,
    /// Little-endian floats.
    pub weights: Vec<u8>,
}

/// Whether a model is what this engine is for.
#[must_use]
pub fn is_convolutional(model: &onnx::Model<'_>) -> bool {
    model.graph.nodes.iter().any(|node| node.op_type == "Conv")
}

/// Compiles a graph whose constants are all inline.
pub fn compile(model: &onnx::Model<'_>, interface: &Interface) -> Result<Compiled, Uncovered> {
    let mut net = read::read(model, interface)?;
    fuse::fuse(&mut net);
    let places = place::place(&mut net)?;
    emit::emit(net, &places)
}

/// A tensor of one image of the batch: `[channels][height][width]`, vectors with one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

impl Shape {
    const fn blocks(&self) -> usize {
        self.channels.div_ceil(kernels::LANES)
    }
}

/// A number in [`Net::values`].
type ValueId = usize;

/// The model between ONNX and the plan. Nodes are in an order in which they can run.
#[derive(Debug)]
struct Net {
    values: Vec<Shape>,
    nodes: Vec<Node>,
    input: Outlet,
    outputs: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    name: String,
    value: ValueId,
    /// As the model states it, without the batch.
    shape: Vec<usize>,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    from: ValueId,
    to: ValueId,
    /// Added before the bounds.
    residual: Option<ValueId>,
    low: Option<f32>,
    high: Option<f32>,
}

#[derive(Debug)]
enum Kind {
    Conv(Conv),
    Depthwise(Conv),
    Pool(Window, Pooling),
    /// `x * factor + summand` for each channel; nothing but bounds and residual without.
    Scale(Option<Affine>),
    /// Of `from` and the others, one after the other.
    Concat(Vec<ValueId>),
    Softmax,
}

#[derive(Debug)]
struct Conv {
    window: Window,
    /// `[out][in][kh][kw]`, of depthwise ones `[channel][1][kh][kw]`.
    weights: Vec<f32>,
    /// Outputs and inputs of each.
    size: [usize; 2],
    bias: Vec<f32>,
    prologue: Option<Before>,
}

#[derive(Debug, Clone)]
struct Affine {
    factor: Vec<f32>,
    summand: Vec<f32>,
}

/// What happens to a convolution's input first.
#[derive(Debug, Clone)]
struct Before {
    affine: Affine,
    low: Option<f32>,
    high: Option<f32>,
}

impl Node {
    const fn new(kind: Kind, from: ValueId, to: ValueId) -> Self {
        Self {
            kind,
            from,
            to,
            residual: None,
            low: None,
            high: None,
        }
    }

    /// Every value that it reads.
    fn reads(&self) -> impl Iterator<Item = ValueId> {
        let more = match &self.kind {
            Kind::Concat(others) => others.as_slice(),
            _ => &[],
        };
        [self.from]
            .into_iter()
            .chain(self.residual)
            .chain(more.iter().copied())
    }

    const fn is_bounded(&self) -> bool {
        self.low.is_some() || self.high.is_some()
    }
}

impl Net {
    /// How often each value is read, outputs of the model counting.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        let reads = self.nodes.iter().flat_map(Node::reads);
        for value in reads.chain(self.outputs.iter().map(|o| o.value)) {
            uses[value] += 1;
        }
        uses
    }
}

#[cfg(test)]
mod tests;
