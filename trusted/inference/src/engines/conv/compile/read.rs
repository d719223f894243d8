//! An ONNX graph as a net: names become numbers, constants become vectors, and every operator that is
//! not known exactly is refused.

use std::collections::HashMap;

use kernels::{Window, pooling::Pooling};
use protocol::Datatype;

use super::{Affine, Conv, Kind, Net, Node, Outlet, Shape, Uncovered, ValueId};
use crate::onnx::schema::{Node as OnnxNode, TensorBytes, TensorProto, shown};
use crate::onnx::{self, Interface};

mod operators;
mod windows;

use windows::Windows;

/// What a name of the graph stands for.
#[derive(Clone)]
enum Bound<'m, 'a> {
    Constant(&'m TensorProto<'a>),
    Value(Value),
}

/// A value, and how the model sees it: `[batch, channels, height, width]` or `[batch, elements]`.
#[derive(Debug, Clone, Copy)]
struct Value {
    id: ValueId,
    flat: bool,
}

/// An operator's refusal; [`Reader::node`] adds which one.
type Outcome<T> = Result<T, &'static str>;

struct Reader<'m, 'a> {
    names: HashMap<&'a str, Bound<'m, 'a>>,
    values: Vec<Shape>,
    nodes: Vec<Node>,
    opset: i64,
    /// Whether the model takes one image at a time, so that a shape may say 1 for the batch.
    single: bool,
}

pub(super) fn read(model: &onnx::Model<'_>, interface: &Interface) -> Result<Net, Uncovered> {
    let [input] = interface.inputs.as_slice() else {
        return Err(Uncovered::Feature("a number of inputs other than one"));
    };
    let opset = model.opsets.iter().find(|(domain, _)| domain.is_empty());
    let (_, opset) = opset.ok_or(Uncovered::Feature("a model without ONNX's own operators"))?;
    let refuse = |what| Uncovered::Interface {
        what,
        name: shown(&input.name),
    };
    if input.datatype != Datatype::Fp32 {
        return Err(refuse("datatype of input"));
    }
    let sizes: Vec<usize> = (input.shape.iter().skip(1))
        .map_while(|d| {
            usize::try_from(*d)
                .ok()
                .filter(|d| (1..1 << 16).contains(d))
        })
        .collect();
    if sizes.len() + 1 != input.shape.len() {
        return Err(refuse("shape of input"));
    }
    let (shape, flat) = match *sizes.as_slice() {
        [channels, height, width] => (image(channels, height, width), false),
        [elements] => (image(elements, 1, 1), true),
        _ => return Err(refuse("shape of input")),
    };
    let mut reader = Reader {
        names: HashMap::new(),
        values: vec![shape],
        nodes: Vec::new(),
        opset: *opset,
        single: input.shape.first() == Some(&1),
    };
    let constants = model.graph.initializers.iter();
    reader
        .names
        .extend(constants.map(|t| (t.name, Bound::Constant(t))));
    let name = model.graph.inputs.iter().find(|i| i.name == input.name);
    let name = name.ok_or_else(|| refuse("name of input"))?.name;
    reader
        .names
        .insert(name, Bound::Value(Value { id: 0, flat }));
    for node in &model.graph.nodes {
        reader.node(node)?;
    }
    let outputs = interface
        .outputs
        .iter()
        .map(|output| reader.outlet(output, input.shape.first()));
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    let input = Outlet {
        name: input.name.clone(),
        value: 0,
        shape: sizes,
    };
    Ok(Net {
        values: reader.values,
        nodes: reader.nodes,
        input,
        outputs,
    })
}

const fn image(channels: usize, height: usize, width: usize) -> Shape {
    Shape {
        channels,
        height,
        width,
    }
}

/// The elements of a constant of floats.
fn floats(tensor: &TensorProto<'_>) -> Outcome<Vec<f32>> {
    match &tensor.bytes {
        TensorBytes::Inline(bytes) if tensor.datatype == Datatype::Fp32 => {
            let elements = bytes.as_chunks::<4>().0.iter();
            Ok(elements.map(|c| f32::from_le_bytes(*c)).collect())
        }
        _ => Err("a constant that is not of floats"),
    }
}

/// The elements of a constant of 64-bit integers.
fn integers(tensor: &TensorProto<'_>) -> Outcome<Vec<i64>> {
    match &tensor.bytes {
        TensorBytes::Inline(bytes) if tensor.datatype == Datatype::Int64 => {
            let elements = bytes.as_chunks::<8>().0.iter();
            Ok(elements.map(|c| i64::from_le_bytes(*c)).collect())
        }
        _ => Err("a constant that is not of 64-bit integers"),
    }
}

fn dims(tensor: &TensorProto<'_>) -> Outcome<Vec<usize>> {
    let dims = tensor.dims.iter().map(|d| usize::try_from(*d));
    dims.collect::<Result<_, _>>()
        .map_err(|_| "a size beyond memory")
}

impl<'m, 'a> Reader<'m, 'a> {
    fn outlet(
        &self,
        (name, datatype, stated): &(String, Datatype, Option<Vec<i64>>),
        batch: Option<&i64>,
    ) -> Result<Outlet, Uncovered> {
        let refuse = |what| Uncovered::Interface {
            what,
            name: shown(name),
        };
        let Some(Bound::Value(value)) = self.names.get(name.as_str()) else {
            return Err(refuse("origin of output"));
        };
        let held = self.values[value.id];
        let elements = held.channels * held.height * held.width;
        let shape = match value.flat {
            true => vec![elements],
            false => vec![held.channels, held.height, held.width],
        };
        if *datatype != Datatype::Fp32 {
            return Err(refuse("datatype of output"));
        }
        let agrees = stated.as_ref().is_none_or(|stated| {
            let rest = stated.iter().skip(1).zip(&shape);
            stated.len() == shape.len() + 1
                && (stated.first() == batch || stated.first() == Some(&-1))
                && rest.fold(true, |all, (said, is)| {
                    all && (*said < 0 || usize::try_from(*said) == Ok(*is))
                })
        });
        if !agrees {
            return Err(refuse("shape of output"));
        }
        Ok(Outlet {
            name: name.clone(),
            value: value.id,
            shape,
        })
    }

    fn node(&mut self, node: &'m OnnxNode<'a>) -> Result<(), Uncovered> {
        let known = if node.domain.is_empty() || node.domain == "ai.onnx" {
            self.operator(node)
        } else {
            Err("it is not ONNX's own")
        };
        known.map_err(|what| Uncovered::Operator {
            op: shown(node.op_type),
            node: shown(node.name),
            what,
        })
    }

    fn value(&self, node: &OnnxNode<'a>, index: usize) -> Outcome<Value> {
        match node.inputs.get(index).and_then(|name| self.names.get(name)) {
            Some(Bound::Value(value)) => Ok(*value),
            _ => Err("an input is not computed from the model's"),
        }
    }

    /// An input that is there, and constant.
    fn constant(&self, node: &OnnxNode<'a>, index: usize) -> Outcome<&'m TensorProto<'a>> {
        self.optional(node, index)?
            .ok_or("an input that is missing")
    }

    /// A constant input, if it is there.
    fn optional(&self, node: &OnnxNode<'a>, index: usize) -> Outcome<Option<&'m TensorProto<'a>>> {
        let Some(name) = node.inputs.get(index).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        match self.names.get(name) {
            Some(Bound::Constant(tensor)) => Ok(Some(tensor)),
            _ => Err("an input that is not constant"),
        }
    }

    /// The only output of a node becomes a name of `bound`.
    fn bind(&mut self, node: &'m OnnxNode<'a>, bound: Bound<'m, 'a>) -> Outcome<()> {
        let mut used = node.outputs.iter().filter(|name| !name.is_empty());
        match (used.next(), used.next()) {
            (Some(name), None) => {
                self.names.insert(name, bound);
                Ok(())
            }
            _ => Err("a number of outputs other than one"),
        }
    }

    /// Adds a node that makes a new value.
    fn push(
        &mut self,
        node: &'m OnnxNode<'a>,
        made: (Kind, Value, Shape),
        finish: impl FnOnce(&mut Node),
    ) -> Outcome<()> {
        let (kind, from, shape) = made;
        let id = self.values.len();
        self.values.push(shape);
        let mut new = Node::new(kind, from.id, id);
        finish(&mut new);
        self.nodes.push(new);
        let flat = from.flat;
        self.bind(node, Bound::Value(Value { id, flat }))
    }

    /// A value that is an image, not a row of elements.
    fn image(&self, node: &OnnxNode<'a>, index: usize) -> Outcome<(Value, Shape)> {
        let value = self.value(node, index)?;
        if value.flat {
            return Err("an image that was flattened");
        }
        Ok((value, self.values[value.id]))
    }
}
