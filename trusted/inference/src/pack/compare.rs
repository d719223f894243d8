//! Whether an output is the expected one, and if not, where it differs most.

use protocol::{Datatype, Tensor};

/// How an output differs from what was expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    #[error("output '{name}': expected {expected}, got {got}")]
    Kind {
        name: String,
        expected: String,
        got: String,
    },
    #[error(
        "output '{name}': element {index} differs by {difference:e} of the largest expected \
         magnitude (expected {expected}, got {got}); tolerance is {tolerance:e}"
    )]
    Value {
        name: String,
        /// Row-major index of the element that differs most.
        index: usize,
        expected: f64,
        got: f64,
        /// Relative to the largest magnitude in the expected output.
        difference: f64,
        tolerance: f64,
    },
}

/// Elements as numbers; integers above 2^53 in magnitude are compared after rounding.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    macro_rules! each {
        ($n:literal, $ty:ty) => {
            tensor
                .data()
                .as_chunks::<$n>()
                .0
                .iter()
                .map(|c| f64::from(<$ty>::from_le_bytes(*c)))
                .collect()
        };
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "documented: rounded beyond 2^53"
    )]
    match tensor.datatype() {
        Datatype::Bool | Datatype::Uint8 => tensor.data().iter().map(|b| f64::from(*b)).collect(),
        Datatype::Int8 => each!(1, i8),
        Datatype::Uint16 | Datatype::Fp16 => each!(2, u16),
        Datatype::Int16 => each!(2, i16),
        Datatype::Uint32 => each!(4, u32),
        Datatype::Int32 => each!(4, i32),
        Datatype::Fp32 => each!(4, f32),
        Datatype::Fp64 => each!(8, f64),
        Datatype::Int64 => tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|c| i64::from_le_bytes(*c) as f64)
            .collect(),
        Datatype::Uint64 => tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|c| u64::from_le_bytes(*c) as f64)
            .collect(),
    }
}

/// The largest difference of an element, relative to the largest finite expected magnitude (to 1
/// when all expected elements are 0), and its index. NaN differs from everything but NaN; an
/// infinity from everything but itself.
#[must_use]
pub fn largest_difference(expected: &Tensor, got: &Tensor) -> (f64, usize) {
    let (want, have) = (numbers(expected), numbers(got));
    let scale = want
        .iter()
        .filter(|v| v.is_finite())
        .fold(0.0_f64, |m, v| m.max(v.abs()));
    let scale = if scale == 0.0 { 1.0 } else { scale };
    let difference = |(w, h): (&f64, &f64)| match (w.is_finite(), h.is_finite()) {
        (true, true) => (w - h).abs() / scale,
        _ if w == h || (w.is_nan() && h.is_nan()) => 0.0,
        _ => f64::INFINITY,
    };
    want.iter()
        .zip(&have)
        .map(difference)
        .enumerate()
        .fold(
            (0.0, 0),
            |most, (i, d)| if d > most.0 { (d, i) } else { most },
        )
}

/// Checks datatype, shape and every element of `got`. Integers and booleans must be equal; floats
/// may differ by `tolerance` times the largest expected magnitude.
pub fn compare(expected: &Tensor, got: &Tensor, tolerance: f32) -> Result<(), Mismatch> {
    let kind = |t: &Tensor| format!("{}{:?}", t.datatype(), t.shape());
    let name = || expected.name().to_owned();
    if expected.datatype() != got.datatype() || expected.shape() != got.shape() {
        return Err(Mismatch::Kind {
            name: name(),
            expected: kind(expected),
            got: kind(got),
        });
    }
    let is_float = matches!(expected.datatype(), Datatype::Fp32 | Datatype::Fp64);
    let tolerance = if is_float { f64::from(tolerance) } else { 0.0 };
    let (difference, index) = largest_difference(expected, got);
    // Written so that a tolerance of NaN refuses everything.
    if difference <= tolerance {
        return Ok(());
    }
    let at = |t: &Tensor| numbers(t).get(index).copied().unwrap_or(f64::NAN);
    let (expected, got, name) = (at(expected), at(got), name());
    Err(Mismatch::Value {
        name,
        index,
        expected,
        got,
        difference,
        tolerance,
    })
}
