//! What a well-formed graph must also satisfy before an engine sees it.
//!
//! Every value is defined once and before its use (so there is no cycle), chains are short enough for
//! engines that walk them by recursion, every constant lies inside the weights, and no stated shape
//! asks for more memory than allowed.

use std::collections::{HashMap, HashSet};

use protocol::limits::{RANK_MAX, TENSORS_MAX};
use protocol::{Datatype, TensorSpec};

use super::schema::{
    Dim, Graph, Model, Node, OnnxError, TensorBytes, TensorFault, TensorProto, ValueDecl,
    datatype_of, shown, tensor_len,
};
use crate::engine::LoadLimits;

/// Every external tensor starts at a multiple of this.
pub const WEIGHT_ALIGN: u64 = protocol::package::ALIGN;

/// The weights blob that a graph may refer to: its name and its length in bytes.
#[derive(Debug, Clone, Copy)]
pub struct WeightsRef<'a> {
    pub name: Option<&'a str>,
    pub len: u64,
}

/// What a graph takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub inputs: Vec<TensorSpec>,
    /// A shape is absent when the graph does not state one.
    pub outputs: Vec<(String, Datatype, Option<Vec<i64>>)>,
}

/// Checks everything that this module promises.
pub fn check(
    model: &Model<'_>,
    weights: WeightsRef<'_>,
    limits: &LoadLimits,
) -> Result<Interface, OnnxError> {
    let checker = Checker { weights, limits };
    checker.graph(&model.graph, None)?;
    checker.interface(&model.graph)
}

/// Names that a graph defines, and how long the chain of operators behind each is.
struct Scope<'s, 'a> {
    outer: Option<&'s Scope<'s, 'a>>,
    chains: HashMap<&'a str, usize>,
    constants: HashMap<&'a str, &'s TensorProto<'a>>,
}

impl<'s, 'a> Scope<'s, 'a> {
    fn define(&mut self, name: &'a str, chain: usize) -> Result<(), OnnxError> {
        if name.is_empty() {
            return Err(OnnxError::ValueWithoutName);
        }
        match self.chains.insert(name, chain) {
            Some(_) => Err(OnnxError::DefinedTwice { name: shown(name) }),
            None => Ok(()),
        }
    }

    fn chain(&self, name: &str) -> Option<usize> {
        self.chains
            .get(name)
            .copied()
            .or_else(|| self.outer?.chain(name))
    }

    /// The integers of a constant, when `name` is one and holds them inline.
    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let Some(tensor) = self.constants.get(name) else {
            return self.outer?.ints(name);
        };
        match &tensor.bytes {
            TensorBytes::Inline(bytes) if tensor.datatype == Datatype::Int64 => Some(
                bytes
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|c| i64::from_le_bytes(*c))
                    .collect(),
            ),
            _ => None,
        }
    }
}

struct Checker<'l> {
    weights: WeightsRef<'l>,
    limits: &'l LoadLimits,
}

impl Checker<'_> {
    /// Checks a graph and returns its longest chain of operators.
    fn graph<'a>(
        &self,
        graph: &Graph<'a>,
        outer: Option<&Scope<'_, 'a>>,
    ) -> Result<usize, OnnxError> {
        let mut scope = Scope {
            outer,
            chains: HashMap::new(),
            constants: HashMap::new(),
        };
        for tensor in &graph.initializers {
            self.tensor(tensor)?;
            scope.define(tensor.name, 0)?;
            scope.constants.insert(tensor.name, tensor);
        }
        // Before IR version 4 initializers had to be listed as inputs too.
        for input in &graph.inputs {
            if !scope.constants.contains_key(input.name) {
                scope.define(input.name, 0)?;
            }
        }
        for value in graph
            .inputs
            .iter()
            .chain(&graph.outputs)
            .chain(&graph.values)
        {
            self.value(value)?;
        }
        let mut longest = 0;
        for node in &graph.nodes {
            longest = longest.max(self.node(node, &mut scope)?);
        }
        match graph.outputs.iter().find(|o| scope.chain(o.name).is_none()) {
            Some(o) => Err(OnnxError::OutputUndefined {
                name: shown(o.name),
            }),
            None => Ok(longest),
        }
    }

    /// Checks an operator, defines its outputs, and returns the length of the chain that it ends.
    fn node<'s, 'a>(
        &self,
        node: &'s Node<'a>,
        scope: &mut Scope<'s, 'a>,
    ) -> Result<usize, OnnxError> {
        let mut chain = 0;
        for input in node.inputs.iter().filter(|i| !i.is_empty()) {
            chain = chain.max(scope.chain(input).ok_or_else(|| OnnxError::Undefined {
                op: shown(node.op_type),
                node: shown(node.name),
                value: shown(input),
            })?);
        }
        for attribute in &node.attributes {
            if let Some(tensor) = &attribute.tensor {
                self.tensor(tensor)?;
            }
            if let Some(body) = &attribute.graph {
                // Chains inside a body go on from the values that it takes from outside.
                chain = chain.max(self.graph(body, Some(scope))?);
            }
        }
        self.made_by(node, scope)?;
        let chain = chain + 1;
        if chain > self.limits.chain {
            let max = self.limits.chain as u64;
            return Err(OnnxError::Limit {
                what: "operators in a chain",
                max,
            });
        }
        for output in node.outputs.iter().filter(|o| !o.is_empty()) {
            scope.define(output, chain)?;
        }
        if let ("Constant", [output]) = (node.op_type, node.outputs.as_slice()) {
            let tensor = node.attributes.iter().find_map(|a| a.tensor.as_deref());
            scope.constants.extend(tensor.map(|t| (*output, t)));
        }
        Ok(chain)
    }

    /// Refuses operators whose constant shape makes a huge tensor out of nothing.
    fn made_by(&self, node: &Node<'_>, scope: &Scope<'_, '_>) -> Result<(), OnnxError> {
        let shape = match (node.op_type, node.inputs.as_slice()) {
            ("ConstantOfShape", [shape, ..]) | ("Expand" | "Tile", [_, shape, ..]) => {
                scope.ints(shape)
            }
            _ => None,
        };
        let Some(shape) = shape else { return Ok(()) };
        let elements = shape
            .iter()
            .try_fold(1_u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
        match elements
            .and_then(|n| n.checked_mul(4))
            .filter(|n| *n <= self.limits.tensor_bytes)
        {
            Some(_) => Ok(()),
            None => Err(OnnxError::MakesTooLarge {
                op: shown(node.op_type),
                node: shown(node.name),
                shape: shape.into_iter().take(RANK_MAX).collect(),
                max: self.limits.tensor_bytes,
            }),
        }
    }

    fn tensor(&self, tensor: &TensorProto<'_>) -> Result<(), OnnxError> {
        self.tensor_fault(tensor)
            .map_err(|fault| OnnxError::Tensor {
                name: shown(tensor.name),
                fault,
            })
    }

    fn tensor_fault(&self, tensor: &TensorProto<'_>) -> Result<(), TensorFault> {
        let TensorProto {
            dims,
            datatype,
            bytes,
            ..
        } = tensor;
        let (datatype, max) = (*datatype, self.limits.tensor_bytes);
        let expected = tensor_len(dims, datatype)
            .filter(|n| *n <= max)
            .ok_or_else(|| TensorFault::TooLarge {
                shape: dims.clone(),
                datatype,
                max,
            })?;
        let TensorBytes::External {
            location,
            offset,
            length,
        } = bytes
        else {
            return Ok(());
        };
        if Some(location.as_ref()) != self.weights.name {
            return Err(TensorFault::ExternalMissing(shown(location)));
        }
        let got = length.unwrap_or(expected);
        if got != expected {
            return Err(TensorFault::Length {
                shape: dims.clone(),
                datatype,
                expected,
                got,
            });
        }
        let (end, len) = (offset.saturating_add(got), self.weights.len);
        if end > len {
            return Err(TensorFault::ExternalRange {
                location: shown(location),
                end,
                len,
            });
        }
        if offset % WEIGHT_ALIGN != 0 {
            return Err(TensorFault::ExternalAlign(*offset));
        }
        Ok(())
    }

    /// A stated shape must be one that could be held.
    fn value(&self, value: &ValueDecl<'_>) -> Result<(), OnnxError> {
        let Some(shape) = &value.shape else {
            return Ok(());
        };
        let fixed = shape.iter().filter_map(|d| match d {
            Dim::Fixed(size) => Some(*size),
            Dim::Symbol(_) | Dim::Unknown => None,
        });
        let fixed: Vec<_> = fixed.collect();
        let datatype = value
            .element
            .and_then(datatype_of)
            .unwrap_or(Datatype::Uint8);
        let max = self.limits.tensor_bytes;
        match tensor_len(&fixed, datatype).filter(|n| *n <= max) {
            Some(_) => Ok(()),
            None => {
                let fault = TensorFault::TooLarge {
                    shape: fixed,
                    datatype,
                    max,
                };
                Err(OnnxError::Tensor {
                    name: shown(value.name),
                    fault,
                })
            }
        }
    }

    fn interface(&self, graph: &Graph<'_>) -> Result<Interface, OnnxError> {
        let constants: HashSet<_> = graph.initializers.iter().map(|t| t.name).collect();
        let inputs = || graph.inputs.iter().filter(|i| !constants.contains(i.name));
        for (what, count) in [
            ("inputs", inputs().count()),
            ("outputs", graph.outputs.len()),
        ] {
            if count > TENSORS_MAX {
                return Err(OnnxError::Limit {
                    what,
                    max: TENSORS_MAX as u64,
                });
            }
        }
        if graph.outputs.is_empty() {
            return Err(OnnxError::Missing {
                within: "graph",
                field: 12,
            });
        }
        let mut interface = Interface {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for input in inputs() {
            let (name, datatype, shape) = declared("input", input)?;
            let shape = shape.ok_or_else(|| fault("input", input, "has no shape"))?;
            interface.inputs.push(TensorSpec {
                name,
                datatype,
                shape,
            });
        }
        for output in &graph.outputs {
            let declared = declared("output", output)?;
            if interface
                .outputs
                .iter()
                .any(|(name, ..)| *name == declared.0)
            {
                return Err(fault("output", output, "is listed twice"));
            }
            interface.outputs.push(declared);
        }
        Ok(interface)
    }
}

fn fault(side: &'static str, value: &ValueDecl<'_>, fault: &'static str) -> OnnxError {
    OnnxError::Interface {
        side,
        name: shown(value.name),
        fault,
    }
}

fn declared(
    side: &'static str,
    value: &ValueDecl<'_>,
) -> Result<(String, Datatype, Option<Vec<i64>>), OnnxError> {
    if value.name.is_empty() {
        return Err(fault(side, value, "has no name"));
    }
    let datatype = value
        .element
        .and_then(datatype_of)
        .ok_or_else(|| fault(side, value, "is not a tensor of a supported data type"))?;
    let shape = value.shape.as_ref().map(|dims| {
        dims.iter()
            .map(|d| match d {
                Dim::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
                Dim::Symbol(_) | Dim::Unknown => -1,
            })
            .collect::<Vec<_>>()
    });
    if shape.as_ref().is_some_and(|s| s.len() > RANK_MAX) {
        return Err(fault(side, value, "has too many dimensions"));
    }
    Ok((value.name.to_owned(), datatype, shape))
}
