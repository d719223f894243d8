//! ONNX messages as borrowed structs, with exactly what an engine needs, and what is wrong with them.

use std::borrow::Cow;

use protocol::Datatype;
use protocol::limits::RANK_MAX;

use super::wire::WireError;

/// Why bytes are not an ONNX model that SeSeMI takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    #[error("{within} is not well-formed protobuf")]
    Wire {
        within: &'static str,
        source: WireError,
    },
    #[error("{within}: field {field} has another type than ONNX says")]
    FieldType { within: &'static str, field: u32 },
    #[error("{within}: field {field} occurs twice")]
    Twice { within: &'static str, field: u32 },
    #[error("{within}: field {field} is not UTF-8 text")]
    Text { within: &'static str, field: u32 },
    #[error("{within}: field {field} is missing")]
    Missing { within: &'static str, field: u32 },
    #[error("model has more than {max} {what}")]
    Limit { what: &'static str, max: u64 },
    #[error("{what} '{name}' is not supported")]
    Unsupported { what: &'static str, name: String },
    #[error("tensor '{name}': {fault}")]
    Tensor { name: String, fault: TensorFault },
    #[error("operator {op} '{node}' uses '{value}', which nothing before it defines")]
    Undefined {
        op: String,
        node: String,
        value: String,
    },
    #[error("operator {op} '{node}' makes a tensor of shape {shape:?}, larger than {max} bytes")]
    MakesTooLarge {
        op: String,
        node: String,
        shape: Vec<i64>,
        max: u64,
    },
    #[error("value '{name}' is defined twice")]
    DefinedTwice { name: String },
    #[error("a constant or an input has no name")]
    ValueWithoutName,
    #[error("graph output '{name}' is not defined")]
    OutputUndefined { name: String },
    #[error("graph {side} '{name}': {fault}")]
    Interface {
        side: &'static str,
        name: String,
        fault: &'static str,
    },
}

/// What is wrong with a tensor in the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    #[error("{0} dimensions, at most {RANK_MAX} are allowed")]
    Rank(usize),
    #[error("a dimension is negative")]
    NegativeDimension,
    #[error("shape {shape:?} of {datatype} is larger than {max} bytes")]
    TooLarge {
        shape: Vec<u64>,
        datatype: Datatype,
        max: u64,
    },
    #[error("shape {shape:?} of {datatype} is {expected} bytes, got {got}")]
    Length {
        shape: Vec<u64>,
        datatype: Datatype,
        expected: u64,
        got: u64,
    },
    #[error("data type {0} is not supported")]
    Datatype(i64),
    #[error("data is in a field of another type than its data type")]
    OtherField,
    #[error("element {index} does not fit {datatype}")]
    Element { index: usize, datatype: Datatype },
    #[error("external data lacks its location, or offset and length are not numbers")]
    ExternalKeys,
    #[error("external data is in '{0}', which was not given")]
    ExternalMissing(String),
    #[error("external data ends at byte {end}, but '{location}' has {len}")]
    ExternalRange {
        location: String,
        end: u64,
        len: u64,
    },
    #[error("external data starts at byte {0}, which is not a multiple of 64")]
    ExternalAlign(u64),
}

/// A name out of a hostile file, fit for an error message: escaped, and cut after 64 characters.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    if name.chars().nth(64).is_some() {
        text.push('…');
    }
    text
}

#[derive(Debug, Clone, PartialEq)]
pub struct Model<'a> {
    pub ir_version: i64,
    /// Domain ("" is ONNX's own) and version.
    pub opsets: Vec<(&'a str, i64)>,
    pub graph: Graph<'a>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub initializers: Vec<TensorProto<'a>>,
    pub inputs: Vec<ValueDecl<'a>>,
    pub outputs: Vec<ValueDecl<'a>>,
    pub values: Vec<ValueDecl<'a>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node<'a> {
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub name: &'a str,
    pub op_type: &'a str,
    pub domain: &'a str,
    pub attributes: Vec<Attribute<'a>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attribute<'a> {
    pub name: &'a str,
    pub kind: Option<i64>,
    pub float: Option<f32>,
    pub int: Option<i64>,
    pub text: Option<&'a str>,
    pub tensor: Option<Box<TensorProto<'a>>>,
    pub graph: Option<Box<Graph<'a>>>,
    pub floats: Vec<f32>,
    pub ints: Vec<i64>,
    pub texts: Vec<&'a str>,
}

/// A constant. Inline data has the length that `dims` and `datatype` say, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorProto<'a> {
    pub name: &'a str,
    pub dims: Vec<u64>,
    pub datatype: Datatype,
    pub bytes: TensorBytes<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TensorBytes<'a> {
    Inline(Cow<'a, [u8]>),
    /// `length` is `None` when the file leaves it to the shape.
    External {
        location: Cow<'a, str>,
        offset: u64,
        length: Option<u64>,
    },
}

/// Name, type and shape of an input, an output or a value in between.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueDecl<'a> {
    pub name: &'a str,
    /// ONNX data type; `None` when absent or not a tensor.
    pub element: Option<i64>,
    pub shape: Option<Vec<Dim<'a>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim<'a> {
    Fixed(u64),
    Symbol(&'a str),
    Unknown,
}

/// The tensor type of an ONNX data type that the protocol has a word for.
#[must_use]
pub const fn datatype_of(code: i64) -> Option<Datatype> {
    Some(match code {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        _ => return None,
    })
}

/// The ONNX data type of a tensor type.
#[must_use]
pub const fn code_of(datatype: Datatype) -> i64 {
    match datatype {
        Datatype::Fp32 => 1,
        Datatype::Uint8 => 2,
        Datatype::Int8 => 3,
        Datatype::Uint16 => 4,
        Datatype::Int16 => 5,
        Datatype::Int32 => 6,
        Datatype::Int64 => 7,
        Datatype::Bool => 9,
        Datatype::Fp16 => 10,
        Datatype::Fp64 => 11,
        Datatype::Uint32 => 12,
        Datatype::Uint64 => 13,
    }
}

impl<'a> Graph<'a> {
    /// Visits every constant in the graph and in the bodies inside it.
    pub fn for_each_tensor<E>(
        &mut self,
        visit: &mut impl FnMut(&mut TensorProto<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.initializers.iter_mut().try_for_each(&mut *visit)?;
        for attribute in self.nodes.iter_mut().flat_map(|n| &mut n.attributes) {
            if let Some(tensor) = &mut attribute.tensor {
                visit(tensor)?;
            }
            if let Some(graph) = &mut attribute.graph {
                graph.for_each_tensor(visit)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a tensor of this shape; `None` past `u64`.
#[must_use]
pub fn tensor_len(dims: &[u64], datatype: Datatype) -> Option<u64> {
    dims.iter()
        .try_fold(datatype.size() as u64, |n, &d| n.checked_mul(d))
}
