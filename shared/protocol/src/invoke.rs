//! A sealed request and its sealed answer, as they cross the untrusted side.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error_code::WireError;
use crate::id::{Digest, EnclaveId, InstanceId, ModelId, PrincipalId, RequestId};

/// How long a caller of FnPacker's `POST /v1/infer` waits, in milliseconds, as an HTTP header. Without
/// it FnPacker's own patience counts, and a caller that waits longer would ask twice.
pub const TIMEOUT_HEADER: &str = "x-sesemi-timeout-ms";

/// `serde` form of bytes in JSON: standard base64 with padding.
pub mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)
    }
}

/// A request on its way to SeMIRT: ids in the clear, for routing, and the ciphertext that is bound
/// to every one of them. FnPacker's `POST /v1/infer` and SeMIRT's `/run` value have this form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRequest {
    pub user: PrincipalId,
    pub model: ModelId,
    /// E_S of the instances that may open it.
    pub enclave: EnclaveId,
    pub request_id: RequestId,
    /// `COSE_Encrypt`, base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
}

/// A [`SealedRequest`] as it may be submitted: with its ciphertext, or with the place of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmittedRequest {
    pub user: PrincipalId,
    pub model: ModelId,
    pub enclave: EnclaveId,
    pub request_id: RequestId,
    pub ciphertext: Ciphertext,
}

/// A request's `COSE_Encrypt`, or where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "the ciphertext is neither base64 nor {digest, size}"
)]
pub enum Ciphertext {
    Here(#[serde(with = "base64_bytes")] Vec<u8>),
    Stored(StoredAt),
}

/// A ciphertext in the model store, among its requests (docs/protocol.md, "Large requests").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAt {
    /// SHA-256 of the ciphertext, which is also its name there.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl From<SealedRequest> for SubmittedRequest {
    fn from(sealed: SealedRequest) -> Self {
        Self {
            user: sealed.user,
            model: sealed.model,
            enclave: sealed.enclave,
            request_id: sealed.request_id,
            ciphertext: Ciphertext::Here(sealed.ciphertext),
        }
    }
}

/// The answer on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedResponse {
    pub request_id: RequestId,
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
    pub telemetry: Telemetry,
}

/// What SeMIRT answers to `/run`, always with HTTP status 200: any other status would make
/// OpenWhisk destroy the instance and all that is warm in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RunResult {
    Error {
        error: WireError,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        telemetry: Option<Telemetry>,
    },
    Sealed(SealedResponse),
}

/// How much had to be done before the model could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// No instance: start a sandbox, attest, fetch keys, load the model, make a session.
    Cold,
    /// An attested instance, but keys, model or session missing.
    Warm,
    /// All three resident: open, run, seal.
    Hot,
}

/// Time in each phase of one request, in microseconds; zero where nothing was to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Make the channel to KeyService and pass the attest gate.
    pub attest: u64,
    /// Ask KeyService for the keys.
    pub keys: u64,
    /// Fetch the artifact's ciphertext.
    pub fetch: u64,
    /// Open the artifact and the request.
    pub open: u64,
    /// Load the model and make a session.
    pub load: u64,
    /// Run the model.
    pub run: u64,
    /// Seal the answer.
    pub seal: u64,
}

/// A duration as whole microseconds, as telemetry carries it.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What SeMIRT tells the host beside the ciphertext. Unauthenticated by design: for routing, cost
/// and plots, never for a decision about trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    pub instance: InstanceId,
    /// Counts the requests of this instance, from 1.
    pub seq: u64,
    pub path: StartKind,
    pub phases_us: Phases,
}

/// What FnPacker answers: SeMIRT's answer and the times of the host side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedResponse {
    #[serde(flatten)]
    pub sealed: SealedResponse,
    pub routing: Routing,
}

/// The host's own account of an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    pub function: String,
    pub activation: Option<String>,
    /// The platform says that it ran `/init` for this invocation.
    pub platform_cold: bool,
    /// Time in FnPacker's queue, in microseconds.
    pub queue_us: u64,
    /// Time until the platform had a sandbox ready (OpenWhisk: waitTime + initTime), microseconds.
    pub start_us: u64,
    /// From FnPacker's receipt to its answer, in microseconds.
    pub total_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_run_result_is_either_an_error_or_a_ciphertext() {
        let error = RunResult::Error {
            error: WireError::new(ErrorCode::CannotOpen, "x"),
            telemetry: None,
        };
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(json, r#"{"error":{"code":"cannot_open","message":"x"}}"#);
        assert_eq!(serde_json::from_str::<RunResult>(&json).unwrap(), error);
    }

    #[test]
    fn a_submitted_request_is_a_sealed_one_or_says_where_it_lies() {
        let sealed = SealedRequest {
            user: PrincipalId::new([1; 32]),
            model: "m".parse().unwrap(),
            enclave: EnclaveId::new([2; 48]),
            request_id: RequestId::new([3; 16]),
            ciphertext: vec![4; 100],
        };
        let json = serde_json::to_value(&sealed).unwrap();
        let read = |json: &serde_json::Value| {
            serde_json::from_slice::<SubmittedRequest>(json.to_string().as_bytes())
        };
        assert_eq!(read(&json).unwrap(), SubmittedRequest::from(sealed));
        let digest = "05".repeat(32);
        let with = |ciphertext: serde_json::Value| {
            let mut json = json.clone();
            json["ciphertext"] = ciphertext;
            read(&json)
        };
        let stored = with(serde_json::json!({ "digest": digest, "size": 7 })).unwrap();
        let at = StoredAt {
            digest: Digest::new([5; 32]),
            size: 7,
        };
        assert_eq!(stored.ciphertext, Ciphertext::Stored(at));
        for bad in [
            serde_json::json!("no base64!"),
            serde_json::json!(null),
            serde_json::json!({ "digest": digest }),
            serde_json::json!({ "digest": "05", "size": 7 }),
            serde_json::json!({ "digest": digest, "size": -1 }),
            serde_json::json!({ "digest": digest, "size": 7, "store": "file:///etc" }),
        ] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains("neither base64 nor"), "{error}");
        }
    }
}
