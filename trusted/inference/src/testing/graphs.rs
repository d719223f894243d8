//! Small ONNX files, written with our own encoder.

use protocol::{Datatype, Tensor};

use crate::onnx::Model;
use crate::onnx::schema::{
    Attribute, Dim, Graph, Node, TensorBytes, TensorProto, ValueDecl, code_of,
};

/// A node without attributes.
#[must_use]
pub fn node<'a>(op_type: &'a str, inputs: &[&'a str], outputs: &[&'a str]) -> Node<'a> {
    let (inputs, outputs) = (inputs.into(), outputs.into());
    Node {
        op_type,
        inputs,
        outputs,
        ..Node::default()
    }
}

/// An inline constant.
#[must_use]
pub fn constant<'a>(
    name: &'a str,
    dims: &[u64],
    datatype: Datatype,
    bytes: Vec<u8>,
) -> TensorProto<'a> {
    TensorProto {
        name,
        dims: dims.into(),
        datatype,
        bytes: TensorBytes::Inline(bytes.into()),
    }
}

/// An inline constant of floats.
#[must_use]
pub fn floats<'a>(name: &'a str, dims: &[u64], values: &[f32]) -> TensorProto<'a> {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    constant(name, dims, Datatype::Fp32, bytes)
}

/// An input or output.
#[must_use]
pub fn decl<'a>(name: &'a str, datatype: Datatype, shape: &[Dim<'a>]) -> ValueDecl<'a> {
    ValueDecl {
        name,
        element: Some(code_of(datatype)),
        shape: Some(shape.into()),
    }
}

/// A file of opset 13.
#[must_use]
pub fn file(graph: Graph<'_>) -> Vec<u8> {
    Model {
        ir_version: 8,
        opsets: vec![("", 13)],
        graph,
    }
    .encode()
}

const ANY: [Dim<'_>; 1] = [Dim::Symbol("n")];

fn weight(i: u16) -> f32 {
    f32::from(i % 13) / 8.0 - 0.75
}

/// `probability = relu(x · w + b)`, from 16 numbers to 9, any number of rows; `w` is large enough to
/// leave the graph.
#[must_use]
pub fn dense() -> Vec<u8> {
    let w: Vec<f32> = (0..16 * 9).map(weight).collect();
    let b: Vec<f32> = (0..9).map(weight).collect();
    file(Graph {
        nodes: vec![
            node("Gemm", &["x", "w", "b"], &["h"]),
            node("Relu", &["h"], &["y"]),
        ],
        initializers: vec![floats("w", &[16, 9], &w), floats("b", &[9], &b)],
        inputs: vec![decl(
            "x",
            Datatype::Fp32,
            &[Dim::Symbol("batch"), Dim::Fixed(16)],
        )],
        outputs: vec![decl(
            "y",
            Datatype::Fp32,
            &[Dim::Symbol("batch"), Dim::Fixed(9)],
        )],
        values: vec![],
    })
}

/// An input of [`dense`] and the answer, computed here.
pub fn dense_example(rows: u16) -> Result<(Tensor, Tensor), String> {
    let x: Vec<f32> = (0..rows * 16).map(|i| f32::from(i % 7) - 3.0).collect();
    let y: Vec<f32> = (0..rows * 9)
        .map(|i| {
            let (row, column) = (i / 9, i % 9);
            let sum: f32 = (0..16)
                .map(|k| x[usize::from(row * 16 + k)] * weight(k * 9 + column))
                .sum();
            (sum + weight(column)).max(0.0)
        })
        .collect();
    let rows = u64::from(rows);
    let tensor = |name, columns, values: &[f32]| {
        Tensor::from_f32(name, vec![rows, columns], values).map_err(|e| e.to_string())
    };
    Ok((tensor("x", 16, &x)?, tensor("y", 9, &y)?))
}

/// `y = relu(x)`: no weights at all.
#[must_use]
pub fn no_constants() -> Vec<u8> {
    file(Graph {
        nodes: vec![node("Relu", &["x"], &["y"])],
        inputs: vec![decl("x", Datatype::Fp32, &ANY)],
        outputs: vec![decl("y", Datatype::Fp32, &ANY)],
        ..Graph::default()
    })
}

/// `m = n`, `other = not flag`: 64-bit integers and booleans in and out.
#[must_use]
pub fn wide() -> Vec<u8> {
    file(Graph {
        nodes: vec![
            node("Identity", &["n"], &["m"]),
            node("Not", &["flag"], &["other"]),
        ],
        inputs: vec![
            decl("n", Datatype::Int64, &ANY),
            decl("flag", Datatype::Bool, &ANY),
        ],
        outputs: vec![
            decl("m", Datatype::Int64, &ANY),
            decl("other", Datatype::Bool, &ANY),
        ],
        ..Graph::default()
    })
}

/// `y = relu(x) + relu(x)`, where each operator is named like a value that another one uses.
#[must_use]
pub fn same_names() -> Vec<u8> {
    let relu = Node {
        name: "h",
        ..node("Relu", &["x"], &["h"])
    };
    let add = Node {
        name: "x",
        ..node("Add", &["h", "h"], &["y"])
    };
    file(Graph {
        nodes: vec![relu, add],
        inputs: vec![decl("x", Datatype::Fp32, &ANY)],
        outputs: vec![decl("y", Datatype::Fp32, &ANY)],
        ..Graph::default()
    })
}

/// A well-formed graph with an operator that no engine has.
#[must_use]
pub fn unknown_operator() -> Vec<u8> {
    file(Graph {
        nodes: vec![node("NoSuchOperator", &["x"], &["y"])],
        inputs: vec![decl("x", Datatype::Fp32, &ANY)],
        outputs: vec![decl("y", Datatype::Fp32, &ANY)],
        ..Graph::default()
    })
}

/// `n / d` of 64-bit integers.
#[must_use]
pub fn quotient() -> Vec<u8> {
    file(Graph {
        nodes: vec![node("Div", &["n", "d"], &["q"])],
        inputs: vec![
            decl("n", Datatype::Int64, &ANY),
            decl("d", Datatype::Int64, &ANY),
        ],
        outputs: vec![decl("q", Datatype::Int64, &ANY)],
        ..Graph::default()
    })
}

/// A constant shape of 2^40 elements, filled by one operator.
#[must_use]
pub fn huge_from_nothing() -> Vec<u8> {
    let shape = [1_i64 << 20, 1 << 20]
        .iter()
        .flat_map(|d| d.to_le_bytes())
        .collect();
    file(Graph {
        nodes: vec![node("ConstantOfShape", &["shape"], &["y"])],
        initializers: vec![constant("shape", &[2], Datatype::Int64, shape)],
        outputs: vec![decl("y", Datatype::Fp32, &[Dim::Unknown, Dim::Unknown])],
        ..Graph::default()
    })
}

/// `length` additions, one behind the other.
#[must_use]
pub fn chain_of(length: usize) -> Vec<u8> {
    let names: Vec<String> = (0..=length).map(|i| format!("v{i}")).collect();
    let value = |i: usize| if i == 0 { "x" } else { names[i].as_str() };
    file(Graph {
        nodes: (0..length)
            .map(|i| node("Add", &[value(i), "x"], &[value(i + 1)]))
            .collect(),
        inputs: vec![decl("x", Datatype::Fp32, &ANY)],
        outputs: vec![decl(value(length), Datatype::Fp32, &ANY)],
        ..Graph::default()
    })
}

/// `depth` bodies inside each other.
#[must_use]
pub fn nested(depth: usize) -> Vec<u8> {
    let bool_scalar = || decl("c", Datatype::Bool, &[]);
    let mut graph = Graph {
        nodes: vec![node("Relu", &["x"], &["y"])],
        outputs: vec![decl("y", Datatype::Fp32, &ANY)],
        ..Graph::default()
    };
    for _ in 0..depth {
        let branch = |name| Attribute {
            name,
            kind: Some(5),
            graph: Some(Box::new(graph.clone())),
            ..Attribute::default()
        };
        let attributes = vec![branch("then_branch"), branch("else_branch")];
        let choice = Node {
            attributes,
            ..node("If", &["c"], &["y"])
        };
        graph = Graph {
            nodes: vec![choice],
            outputs: vec![decl("y", Datatype::Fp32, &ANY)],
            ..Graph::default()
        };
    }
    graph.inputs = vec![decl("x", Datatype::Fp32, &ANY), bool_scalar()];
    file(graph)
}

/// `y = x[i]`.
#[must_use]
pub fn gather() -> Vec<u8> {
    file(Graph {
        nodes: vec![node("Gather", &["x", "i"], &["y"])],
        inputs: vec![
            decl("x", Datatype::Fp32, &ANY),
            decl("i", Datatype::Int64, &ANY),
        ],
        outputs: vec![decl("y", Datatype::Fp32, &ANY)],
        ..Graph::default()
    })
}

/// `y = x` of one datatype.
#[must_use]
pub fn of_type(datatype: Datatype) -> Vec<u8> {
    file(Graph {
        nodes: vec![node("Identity", &["x"], &["y"])],
        inputs: vec![decl("x", datatype, &ANY)],
        outputs: vec![decl("y", datatype, &ANY)],
        ..Graph::default()
    })
}

/// An Expand whose target shape is an input with fewer elements than `x` has dimensions.
#[must_use]
pub fn expand_to_lower_rank() -> Vec<u8> {
    let three = [Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(1)];
    file(Graph {
        nodes: vec![node("Expand", &["x", "shape"], &["y"])],
        inputs: vec![
            decl("x", Datatype::Fp32, &three),
            decl("shape", Datatype::Int64, &[Dim::Fixed(2)]),
        ],
        outputs: vec![decl("y", Datatype::Fp32, &three)],
        ..Graph::default()
    })
}
