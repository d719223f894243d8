//! What a sandbox's answer means: the activation's outcome, and whether the instance lives on.
//!
//! The table is OpenWhisk's (`ActivationResponse.processRunResponseContent` and
//! `processInitResponseContent`); the texts are its own, since clients and people search for them.

use std::time::Duration;

use bytes::Bytes;
use protocol::openwhisk::{ActivationResponse, Outcome};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::json::{Json, Kind};

/// What came back from a sandbox for one `/init` or `/run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A complete HTTP answer with a known length.
    Complete { status: u16, body: Bytes },
    /// The body is `length` bytes long, more than allowed; `head` is as much as was kept.
    TooLong {
        status: u16,
        head: Bytes,
        length: u64,
        allowed: u64,
    },
    /// Nobody listened: nothing was sent.
    Refused,
    /// No usable answer: connection lost, no length, or the process ended.
    Nothing,
    /// The process was ended because it held more memory than allowed.
    MemoryExhausted,
    /// Nothing within the time limit.
    TimedOut,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) response: ActivationResponse<Json>,
    /// Whether the instance may serve again.
    pub(crate) keep: bool,
    /// Whether the time limit ended it (the annotation `timeout`).
    pub(crate) timeout: bool,
}

/// What follows from the answer to `/run`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RunVerdict {
    Settled(Verdict),
    /// The instance shuts down, or was gone before it got the job: another one can take it.
    NotServed,
}

const OK: u16 = 200;
const SHUTTING_DOWN: u16 = 503;

/// Judges the answer to `/run`; `limit` is the action's time limit.
#[must_use]
pub(crate) fn judge_run(answer: &Answer, limit: Duration) -> RunVerdict {
    let settled = match answer {
        Answer::Complete {
            status: SHUTTING_DOWN,
            ..
        }
        | Answer::Refused => {
            return RunVerdict::NotServed;
        }
        Answer::Complete { status, body } => judge_body(*status, body),
        Answer::TooLong {
            head,
            length,
            allowed,
            ..
        } => {
            let text = truncated(head, *length, *allowed);
            let outcome = Outcome::ApplicationError;
            let response = error(outcome, &text, Some(*length));
            Verdict {
                response,
                keep: true,
                timeout: false,
            }
        }
        Answer::Nothing => died(),
        Answer::MemoryExhausted => memory_exhausted(),
        Answer::TimedOut => timed_out(limit, "."),
    };
    RunVerdict::Settled(settled)
}

/// Judges the answer to `/init`: `Ok` if the action is ready.
pub(crate) fn judge_init(answer: &Answer, limit: Duration) -> Result<(), Box<Verdict>> {
    Err(Box::new(match answer {
        Answer::Complete { status: OK, .. } => return Ok(()),
        Answer::Complete { body, .. } => {
            let text = || with_body("The action failed during initialization", body);
            let json = Json::parse(body).ok();
            match json.as_ref().and_then(error_field) {
                Some(error) => failed(error, body),
                None => failed(&text(), body),
            }
        }
        Answer::TooLong {
            head,
            length,
            allowed,
            ..
        } => developer_error(&truncated(head, *length, *allowed)),
        Answer::Nothing | Answer::Refused => {
            developer_error("The action did not initialize and exited unexpectedly.")
        }
        Answer::MemoryExhausted => memory_exhausted(),
        Answer::TimedOut => timed_out(limit, " during initialization."),
    }))
}

/// The instance ended before it answered, or so many did that no other is asked.
#[must_use]
pub(crate) fn died() -> Verdict {
    developer_error("The action did not produce a valid response and exited unexpectedly.")
}

/// The platform could not make a sandbox.
#[must_use]
pub(crate) fn platform_fault(text: &str) -> Verdict {
    let response = error(Outcome::InternalError, &text, None);
    Verdict {
        response,
        keep: false,
        timeout: false,
    }
}

/// OpenWhisk's text for a sandbox that could not be made.
pub(crate) const PROVISION_ERROR: &str = "Failed to provision resources to run the action.";

fn judge_body(status: u16, body: &Bytes) -> Verdict {
    let size = u64::try_from(body.len()).ok();
    let settled = |response| Verdict {
        response,
        keep: true,
        timeout: false,
    };
    let Ok(json) = Json::parse(body) else {
        return failed(&invalid(body), body);
    };
    match json.kind() {
        Kind::Object => match (error_field(&json), status) {
            (Some(text), OK) => settled(error(Outcome::ApplicationError, text, size)),
            (Some(text), _) => failed(text, body),
            (None, OK) => settled(ActivationResponse::new(Outcome::Success, json, size)),
            (None, _) => failed(&invalid(body), body),
        },
        Kind::Array if status == OK => {
            settled(ActivationResponse::new(Outcome::Success, json, size))
        }
        Kind::Array | Kind::Other => failed(&invalid(body), body),
    }
}

/// `{"error": …}` with this outcome.
fn error<E: Serialize + ?Sized>(
    outcome: Outcome,
    error: &E,
    size: Option<u64>,
) -> ActivationResponse<Json> {
    ActivationResponse::new(outcome, Json::object("error", error), size)
}

/// What an object says under `error`.
fn error_field(json: &Json) -> Option<&RawValue> {
    json.find(|name| name == "error").ok().flatten()
}

fn invalid(body: &[u8]) -> String {
    let text = "The action did not produce a valid JSON or JSON Array response";
    with_body(text, body)
}

/// `text: body`, or `text.` if there is no body.
fn with_body(text: &str, body: &[u8]) -> String {
    if body.is_empty() {
        format!("{text}.")
    } else {
        format!("{text}: {}", String::from_utf8_lossy(body))
    }
}

fn truncated(head: &[u8], length: u64, allowed: u64) -> String {
    format!(
        "The action produced a response that exceeded the allowed length: {length} > {allowed} \
         bytes. The truncated response was: {}",
        String::from_utf8_lossy(head)
    )
}

fn failed<E: Serialize + ?Sized>(text: &E, body: &[u8]) -> Verdict {
    let size = u64::try_from(body.len()).ok();
    let response = error(Outcome::DeveloperError, text, size);
    Verdict {
        response,
        keep: false,
        timeout: false,
    }
}

fn developer_error(text: &str) -> Verdict {
    let response = error(Outcome::DeveloperError, text, None);
    Verdict {
        response,
        keep: false,
        timeout: false,
    }
}

fn memory_exhausted() -> Verdict {
    developer_error("The action exhausted its memory and was aborted.")
}

fn timed_out(limit: Duration, when: &str) -> Verdict {
    let ms = limit.as_millis();
    let verdict = developer_error(&format!(
        "The action exceeded its time limits of {ms} milliseconds{when}"
    ));
    Verdict {
        timeout: true,
        ..verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const LIMIT: Duration = Duration::from_secs(60);

    fn complete(status: u16, body: &str) -> Answer {
        Answer::Complete {
            status,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn value(json: &Json) -> Value {
        serde_json::from_str(json.text()).unwrap()
    }

    /// Outcome, result, keep.
    fn run(answer: &Answer) -> (Outcome, Value, bool) {
        match judge_run(answer, LIMIT) {
            RunVerdict::Settled(v) => (v.response.outcome(), value(&v.response.result), v.keep),
            RunVerdict::NotServed => panic!("not served"),
        }
    }

    #[test]
    fn what_is_not_an_object_or_array_with_200_destroys_the_instance() {
        let invalid = "The action did not produce a valid JSON or JSON Array response";
        for (status, body, error) in [
            (200, "7", json!(format!("{invalid}: 7"))),
            (200, "null", json!(format!("{invalid}: null"))),
            (200, "\"text\"", json!(format!("{invalid}: \"text\""))),
            (200, "{\"a\":", json!(format!("{invalid}: {{\"a\":"))),
            (200, "", json!(format!("{invalid}."))),
            (400, "", json!(format!("{invalid}."))),
            (400, "{\"error\":{\"x\":1}}", json!({"x": 1})),
            (500, "{\"a\":1}", json!(format!("{invalid}: {{\"a\":1}}"))),
            (404, "[1]", json!(format!("{invalid}: [1]"))),
            (201, "{}", json!(format!("{invalid}: {{}}"))),
        ] {
            let expected = (Outcome::DeveloperError, json!({"error": error}), false);
            assert_eq!(run(&complete(status, body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_object_or_array_with_200_keeps_the_instance() {
        for (body, outcome, result) in [
            ("{}", Outcome::Success, json!({})),
            ("[1,2]", Outcome::Success, json!([1, 2])),
            (
                "{\"a\":{\"error\":1}}",
                Outcome::Success,
                json!({"a": {"error": 1}}),
            ),
            (
                "{\"error\":\"e\",\"a\":1}",
                Outcome::ApplicationError,
                json!({"error": "e"}),
            ),
            (
                "{\"error\":null}",
                Outcome::ApplicationError,
                json!({"error": null}),
            ),
        ] {
            assert_eq!(run(&complete(200, body)), (outcome, result, true), "{body}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_the_applications_error_and_says_how_long() {
        let head = Bytes::from_static(b"{\"a");
        let answer = Answer::TooLong {
            status: 200,
            head,
            length: 9,
            allowed: 3,
        };
        let (outcome, result, keep) = run(&answer);
        assert_eq!((outcome, keep), (Outcome::ApplicationError, true));
        let text = result["error"].as_str().unwrap();
        assert!(text.contains("allowed length: 9 > 3 bytes."), "{text}");
        assert!(text.ends_with("The truncated response was: {\"a"), "{text}");
        assert!(judge_init(&answer, LIMIT).is_err());
    }

    #[test]
    fn silence_is_told_apart_by_its_cause() {
        for (answer, in_run, in_init) in [
            (
                Answer::Nothing,
                "The action did not produce a valid response and exited unexpectedly.",
                "The action did not initialize and exited unexpectedly.",
            ),
            (
                Answer::MemoryExhausted,
                "The action exhausted its memory and was aborted.",
                "The action exhausted its memory and was aborted.",
            ),
            (
                Answer::TimedOut,
                "The action exceeded its time limits of 60000 milliseconds.",
                "The action exceeded its time limits of 60000 milliseconds during initialization.",
            ),
        ] {
            let expected = (Outcome::DeveloperError, json!({"error": in_run}), false);
            assert_eq!(run(&answer), expected);
            let init = *judge_init(&answer, LIMIT).unwrap_err();
            assert_eq!(value(&init.response.result), json!({"error": in_init}));
            assert_eq!(init.timeout, answer == Answer::TimedOut);
        }
    }

    #[test]
    fn initialisation_needs_exactly_200() {
        assert_eq!(judge_init(&complete(200, "anything"), LIMIT), Ok(()));
        for (status, body, error) in [
            (403, "{\"error\":\"no\"}", json!("no")),
            (503, "", json!("The action failed during initialization.")),
            (
                500,
                "oops",
                json!("The action failed during initialization: oops"),
            ),
            (
                202,
                "{}",
                json!("The action failed during initialization: {}"),
            ),
        ] {
            let verdict = *judge_init(&complete(status, body), LIMIT).unwrap_err();
            assert_eq!(value(&verdict.response.result), json!({"error": error}));
            assert_eq!(verdict.response.outcome(), Outcome::DeveloperError);
            assert!(!verdict.keep);
        }
    }

    #[test]
    fn a_shutting_down_instance_hands_its_job_back() {
        assert_eq!(
            judge_run(&complete(503, "{}"), LIMIT),
            RunVerdict::NotServed
        );
        assert_eq!(judge_run(&Answer::Refused, LIMIT), RunVerdict::NotServed);
    }
}
