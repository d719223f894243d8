//! Examples as people write them: plain JSON bodies of the Open Inference Protocol.

use protocol::Tensor;
use protocol::oip::{InferRequest, OipError};
use serde::Deserialize;
use serde_json::{Value, json};

/// The tensors of a request body, `{"inputs":[{name,shape,datatype,data}]}`.
pub fn inputs_from_json(body: &[u8]) -> Result<Vec<Tensor>, OipError> {
    Ok(InferRequest::from_json(body)?.inputs)
}

/// The tensors of an answer's body, `{"outputs":[{name,shape,datatype,data}]}`; other members are
/// skipped.
pub fn outputs_from_json(body: &[u8]) -> Result<Vec<Tensor>, OipError> {
    #[derive(Deserialize)]
    struct Answer {
        outputs: Value,
    }
    if body.len() > protocol::limits::PAYLOAD_MAX {
        return Err(OipError::TooLarge(protocol::limits::PAYLOAD_MAX));
    }
    let answer: Answer = serde_json::from_slice(body)?;
    // Outputs are written as inputs are, so one reader serves both.
    inputs_from_json(&serde_json::to_vec(&json!({ "inputs": answer.outputs }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bodies_hold_tensors() {
        let list = r#"[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.5,-2]}]"#;
        let inputs = inputs_from_json(format!(r#"{{"inputs":{list}}}"#).as_bytes()).unwrap();
        let answer = format!(r#"{{"outputs":{list},"truth":[1]}}"#);
        assert_eq!(outputs_from_json(answer.as_bytes()).unwrap(), inputs);
        assert_eq!(inputs[0].to_f32().unwrap(), [1.5, -2.0]);
        assert!(outputs_from_json(br#"{"inputs":[]}"#).is_err());
    }
}
