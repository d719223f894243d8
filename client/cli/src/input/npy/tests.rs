//! `.npy` tests: what NumPy writes is read, everything else is refused without a panic.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

/// A file with this header text and `elements`.
fn file(header: &str, elements: &[u8]) -> Vec<u8> {
    let len = u16::try_from(header.len()).unwrap().to_le_bytes();
    [MAGIC, &[1, 0][..], &len, header.as_bytes(), elements].concat()
}

#[test]
fn what_numpy_writes_is_read() {
    // numpy.save of arange(3, dtype='<f4'), byte for byte (NumPy 2.1).
    let header = format!(
        "{:<117}\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"
    );
    let elements: Vec<u8> = [0.0_f32, 1.0, 2.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let tensor = read("x", &file(&header, &elements)).unwrap();
    assert_eq!(tensor.shape(), [3]);
    assert_eq!(tensor.to_f32().unwrap(), [0.0, 1.0, 2.0]);
    assert_eq!(tensor.name(), "x");

    let version2 = {
        let len = u32::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[2, 0][..], &len, header.as_bytes(), &elements].concat()
    };
    assert_eq!(read("x", &version2).unwrap(), tensor);

    for (header, shape) in [
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
            vec![],
        ),
        (
            "{\"shape\":(1,1),\"descr\":\"|u1\",\"fortran_order\":False}",
            vec![1, 1],
        ),
    ] {
        assert_eq!(read("x", &file(header, &[7])).unwrap().shape(), shape);
    }
    let empty = "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 5), }";
    assert_eq!(read("x", &file(empty, &[])).unwrap().shape(), [0, 5]);
}

#[test]
fn each_lie_has_its_own_refusal() {
    let good = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }";
    assert!(read("x", &file(good, &[1, 2])).is_ok());
    let header_error = |header: &str| read("x", &file(header, &[1, 2])).unwrap_err();

    assert_eq!(read("x", b"").unwrap_err(), NpyError::Magic);
    assert_eq!(read("x", b"PK\x03\x04....").unwrap_err(), NpyError::Magic);
    assert_eq!(
        read("x", b"\x93NUMPY\x03\x00").unwrap_err(),
        NpyError::Version(3, 0)
    );
    assert_eq!(
        read("x", b"\x93NUMPY\x01\x01").unwrap_err(),
        NpyError::Version(1, 1)
    );
    assert_eq!(
        read("x", b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap_err(),
        NpyError::HeaderTooLong
    );
    assert_eq!(
        header_error("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}"),
        NpyError::BigEndian(">f4".into())
    );
    assert_eq!(
        header_error("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"),
        NpyError::Descr("|O".into())
    );
    assert_eq!(
        header_error("{'descr': '|u1', 'fortran_order': True, 'shape': (2,)}"),
        NpyError::FortranOrder
    );
    assert_eq!(
        header_error("{'descr': '|u1', 'shape': (2,)}"),
        NpyError::Lacks("fortran_order")
    );
    assert_eq!(
        header_error("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (2,)}"),
        NpyError::Twice("descr")
    );
    for elements in [&[1][..], &[1, 2, 3]] {
        let error = read("x", &file(good, elements)).unwrap_err();
        assert!(matches!(
            error,
            NpyError::Tensor(TensorError::Length { expected: 2, .. })
        ));
    }
    let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615, 2), }";
    assert!(matches!(
        read("x", &file(huge, &[])).unwrap_err(),
        NpyError::Tensor(TensorError::TooLarge { .. })
    ));
}

#[test]
fn headers_that_are_almost_right_are_malformed() {
    for bad in [
        "",
        "{",
        "}",
        "{}x",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2L,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), 'extra': 1}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), } ; import os",
        "{'descr': '|u1', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1' 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u\\x31', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2)}",
        "{'descr': '|u1\", 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}",
    ] {
        let error = read("x", &file(bad, &[1, 2])).unwrap_err();
        assert!(matches!(error, NpyError::Header(_)), "{bad}: {error:?}");
    }
}

#[test]
fn written_files_end_their_header_at_a_multiple_of_64() {
    let tensor = Tensor::from_f32("x", vec![1, 3], &[1.0, 2.0, 3.0]).unwrap();
    let bytes = write(&tensor);
    assert_eq!((bytes.len() - tensor.data().len()) % 64, 0);
    assert!(bytes.windows(14).any(|w| w == b"'shape': (1, 3"));
    let one = write(&Tensor::new("x", Datatype::Int8, vec![2], vec![0; 2]).unwrap());
    assert!(one.windows(13).any(|w| w == b"'shape': (2,)"));
}

proptest! {
    #[test]
    fn written_tensors_are_read_back(
        shape in prop::collection::vec(0_u64..5, 0..=RANK_MAX.min(4)),
        kind in 0..DESCRS.len(),
        seed in any::<u8>(),
    ) {
        let datatype = DESCRS[kind].1;
        let len = byte_len(&shape, datatype).unwrap();
        let tensor = Tensor::new("t", datatype, shape, vec![seed; len]).unwrap();
        prop_assert_eq!(read("t", &write(&tensor)).unwrap(), tensor);
    }

    #[test]
    fn no_cut_and_no_extra_byte_is_read(cut in 0_usize..140, extra in any::<u8>()) {
        let whole = write(&Tensor::new("t", Datatype::Uint8, vec![3, 4], vec![9; 12]).unwrap());
        let cut = cut.min(whole.len() - 1);
        prop_assert!(read("t", &whole[..cut]).is_err());
        prop_assert!(read("t", &[whole.as_slice(), &[extra]].concat()).is_err());
    }

    #[test]
    fn any_bytes_end_in_a_result(
        header in prop::collection::vec(any::<u8>(), 0..200),
        flip in any::<usize>(),
        value in any::<u8>(),
    ) {
        let len = u16::try_from(header.len()).unwrap().to_le_bytes();
        let _ended = read("t", &[MAGIC, &[1, 0][..], &len, &header].concat()).is_ok();
        let mut whole = write(&Tensor::new("t", Datatype::Uint8, vec![3], vec![9; 3]).unwrap());
        let at = flip % whole.len();
        whole[at] = value;
        if let Ok(tensor) = read("t", &whole) {
            prop_assert_eq!(tensor.data().len(), 3);
        }
    }
}
