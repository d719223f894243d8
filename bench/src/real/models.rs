//! Models to ask: the shipped tiny one, and larger ones with seeded weights of our own.
//!
//! A large model is a perceptron of square layers, `h = relu(h · w + b)`, 1 MiB of weights each,
//! that is applied [`PASSES`] times over: its file has the size that was asked for, and a run
//! takes about as long as an image classifier of that size. What it answers is computed here as
//! well, in doubles, so that an answer is known to be right or wrong.

use std::fmt;
use std::str::FromStr;

use inference::onnx::Model;
use inference::onnx::schema::{Dim, Graph, Node, TensorBytes, TensorProto, ValueDecl, code_of};
use inference::pack::compare;
use protocol::oip::{InferRequest, OipError};
use protocol::tensor::TensorError;
use protocol::{Datatype, Tensor};

use crate::random::Random;

/// Numbers in, out, and between two layers.
const WIDTH: usize = 512;
/// How often the layers are applied.
const PASSES: usize = 16;
/// Largest model, in MB: what fits a package.
const SIZE_MAX_MB: u32 = 512;
/// Largest difference of an answer, relative to its largest number.
const TOLERANCE: f32 = 1e-4;

const TINY: &[u8] = include_bytes!("../../../models/breast-cancer/model.onnx");
const TINY_INPUTS: &[u8] = include_bytes!("../../../models/breast-cancer/inputs.json");
const TINY_EXPECTED: &str = include_str!("../../../models/breast-cancer/expected.json");

/// Why there is no such model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("'{0}' is not a model's size: 'tiny', or 1MB to {SIZE_MAX_MB}MB")]
    Size(String),
    #[error("the shipped model's example is not of the expected form")]
    Example(#[from] OipError),
    #[error("a tensor does not fit its own description")]
    Tensor(#[from] TensorError),
}

/// How large a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelSize {
    /// The shipped classifier of 2 kB.
    Tiny,
    /// Weights of so many megabytes.
    Megabytes(u32),
}

impl ModelSize {
    /// Bytes of its weights, about.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Tiny => TINY.len() as u64,
            Self::Megabytes(mb) => layers(mb) as u64 * (WIDTH * WIDTH * 4) as u64,
        }
    }
}

impl FromStr for ModelSize {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        if text == "tiny" {
            return Ok(Self::Tiny);
        }
        let number = text.strip_suffix("MB").and_then(|n| n.parse().ok());
        number
            .filter(|mb| (1..=SIZE_MAX_MB).contains(mb))
            .map(Self::Megabytes)
            .ok_or_else(|| ModelError::Size(text.to_owned()))
    }
}

impl fmt::Display for ModelSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiny => f.write_str("tiny"),
            Self::Megabytes(mb) => write!(f, "{mb}MB"),
        }
    }
}

/// A model, a question to it and the right answer.
#[derive(Debug, Clone)]
pub struct Specimen {
    pub onnx: Vec<u8>,
    pub input: Tensor,
    pub expected: Tensor,
}

impl Specimen {
    /// The model of this size and seed: the same bytes on every machine. The tiny model is the
    /// same for every seed, and is asked differently.
    pub fn make(size: ModelSize, seed: u64) -> Result<Self, ModelError> {
        match size {
            ModelSize::Tiny => Self::tiny(seed),
            ModelSize::Megabytes(mb) => Self::perceptron(layers(mb), seed),
        }
    }

    /// Whether these outputs are the right answer.
    #[must_use]
    pub fn is_right(expected: &Tensor, outputs: &[Tensor]) -> bool {
        matches!(outputs, [got] if compare(expected, got, TOLERANCE).is_ok())
    }

    fn tiny(seed: u64) -> Result<Self, ModelError> {
        let inputs = InferRequest::from_json(TINY_INPUTS)?.inputs;
        // Outputs have the form of inputs.
        let expected = TINY_EXPECTED.replacen("\"outputs\"", "\"inputs\"", 1);
        let expected = InferRequest::from_json(expected.as_bytes())?.inputs;
        Ok(Self {
            onnx: TINY.to_vec(),
            input: row(&inputs, seed)?,
            expected: row(&expected, seed)?,
        })
    }

    fn perceptron(layers: usize, seed: u64) -> Result<Self, ModelError> {
        let mut random = Random::new(seed);
        // He's initialisation: the numbers neither grow nor vanish from layer to layer.
        let scale = (6.0 / WIDTH as f32).sqrt();
        let weights: Vec<Vec<f32>> = (0..layers)
            .map(|_| uniform(&mut random, WIDTH * WIDTH, scale))
            .collect();
        let biases: Vec<Vec<f32>> = (0..layers)
            .map(|_| uniform(&mut random, WIDTH, 0.1))
            .collect();
        let x = uniform(&mut random, WIDTH, 1.0);
        let y = run(&weights, &biases, &x);
        let shape = || vec![1, WIDTH as u64];
        Ok(Self {
            onnx: file(&weights, &biases),
            input: Tensor::from_f32("x", shape(), &x)?,
            expected: Tensor::from_f32("y", shape(), &y)?,
        })
    }
}

/// Layers of a model of so many megabytes: at least one.
fn layers(mb: u32) -> usize {
    (mb as usize * 1_000_000 / (WIDTH * WIDTH * 4)).max(1)
}

/// One row of the only tensor, as a batch of one: row 0 or 3, whose answers are near 1 and apart.
/// An answer near 0 would be measured against itself.
fn row(tensors: &[Tensor], seed: u64) -> Result<Tensor, ModelError> {
    let [tensor] = tensors else {
        return Err(OipError::TooMany(tensors.len()).into());
    };
    let rows = tensor.shape().first().copied().unwrap_or(1).max(1);
    let len = tensor.data().len() / usize::try_from(rows).unwrap_or(usize::MAX);
    let row = if seed.is_multiple_of(2) { 0 } else { 3 };
    let at = row.min(usize::try_from(rows - 1).unwrap_or(0)) * len;
    let shape = std::iter::once(1)
        .chain(tensor.shape().iter().skip(1).copied())
        .collect();
    let data = tensor.data()[at..at + len].to_vec();
    Ok(Tensor::new(tensor.name(), tensor.datatype(), shape, data)?)
}

/// Numbers between `-scale` and `scale`.
#[expect(clippy::cast_precision_loss, reason = "24 bits are exact in an f32")]
fn uniform(random: &mut Random, count: usize, scale: f32) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let bits = random.bits();
        for half in [bits >> 40, (bits >> 8) & 0xff_ffff] {
            values.push((half as f32 / 8_388_608.0 - 1.0) * scale);
        }
    }
    values.truncate(count);
    values
}

/// What the model answers, in doubles and in the plainest order.
#[expect(clippy::cast_possible_truncation, reason = "the answer is in floats")]
fn run(weights: &[Vec<f32>], biases: &[Vec<f32>], x: &[f32]) -> Vec<f32> {
    let mut h: Vec<f64> = x.iter().copied().map(f64::from).collect();
    for (w, b) in (0..PASSES).flat_map(|_| weights.iter().zip(biases)) {
        let mut next: Vec<f64> = b.iter().copied().map(f64::from).collect();
        for (value, row) in h.iter().zip(w.chunks_exact(WIDTH)) {
            for (sum, weight) in next.iter_mut().zip(row) {
                *sum += value * f64::from(*weight);
            }
        }
        next.iter_mut().for_each(|sum| *sum = sum.max(0.0));
        h = next;
    }
    h.iter().map(|value| *value as f32).collect()
}

fn file(weights: &[Vec<f32>], biases: &[Vec<f32>]) -> Vec<u8> {
    let names: Vec<[String; 2]> = (0..weights.len())
        .map(|i| [format!("w{i}"), format!("b{i}")])
        .collect();
    let steps = weights.len() * PASSES;
    let between: Vec<[String; 2]> = (0..steps)
        .map(|i| [format!("s{i}"), format!("h{i}")])
        .collect();
    let mut nodes = Vec::with_capacity(steps * 2);
    let mut input = "x";
    for (i, [sum, hidden]) in between.iter().enumerate() {
        let [w, b] = &names[i % names.len()];
        let output = if i + 1 == steps { "y" } else { hidden };
        nodes.push(node("Gemm", &[input, w, b], sum));
        nodes.push(node("Relu", &[sum], output));
        input = output;
    }
    let width = WIDTH as u64;
    let tensors = names.iter().zip(weights).zip(biases);
    let initializers = tensors.flat_map(|(([w, b], weights), biases)| {
        [
            constant(w, vec![width, width], weights),
            constant(b, vec![width], biases),
        ]
    });
    let decl = |name| ValueDecl {
        name,
        element: Some(code_of(Datatype::Fp32)),
        shape: Some(vec![Dim::Fixed(1), Dim::Fixed(width)]),
    };
    Model {
        ir_version: 8,
        opsets: vec![("", 13)],
        graph: Graph {
            nodes,
            initializers: initializers.collect(),
            inputs: vec![decl("x")],
            outputs: vec![decl("y")],
            values: Vec::new(),
        },
    }
    .encode()
}

fn node<'a>(op_type: &'a str, inputs: &[&'a str], output: &'a str) -> Node<'a> {
    Node {
        op_type,
        inputs: inputs.into(),
        outputs: vec![output],
        ..Node::default()
    }
}

fn constant<'a>(name: &'a str, dims: Vec<u64>, values: &[f32]) -> TensorProto<'a> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name,
        dims,
        datatype: Datatype::Fp32,
        bytes: TensorBytes::Inline(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use inference::pack::{Check, pack};

    use super::*;

    #[test]
    fn a_size_has_a_unit_and_a_bound() {
        for bad in ["", "18", "0MB", "513MB", "-1MB", "18mb", "huge"] {
            assert!(bad.parse::<ModelSize>().is_err(), "{bad}");
        }
        for good in ["tiny", "1MB", "18MB", "512MB"] {
            assert_eq!(good.parse::<ModelSize>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn another_models_answer_is_not_right() {
        let size = ModelSize::Megabytes(2);
        let (a, b) = (
            Specimen::make(size, 1).unwrap(),
            Specimen::make(size, 2).unwrap(),
        );
        assert!(!Specimen::is_right(
            &a.expected,
            std::slice::from_ref(&b.expected)
        ));
        assert!(!Specimen::is_right(&a.expected, &[]));
        assert!(Specimen::is_right(
            &a.expected,
            std::slice::from_ref(&a.expected)
        ));
        assert_eq!(a.onnx, Specimen::make(size, 1).unwrap().onnx);
        let (a, b) = (
            Specimen::make(ModelSize::Tiny, 0).unwrap(),
            Specimen::make(ModelSize::Tiny, 1).unwrap(),
        );
        assert!(!Specimen::is_right(&a.expected, &[b.expected]));
    }

    #[test]
    fn the_engine_gives_the_answer_that_is_computed_here() {
        let (tiny, small) = (ModelSize::Tiny, ModelSize::Megabytes(1));
        let cases = [
            (ModelSize::Megabytes(44), 1),
            (tiny, 0),
            (tiny, 1),
            (small, 7),
            (ModelSize::Megabytes(18), 7),
        ];
        for (size, seed) in cases {
            let made = Specimen::make(size, seed).unwrap();
            let check = Check::Example {
                inputs: std::slice::from_ref(&made.input),
                expected: std::slice::from_ref(&made.expected),
                tolerance: TOLERANCE,
            };
            let package = pack(&made.onnx, check).unwrap();
            let bytes = (package.weights.len() + package.graph.len()) as u64;
            let wanted = size.bytes();
            assert!(
                bytes >= wanted && bytes < wanted + wanted / 20 + 20_000,
                "{size}: {bytes} for {wanted}"
            );
        }
    }
}
