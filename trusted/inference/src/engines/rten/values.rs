//! Tensors of the protocol to rten's values and back, refusing every element that does not fit.

use protocol::tensor::TensorError;
use protocol::{Datatype, Tensor, TensorSpec};
use rten::{DataType, Value, ValueType};
use rten_tensor::prelude::*;

use crate::engine::RunError;

/// Whether tensors of this type may be inputs and outputs.
pub(super) const fn takes(datatype: Datatype) -> bool {
    match datatype {
        Datatype::Fp32
        | Datatype::Fp64
        | Datatype::Int64
        | Datatype::Int32
        | Datatype::Int8
        | Datatype::Uint8
        | Datatype::Bool => true,
        Datatype::Fp16
        | Datatype::Int16
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64 => false,
    }
}

/// Converts each `N`-byte element; the first that does not fit is an error naming the input.
fn convert<const N: usize, T>(
    tensor: &Tensor,
    range: &'static str,
    to: impl Fn([u8; N]) -> Option<T>,
) -> Result<Vec<T>, RunError> {
    let mut out = Vec::with_capacity(tensor.data().len() / N);
    for (index, bytes) in tensor.data().as_chunks::<N>().0.iter().enumerate() {
        out.push(to(*bytes).ok_or_else(|| RunError::Range {
            name: tensor.name().into(),
            index,
            datatype: tensor.datatype(),
            range,
        })?);
    }
    Ok(out)
}

/// The value that rten computes with.
pub(super) fn to_rten(tensor: &Tensor) -> Result<Value, RunError> {
    // INVARIANT: a tensor's shape and length agree, so neither step can fail.
    let misfit = || TensorError::TooLarge {
        name: tensor.name().into(),
        shape: tensor.shape().into(),
        datatype: tensor.datatype(),
    };
    let shape = tensor
        .shape()
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| misfit())?;
    let int32 = "32-bit integers";
    // Lossless but for f64, which is rounded to the nearest f32.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the meaning"
    )]
    let narrow = |b| {
        let (wide, v) = (f64::from_le_bytes(b), f64::from_le_bytes(b) as f32);
        (v.is_finite() || !wide.is_finite()).then_some(v)
    };
    macro_rules! value {
        ($data:expr) => {
            Value::from_shape(&shape[..], $data).map_err(|_| RunError::Input(misfit()))
        };
    }
    match tensor.datatype() {
        Datatype::Fp32 => value!(convert(tensor, "all", |b| Some(f32::from_le_bytes(b)))?),
        Datatype::Fp64 => value!(convert(tensor, "32-bit floats", narrow)?),
        Datatype::Int32 => value!(convert(tensor, "all", |b| Some(i32::from_le_bytes(b)))?),
        Datatype::Int64 => {
            value!(convert(tensor, int32, |b| i32::try_from(
                i64::from_le_bytes(b)
            )
            .ok())?)
        }
        Datatype::Bool => {
            value!(convert(tensor, "0 and 1", |[b]| (b <= 1).then(|| i32::from(b)))?)
        }
        Datatype::Int8 => value!(convert(tensor, "all", |[b]| Some(i8::from_ne_bytes([b])))?),
        Datatype::Uint8 => value!(convert(tensor, "all", |[b]| Some(b))?),
        // INVARIANT: `load` refuses models with these (`takes`).
        Datatype::Fp16
        | Datatype::Int16
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64 => Err(RunError::Range {
            name: tensor.name().into(),
            index: 0,
            datatype: tensor.datatype(),
            range: "none",
        }),
    }
}

fn rten_name(dtype: ValueType) -> String {
    match dtype {
        ValueType::Tensor(DataType::Float) => "a tensor of floats".into(),
        ValueType::Tensor(DataType::Int32) => "a tensor of 32-bit integers".into(),
        other => format!("{other:?}"),
    }
}

/// The tensor that the model's manifest promises as output `spec`.
pub(super) fn from_rten(spec: &TensorSpec, value: Value) -> Result<Tensor, RunError> {
    let shape: Vec<u64> = value.shape().iter().map(|d| *d as u64).collect();
    let refused = |got: String| RunError::Output {
        name: spec.name.clone(),
        expected: spec.to_string(),
        got,
    };
    if !spec.admits(&shape) {
        return Err(refused(format!("shape {shape:?}")));
    }
    let got = value.dtype();
    let data: Option<Vec<u8>> = match (spec.datatype, value) {
        (Datatype::Fp32, Value::FloatTensor(t)) => {
            Some(t.to_vec().iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        (Datatype::Fp64, Value::FloatTensor(t)) => Some(
            t.to_vec()
                .iter()
                .flat_map(|v| f64::from(*v).to_le_bytes())
                .collect(),
        ),
        (Datatype::Int32, Value::Int32Tensor(t)) => {
            Some(t.to_vec().iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        (Datatype::Int64, Value::Int32Tensor(t)) => Some(
            t.to_vec()
                .iter()
                .flat_map(|v| i64::from(*v).to_le_bytes())
                .collect(),
        ),
        (Datatype::Bool, Value::Int32Tensor(t)) => {
            Some(t.to_vec().iter().map(|v| u8::from(*v != 0)).collect())
        }
        (Datatype::Int8, Value::Int8Tensor(t)) => {
            Some(t.to_vec().iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        (Datatype::Uint8, Value::UInt8Tensor(t)) => Some(t.to_vec()),
        _ => None,
    };
    let data = data.ok_or_else(|| refused(rten_name(got)))?;
    Tensor::new(spec.name.clone(), spec.datatype, shape, data).map_err(|_| RunError::OutputSize {
        name: spec.name.clone(),
    })
}
