//! Inference messages: what decodes also encodes, and decodes again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::oip::{InferReply, InferRequest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = InferRequest::decode(bytes) {
        let again = InferRequest::decode(&request.encode().expect("encodes")).expect("decodes");
        assert_eq!(again, request);
    }
    if let Ok(reply) = InferReply::decode(bytes) {
        let again = InferReply::decode(&reply.encode().expect("encodes")).expect("decodes");
        assert_eq!(again, reply);
    }
    let _ = InferRequest::from_json(bytes);
});
