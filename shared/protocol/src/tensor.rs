//! Tensors in the words of the Open Inference Protocol v2: name, shape, datatype, row-major bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{PAYLOAD_MAX, RANK_MAX};

/// Element type, by its Open Inference Protocol name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
}

impl Datatype {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        })
    }
}

/// Why bytes are not a tensor, or not the tensor that a model wants. Names the tensor, what was
/// expected and what came, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("tensor '{name}': {rank} dimensions, at most {RANK_MAX} are allowed")]
    Rank { name: String, rank: usize },
    #[error("tensor '{name}': shape {shape:?} of {datatype} is larger than {PAYLOAD_MAX} bytes")]
    TooLarge {
        name: String,
        shape: Vec<u64>,
        datatype: Datatype,
    },
    #[error("tensor '{name}': shape {shape:?} of {datatype} is {expected} bytes, got {got}")]
    Length {
        name: String,
        shape: Vec<u64>,
        datatype: Datatype,
        expected: usize,
        got: usize,
    },
    #[error("input '{name}' is missing; the model takes {expected}")]
    Missing { name: String, expected: String },
    #[error("input '{name}' is not one of the model's; it takes {expected}")]
    Unknown { name: String, expected: String },
    #[error("input '{name}' is given twice")]
    Duplicate { name: String },
    #[error("input '{name}': expected datatype {expected}, got {got}")]
    Datatype {
        name: String,
        expected: Datatype,
        got: Datatype,
    },
    #[error("input '{name}': expected shape {expected}, got {got:?}")]
    Shape {
        name: String,
        expected: String,
        got: Vec<u64>,
    },
}

/// A dense tensor; `data` is row-major and little-endian, and its length fits shape and datatype.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    data: Vec<u8>,
}

/// Bytes that `shape` elements of `datatype` take; `None` past [`PAYLOAD_MAX`].
#[must_use]
pub fn byte_len(shape: &[u64], datatype: Datatype) -> Option<usize> {
    let elements = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d))?;
    let bytes = elements.checked_mul(datatype.size() as u64)?;
    usize::try_from(bytes).ok().filter(|&n| n <= PAYLOAD_MAX)
}

impl Tensor {
    /// Checks that the data is as long as shape and datatype say.
    pub fn new(
        name: impl Into<String>,
        datatype: Datatype,
        shape: Vec<u64>,
        data: Vec<u8>,
    ) -> Result<Self, TensorError> {
        let name = name.into();
        if shape.len() > RANK_MAX {
            return Err(TensorError::Rank {
                name,
                rank: shape.len(),
            });
        }
        let Some(expected) = byte_len(&shape, datatype) else {
            return Err(TensorError::TooLarge {
                name,
                shape,
                datatype,
            });
        };
        if expected != data.len() {
            return Err(TensorError::Length {
                name,
                shape,
                datatype,
                expected,
                got: data.len(),
            });
        }
        Ok(Self {
            name,
            datatype,
            shape,
            data,
        })
    }

    /// An FP32 tensor of `values`.
    pub fn from_f32(
        name: impl Into<String>,
        shape: Vec<u64>,
        values: &[f32],
    ) -> Result<Self, TensorError> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, Datatype::Fp32, shape, data)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub const fn datatype(&self) -> Datatype {
        self.datatype
    }

    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The elements when the datatype is FP32.
    #[must_use]
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.datatype == Datatype::Fp32).then(|| {
            self.data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|c| f32::from_le_bytes(*c))
                .collect()
        })
    }
}

/// Prints everything but the values, so that a tensor can stand in a log or a panic message.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({} {}{:?}, {} bytes)",
            self.name,
            self.datatype,
            self.shape,
            self.data.len()
        )
    }
}

/// What a model takes or gives; -1 in `shape` is a dimension that the caller chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether `shape` is one that this specification allows.
    #[must_use]
    pub fn admits(&self, shape: &[u64]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(want, got)| *want < 0 || u64::try_from(*want) == Ok(*got))
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}{}",
            self.name,
            self.datatype,
            shape_text(&self.shape)
        )
    }
}

/// `[-1, 30]` as `[any, 30]`.
fn shape_text(shape: &[i64]) -> String {
    let dims: Vec<_> = shape
        .iter()
        .map(|d| if *d < 0 { "any".into() } else { d.to_string() })
        .collect();
    format!("[{}]", dims.join(", "))
}

/// Checks that `inputs` are exactly what `specs` ask for, in any order.
pub fn check_inputs(specs: &[TensorSpec], inputs: &[Tensor]) -> Result<(), TensorError> {
    let takes = || {
        specs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (i, input) in inputs.iter().enumerate() {
        if inputs[..i].iter().any(|other| other.name == input.name) {
            return Err(TensorError::Duplicate {
                name: input.name.clone(),
            });
        }
        let Some(spec) = specs.iter().find(|s| s.name == input.name) else {
            return Err(TensorError::Unknown {
                name: input.name.clone(),
                expected: takes(),
            });
        };
        if spec.datatype != input.datatype {
            return Err(TensorError::Datatype {
                name: input.name.clone(),
                expected: spec.datatype,
                got: input.datatype,
            });
        }
        if !spec.admits(&input.shape) {
            return Err(TensorError::Shape {
                name: input.name.clone(),
                expected: shape_text(&spec.shape),
                got: input.shape.clone(),
            });
        }
    }
    match specs
        .iter()
        .find(|s| inputs.iter().all(|i| i.name != s.name))
    {
        Some(spec) => Err(TensorError::Missing {
            name: spec.name.clone(),
            expected: takes(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Vec<TensorSpec> {
        vec![TensorSpec {
            name: "x".into(),
            datatype: Datatype::Fp32,
            shape: vec![-1, 2],
        }]
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        assert!(Tensor::new("x", Datatype::Fp32, vec![2], vec![0; 8]).is_ok());
        assert!(Tensor::new("x", Datatype::Fp32, vec![2], vec![0; 7]).is_err());
        assert!(Tensor::new("x", Datatype::Fp32, vec![u64::MAX, 2], vec![]).is_err());
        assert!(Tensor::new("x", Datatype::Uint8, vec![1; 9], vec![0]).is_err());
    }

    #[test]
    fn inputs_are_named_in_the_refusal() {
        let ok = Tensor::from_f32("x", vec![3, 2], &[0.0; 6]).unwrap();
        assert_eq!(check_inputs(&spec(), std::slice::from_ref(&ok)), Ok(()));
        let wrong = Tensor::from_f32("x", vec![2, 3], &[0.0; 6]).unwrap();
        let text = check_inputs(&spec(), &[wrong]).unwrap_err().to_string();
        assert_eq!(text, "input 'x': expected shape [any, 2], got [2, 3]");
        assert!(matches!(
            check_inputs(&spec(), &[]),
            Err(TensorError::Missing { .. })
        ));
        let other = Tensor::from_f32("y", vec![1, 2], &[0.0; 2]).unwrap();
        assert!(matches!(
            check_inputs(&spec(), &[other]),
            Err(TensorError::Unknown { .. })
        ));
        let twice = [ok.clone(), ok];
        assert!(matches!(
            check_inputs(&spec(), &twice),
            Err(TensorError::Duplicate { .. })
        ));
    }

    #[test]
    fn debug_never_prints_a_value() {
        let t = Tensor::from_f32("x", vec![1], &[17.99]).unwrap();
        assert_eq!(format!("{t:?}"), "Tensor(x FP32[1], 4 bytes)");
    }
}
