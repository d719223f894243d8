//! A placed net as plan and weights.

use kernels::layout::{conv_weights, depthwise_weights, per_channel, rgb_weights};
use kernels::{LANES, Window, pooling};

use super::place::Places;
use super::{Affine, Compiled, Conv, Kind, Net, Node, Outlet, Uncovered};
use crate::engines::conv::plan::{
    Bounds, FORMAT, Plan, Pooling, Port, Prologue, Scale, Span, Step,
};

pub(super) fn emit(net: Net, places: &Places) -> Result<Compiled, Uncovered> {
    let Net {
        values,
        nodes,
        input,
        outputs,
    } = net;
    let port = |outlet: Outlet| Port {
        name: outlet.name,
        image: outlet.value,
        channels: values[outlet.value].channels,
        shape: outlet.shape,
    };
    let mut weights = Weights::default();
    let mut steps = Vec::with_capacity(nodes.len());
    for node in nodes {
        let rgb = places.images[node.from].rgb;
        let channels = values[node.to].channels;
        steps.extend(weights.step(node, rgb, channels));
    }
    let plan = Plan {
        format: FORMAT,
        arena: places.arena,
        images: places.images.clone(),
        input: port(input),
        steps,
        outputs: outputs.into_iter().map(port).collect(),
    };
    Ok(Compiled {
        plan: plan.encode()?,
        weights: weights.bytes,
    })
}

/// The package's weights as they grow.
#[derive(Default)]
struct Weights {
    bytes: Vec<u8>,
}

impl Weights {
    /// Where the floats start, in floats: a cache line's start.
    fn put(&mut self, floats: &[f32]) -> usize {
        let start = (self.bytes.len() / 4).next_multiple_of(LANES);
        self.bytes.resize(start * 4, 0);
        self.bytes
            .extend(floats.iter().flat_map(|value| value.to_le_bytes()));
        start
    }

    fn scale(&mut self, affine: &Affine) -> Scale {
        Scale {
            factor: self.put(&per_channel(&affine.factor)),
            summand: self.put(&per_channel(&affine.summand)),
        }
    }

    fn conv(&mut self, conv: &Conv, rgb: bool) -> usize {
        let [outs, ins] = conv.size;
        let (kh, kw) = conv.window.kernel;
        let shape = [outs, ins, kh, kw];
        let packed = match rgb {
            true => rgb_weights(&conv.weights, shape),
            false => conv_weights(&conv.weights, shape),
        };
        self.put(&packed)
    }

    /// A node's step; a concatenation has none, since its parts were written into it.
    fn step(&mut self, node: Node, rgb: bool, channels: usize) -> Option<Step> {
        let Node {
            kind,
            from,
            to,
            residual,
            low,
            high,
        } = node;
        let bounds = Bounds { low, high };
        Some(match kind {
            Kind::Conv(conv) => Step::Conv {
                from,
                to,
                span: span(&conv.window),
                weights: self.conv(&conv, rgb),
                bias: self.put(&per_channel(&conv.bias)),
                residual,
                prologue: conv.prologue.as_ref().map(|before| Prologue {
                    scale: self.scale(&before.affine),
                    bounds: Bounds {
                        low: before.low,
                        high: before.high,
                    },
                }),
                bounds,
            },
            Kind::Depthwise(conv) => {
                let window = conv.window.kernel.0 * conv.window.kernel.1;
                let packed = depthwise_weights(&conv.weights, conv.size[0], window);
                Step::Depthwise {
                    from,
                    to,
                    span: span(&conv.window),
                    weights: self.put(&packed),
                    bias: self.put(&per_channel(&conv.bias)),
                    bounds,
                }
            }
            Kind::Pool(window, pooling) => Step::Pool {
                from,
                to,
                span: span(&window),
                pooling: match pooling {
                    pooling::Pooling::Maximum => Pooling::Maximum,
                    pooling::Pooling::Mean => Pooling::Mean,
                    pooling::Pooling::MeanWithBorder => Pooling::MeanWithBorder,
                },
            },
            Kind::Scale(affine) => Step::Pointwise {
                from,
                to,
                scale: affine.map(|a| self.scale(&a)),
                residual,
                bounds,
            },
            Kind::Concat(_) => return None,
            Kind::Softmax => Step::Softmax {
                image: to,
                channels,
            },
        })
    }
}

fn span(window: &Window) -> Span {
    Span {
        kernel: window.kernel,
        stride: window.stride,
        dilation: window.dilation,
        before: window.before,
    }
}
