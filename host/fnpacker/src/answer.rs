//! Requests and answers as FnPacker reads them: the ids, and the ciphertext only to pass it on.
//!
//! A ciphertext may be a megabyte of base64. It is never decoded here; a request goes to the
//! platform as the very bytes that came in.

use std::borrow::Cow;

use protocol::invoke::{Routing, StoredAt, Telemetry};
use protocol::{EnclaveId, ModelId, PrincipalId, RequestId, WireError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A [`protocol::invoke::SubmittedRequest`] without its ciphertext; as strict about its form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestView<'a> {
    pub(crate) user: PrincipalId,
    pub(crate) model: ModelId,
    pub(crate) enclave: EnclaveId,
    pub(crate) request_id: RequestId,
    /// Its form is for the enclave to judge; here it must only be a text, or a place.
    #[serde(borrow)]
    #[expect(dead_code, reason = "there to be checked for presence and type")]
    ciphertext: CiphertextView<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "the ciphertext is neither base64 nor {digest, size}"
)]
#[expect(dead_code, reason = "there to be checked for its type")]
enum CiphertextView<'a> {
    #[serde(borrow)]
    Here(Cow<'a, str>),
    Stored(StoredAt),
}

/// What a function answers: a [`protocol::invoke::RunResult`].
#[derive(Debug, Deserialize)]
struct RunView<'a> {
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    request_id: Option<RequestId>,
    #[serde(default, borrow)]
    ciphertext: Option<&'a RawValue>,
    #[serde(default)]
    telemetry: Option<Telemetry>,
}

/// An answer, told apart.
#[derive(Debug)]
pub(crate) enum RunAnswer<'a> {
    Sealed(SealedView<'a>),
    Refused {
        error: WireError,
        telemetry: Option<Telemetry>,
    },
    /// The platform cut it, since it is longer than it may be.
    TooLong {
        message: String,
    },
    /// Not SeMIRT's form.
    Unexpected {
        message: String,
    },
}

/// A [`protocol::invoke::SealedResponse`] whose ciphertext is passed on as it came.
#[derive(Debug, Serialize)]
pub(crate) struct SealedView<'a> {
    request_id: RequestId,
    ciphertext: &'a RawValue,
    pub(crate) telemetry: Telemetry,
}

/// A [`protocol::invoke::RoutedResponse`].
#[derive(Debug, Serialize)]
pub(crate) struct RoutedView<'a> {
    #[serde(flatten)]
    pub(crate) sealed: &'a SealedView<'a>,
    pub(crate) routing: &'a Routing,
}

/// How OpenWhisk begins its text about a result over the limit (`Messages.truncateLogs` and
/// kin in `common/scala`).
const OVER_LENGTH: &str = "The action produced a response that exceeded the allowed length";

/// Tells an answer apart.
pub(crate) fn read_answer(body: &[u8]) -> RunAnswer<'_> {
    let run: RunView<'_> = match serde_json::from_slice(body) {
        Ok(run) => run,
        Err(error) => {
            return RunAnswer::Unexpected {
                message: error.to_string(),
            };
        }
    };
    match run {
        RunView {
            error: Some(error),
            telemetry,
            ..
        } => match error {
            Value::String(message) if message.starts_with(OVER_LENGTH) => {
                let end = message
                    .find(" The truncated response")
                    .unwrap_or(message.len());
                RunAnswer::TooLong {
                    message: message[..end].to_owned(),
                }
            }
            error => match WireError::deserialize(&error) {
                Ok(error) => RunAnswer::Refused { error, telemetry },
                Err(_) => RunAnswer::Unexpected {
                    message: shown(&error.to_string()),
                },
            },
        },
        RunView {
            request_id: Some(request_id),
            ciphertext: Some(ciphertext),
            telemetry: Some(telemetry),
            ..
        } => RunAnswer::Sealed(SealedView {
            request_id,
            ciphertext,
            telemetry,
        }),
        _ => RunAnswer::Unexpected {
            message: "a field is missing".to_owned(),
        },
    }
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use protocol::ErrorCode;
    use protocol::invoke::{
        Phases, RoutedResponse, RunResult, SealedRequest, SealedResponse, StartKind,
    };

    use super::*;

    fn telemetry() -> Telemetry {
        Telemetry {
            instance: "i-1".parse().unwrap(),
            seq: 3,
            path: StartKind::Warm,
            phases_us: Phases {
                load: 5,
                ..Phases::default()
            },
        }
    }

    #[test]
    fn what_the_protocol_writes_is_read_and_passed_on_unchanged() {
        let sealed = SealedResponse {
            request_id: RequestId::new([7; 16]),
            ciphertext: b"\x00\xffsealed".to_vec(),
            telemetry: telemetry(),
        };
        let body = serde_json::to_vec(&RunResult::Sealed(sealed.clone())).unwrap();
        let RunAnswer::Sealed(view) = read_answer(&body) else {
            panic!("not sealed")
        };
        let routing = Routing {
            function: "f".into(),
            activation: None,
            platform_cold: true,
            queue_us: 1,
            start_us: 2,
            total_us: 3,
        };
        let json = serde_json::to_vec(&RoutedView {
            sealed: &view,
            routing: &routing,
        })
        .unwrap();
        let routed: RoutedResponse = serde_json::from_slice(&json).unwrap();
        assert_eq!(routed, RoutedResponse { sealed, routing });
    }

    #[test]
    fn refusals_keep_their_code_and_everything_else_is_unexpected() {
        let error = WireError::new(ErrorCode::NotGranted, "no");
        let result = RunResult::Error {
            error: error.clone(),
            telemetry: Some(telemetry()),
        };
        let body = serde_json::to_vec(&result).unwrap();
        let RunAnswer::Refused {
            error: got,
            telemetry: Some(_),
        } = read_answer(&body)
        else {
            panic!("not refused")
        };
        assert_eq!(got, error);
        for bad in [
            r#"{"error":"text"}"#,
            r#"{"error":{"code":"new_code","message":"x"}}"#,
            r#"{"request_id":"00"}"#,
            "{}",
            "[]",
            "nonsense",
            r#"{"request_id":"07070707070707070707070707070707","ciphertext":"AA=="}"#,
        ] {
            assert!(
                matches!(read_answer(bad.as_bytes()), RunAnswer::Unexpected { .. }),
                "{bad}"
            );
        }
        let long =
            format!(r#"{{"error":"{OVER_LENGTH}: 9 > 8 bytes. The truncated response was: x"}}"#);
        let RunAnswer::TooLong { message } = read_answer(long.as_bytes()) else {
            panic!("not too long")
        };
        assert!(message.ends_with("9 > 8 bytes."), "{message}");
    }

    #[test]
    fn a_request_is_as_strict_as_the_protocols() {
        let request = SealedRequest {
            user: PrincipalId::new([1; 32]),
            model: "m".parse().unwrap(),
            enclave: EnclaveId::new([2; 48]),
            request_id: RequestId::new([3; 16]),
            ciphertext: vec![0; 100],
        };
        let good = serde_json::to_string(&request).unwrap();
        let view: RequestView<'_> = serde_json::from_str(&good).unwrap();
        assert_eq!((view.user, view.enclave), (request.user, request.enclave));
        assert_eq!(
            (view.model, view.request_id),
            (request.model, request.request_id)
        );
        let mut stored = serde_json::from_str::<Value>(&good).unwrap();
        stored["ciphertext"] = serde_json::json!({ "digest": "05".repeat(32), "size": 7 });
        serde_json::from_str::<RequestView<'_>>(&stored.to_string()).unwrap();
        for (from, to) in [
            ("\"user\"", "\"usr\""),
            ("\"m\"", "\"M\""),
            ("\"ciphertext\":\"", "\"ciphertext\":7,\"x\":\""),
            ("{", "{\"more\":1,"),
            (
                "\"ciphertext\":\"",
                "\"ciphertext\":{\"digest\":\"05\"},\"x\":\"",
            ),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(
                serde_json::from_str::<RequestView<'_>>(&bad).is_err(),
                "{bad}"
            );
        }
    }
}
