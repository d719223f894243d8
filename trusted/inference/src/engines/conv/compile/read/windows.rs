//! Attributes of ONNX nodes, and the windows that they describe.

use kernels::Window;

use super::{Outcome, Shape};
use crate::onnx::schema::{Attribute, Node};

pub(super) fn attribute<'n, 'a>(node: &'n Node<'a>, name: &str) -> Option<&'n Attribute<'a>> {
    node.attributes.iter().find(|a| a.name == name)
}

pub(super) fn int(node: &Node<'_>, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|a| a.int).unwrap_or(default)
}

pub(super) fn float(node: &Node<'_>, name: &str, default: f32) -> f32 {
    let value = attribute(node, name).and_then(|a| a.float);
    value.unwrap_or(default)
}

/// The attributes of convolutions and poolings.
pub(super) struct Windows {
    kernel: (usize, usize),
    stride: (usize, usize),
    dilation: (usize, usize),
    /// Top, left, bottom, right; or by rule.
    pads: Result<[usize; 4], Rule>,
}

/// ONNX's `auto_pad`.
#[derive(Clone, Copy)]
enum Rule {
    SameUpper,
    SameLower,
}

fn pair(node: &Node<'_>, name: &str) -> Outcome<Option<(usize, usize)>> {
    let Some(attribute) = attribute(node, name) else {
        return Ok(None);
    };
    let small = |n: i64| usize::try_from(n).ok().filter(|n| (1..1 << 16).contains(n));
    match *attribute.ints {
        [a, b] => small(a).zip(small(b)).map(Some).ok_or("an odd size"),
        _ => Err("windows of other than two dimensions"),
    }
}

impl Windows {
    /// `kernel` is the weights', which an attribute must agree with.
    pub(super) fn read(node: &Node<'_>, kernel: Option<(usize, usize)>) -> Outcome<Self> {
        let stated = pair(node, "kernel_shape")?;
        if kernel.is_some() && stated.is_some() && kernel != stated {
            return Err("a kernel's shape that its weights contradict");
        }
        let given = match attribute(node, "pads").map(|a| a.ints.as_slice()) {
            None | Some([]) => [0; 4],
            Some(&[top, left, bottom, right]) => {
                let mut pads = [0; 4];
                for (pad, given) in pads.iter_mut().zip([top, left, bottom, right]) {
                    let given = usize::try_from(given).map_err(|_| "negative pads")?;
                    *pad = Some(given).filter(|p| *p < 1 << 16).ok_or("huge pads")?;
                }
                pads
            }
            Some(_) => return Err("pads of other than two dimensions"),
        };
        let rule = attribute(node, "auto_pad").and_then(|a| a.text);
        let pads = match rule.unwrap_or("NOTSET") {
            "NOTSET" | "" => Ok(given),
            "VALID" => Ok([0; 4]),
            "SAME_UPPER" => Err(Rule::SameUpper),
            "SAME_LOWER" => Err(Rule::SameLower),
            _ => return Err("a rule for pads"),
        };
        if int(node, "ceil_mode", 0) != 0 {
            return Err("sizes that are rounded up");
        }
        Ok(Self {
            kernel: stated.or(kernel).ok_or("no kernel shape")?,
            stride: pair(node, "strides")?.unwrap_or((1, 1)),
            dilation: pair(node, "dilations")?.unwrap_or((1, 1)),
            pads,
        })
    }

    /// The window over an image, and the height and width that it makes.
    pub(super) fn over(&self, shape: Shape) -> Outcome<(Window, usize, usize)> {
        let reach = |kernel: usize, dilation: usize| (kernel - 1) * dilation + 1;
        let axis = |size: usize, kernel, stride: usize, dilation, index: usize| {
            let reach = reach(kernel, dilation);
            let (before, after) = match self.pads {
                Ok(pads) => (pads[index], pads[index + 2]),
                Err(rule) => {
                    let out = size.div_ceil(stride);
                    let all = ((out - 1) * stride + reach).saturating_sub(size);
                    match rule {
                        Rule::SameUpper => (all / 2, all - all / 2),
                        Rule::SameLower => (all - all / 2, all / 2),
                    }
                }
            };
            let room = (before + size + after).checked_sub(reach);
            let out = room.ok_or("a window larger than its image")? / stride + 1;
            Ok::<_, &'static str>((before, out))
        };
        let (k, s, d) = (self.kernel, self.stride, self.dilation);
        let (top, height) = axis(shape.height, k.0, s.0, d.0, 0)?;
        let (left, width) = axis(shape.width, k.1, s.1, d.1, 1)?;
        let window = Window {
            kernel: k,
            stride: s,
            dilation: d,
            before: (top, left),
        };
        Ok((window, height, width))
    }
}
