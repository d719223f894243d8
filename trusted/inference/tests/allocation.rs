//! After its first run a session of our own engine allocates its answer and nothing else.

#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use inference::engine::{Engine, LoadLimits};
use inference::engines::conv::ConvEngine;
use inference::onnx::Model;
use inference::onnx::schema::{Attribute, Dim, Graph, Node, TensorBytes, TensorProto, ValueDecl};
use inference::pack::{Check, pack_for};
use protocol::package::EngineName;
use protocol::{Datatype, Tensor};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn floats(name: &str, dims: [u64; 4]) -> TensorProto<'_> {
    let count = usize::try_from(dims.iter().product::<u64>()).unwrap();
    TensorProto {
        name,
        dims: dims.into(),
        datatype: Datatype::Fp32,
        bytes: TensorBytes::Inline(vec![0; count * 4].into()),
    }
}

/// `layers` 3x3 convolutions of 16 channels, each with a ReLU and a residual.
fn model(layers: usize) -> Vec<u8> {
    let names: Vec<_> = (0..3 * layers + 1).map(|i| format!("v{i}")).collect();
    let mut nodes = Vec::new();
    for layer in 0..layers {
        let [x, y, z, next] = [0, 1, 2, 3].map(|i| names[3 * layer + i].as_str());
        let pads = Attribute {
            name: "pads",
            kind: Some(7),
            ints: vec![1; 4],
            ..Attribute::default()
        };
        nodes.push(Node {
            inputs: vec![x, "w"],
            outputs: vec![y],
            attributes: vec![pads],
            op_type: "Conv",
            ..Node::default()
        });
        nodes.push(Node {
            inputs: vec![y],
            outputs: vec![z],
            op_type: "Relu",
            ..Node::default()
        });
        nodes.push(Node {
            inputs: vec![z, x],
            outputs: vec![next],
            op_type: "Add",
            ..Node::default()
        });
    }
    let shape = [
        Dim::Symbol("n"),
        Dim::Fixed(16),
        Dim::Fixed(8),
        Dim::Fixed(8),
    ];
    let decl = |name| ValueDecl {
        name,
        element: Some(1),
        shape: Some(shape.into()),
    };
    let graph = Graph {
        nodes,
        initializers: vec![floats("w", [16, 16, 3, 3])],
        inputs: vec![decl("v0")],
        outputs: vec![decl(names[3 * layers].as_str())],
        values: vec![],
    };
    Model {
        ir_version: 8,
        opsets: vec![("", 13)],
        graph,
    }
    .encode()
}

/// Allocations and bytes of one run after the first.
fn cost(layers: usize, threads: usize) -> (usize, usize) {
    let package = pack_for(&model(layers), EngineName::Conv, Check::AllowUnchecked).unwrap();
    let engine = ConvEngine::per_session(NonZeroUsize::new(threads).unwrap());
    let (manifest, limits) = (&package.manifest, LoadLimits::default());
    let model = engine.load(manifest, package.graph, package.weights.into(), &limits);
    let mut session = model.unwrap().session().unwrap();
    let x = [Tensor::from_f32("v0", vec![1, 16, 8, 8], &[1.0; 1024]).unwrap()];
    drop(session.run(&x).unwrap());
    let before = (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let answer = session.run(&x).unwrap();
    let after = (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    assert_eq!(answer[0].data().len(), 4096);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_run_allocates_its_answer_only() {
    for threads in [1, 2] {
        let (calls, bytes) = cost(1, threads);
        // The list of outputs, its bytes, name and shape, and the list of tensors.
        assert!(
            calls <= 6 && bytes < 4096 + 512,
            "{calls} allocations, {bytes} bytes"
        );
        let (more, longer) = cost(20, threads);
        assert_eq!(more, calls, "deeper models allocate more often");
        // But for a letter of the output's name.
        assert!(longer.abs_diff(bytes) <= 2, "deeper models allocate more");
    }
}
