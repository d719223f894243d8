//! What one kernel does in one go becomes one node.

use super::{Affine, Before, Conv, Kind, Net, Node, ValueId};

/// Folds scales, residuals and bounds into the convolutions before them, and what is left of
/// scales into the 1x1 convolutions after them.
pub(super) fn fuse(net: &mut Net) {
    let uses = net.uses();
    // The node that makes a value, while nothing but one other node needs that value.
    let mut maker: Vec<Option<usize>> = vec![None; net.values.len()];
    let mut fused: Vec<Node> = Vec::new();
    for node in std::mem::take(&mut net.nodes) {
        let node = match absorb(&mut fused, &maker, &uses, Box::new(node)) {
            Ok(index) => {
                maker[fused[index].to] = Some(index);
                continue;
            }
            Err(node) => *node,
        };
        maker[node.to] = Some(fused.len());
        fused.push(node);
    }
    net.nodes = fused;
    hoist(net);
}

/// Makes `node` part of the one before it and says which, or gives it back.
fn absorb(
    fused: &mut [Node],
    maker: &[Option<usize>],
    uses: &[usize],
    node: Box<Node>,
) -> Result<usize, Box<Node>> {
    let Kind::Scale(affine) = &node.kind else {
        return Err(node);
    };
    let sole = |value: ValueId| maker[value].filter(|_| uses[value] == 1);
    if let Some(other) = node.residual {
        // The later of the two sides, if it is a convolution, adds the earlier one.
        let sides = [(node.from, other), (other, node.from)];
        let later = sides
            .into_iter()
            .filter(|(value, _)| node.from != other && affine.is_none() && uses[*value] == 1)
            .filter_map(|(value, rest)| Some((maker[value]?, rest)))
            .filter(|(index, rest)| maker[*rest].is_none_or(|made| made < *index))
            .find(|(index, _)| {
                let before = &fused[*index];
                matches!(before.kind, Kind::Conv(_))
                    && !before.is_bounded()
                    && before.residual.is_none()
            });
        let Some((index, rest)) = later else {
            return Err(node);
        };
        let before = &mut fused[index];
        before.residual = Some(rest);
        (before.to, before.low, before.high) = (node.to, node.low, node.high);
        return Ok(index);
    }
    let Some(index) = sole(node.from) else {
        return Err(node);
    };
    let before = &mut fused[index];
    if before.is_bounded() {
        return Err(node);
    }
    match (&mut before.kind, affine) {
        (Kind::Conv(_) | Kind::Depthwise(_) | Kind::Scale(_), None) => {}
        (Kind::Conv(conv) | Kind::Depthwise(conv), Some(affine)) if before.residual.is_none() => {
            fold(conv, affine);
        }
        _ => return Err(node),
    }
    (before.to, before.low, before.high) = (node.to, node.low, node.high);
    Ok(index)
}

/// Scales a convolution's results by scaling its weights.
fn fold(conv: &mut Conv, affine: &Affine) {
    let each = conv.weights.len() / conv.size[0].max(1);
    for (kernel, factor) in conv
        .weights
        .chunks_exact_mut(each.max(1))
        .zip(&affine.factor)
    {
        kernel.iter_mut().for_each(|w| *w *= factor);
    }
    for (bias, (factor, summand)) in
        (conv.bias.iter_mut()).zip(affine.factor.iter().zip(&affine.summand))
    {
        *bias = *bias * factor + summand;
    }
}

/// Scales whose every reader is a 1x1 convolution become part of each: the scaled image, as large as
/// the one before it, is never written.
fn hoist(net: &mut Net) {
    let mut index = 0;
    while index < net.nodes.len() {
        let Some(before) = hoistable(net, index) else {
            index += 1;
            continue;
        };
        let node = net.nodes.remove(index);
        for reader in &mut net.nodes {
            if reader.from != node.to {
                continue;
            }
            if let Kind::Conv(conv) = &mut reader.kind {
                reader.from = node.from;
                conv.prologue = Some(before.clone());
            }
        }
    }
}

fn hoistable(net: &Net, index: usize) -> Option<Before> {
    let node = &net.nodes[index];
    let Kind::Scale(affine) = &node.kind else {
        return None;
    };
    let takes = |reader: &Node| match &reader.kind {
        Kind::Conv(conv) => {
            conv.window == kernels::Window::PIXEL
                && conv.prologue.is_none()
                && reader.from == node.to
                && reader.residual != Some(node.to)
        }
        _ => false,
    };
    let is_output = net.outputs.iter().any(|o| o.value == node.to);
    let mut readers = net
        .nodes
        .iter()
        .filter(|n| n.reads().any(|value| value == node.to))
        .peekable();
    let all = readers.peek().is_some() && readers.all(takes);
    if node.residual.is_some() || is_output || !all {
        return None;
    }
    let channels = net.values[node.from].channels;
    let affine = affine.clone().unwrap_or_else(|| Affine {
        factor: vec![1.0; channels],
        summand: vec![0.0; channels],
    });
    Some(Before {
        affine,
        low: node.low,
        high: node.high,
    })
}
