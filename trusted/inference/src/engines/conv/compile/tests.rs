//! Compiled models against rten, which knows nothing of our plans: same graph, same answers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use kernels::Isa;
use protocol::package::EngineName;
use protocol::{Datatype, Tensor};

use crate::engine::{Engine, LoadLimits, Model};
use crate::engines::conv::ConvEngine;
use crate::engines::conv::plan::{Plan, Step};
use crate::engines::rten::RtenEngine;
use crate::onnx::schema::{Attribute, Dim, Graph, Node as OnnxNode, TensorProto};
use crate::pack::compare;
use crate::testing::graphs::{constant, decl, file, floats, node};
use crate::testing::packed;

/// Numbers between -1 and 1 that look random.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn ints<'a>(name: &'a str, values: &[i64]) -> Attribute<'a> {
    let ints = values.to_vec();
    Attribute {
        name,
        kind: Some(7),
        ints,
        ..Attribute::default()
    }
}

fn int(name: &str, value: i64) -> Attribute<'_> {
    Attribute {
        name,
        kind: Some(2),
        int: Some(value),
        ..Attribute::default()
    }
}

/// A model under construction: names of values are handed around.
#[derive(Default)]
struct Builder {
    nodes: Vec<OnnxNode<'static>>,
    constants: Vec<TensorProto<'static>>,
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

impl Builder {
    fn op(
        &mut self,
        op: &'static str,
        inputs: &[&'static str],
        attributes: Vec<Attribute<'static>>,
    ) -> &'static str {
        let name = leak(format!("v{}", self.nodes.len()));
        self.nodes.push(OnnxNode {
            attributes,
            ..node(op, inputs, &[name])
        });
        name
    }

    fn constant(&mut self, dims: &[u64]) -> &'static str {
        let seed = u32::try_from(self.constants.len()).unwrap() + 1;
        let count = usize::try_from(dims.iter().product::<u64>()).unwrap();
        self.fixed(dims, &numbers(count, seed))
    }

    fn fixed(&mut self, dims: &[u64], values: &[f32]) -> &'static str {
        let name = leak(format!("c{}", self.constants.len()));
        self.constants.push(floats(name, dims, values));
        name
    }

    fn conv(
        &mut self,
        x: &'static str,
        [outs, ins, kernel, stride, pad]: [u64; 5],
        group: i64,
    ) -> &'static str {
        let (w, b) = (
            self.constant(&[outs, ins, kernel, kernel]),
            self.constant(&[outs]),
        );
        let (stride, pad) = (stride.cast_signed(), pad.cast_signed());
        let attributes = vec![
            ints("strides", &[stride, stride]),
            // Optional in ONNX, but not for rten.
            ints("dilations", &[1, 1]),
            ints("pads", &[pad; 4]),
            int("group", group),
        ];
        self.op("Conv", &[x, w, b], attributes)
    }

    fn norm(&mut self, x: &'static str, channels: u64) -> &'static str {
        let parts = [0; 3].map(|_| self.constant(&[channels]));
        let ones = vec![1.5; usize::try_from(channels).unwrap()];
        let variance = self.fixed(&[channels], &ones);
        let inputs = [x, parts[0], parts[1], parts[2], variance];
        self.op("BatchNormalization", &inputs, vec![])
    }

    fn relu(&mut self, x: &'static str) -> &'static str {
        self.op("Relu", &[x], vec![])
    }

    fn model(self, input: &[u64], outputs: &[(&'static str, usize)]) -> Vec<u8> {
        let mut shape = vec![Dim::Symbol("batch")];
        shape.extend(input.iter().map(|d| Dim::Fixed(*d)));
        let open = |rank: usize| vec![Dim::Unknown; rank];
        file(Graph {
            nodes: self.nodes,
            initializers: self.constants,
            inputs: vec![decl("x", Datatype::Fp32, &shape)],
            outputs: outputs
                .iter()
                .map(|(name, rank)| decl(name, Datatype::Fp32, &open(*rank)))
                .collect(),
            values: vec![],
        })
    }
}

fn loaded(engine: &dyn Engine, onnx: &[u8]) -> Arc<dyn Model> {
    let package = packed(engine.name(), onnx).unwrap();
    let limits = LoadLimits::default();
    engine
        .load(
            &package.manifest,
            package.graph,
            package.weights.into(),
            &limits,
        )
        .unwrap()
}

/// The same answers as rten for a batch of two, on every instruction set, twice from one session.
fn agrees(onnx: &[u8], input: &[u64]) -> Plan {
    let shape: Vec<u64> = [2].iter().chain(input).copied().collect();
    let count = usize::try_from(shape.iter().product::<u64>()).unwrap();
    let x = Tensor::from_f32("x", shape, &numbers(count, 99)).unwrap();
    let reference = loaded(&RtenEngine::shared(), onnx)
        .session()
        .unwrap()
        .run(std::slice::from_ref(&x))
        .map_err(|e| e.for_user())
        .unwrap();
    for isa in Isa::available() {
        let two = NonZeroUsize::new(2).unwrap();
        for engine in [ConvEngine::shared(), ConvEngine::per_session(two)] {
            let model = loaded(&engine.with_isa(isa), onnx);
            let mut session = model.session().unwrap();
            for _ in 0..2 {
                let got = session.run(std::slice::from_ref(&x)).unwrap();
                assert_eq!(got.len(), reference.len());
                for (got, want) in got.iter().zip(&reference) {
                    compare(want, got, 1e-5).unwrap();
                }
            }
        }
    }
    Plan::decode(&packed(EngineName::Conv, onnx).unwrap().graph).unwrap()
}

#[test]
fn residuals_and_normalisation_before_convolutions_cost_no_step() {
    let mut b = Builder::default();
    let stem = b.conv("x", [32, 3, 7, 2, 3], 1);
    let x = b.op(
        "MaxPool",
        &[stem],
        vec![
            ints("kernel_shape", &[3, 3]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 1, 1]),
        ],
    );
    let pre = b.norm(x, 32);
    let pre = b.relu(pre);
    let short = b.conv(pre, [64, 32, 1, 1, 0], 1);
    let y = b.conv(pre, [20, 32, 1, 1, 0], 1);
    let y = b.norm(y, 20);
    let y = b.relu(y);
    let y = b.conv(y, [20, 20, 3, 1, 1], 1);
    let y = b.conv(y, [64, 20, 1, 1, 0], 1);
    let sum = b.op("Add", &[short, y], vec![]);
    let last = b.relu(sum);
    let onnx = b.model(&[3, 30, 26], &[(last, 4)]);
    let plan = agrees(&onnx, &[3, 30, 26]);
    assert_eq!(plan.steps.len(), 6, "{:?}", plan.steps);
    let scaled = plan.steps.iter().filter(|s| {
        matches!(
            s,
            Step::Conv {
                prologue: Some(_),
                ..
            }
        )
    });
    assert_eq!(scaled.count(), 2);
    let added = plan.steps.iter().filter(|s| {
        matches!(
            s,
            Step::Conv {
                residual: Some(_),
                ..
            }
        )
    });
    assert_eq!(added.count(), 1);
    assert!(plan.images[plan.input.image].rgb);
}

#[test]
fn concatenations_are_no_work_unless_a_part_has_two_places() {
    let mut b = Builder::default();
    let mut x = b.conv("x", [16, 8, 3, 1, 1], 1);
    for (channels, growth) in [(16, 32), (48, 16)] {
        let y = b.norm(x, channels);
        let y = b.relu(y);
        let y = b.conv(y, [growth, channels, 3, 1, 1], 1);
        x = b.op("Concat", &[x, y], vec![int("axis", 1)]);
    }
    let pooled = b.op(
        "AveragePool",
        &[x],
        vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])],
    );
    let onnx = b.model(&[8, 12, 14], &[(pooled, 4)]);
    let plan = agrees(&onnx, &[8, 12, 14]);
    // Two normalisations of what is also concatenated, three convolutions and a pooling.
    assert_eq!(plan.steps.len(), 6, "{:?}", plan.steps);

    let mut b = Builder::default();
    let one = b.conv("x", [16, 8, 3, 1, 1], 1);
    let two = b.conv(one, [32, 16, 3, 1, 1], 1);
    let a = b.op("Concat", &[one, two, one], vec![int("axis", 1)]);
    let c = b.op("Concat", &[two, a], vec![int("axis", 1)]);
    let end = b.conv(c, [16, 96, 3, 1, 1], 1);
    let onnx = b.model(&[8, 5, 6], &[(a, 4), (end, 4)]);
    let plan = agrees(&onnx, &[8, 5, 6]);
    let copies = plan
        .steps
        .iter()
        .filter(|s| matches!(s, Step::Pointwise { .. }));
    assert_eq!(copies.count(), 2, "{:?}", plan.steps);
}

#[test]
fn depthwise_layers_and_clips_are_single_steps() {
    for (kernel, stride) in [(3, 1), (3, 2), (5, 2)] {
        let mut b = Builder::default();
        let x = b.conv("x", [24, 3, 3, 2, 1], 1);
        let limits = [b.fixed(&[], &[0.0]), b.fixed(&[], &[0.6])];
        let x = b.op("Clip", &[x, limits[0], limits[1]], vec![]);
        let y = b.conv(x, [24, 1, kernel, stride, kernel / 2], 24);
        let y = b.op("Clip", &[y, limits[0], limits[1]], vec![]);
        let y = b.conv(y, [40, 24, 1, 1, 0], 1);
        let y = b.op("GlobalAveragePool", &[y], vec![]);
        let y = b.op("Flatten", &[y], vec![]);
        let (w, bias) = (b.constant(&[10, 40]), b.constant(&[10]));
        let y = b.op("Gemm", &[y, w, bias], vec![int("transB", 1)]);
        let y = b.op("Softmax", &[y], vec![int("axis", 1)]);
        let onnx = b.model(&[3, 33, 29], &[(y, 2)]);
        let plan = agrees(&onnx, &[3, 33, 29]);
        assert_eq!(plan.steps.len(), 6, "{:?}", plan.steps);
    }
}

#[test]
fn images_are_flattened_in_the_order_of_the_model() {
    let mut b = Builder::default();
    let x = b.conv("x", [24, 5, 3, 2, 1], 1);
    let x = b.relu(x);
    let flat = b.op("Flatten", &[x], vec![]);
    let (w, bias) = (b.constant(&[24 * 4 * 3, 18]), b.constant(&[18]));
    let y = b.op("Gemm", &[flat, w, bias], vec![]);
    let onnx = b.model(&[5, 8, 6], &[(flat, 2), (y, 2)]);
    agrees(&onnx, &[5, 8, 6]);

    let mut b = Builder::default();
    let x = b.conv("x", [24, 5, 3, 1, 1], 1);
    let shape = [0_i64, -1].iter().flat_map(|d| d.to_le_bytes()).collect();
    b.constants
        .push(constant("shape", &[2], Datatype::Int64, shape));
    let flat = b.op("Reshape", &[x, "shape"], vec![]);
    let w = b.constant(&[24 * 20, 7]);
    let y = b.op("MatMul", &[flat, w], vec![]);
    let onnx = b.model(&[5, 5, 4], &[(y, 2)]);
    agrees(&onnx, &[5, 5, 4]);
}

#[test]
fn odd_windows_and_poolings_are_exact() {
    let mut b = Builder::default();
    let w = b.constant(&[16, 7, 2, 4]);
    let dilated = vec![
        ints("dilations", &[3, 2]),
        ints("pads", &[2, 0, 1, 4]),
        ints("strides", &[3, 2]),
    ];
    let x = b.op("Conv", &["x", w], dilated);
    let same = Attribute {
        name: "auto_pad",
        kind: Some(3),
        text: Some("SAME_UPPER"),
        ..Attribute::default()
    };
    let w = b.constant(&[16, 16, 3, 3]);
    let x = b.op(
        "Conv",
        &[x, w],
        vec![same, ints("strides", &[2, 2]), ints("dilations", &[1, 1])],
    );
    let pads = || {
        vec![
            ints("kernel_shape", &[3, 2]),
            ints("strides", &[1, 1]),
            ints("pads", &[1, 0, 2, 1]),
        ]
    };
    let mean = b.op("AveragePool", &[x], pads());
    let mut counted = pads();
    counted.push(int("count_include_pad", 1));
    let with_border = b.op("AveragePool", &[x], counted);
    let max = b.op("MaxPool", &[x], pads());
    let sum = b.op("Add", &[mean, max], vec![]);
    let sum = b.op("Add", &[sum, with_border], vec![]);
    let top = b.op("GlobalMaxPool", &[sum], vec![]);
    let onnx = b.model(&[7, 25, 19], &[(sum, 4), (top, 4)]);
    agrees(&onnx, &[7, 25, 19]);
}

#[test]
fn what_is_not_covered_is_named() {
    let refusal = |onnx: &[u8]| packed(EngineName::Conv, onnx).unwrap_err();
    let single = |op: &'static str, attributes: Vec<Attribute<'static>>| {
        let mut b = Builder::default();
        let x = b.conv("x", [16, 8, 3, 1, 1], 1);
        let y = b.op(op, &[x], attributes);
        refusal(&b.model(&[8, 9, 9], &[(y, 4)]))
    };
    assert!(single("Sigmoid", vec![]).contains("Sigmoid"));
    assert!(single("NoSuchOperator", vec![]).contains("NoSuchOperator"));
    assert!(single("Softmax", vec![]).contains("Softmax"));
    let rounded_up = vec![ints("kernel_shape", &[2, 2]), int("ceil_mode", 1)];
    assert!(single("MaxPool", rounded_up).contains("rounded up"));
    let mut b = Builder::default();
    let y = b.conv("x", [16, 4, 3, 1, 1], 2);
    assert!(refusal(&b.model(&[8, 9, 9], &[(y, 4)])).contains("groups"));
    let mut b = Builder::default();
    let y = b.conv("x", [16, 8, 3, 3, 1], 1);
    assert!(refusal(&b.model(&[8, 9, 9], &[(y, 4)])).contains("strides"));
    let mut b = Builder::default();
    let y = b.conv("x", [16, 8, 3, 1, 0], 1);
    assert!(refusal(&b.model(&[8, 2, 9], &[(y, 4)])).contains("larger than its image"));
    let mut b = Builder::default();
    let y = b.conv("x", [24, 8, 3, 1, 1], 1);
    let y = b.op("Concat", &[y, y], vec![int("axis", 1)]);
    assert!(refusal(&b.model(&[8, 9, 9], &[(y, 4)])).contains("broken blocks"));
}
