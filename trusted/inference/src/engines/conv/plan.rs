//! The compiled form of a model: what `pack` writes and SeMIRT reads. Plain data; nothing here is
//! believed before [`super::program`] has checked it.
//!
//! A plan says what happens to one image of a batch: which images lie where in one arena, and which
//! kernels run over them in which order, with weights at which place of the package's weights (where
//! they lie as the kernels want them). JSON, since it is small beside the weights and serde refuses
//! what is not exactly this.

use serde::{Deserialize, Serialize};

/// The version of this format.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) format: u32,
    /// Floats of the arena.
    pub(crate) arena: usize,
    pub(crate) images: Vec<Place>,
    pub(crate) input: Port,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<Port>,
}

/// An image's form, and where it starts in the arena. Images may overlap: one that is no longer
/// needed gives its memory to others, and parts of a concatenation lie in the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) at: usize,
    /// Three channels side by side, not blocks of 16.
    pub(crate) rgb: bool,
    pub(crate) blocks: usize,
    pub(crate) size: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) border: [usize; 4],
}

/// A tensor of the model's interface, without its first dimension (the batch).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) image: usize,
    pub(crate) channels: usize,
    /// As the model states it: its product is that of channels and the image's size.
    pub(crate) shape: Vec<usize>,
}

/// `(vertical, horizontal)` each, as in [`kernels::Window`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Span {
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) dilation: (usize, usize),
    pub(crate) before: (usize, usize),
}

/// Bounds; absent where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    pub(crate) low: Option<f32>,
    pub(crate) high: Option<f32>,
}

/// A factor and a summand for each channel: where both start in the weights, in floats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    pub(crate) factor: usize,
    pub(crate) summand: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prologue {
    pub(crate) scale: Scale,
    pub(crate) bounds: Bounds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pooling {
    Maximum,
    Mean,
    MeanWithBorder,
}

/// One kernel. Images are numbers in [`Plan::images`]; weights and biases start at a float of the
/// package's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step", deny_unknown_fields)]
pub(crate) enum Step {
    Conv {
        from: usize,
        to: usize,
        span: Span,
        weights: usize,
        bias: usize,
        residual: Option<usize>,
        prologue: Option<Prologue>,
        bounds: Bounds,
    },
    Depthwise {
        from: usize,
        to: usize,
        span: Span,
        weights: usize,
        bias: usize,
        bounds: Bounds,
    },
    Pool {
        from: usize,
        to: usize,
        span: Span,
        pooling: Pooling,
    },
    Pointwise {
        from: usize,
        to: usize,
        scale: Option<Scale>,
        residual: Option<usize>,
        bounds: Bounds,
    },
    /// Of the first `channels` of an image of one pixel, in place.
    Softmax { image: usize, channels: usize },
}

impl Plan {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
