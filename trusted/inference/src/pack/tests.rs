//! Packing keeps what a model computes, and refuses what it cannot keep.

use std::error::Error;

use proptest::prelude::*;
use protocol::Datatype;

use super::*;
use crate::example::{inputs_from_json, outputs_from_json};
use crate::onnx::schema::{Dim, Graph, Model as Onnx};
use crate::testing::graphs::{self, decl, dense, dense_example, file, floats, node};

fn text(error: &dyn Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |s| format!("{error}: {}", text(s)))
}

fn refusal(onnx: &[u8]) -> String {
    text(&pack(onnx, Check::AllowUnchecked).unwrap_err())
}

fn checked(onnx: &[u8], tolerance: f32, change: f32) -> Result<Package, PackError> {
    let (input, expected) = dense_example(3).unwrap();
    let mut values = expected.to_f32().unwrap();
    values[10] += change;
    let expected = Tensor::from_f32("y", expected.shape().into(), &values).unwrap();
    let (inputs, expected) = (&[input][..], &[expected][..]);
    pack(
        onnx,
        Check::Example {
            inputs,
            expected,
            tolerance,
        },
    )
}

#[test]
fn weights_move_out_aligned_and_the_graph_gets_small() {
    let onnx = dense();
    let package = checked(&onnx, 1e-6, 0.0).unwrap();
    // 16 x 9 floats leave; the bias of 9 floats is too small to.
    assert_eq!(package.weights.len(), 16 * 9 * 4);
    assert_eq!(package.manifest.weights_name.as_deref(), Some(WEIGHTS_NAME));
    assert!(package.graph.len() + 400 < onnx.len());
    assert_eq!(package.manifest.inputs[0].shape, [-1, 16]);
    let example = package.manifest.example.as_ref().unwrap();
    let request = BASE64.decode(&example.request).unwrap();
    assert_eq!(
        InferRequest::decode(&request).unwrap().inputs,
        [dense_example(3).unwrap().0]
    );
}

#[test]
fn a_wrong_answer_is_refused_with_its_place_and_size() {
    let error = checked(&dense(), 1e-4, 0.5).unwrap_err();
    let PackError::Mismatch {
        source: Mismatch::Value {
            index, difference, ..
        },
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(*index, 10);
    assert!(*difference > 1e-3, "{difference}");
    assert!(
        text(&error).contains("output 'y': element 10 differs"),
        "{}",
        text(&error)
    );
    // The same difference passes when the owner says that it may be so large.
    assert!(checked(&dense(), 1.0, 0.5).is_ok());
    assert!(checked(&dense(), f32::NAN, 0.0).is_err());
}

#[test]
fn the_committed_models_pack_with_their_examples() {
    for name in ["breast-cancer", "digits"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../models")
            .join(name);
        let read = |file| std::fs::read(folder.join(file)).unwrap();
        let inputs = inputs_from_json(&read("inputs.json")).unwrap();
        let expected = outputs_from_json(&read("expected.json")).unwrap();
        let example = Check::Example {
            inputs: &inputs,
            expected: &expected,
            tolerance: 1e-5,
        };
        let package = pack(&read("model.onnx"), example).unwrap();
        assert!(
            inputs[0].shape()[0] >= 8,
            "{name} has an example of at least 8 rows"
        );
        assert!(!package.weights.is_empty(), "{name}");
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let any = [Dim::Symbol("n")];
    let relu = |inputs: &[&'static str]| Graph {
        nodes: vec![node("Relu", inputs, &["y"])],
        inputs: vec![decl("x", Datatype::Fp32, &any)],
        outputs: vec![decl("y", Datatype::Fp32, &any)],
        ..Graph::default()
    };
    let onnx = "reading the ONNX model: ";
    let undefined = refusal(&file(relu(&["ghost"])));
    assert_eq!(
        undefined,
        format!("{onnx}operator Relu '' uses 'ghost', which nothing before it defines")
    );

    let mut graph = relu(&["x"]);
    graph.initializers.push(floats("w", &[3], &[1.0, 2.0]));
    let length = refusal(&file(graph));
    assert_eq!(
        length,
        format!("{onnx}tensor 'w': shape [3] of FP32 is 12 bytes, got 8")
    );

    let mut graph = relu(&["x"]);
    graph
        .initializers
        .push(floats("w", &[u64::MAX / 2, 3], &[]));
    assert!(refusal(&file(graph)).contains("tensor 'w': shape ["));

    let mut graph = relu(&["x"]);
    graph.nodes.push(node("Relu", &["x"], &["y"]));
    assert_eq!(
        refusal(&file(graph)),
        format!("{onnx}value 'y' is defined twice")
    );

    let mut graph = relu(&["x"]);
    graph.outputs.push(decl("z", Datatype::Fp32, &any));
    assert_eq!(
        refusal(&file(graph)),
        format!("{onnx}graph output 'z' is not defined")
    );

    let mut graph = relu(&["x"]);
    graph.inputs[0].element = Some(8);
    let strings = refusal(&file(graph));
    assert_eq!(
        strings,
        format!("{onnx}graph input 'x': is not a tensor of a supported data type")
    );

    let unknown = refusal(&graphs::unknown_operator());
    assert!(unknown.contains("NoSuchOperator"), "{unknown}");
    let huge = refusal(&graphs::huge_from_nothing());
    assert!(
        huge.contains("operator ConstantOfShape '' makes a tensor of shape"),
        "{huge}"
    );
    assert!(pack(&graphs::nested(4), Check::AllowUnchecked).is_ok());
    let deep = refusal(&graphs::nested(9));
    assert_eq!(deep, format!("{onnx}model has more than 8 nested graphs"));
    assert_eq!(refusal(&[]), format!("{onnx}model: field 1 is missing"));
    assert!(refusal(b"GIF89a").starts_with(onnx));
}

#[test]
fn external_files_are_brought_in_and_checked() {
    let inline = dense();
    let limits = LoadLimits::default();
    let mut model = Onnx::parse(&inline, &limits).unwrap();
    let TensorBytes::Inline(w) = model.graph.initializers[0].bytes.clone() else {
        panic!()
    };
    let blob = [&[9; 8][..], &w].concat();
    let mut outside = |offset, length| {
        let location = "big.bin".into();
        model.graph.initializers[0].bytes = TensorBytes::External {
            location,
            offset,
            length,
        };
        model.encode()
    };
    let files: BTreeMap<&str, &[u8]> = [("big.bin", blob.as_slice())].into();
    let packed = pack_with_external(&outside(8, None), &files, Check::AllowUnchecked).unwrap();
    let same = pack(&inline, Check::AllowUnchecked).unwrap();
    assert_eq!((packed.graph, packed.weights), (same.graph, same.weights));
    let missing = refusal(&outside(8, None));
    assert!(missing.contains("tensor 'w': external data is in 'big.bin', which was not given"));
    for (offset, length) in [
        (9, None),
        (8, Some(1)),
        (u64::MAX, None),
        (u64::MAX, Some(576)),
    ] {
        let onnx = outside(offset, length);
        assert!(pack_with_external(&onnx, &files, Check::AllowUnchecked).is_err());
    }
}

#[test]
fn infinities_and_nans_compare_as_themselves() {
    let t = |values: &[f32]| Tensor::from_f32("y", vec![values.len() as u64], values).unwrap();
    let odd = t(&[f32::NAN, f32::INFINITY, 1.0]);
    assert_eq!(compare(&odd, &odd, 0.0), Ok(()));
    assert!(compare(&odd, &t(&[0.0, f32::INFINITY, 1.0]), 1e9).is_err());
    assert!(compare(&odd, &t(&[f32::NAN, f32::NEG_INFINITY, 1.0]), 1e9).is_err());
    assert!(compare(&t(&[1.0]), &t(&[f32::NAN]), 1e9).is_err());
    assert!(compare(&t(&[1.0]), &t(&[1.0, 1.0]), 1e9).is_err());
    let int = |v: i64| Tensor::new("y", Datatype::Int64, vec![1], v.to_le_bytes().into()).unwrap();
    assert!(
        compare(&int(100), &int(101), 1.0).is_err(),
        "integers must be equal"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        prop_assert!(pack(&bytes, Check::AllowUnchecked).is_err());
    }

    #[test]
    fn what_parses_encodes_to_the_same(index: prop::sample::Index, change: u8) {
        let mut bytes = dense();
        let index = index.index(bytes.len());
        bytes[index] ^= change;
        let limits = LoadLimits::default();
        if let Ok(model) = Onnx::parse(&bytes, &limits) {
            let again = model.encode();
            // Compared as text, since a NaN differs from itself.
            let reread = Onnx::parse(&again, &limits).unwrap();
            prop_assert_eq!(format!("{reread:?}"), format!("{model:?}"));
        }
    }
}
