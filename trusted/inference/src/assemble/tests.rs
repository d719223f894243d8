//! Packages in pieces, and every way in which they can be wrong.

use std::io::Read;

use proptest::prelude::*;
use protocol::limits::PACKAGE_MAX;

use super::*;
use crate::pack::{Check, Package, pack};
use crate::testing::graphs;

fn package() -> (Package, Vec<u8>) {
    let package = pack(&graphs::dense(), Check::AllowUnchecked).unwrap();
    let mut bytes = Vec::new();
    package.reader().unwrap().read_to_end(&mut bytes).unwrap();
    (package, bytes)
}

type Assembled = Result<(Manifest, Vec<u8>, Blob), AssembleError>;

fn assemble<'a>(len: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> Assembled {
    let mut assembler = PackageAssembler::new(len, PACKAGE_MAX)?;
    for piece in pieces {
        assembler.push(piece)?;
    }
    assembler.finish()
}

fn whole(bytes: &[u8]) -> Assembled {
    assemble(bytes.len() as u64, [bytes])
}

#[test]
fn what_was_packed_comes_out_whatever_the_pieces() {
    let (package, bytes) = package();
    assert!(!package.weights.is_empty());
    for size in [1, 7, 63, 64, 65, 1000, bytes.len()] {
        let (manifest, graph, weights) = assemble(bytes.len() as u64, bytes.chunks(size)).unwrap();
        assert_eq!(manifest, package.manifest, "pieces of {size}");
        assert_eq!(graph, package.graph, "pieces of {size}");
        assert_eq!(*weights, *package.weights, "pieces of {size}");
    }
}

#[test]
fn parts_are_allocated_once() {
    let (_, bytes) = package();
    let (_, graph, weights) = assemble(bytes.len() as u64, bytes.chunks(11)).unwrap();
    assert_eq!(graph.capacity(), graph.len());
    let weights = weights.into_vec();
    assert_eq!(weights.capacity(), weights.len());
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let (_, bytes) = package();
    for len in 0..bytes.len() {
        let said_whole = assemble(bytes.len() as u64, [&bytes[..len]]);
        assert!(said_whole.is_err(), "cut at {len}");
        assert!(whole(&bytes[..len]).is_err(), "cut at {len}, and said so");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(
        whole(&longer),
        Err(AssembleError::Package(PackageError::Trailing))
    ));
    assert!(assemble(bytes.len() as u64, [longer.as_slice()]).is_err());
}

#[test]
fn bytes_between_the_parts_must_be_zero() {
    let (package, bytes) = package();
    let after_graph = package.manifest.head().unwrap().len() + package.graph.len();
    assert_eq!(bytes[after_graph], 0);
    let mut changed = bytes;
    changed[after_graph] = 1;
    assert!(matches!(whole(&changed), Err(AssembleError::Padding)));
}

#[test]
fn sizes_are_refused_before_anything_is_allocated() {
    let said = PackageAssembler::new(1001, 1000);
    assert!(matches!(
        said,
        Err(AssembleError::TooLarge {
            said: 1001,
            max: 1000
        })
    ));
    // A manifest that claims a petabyte inside a package of the right small length.
    let (mut package, _) = package();
    package.manifest.weights_len = 1 << 50;
    let head = package.manifest.head().unwrap();
    assert!(whole(&head).is_err());
    let prefix = [&protocol::package::MAGIC[..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(
        whole(&prefix),
        Err(AssembleError::Package(PackageError::TooLarge))
    ));
}

proptest! {
    #[test]
    fn a_changed_byte_never_panics(index: prop::sample::Index, change in 1..=255_u8) {
        let (_, mut bytes) = package();
        let index = index.index(bytes.len());
        bytes[index] ^= change;
        drop(whole(&bytes));
    }

    #[test]
    fn any_bytes_end_in_an_error(bytes: Vec<u8>) {
        prop_assert!(whole(&bytes).is_err());
    }
}
