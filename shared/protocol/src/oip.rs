//! The plaintext inside an envelope: Open Inference Protocol v2 with the binary tensor extension.
//!
//! `u32 LE length of the JSON | JSON | tensor bytes in the order of the JSON`. The length takes the
//! place of the HTTP header `Inference-Header-Content-Length`. Each tensor says its share of the
//! bytes in `parameters.binary_data_size`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_code::WireError;
use crate::limits::{OIP_HEADER_MAX, PAYLOAD_MAX, TENSORS_MAX};
use crate::tensor::{Datatype, Tensor, TensorError, byte_len};

/// Why a payload is not an inference message.
#[derive(Debug, thiserror::Error)]
pub enum OipError {
    #[error("inference message is shorter than its header says")]
    Truncated,
    #[error("inference message has {0} bytes after the last tensor")]
    Trailing(usize),
    #[error("inference message is larger than the limit of {0} bytes")]
    TooLarge(usize),
    #[error("inference message has {0} tensors, at most {TENSORS_MAX} are allowed")]
    TooMany(usize),
    #[error("inference message header is not the JSON of the Open Inference Protocol")]
    Json(#[from] serde_json::Error),
    #[error("tensor '{0}' has neither binary_data_size nor data, or both")]
    NoData(String),
    #[error("tensor '{name}': element {index} does not fit {datatype}")]
    Element {
        name: String,
        index: usize,
        datatype: Datatype,
    },
    #[error("a tensor does not fit its own description")]
    Tensor(#[from] TensorError),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct TensorParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TensorHeader {
    name: String,
    shape: Vec<u64>,
    datatype: Datatype,
    #[serde(default)]
    parameters: TensorParameters,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RequestHeader {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    inputs: Vec<TensorHeader>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResponseHeader {
    model_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    outputs: Vec<TensorHeader>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorHeader {
    error: WireError,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ReplyHeader {
    Outputs(ResponseHeader),
    Error(ErrorHeader),
}

/// An opened inference request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    pub inputs: Vec<Tensor>,
}

/// An opened answer: outputs, or an error that only the user may read in full.
#[derive(Debug, Clone, PartialEq)]
pub enum InferReply {
    Outputs {
        model_name: String,
        model_version: String,
        outputs: Vec<Tensor>,
    },
    Error(WireError),
}

fn describe(tensors: &[Tensor]) -> Vec<TensorHeader> {
    tensors
        .iter()
        .map(|t| TensorHeader {
            name: t.name().into(),
            shape: t.shape().into(),
            datatype: t.datatype(),
            parameters: TensorParameters {
                binary_data_size: Some(t.data().len() as u64),
            },
            data: None,
        })
        .collect()
}

fn frame(header: &impl Serialize, tensors: &[Tensor]) -> Result<Vec<u8>, OipError> {
    let json = serde_json::to_vec(header)?;
    let header_len = u32::try_from(json.len())
        .ok()
        .filter(|n| *n as usize <= OIP_HEADER_MAX)
        .ok_or(OipError::TooLarge(OIP_HEADER_MAX))?;
    let body: usize = tensors.iter().map(|t| t.data().len()).sum();
    let mut out = Vec::with_capacity(4 + json.len() + body);
    out.extend_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&json);
    for tensor in tensors {
        out.extend_from_slice(tensor.data());
    }
    if out.len() > PAYLOAD_MAX {
        Err(OipError::TooLarge(PAYLOAD_MAX))
    } else {
        Ok(out)
    }
}

fn split(payload: &[u8]) -> Result<(&[u8], &[u8]), OipError> {
    if payload.len() > PAYLOAD_MAX {
        return Err(OipError::TooLarge(PAYLOAD_MAX));
    }
    let (len, rest) = payload
        .split_first_chunk::<4>()
        .ok_or(OipError::Truncated)?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > OIP_HEADER_MAX {
        return Err(OipError::TooLarge(OIP_HEADER_MAX));
    }
    rest.split_at_checked(len).ok_or(OipError::Truncated)
}

fn tensors(headers: Vec<TensorHeader>, mut bytes: &[u8]) -> Result<Vec<Tensor>, OipError> {
    if headers.len() > TENSORS_MAX {
        return Err(OipError::TooMany(headers.len()));
    }
    let mut tensors = Vec::with_capacity(headers.len());
    for header in headers {
        let data = match (header.parameters.binary_data_size, header.data) {
            (Some(size), None) => {
                let size = usize::try_from(size).map_err(|_| OipError::Truncated)?;
                let (data, rest) = bytes.split_at_checked(size).ok_or(OipError::Truncated)?;
                bytes = rest;
                data.to_vec()
            }
            (None, Some(json)) => elements(&header.name, header.datatype, &header.shape, &json)?,
            _ => return Err(OipError::NoData(header.name)),
        };
        tensors.push(Tensor::new(
            header.name,
            header.datatype,
            header.shape,
            data,
        )?);
    }
    if bytes.is_empty() {
        Ok(tensors)
    } else {
        Err(OipError::Trailing(bytes.len()))
    }
}

/// JSON `data`, flat or nested in row-major order, as little-endian bytes.
fn elements(
    name: &str,
    datatype: Datatype,
    shape: &[u64],
    json: &Value,
) -> Result<Vec<u8>, OipError> {
    fn walk<'v>(value: &'v Value, flat: &mut Vec<&'v Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, flat)),
            leaf => flat.push(leaf),
        }
    }
    let mut flat = Vec::new();
    walk(json, &mut flat);
    let mut out = Vec::with_capacity(byte_len(shape, datatype).unwrap_or(0).min(flat.len() * 8));
    for (index, value) in flat.into_iter().enumerate() {
        push_element(&mut out, datatype, value).ok_or_else(|| OipError::Element {
            name: name.into(),
            index,
            datatype,
        })?;
    }
    Ok(out)
}

fn push_element(out: &mut Vec<u8>, datatype: Datatype, value: &Value) -> Option<()> {
    macro_rules! int {
        ($as:ident, $ty:ty) => {
            out.extend_from_slice(&<$ty>::try_from(value.$as()?).ok()?.to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => out.push(u8::from(value.as_bool()?)),
        Datatype::Uint8 => int!(as_u64, u8),
        Datatype::Uint16 => int!(as_u64, u16),
        Datatype::Uint32 => int!(as_u64, u32),
        Datatype::Uint64 => int!(as_u64, u64),
        Datatype::Int8 => int!(as_i64, i8),
        Datatype::Int16 => int!(as_i64, i16),
        Datatype::Int32 => int!(as_i64, i32),
        Datatype::Int64 => int!(as_i64, i64),
        Datatype::Fp32 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the meaning"
            )]
            let v = value.as_f64()? as f32;
            out.extend_from_slice(&v.is_finite().then_some(v)?.to_le_bytes());
        }
        Datatype::Fp64 => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        // Half floats have no JSON form in the protocol.
        Datatype::Fp16 => return None,
    }
    Some(())
}

impl InferRequest {
    /// The payload that a client seals.
    pub fn encode(&self) -> Result<Vec<u8>, OipError> {
        frame(
            &RequestHeader {
                id: None,
                inputs: describe(&self.inputs),
            },
            &self.inputs,
        )
    }

    /// Reads an opened payload.
    pub fn decode(payload: &[u8]) -> Result<Self, OipError> {
        let (header, bytes) = split(payload)?;
        let header: RequestHeader = serde_json::from_slice(header)?;
        Ok(Self {
            inputs: tensors(header.inputs, bytes)?,
        })
    }

    /// Reads the plain JSON form (`{"inputs":[{name,shape,datatype,data}]}`), as people write it.
    pub fn from_json(json: &[u8]) -> Result<Self, OipError> {
        if json.len() > PAYLOAD_MAX {
            return Err(OipError::TooLarge(PAYLOAD_MAX));
        }
        let header: RequestHeader = serde_json::from_slice(json)?;
        Ok(Self {
            inputs: tensors(header.inputs, &[])?,
        })
    }
}

impl InferReply {
    /// The payload that SeMIRT seals.
    pub fn encode(&self) -> Result<Vec<u8>, OipError> {
        match self {
            Self::Outputs {
                model_name,
                model_version,
                outputs,
            } => {
                let header = ResponseHeader {
                    model_name: model_name.clone(),
                    model_version: Some(model_version.clone()),
                    outputs: describe(outputs),
                };
                frame(&header, outputs)
            }
            Self::Error(error) => frame(
                &ErrorHeader {
                    error: error.clone(),
                },
                &[],
            ),
        }
    }

    /// Reads an opened payload.
    pub fn decode(payload: &[u8]) -> Result<Self, OipError> {
        let (header, bytes) = split(payload)?;
        match serde_json::from_slice(header)? {
            ReplyHeader::Outputs(h) => Ok(Self::Outputs {
                model_name: h.model_name,
                model_version: h.model_version.unwrap_or_default(),
                outputs: tensors(h.outputs, bytes)?,
            }),
            ReplyHeader::Error(_) if !bytes.is_empty() => Err(OipError::Trailing(bytes.len())),
            ReplyHeader::Error(h) => Ok(Self::Error(h.error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn request() -> InferRequest {
        let a = Tensor::from_f32("a", vec![1, 3], &[1.0, -2.5, 3.0]).unwrap();
        let b = Tensor::new("b", Datatype::Int64, vec![2], vec![7; 16]).unwrap();
        InferRequest { inputs: vec![a, b] }
    }

    #[test]
    fn messages_round_trip() {
        let request = request();
        assert_eq!(
            InferRequest::decode(&request.encode().unwrap()).unwrap(),
            request
        );
        for reply in [
            InferReply::Outputs {
                model_name: "m".into(),
                model_version: "1".into(),
                outputs: request.inputs,
            },
            InferReply::Error(WireError::new(ErrorCode::InvalidTensor, "no")),
        ] {
            assert_eq!(InferReply::decode(&reply.encode().unwrap()).unwrap(), reply);
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_refused() {
        let whole = request().encode().unwrap();
        for n in 0..whole.len() {
            assert!(InferRequest::decode(&whole[..n]).is_err(), "cut at {n}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert!(matches!(
            InferRequest::decode(&longer),
            Err(OipError::Trailing(1))
        ));
    }

    #[test]
    fn a_header_length_beyond_the_limit_is_refused_before_reading() {
        let huge = [&u32::MAX.to_le_bytes()[..], b"{}"].concat();
        assert!(matches!(
            InferRequest::decode(&huge),
            Err(OipError::TooLarge(_))
        ));
    }

    #[test]
    fn json_data_flat_or_nested() {
        let nested =
            br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4.5]]}]}"#;
        let flat =
            br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4.5]}]}"#;
        let a = InferRequest::from_json(nested).unwrap();
        assert_eq!(a, InferRequest::from_json(flat).unwrap());
        assert_eq!(a.inputs[0].to_f32().unwrap(), [1.0, 2.0, 3.0, 4.5]);
        let bad = br#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[256]}]}"#;
        let text = InferRequest::from_json(bad).unwrap_err().to_string();
        assert_eq!(text, "tensor 'x': element 0 does not fit UINT8");
    }
}
