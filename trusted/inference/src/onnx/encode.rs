//! Structs back to bytes. The engine only ever reads what was written here, never a file's own bytes,
//! so that it cannot read a message otherwise than our checks did.

use super::schema::{
    Attribute, Dim, Graph, Model, Node, TensorBytes, TensorProto, ValueDecl, code_of,
};
use super::wire::{put_bytes, put_float, put_int};

impl Model<'_> {
    /// A serialised `ModelProto` with exactly the fields of this struct.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_naming(false)
    }

    /// Like [`Self::encode`], but every operator has a name, `type#number name`: most files leave
    /// some without, and an engine should be able to say which one failed.
    #[must_use]
    pub fn encode_for_engine(&self) -> Vec<u8> {
        self.encode_naming(true)
    }

    fn encode_naming(&self, naming: bool) -> Vec<u8> {
        let mut out = Vec::new();
        put_int(&mut out, 1, self.ir_version);
        let mut naming = naming.then_some(0);
        put_bytes(&mut out, 7, &graph(&self.graph, &mut naming));
        for (domain, version) in &self.opsets {
            let mut opset = Vec::new();
            put_text(&mut opset, 1, domain);
            put_int(&mut opset, 2, *version);
            put_bytes(&mut out, 8, &opset);
        }
        out
    }
}

/// Absent and empty mean the same for every text here.
fn put_text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, field, text.as_bytes());
    }
}

/// `naming` counts the operators when they are to be named.
fn graph(g: &Graph<'_>, naming: &mut Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    g.nodes
        .iter()
        .for_each(|n| put_bytes(&mut out, 1, &node(n, naming)));
    g.initializers
        .iter()
        .for_each(|t| put_bytes(&mut out, 5, &tensor(t)));
    for (field, values) in [(11, &g.inputs), (12, &g.outputs), (13, &g.values)] {
        values
            .iter()
            .for_each(|v| put_bytes(&mut out, field, &value_decl(v)));
    }
    out
}

fn node(n: &Node<'_>, naming: &mut Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    // An empty name stands for an optional input or output that is left out: it keeps its place.
    n.inputs
        .iter()
        .for_each(|i| put_bytes(&mut out, 1, i.as_bytes()));
    n.outputs
        .iter()
        .for_each(|o| put_bytes(&mut out, 2, o.as_bytes()));
    match naming {
        Some(count) => {
            let space = if n.name.is_empty() { "" } else { " " };
            let name = format!("{}#{count}{space}{}", n.op_type, n.name);
            put_text(&mut out, 3, &name);
            *count += 1;
        }
        None => put_text(&mut out, 3, n.name),
    }
    put_text(&mut out, 4, n.op_type);
    n.attributes
        .iter()
        .for_each(|a| put_bytes(&mut out, 5, &attribute(a, naming)));
    put_text(&mut out, 7, n.domain);
    out
}

fn attribute(a: &Attribute<'_>, naming: &mut Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, a.name);
    if let Some(v) = a.float {
        put_float(&mut out, 2, v);
    }
    if let Some(v) = a.int {
        put_int(&mut out, 3, v);
    }
    if let Some(v) = a.text {
        put_bytes(&mut out, 4, v.as_bytes());
    }
    if let Some(t) = &a.tensor {
        put_bytes(&mut out, 5, &tensor(t));
    }
    if let Some(g) = &a.graph {
        put_bytes(&mut out, 6, &graph(g, naming));
    }
    a.floats.iter().for_each(|v| put_float(&mut out, 7, *v));
    a.ints.iter().for_each(|v| put_int(&mut out, 8, *v));
    a.texts
        .iter()
        .for_each(|v| put_bytes(&mut out, 9, v.as_bytes()));
    if let Some(kind) = a.kind {
        put_int(&mut out, 20, kind);
    }
    out
}

fn tensor(t: &TensorProto<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    t.dims
        .iter()
        .for_each(|d| put_int(&mut out, 1, i64::from_ne_bytes(d.to_ne_bytes())));
    put_int(&mut out, 2, code_of(t.datatype));
    put_text(&mut out, 8, t.name);
    match &t.bytes {
        TensorBytes::Inline(bytes) => put_bytes(&mut out, 9, bytes),
        TensorBytes::External {
            location,
            offset,
            length,
        } => {
            let mut entry = |key: &str, value: &str| {
                let mut message = Vec::new();
                put_bytes(&mut message, 1, key.as_bytes());
                put_bytes(&mut message, 2, value.as_bytes());
                put_bytes(&mut out, 13, &message);
            };
            entry("location", location);
            entry("offset", &offset.to_string());
            if let Some(length) = length {
                entry("length", &length.to_string());
            }
            put_int(&mut out, 14, 1);
        }
    }
    out
}

fn value_decl(v: &ValueDecl<'_>) -> Vec<u8> {
    let mut tensor_type = Vec::new();
    if let Some(element) = v.element {
        put_int(&mut tensor_type, 1, element);
    }
    if let Some(dims) = &v.shape {
        let mut shape = Vec::new();
        for dim in dims {
            let mut message = Vec::new();
            match dim {
                Dim::Fixed(size) => put_int(&mut message, 1, i64::try_from(*size).unwrap_or(-1)),
                Dim::Symbol(name) => put_bytes(&mut message, 2, name.as_bytes()),
                Dim::Unknown => {}
            }
            put_bytes(&mut shape, 1, &message);
        }
        put_bytes(&mut tensor_type, 2, &shape);
    }
    let mut out = Vec::new();
    put_text(&mut out, 1, v.name);
    if !tensor_type.is_empty() {
        let mut value_type = Vec::new();
        put_bytes(&mut value_type, 1, &tensor_type);
        put_bytes(&mut out, 2, &value_type);
    }
    out
}
