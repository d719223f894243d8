//! Where images lie: borders for the windows that reach past them, parts of a concatenation inside the
//! whole, and one arena in which an image's memory is another's when it is no longer needed.

use kernels::image::Border;
use kernels::{Image, LANES, Window};

use super::{Kind, Net, Node, Shape, Uncovered, ValueId};
use crate::engines::conv::plan::Place;

/// The images of a net, by value.
pub(super) struct Places {
    pub(super) images: Vec<Place>,
    /// Floats.
    pub(super) arena: usize,
}

/// Where a value is: in its own image or in that of a concatenation.
#[derive(Debug, Clone, Copy)]
struct View {
    root: ValueId,
    /// Blocks of the root before it.
    block: usize,
}

pub(super) fn place(net: &mut Net) -> Result<Places, Uncovered> {
    let views = views(net)?;
    let borders = borders(net, &views)?;
    let rgb = takes_rgb(net).then_some(net.input.value);
    let image = |value: ValueId, shape: &Shape| {
        let border = borders[views[value].root];
        if rgb == Some(value) {
            Image::rgb(shape.height, shape.width, border)
        } else {
            Image::blocked(shape.blocks(), shape.height, shape.width, border)
        }
    };
    let images = net.values.iter().enumerate().map(|(v, s)| image(v, s));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let (starts, arena) = allocate(&lives(net, &views, &images));
    let place = |(value, image): (usize, &Image)| {
        let (view, border) = (views[value], image.border());
        Place {
            at: starts[view.root] + view.block * image.plane(),
            rgb: image.lanes() != LANES,
            blocks: image.blocks(),
            size: [image.height(), image.width()],
            border: [border.top, border.left, border.bottom, border.right],
        }
    };
    Ok(Places {
        images: images.iter().enumerate().map(place).collect(),
        arena,
    })
}

/// Gives each part of a concatenation its place in the whole, or a copy there where it has a place in
/// another; the concatenations themselves are then no work. A softmax is where its input is.
fn views(net: &mut Net) -> Result<Vec<View>, Uncovered> {
    let own = |root| View { root, block: 0 };
    let mut views: Vec<View> = (0..net.values.len()).map(own).collect();
    let mut placed = vec![false; net.values.len()];
    placed[net.input.value] = true;
    let uses = net.uses();
    // Wholes before their parts.
    for index in (0..net.nodes.len()).rev() {
        let node = &net.nodes[index];
        let (whole, first) = (node.to, node.from);
        if matches!(node.kind, Kind::Softmax) {
            if uses[first] > 1 || placed[first] {
                return Err(Uncovered::Feature("a softmax of a value with another use"));
            }
            views[first] = views[whole];
            placed[first] = true;
        }
        let Kind::Concat(_) = node.kind else {
            continue;
        };
        let parts: Vec<ValueId> = node.reads().collect();
        let mut block = views[whole].block;
        let mut copies = Vec::new();
        for part in parts {
            let shape = net.values[part];
            if !shape.channels.is_multiple_of(LANES) {
                return Err(Uncovered::Feature("a concatenation of broken blocks"));
            }
            let view = View {
                root: views[whole].root,
                block,
            };
            if placed[part] {
                views.push(view);
                placed.push(true);
                net.values.push(shape);
                copies.push(Node::new(Kind::Scale(None), part, net.values.len() - 1));
            } else {
                views[part] = view;
                placed[part] = true;
            }
            block += shape.blocks();
        }
        net.nodes.splice(index..=index, copies);
    }
    Ok(views)
}

/// The border of each root that all windows over its views need.
fn borders(net: &Net, views: &[View]) -> Result<Vec<Border>, Uncovered> {
    let mut borders = vec![Border::default(); net.values.len()];
    for node in &net.nodes {
        if let Kind::Conv(conv) | Kind::Depthwise(conv) = &node.kind {
            let size = |v: ValueId| (net.values[v].height, net.values[v].width);
            let need = conv.window.border(size(node.from), size(node.to))?;
            let root = views[node.from].root;
            borders[root] = borders[root].around(need);
        }
    }
    Ok(borders)
}

/// Whether the input has three channels and only convolutions read it, which take them side by side.
fn takes_rgb(net: &Net) -> bool {
    let input = net.input.value;
    let takes = |n: &Node| match &n.kind {
        Kind::Conv(conv) => {
            n.residual != Some(input)
                && conv.prologue.is_none()
                && conv.window.dilation == Window::PIXEL.dilation
        }
        _ => false,
    };
    let mut readers = net
        .nodes
        .iter()
        .filter(|n| n.reads().any(|v| v == input))
        .peekable();
    net.values[input].channels == 3
        && net.outputs.iter().all(|o| o.value != input)
        && readers.peek().is_some()
        && readers.all(takes)
}

/// From the step that writes a root first to the last one that reads it, and its floats.
struct Life {
    root: ValueId,
    floats: usize,
    first: usize,
    last: usize,
}

fn lives(net: &Net, views: &[View], images: &[Image]) -> Vec<Life> {
    let mut lives: Vec<Option<Life>> = (0..images.len()).map(|_| None).collect();
    let mut live = |value: ValueId, step: usize| {
        let root = views[value].root;
        let floats = images[root].len().next_multiple_of(LANES);
        let life = lives[root].get_or_insert(Life {
            root,
            floats,
            first: step,
            last: step,
        });
        life.first = life.first.min(step);
        life.last = life.last.max(step);
    };
    live(net.input.value, 0);
    for (index, node) in net.nodes.iter().enumerate() {
        // Before step 0 the input is written.
        node.reads()
            .chain([node.to])
            .for_each(|v| live(v, index + 1));
    }
    for output in &net.outputs {
        live(output.value, net.nodes.len() + 1);
    }
    lives.into_iter().flatten().collect()
}

/// The start of every root, largest first into the lowest gap, and the end of the last.
fn allocate(lives: &[Life]) -> (Vec<usize>, usize) {
    let roots = lives.iter().map(|l| l.root + 1).max().unwrap_or(0);
    let mut starts = vec![0; roots];
    let mut order: Vec<&Life> = lives.iter().collect();
    order.sort_by_key(|l| (std::cmp::Reverse(l.floats), l.root));
    let mut placed: Vec<&Life> = Vec::new();
    let mut arena = 0;
    for life in order {
        let mut taken: Vec<_> = placed
            .iter()
            .filter(|other| other.first <= life.last && life.first <= other.last)
            .map(|other| (starts[other.root], starts[other.root] + other.floats))
            .collect();
        taken.sort_unstable();
        let mut start = 0;
        for (from, to) in taken {
            if start + life.floats <= from {
                break;
            }
            start = start.max(to);
        }
        starts[life.root] = start;
        arena = arena.max(start + life.floats);
        placed.push(life);
    }
    (starts, arena)
}
