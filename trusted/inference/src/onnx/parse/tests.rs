//! Typed fields, strictness, and what the bounds stop.

use protocol::Datatype;

use super::super::schema::{TensorBytes, TensorFault, code_of};
use super::super::wire::{put_bytes, put_int, put_varint};
use super::*;
use crate::testing::graphs;

/// A file with one constant, whose message is `tensor`.
fn with_constant(tensor: &[u8]) -> Vec<u8> {
    let (mut graph, mut file) = (Vec::new(), Vec::new());
    put_bytes(&mut graph, 5, tensor);
    put_int(&mut file, 1, 8);
    put_bytes(&mut file, 7, &graph);
    put_bytes(&mut file, 8, &[0x10, 13]);
    file
}

fn constant_of(tensor: &[u8]) -> Result<(Datatype, Vec<u8>), OnnxError> {
    let file = with_constant(tensor);
    let model = Model::parse(&file, &LoadLimits::default())?;
    let TensorProto {
        datatype, bytes, ..
    } = &model.graph.initializers[0];
    match bytes {
        TensorBytes::Inline(bytes) => Ok((*datatype, bytes.to_vec())),
        TensorBytes::External { .. } => Ok((*datatype, vec![])),
    }
}

fn header(count: i64, datatype: Datatype) -> Vec<u8> {
    let mut tensor = Vec::new();
    put_int(&mut tensor, 1, count);
    put_int(&mut tensor, 2, code_of(datatype));
    tensor
}

#[test]
fn typed_integer_fields_become_elements_packed_or_not() {
    for (datatype, field, expected) in [
        (
            Datatype::Int64,
            7,
            [1_i64.to_le_bytes(), (-2_i64).to_le_bytes()].concat(),
        ),
        (
            Datatype::Int32,
            5,
            [1_i32.to_le_bytes(), (-2_i32).to_le_bytes()].concat(),
        ),
        (
            Datatype::Int16,
            5,
            [1_i16.to_le_bytes(), (-2_i16).to_le_bytes()].concat(),
        ),
        (Datatype::Int8, 5, vec![1, 0xfe]),
    ] {
        let mut packed = Vec::new();
        put_varint(&mut packed, 1);
        put_varint(&mut packed, u64::MAX - 1);
        let mut tensor = header(2, datatype);
        put_bytes(&mut tensor, field, &packed);
        assert_eq!(constant_of(&tensor), Ok((datatype, expected.clone())));
        let mut tensor = header(2, datatype);
        put_int(&mut tensor, field, 1);
        put_int(&mut tensor, field, -2);
        assert_eq!(constant_of(&tensor), Ok((datatype, expected)));
    }
}

#[test]
fn typed_floats_may_come_in_several_pieces() {
    let mut tensor = header(3, Datatype::Fp32);
    put_bytes(
        &mut tensor,
        4,
        &[1.5_f32.to_le_bytes(), 2.5_f32.to_le_bytes()].concat(),
    );
    put_bytes(&mut tensor, 4, &3.5_f32.to_le_bytes());
    let expected: Vec<u8> = [1.5_f32, 2.5, 3.5]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(constant_of(&tensor), Ok((Datatype::Fp32, expected)));
}

#[test]
fn data_that_is_not_the_tensors_is_refused() {
    let fault = |tensor: &[u8]| match constant_of(tensor) {
        Err(OnnxError::Tensor { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    let mut other_field = header(1, Datatype::Fp32);
    put_int(&mut other_field, 7, 1);
    assert_eq!(fault(&other_field), TensorFault::OtherField);

    let mut two_fields = header(1, Datatype::Int64);
    put_int(&mut two_fields, 7, 1);
    put_bytes(&mut two_fields, 9, &[0; 8]);
    assert_eq!(fault(&two_fields), TensorFault::OtherField);

    let mut too_wide = header(1, Datatype::Uint8);
    put_int(&mut too_wide, 5, 256);
    let datatype = Datatype::Uint8;
    assert_eq!(
        fault(&too_wide),
        TensorFault::Element { index: 0, datatype }
    );

    let mut short = header(2, Datatype::Uint8);
    put_bytes(&mut short, 9, &[1]);
    assert!(matches!(
        fault(&short),
        TensorFault::Length {
            expected: 2,
            got: 1,
            ..
        }
    ));

    assert_eq!(
        fault(&header(-1, Datatype::Uint8)),
        TensorFault::NegativeDimension
    );
    let mut deep = Vec::new();
    (0..9).for_each(|_| put_int(&mut deep, 1, 1));
    assert_eq!(fault(&deep), TensorFault::Rank(9));
    let mut huge = header(i64::MAX, Datatype::Fp32);
    put_int(&mut huge, 1, i64::MAX);
    assert!(matches!(fault(&huge), TensorFault::TooLarge { .. }));
    let mut strings = Vec::new();
    put_int(&mut strings, 2, 8);
    assert_eq!(fault(&strings), TensorFault::Datatype(8));
}

#[test]
fn a_field_that_occurs_twice_is_refused() {
    let mut twice = header(1, Datatype::Uint8);
    put_int(&mut twice, 2, code_of(Datatype::Int8));
    let within = "tensor";
    assert_eq!(
        constant_of(&twice),
        Err(OnnxError::Twice { within, field: 2 })
    );
    let mut file = graphs::dense();
    put_int(&mut file, 1, 8);
    let again = Model::parse(&file, &LoadLimits::default());
    assert_eq!(
        again,
        Err(OnnxError::Twice {
            within: "model",
            field: 1
        })
    );
}

#[test]
fn unknown_fields_are_skipped_but_count() {
    let mut file = graphs::dense();
    let plain = Model::parse(&file, &LoadLimits::default())
        .unwrap()
        .encode();
    (0..1000).for_each(|i| put_bytes(&mut file, 100, &[i.try_into().unwrap_or(0)]));
    let skipped = Model::parse(&file, &LoadLimits::default())
        .unwrap()
        .encode();
    assert_eq!(skipped, plain);
    let few = LoadLimits {
        fields: 500,
        ..LoadLimits::default()
    };
    let refused = Model::parse(&file, &few);
    assert_eq!(
        refused,
        Err(OnnxError::Limit {
            what: "fields",
            max: 500
        })
    );
}

#[test]
fn hostile_names_are_cut_and_escaped_in_messages() {
    assert_eq!(shown("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
    assert_eq!(shown(&"x".repeat(100_000)).chars().count(), 65);
}
