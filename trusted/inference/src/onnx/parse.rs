//! Bytes to structs, each bound held while reading.
//!
//! Strict where protobuf is lenient: a singular field that occurs twice, a typed data field of
//! another type, and text that is not UTF-8 are errors. Documentation, metadata and unknown fields
//! are skipped (and counted).

use super::schema::{Attribute, Dim, Graph, Model, Node, OnnxError, TensorProto, ValueDecl, shown};
use super::wire::{Fields, Value, WireError, varint};
use crate::engine::LoadLimits;

mod typed;

use typed::{TypedBytes, append, finish_tensor};

impl<'a> Model<'a> {
    /// Reads a serialised `ModelProto`.
    pub fn parse(bytes: &'a [u8], limits: &LoadLimits) -> Result<Self, OnnxError> {
        if bytes.len() > limits.graph_bytes {
            return Err(OnnxError::Limit {
                what: "bytes of graph",
                max: limits.graph_bytes as u64,
            });
        }
        Parser {
            limits,
            fields: limits.fields,
            nodes: limits.nodes,
        }
        .model(bytes)
    }
}

/// A place in the file, for error messages and for reading a field as what it should be.
#[derive(Clone, Copy)]
struct At {
    within: &'static str,
    field: u32,
}

impl At {
    const fn missing(self) -> OnnxError {
        OnnxError::Missing {
            within: self.within,
            field: self.field,
        }
    }

    const fn mistyped(self) -> OnnxError {
        OnnxError::FieldType {
            within: self.within,
            field: self.field,
        }
    }

    const fn wire(self, source: WireError) -> OnnxError {
        OnnxError::Wire {
            within: self.within,
            source,
        }
    }

    fn int(self, value: Value<'_>) -> Result<i64, OnnxError> {
        match value {
            Value::Varint(v) => Ok(signed(v)),
            _ => Err(self.mistyped()),
        }
    }

    fn float(self, value: Value<'_>) -> Result<f32, OnnxError> {
        match value {
            Value::Fixed32(v) => Ok(f32::from_le_bytes(v)),
            _ => Err(self.mistyped()),
        }
    }

    fn bytes<'a>(self, value: Value<'a>) -> Result<&'a [u8], OnnxError> {
        match value {
            Value::Bytes(v) => Ok(v),
            _ => Err(self.mistyped()),
        }
    }

    fn text<'a>(self, value: Value<'a>) -> Result<&'a str, OnnxError> {
        std::str::from_utf8(self.bytes(value)?).map_err(|_| OnnxError::Text {
            within: self.within,
            field: self.field,
        })
    }

    fn set<T>(self, slot: &mut Option<T>, value: T) -> Result<(), OnnxError> {
        match slot.replace(value) {
            Some(_) => Err(OnnxError::Twice {
                within: self.within,
                field: self.field,
            }),
            None => Ok(()),
        }
    }
}

const fn signed(v: u64) -> i64 {
    i64::from_ne_bytes(v.to_ne_bytes())
}

struct Parser<'l> {
    limits: &'l LoadLimits,
    fields: usize,
    nodes: usize,
}

impl Parser<'_> {
    /// Calls `each` with every field; each costs one of the allowed fields.
    fn each<'a>(
        &mut self,
        within: &'static str,
        message: &'a [u8],
        mut each: impl FnMut(&mut Self, At, Value<'a>) -> Result<(), OnnxError>,
    ) -> Result<(), OnnxError> {
        let mut fields = Fields::new(message);
        let wire = |source| OnnxError::Wire { within, source };
        while let Some((field, value)) = fields.next().map_err(wire)? {
            self.charge()?;
            each(self, At { within, field }, value)?;
        }
        Ok(())
    }

    fn charge(&mut self) -> Result<(), OnnxError> {
        let max = self.limits.fields as u64;
        self.fields = self.fields.checked_sub(1).ok_or(OnnxError::Limit {
            what: "fields",
            max,
        })?;
        Ok(())
    }

    /// A repeated integer, packed or not; each element costs one of the allowed fields.
    fn ints(&mut self, at: At, value: Value<'_>, out: &mut Vec<u64>) -> Result<(), OnnxError> {
        match value {
            Value::Varint(v) => out.push(v),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    self.charge()?;
                    let (v, rest) = varint(packed).map_err(|e| at.wire(e))?;
                    out.push(v);
                    packed = rest;
                }
            }
            _ => return Err(at.mistyped()),
        }
        Ok(())
    }

    fn model<'a>(&mut self, message: &'a [u8]) -> Result<Model<'a>, OnnxError> {
        const WITHIN: &str = "model";
        let (mut ir_version, mut graph, mut opsets) = (None, None, Vec::new());
        self.each(WITHIN, message, |p, at, value| match at.field {
            1 => at.set(&mut ir_version, at.int(value)?),
            7 => at.set(&mut graph, at.bytes(value)?),
            8 => {
                opsets.push(p.opset(at.bytes(value)?)?);
                Ok(())
            }
            25 => Err(OnnxError::Unsupported {
                what: "feature",
                name: "model-local function".into(),
            }),
            _ => Ok(()),
        })?;
        let missing = |field| {
            At {
                within: WITHIN,
                field,
            }
            .missing()
        };
        Ok(Model {
            ir_version: ir_version.ok_or_else(|| missing(1))?,
            graph: self.graph(graph.ok_or_else(|| missing(7))?, self.limits.depth)?,
            opsets: if opsets.is_empty() {
                return Err(missing(8));
            } else {
                opsets
            },
        })
    }

    fn opset<'a>(&mut self, message: &'a [u8]) -> Result<(&'a str, i64), OnnxError> {
        let (mut domain, mut version) = (None, None);
        self.each("opset", message, |_, at, value| match at.field {
            1 => at.set(&mut domain, at.text(value)?),
            2 => at.set(&mut version, at.int(value)?),
            _ => Ok(()),
        })?;
        let version = version.ok_or_else(|| {
            At {
                within: "opset",
                field: 2,
            }
            .missing()
        })?;
        Ok((domain.unwrap_or_default(), version))
    }

    fn graph<'a>(&mut self, message: &'a [u8], depth: usize) -> Result<Graph<'a>, OnnxError> {
        let max = self.limits.depth as u64;
        let depth = depth.checked_sub(1).ok_or(OnnxError::Limit {
            what: "nested graphs",
            max,
        })?;
        let mut graph = Graph::default();
        self.each("graph", message, |p, at, value| {
            match at.field {
                1 => graph.nodes.push(p.node(at.bytes(value)?, depth)?),
                5 => graph.initializers.push(p.tensor(at.bytes(value)?)?),
                11 => graph.inputs.push(p.value_decl(at.bytes(value)?)?),
                12 => graph.outputs.push(p.value_decl(at.bytes(value)?)?),
                13 => graph.values.push(p.value_decl(at.bytes(value)?)?),
                15 => {
                    let name = "sparse initializer".into();
                    return Err(OnnxError::Unsupported {
                        what: "feature",
                        name,
                    });
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(graph)
    }

    fn node<'a>(&mut self, message: &'a [u8], depth: usize) -> Result<Node<'a>, OnnxError> {
        let max = self.limits.nodes as u64;
        self.nodes = self.nodes.checked_sub(1).ok_or(OnnxError::Limit {
            what: "operators",
            max,
        })?;
        let mut node = Node::default();
        let (mut name, mut op_type, mut domain) = (None, None, None);
        self.each("operator", message, |p, at, value| {
            match at.field {
                1 => node.inputs.push(at.text(value)?),
                2 => node.outputs.push(at.text(value)?),
                3 => at.set(&mut name, at.text(value)?)?,
                4 => at.set(&mut op_type, at.text(value)?)?,
                5 => node.attributes.push(p.attribute(at.bytes(value)?, depth)?),
                7 => at.set(&mut domain, at.text(value)?)?,
                _ => {}
            }
            Ok(())
        })?;
        node.op_type = op_type.ok_or_else(|| {
            At {
                within: "operator",
                field: 4,
            }
            .missing()
        })?;
        node.name = name.unwrap_or_default();
        node.domain = domain.unwrap_or_default();
        Ok(node)
    }

    fn attribute<'a>(
        &mut self,
        message: &'a [u8],
        depth: usize,
    ) -> Result<Attribute<'a>, OnnxError> {
        let mut a = Attribute::default();
        let (mut name, mut ints) = (None, Vec::new());
        self.each("attribute", message, |p, at, value| {
            match at.field {
                1 => at.set(&mut name, at.text(value)?)?,
                2 => at.set(&mut a.float, at.float(value)?)?,
                3 => at.set(&mut a.int, at.int(value)?)?,
                4 => at.set(&mut a.text, at.text(value)?)?,
                5 => {
                    let tensor = p.tensor(at.bytes(value)?)?;
                    at.set(&mut a.tensor, Box::new(tensor))?;
                }
                6 => {
                    let graph = p.graph(at.bytes(value)?, depth)?;
                    at.set(&mut a.graph, Box::new(graph))?;
                }
                7 => p.floats(at, value, &mut a.floats)?,
                8 => p.ints(at, value, &mut ints)?,
                9 => a.texts.push(at.text(value)?),
                20 => at.set(&mut a.kind, at.int(value)?)?,
                10 | 11 | 14 | 15 | 21 | 22 | 23 => {
                    let name = shown(name.unwrap_or_default());
                    return Err(OnnxError::Unsupported {
                        what: "type of attribute",
                        name,
                    });
                }
                _ => {}
            }
            Ok(())
        })?;
        a.name = name.ok_or_else(|| {
            At {
                within: "attribute",
                field: 1,
            }
            .missing()
        })?;
        a.ints = ints.into_iter().map(signed).collect();
        Ok(a)
    }

    fn floats(&mut self, at: At, value: Value<'_>, out: &mut Vec<f32>) -> Result<(), OnnxError> {
        match value {
            Value::Fixed32(v) => out.push(f32::from_le_bytes(v)),
            Value::Bytes(packed) => {
                let (whole, rest) = packed.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(at.wire(WireError::Truncated));
                }
                out.extend(whole.iter().map(|c| f32::from_le_bytes(*c)));
            }
            _ => return Err(at.mistyped()),
        }
        Ok(())
    }

    fn tensor<'a>(&mut self, message: &'a [u8]) -> Result<TensorProto<'a>, OnnxError> {
        let (mut name, mut code, mut location) = (None, None, None);
        let (mut dims, mut external) = (Vec::new(), Vec::new());
        let mut typed = TypedBytes::default();
        self.each("tensor", message, |p, at, value| {
            match at.field {
                1 => p.ints(at, value, &mut dims)?,
                2 => at.set(&mut code, at.int(value)?)?,
                4 => match value {
                    Value::Bytes(packed) => append(&mut typed.floats, packed),
                    Value::Fixed32(one) => typed.floats.to_mut().extend_from_slice(&one),
                    _ => return Err(at.mistyped()),
                },
                5 => p.ints(at, value, &mut typed.int32s)?,
                7 => p.ints(at, value, &mut typed.int64s)?,
                8 => at.set(&mut name, at.text(value)?)?,
                9 => at.set(&mut typed.raw, at.bytes(value)?)?,
                10 => match value {
                    Value::Bytes(packed) => append(&mut typed.doubles, packed),
                    Value::Fixed64(one) => typed.doubles.to_mut().extend_from_slice(&one),
                    _ => return Err(at.mistyped()),
                },
                11 => p.ints(at, value, &mut typed.uint64s)?,
                13 => external.push(p.entry(at.bytes(value)?)?),
                14 => at.set(&mut location, at.int(value)?)?,
                // A part of a tensor that lies in several messages.
                3 => {
                    return Err(OnnxError::Unsupported {
                        what: "feature",
                        name: "segment".into(),
                    });
                }
                _ => {}
            }
            Ok(())
        })?;
        let name = name.unwrap_or_default();
        finish_tensor(
            name,
            &dims,
            code.unwrap_or(0),
            typed,
            location == Some(1),
            &external,
        )
        .map_err(|fault| OnnxError::Tensor {
            name: shown(name),
            fault,
        })
    }

    fn entry<'a>(&mut self, message: &'a [u8]) -> Result<(&'a str, &'a str), OnnxError> {
        let (mut key, mut text) = (None, None);
        self.each("external data", message, |_, at, value| match at.field {
            1 => at.set(&mut key, at.text(value)?),
            2 => at.set(&mut text, at.text(value)?),
            _ => Ok(()),
        })?;
        Ok((key.unwrap_or_default(), text.unwrap_or_default()))
    }

    fn value_decl<'a>(&mut self, message: &'a [u8]) -> Result<ValueDecl<'a>, OnnxError> {
        let (mut name, mut kind) = (None, None);
        self.each("value", message, |_, at, value| match at.field {
            1 => at.set(&mut name, at.text(value)?),
            2 => at.set(&mut kind, at.bytes(value)?),
            _ => Ok(()),
        })?;
        let mut tensor = None;
        self.each(
            "value type",
            kind.unwrap_or_default(),
            |_, at, value| match at.field {
                1 => at.set(&mut tensor, at.bytes(value)?),
                _ => Ok(()),
            },
        )?;
        let (mut element, mut shape) = (None, None);
        self.each(
            "tensor type",
            tensor.unwrap_or_default(),
            |p, at, value| match at.field {
                1 => at.set(&mut element, at.int(value)?),
                2 => at.set(&mut shape, p.shape(at.bytes(value)?)?),
                _ => Ok(()),
            },
        )?;
        Ok(ValueDecl {
            name: name.unwrap_or_default(),
            element,
            shape,
        })
    }

    fn shape<'a>(&mut self, message: &'a [u8]) -> Result<Vec<Dim<'a>>, OnnxError> {
        let mut dims = Vec::new();
        self.each("shape", message, |p, at, value| {
            if at.field != 1 {
                return Ok(());
            }
            let (mut size, mut symbol) = (None, None);
            p.each("dimension", at.bytes(value)?, |_, at, value| {
                match at.field {
                    1 => at.set(&mut size, at.int(value)?),
                    2 => at.set(&mut symbol, at.text(value)?),
                    _ => Ok(()),
                }
            })?;
            dims.push(match (size.map(u64::try_from), symbol) {
                (Some(Ok(size)), _) => Dim::Fixed(size),
                (_, Some(symbol)) if !symbol.is_empty() => Dim::Symbol(symbol),
                _ => Dim::Unknown,
            });
            Ok(())
        })?;
        Ok(dims)
    }
}

#[cfg(test)]
mod tests;
