//! What an activation record says about the function's answer, and about whether it ran at all.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use protocol::openwhisk::{INIT_TIME, KeyValue, Outcome, TIMEOUT, WAIT_TIME, find};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Answer, PlatformError, Record};
use crate::platform::wire::excerpt;

/// What FnPacker reads of an activation record. The result stays as it came: it may be a megabyte
/// of ciphertext, which is only passed on.
#[derive(Debug, Deserialize)]
pub(super) struct ActivationView<'a> {
    #[serde(borrow, rename = "activationId")]
    activation_id: Cow<'a, str>,
    duration: u64,
    #[serde(default)]
    annotations: Vec<KeyValue>,
    #[serde(borrow)]
    response: ResponseView<'a>,
}

#[derive(Debug, Deserialize)]
struct ResponseView<'a> {
    /// [`Outcome::text`]; the number beside it is absent from older records.
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// The function's answer, or why there is none.
pub(super) fn judge(activation: &ActivationView<'_>) -> Result<Answer, PlatformError> {
    let millis = |key| find(&activation.annotations, key).and_then(Value::as_u64);
    let record = Record {
        activation: Some(activation.activation_id.clone().into_owned()),
        wait: Duration::from_millis(millis(WAIT_TIME).unwrap_or_default()),
        init: millis(INIT_TIME).map(Duration::from_millis),
        duration: Duration::from_millis(activation.duration),
    };
    let result = activation.response.result.get();
    let status = activation.response.status.as_ref();
    let outcome = Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.text() == status);
    match outcome.unwrap_or(Outcome::InternalError) {
        Outcome::Success | Outcome::ApplicationError => Ok(Answer {
            body: Bytes::copy_from_slice(result.as_bytes()),
            record,
        }),
        Outcome::DeveloperError => {
            let message = message(result);
            let timed_out = find(&activation.annotations, TIMEOUT) == Some(&Value::Bool(true));
            if timed_out && !before_running(&message) {
                return Err(PlatformError::TimeLimit { message, record });
            }
            let executed = !before_running(&message);
            Err(PlatformError::InstanceFailed {
                message,
                executed,
                record,
            })
        }
        Outcome::InternalError => {
            let message = message(result);
            if before_running(&message) {
                return Err(PlatformError::InstanceFailed {
                    message,
                    executed: false,
                    record,
                });
            }
            Err(PlatformError::Refused {
                status: 500,
                message,
            })
        }
    }
}

/// The text of `{"error": …}`.
fn message(result: &str) -> String {
    #[derive(Deserialize)]
    struct ErrorView {
        error: Value,
    }
    match serde_json::from_str::<ErrorView>(result) {
        Ok(ErrorView {
            error: Value::String(text),
        }) => text,
        Ok(ErrorView { error }) => excerpt(error.to_string().as_bytes()),
        Err(_) => excerpt(result.as_bytes()),
    }
}

/// OpenWhisk's texts for what happened before a `/run` was sent. Every other text counts as
/// "perhaps executed", so a change of words costs a retry and never a second execution.
fn before_running(message: &str) -> bool {
    message.starts_with("The action did not initialize")
        || message.starts_with("The action failed during initialization")
        || message.ends_with(" during initialization.")
        || message.starts_with("Failed to provision resources to run the action")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: &str, result: &str, annotations: &str) -> Result<Answer, PlatformError> {
        let text = format!(
            r#"{{"namespace":"guest","activationId":"ab","duration":7,"annotations":{annotations},
                "response":{{"status":"{status}","success":false,
                "result":{result}}},"logs":[],"start":1,"end":2}}"#
        );
        judge(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_result_is_passed_on_byte_for_byte() {
        let annotations = r#"[{"key":"waitTime","value":30},{"key":"initTime","value":5}]"#;
        let answer = judged("success", r#"{ "a" : [1,2.50] }"#, annotations).unwrap();
        assert_eq!(answer.body, r#"{ "a" : [1,2.50] }"#);
        let expected = Record {
            activation: Some("ab".into()),
            wait: Duration::from_millis(30),
            init: Some(Duration::from_millis(5)),
            duration: Duration::from_millis(7),
        };
        assert_eq!(answer.record, expected);
        assert!(judged("application error", r#"{"error":{"code":"busy"}}"#, "[]").is_ok());
    }

    #[test]
    fn only_what_surely_did_not_run_may_run_again() {
        let (developer, internal) = ("action developer error", "whisk internal error");
        for (status, text, again) in [
            (
                developer,
                "The action did not initialize and exited unexpectedly.",
                true,
            ),
            (
                developer,
                "The action failed during initialization: no TEE",
                true,
            ),
            (
                developer,
                "The action exceeded its time limits of 5 milliseconds during initialization.",
                true,
            ),
            (
                internal,
                "Failed to provision resources to run the action.",
                true,
            ),
            (
                developer,
                "The action did not produce a valid response and exited unexpectedly.",
                false,
            ),
            (
                developer,
                "The action exhausted its memory and was aborted.",
                false,
            ),
            (
                developer,
                "The action exceeded its time limits of 5 milliseconds.",
                false,
            ),
            (internal, "something else", false),
            ("new", "an outcome that nobody knows", false),
        ] {
            let timeout = text.contains("time limits");
            let annotations = format!(r#"[{{"key":"timeout","value":{timeout}}}]"#);
            let error = judged(status, &format!(r#"{{"error":"{text}"}}"#), &annotations);
            assert_eq!(error.unwrap_err().surely_not_executed(), again, "{text}");
        }
    }
}
