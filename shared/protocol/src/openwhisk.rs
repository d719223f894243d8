//! OpenWhisk's REST API: the bodies that the embedded platform serves and FnPacker sends.
//!
//! Source: Apache OpenWhisk, `apiv1swagger.json`, `core/entity` and `docs/rest_api.md`. Times are
//! milliseconds since the epoch, durations milliseconds, memory MB, sizes of logs MB.
//! Unknown fields are ignored everywhere, as OpenWhisk does.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where the API lives on its host.
pub const API_BASE: &str = "/api/v1";
/// The caller's own namespace, in a path.
pub const OWN_NAMESPACE: &str = "_";
/// `exec.kind` of an action whose image brings its own code.
pub const BLACKBOX: &str = "blackbox";
/// Longest time a caller may wait for a blocking invocation, in milliseconds.
pub const BLOCKING_WAIT_MAX_MS: u64 = 60_000;
/// Longest entity name, in characters.
pub const NAME_MAX: usize = 256;
/// Length of an activation id: a version 4 UUID without its dashes, lower case.
pub const ACTIVATION_ID_LEN: usize = 32;
/// Header that names the request, in and out; the `code` of an error repeats it.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header of an invocation's answer that names its activation.
pub const ACTIVATION_ID_HEADER: &str = "x-openwhisk-activation-id";

/// Annotation: time from the receipt of the request to the start of its `/init` or `/run`, in
/// milliseconds; the creation of a sandbox is inside.
pub const WAIT_TIME: &str = "waitTime";
/// Annotation: how long `/init` took, in milliseconds; there only if it ran (a cold start).
pub const INIT_TIME: &str = "initTime";
/// Annotation: the invocation ran into its time limit.
pub const TIMEOUT: &str = "timeout";

/// An annotation or parameter: a name with any JSON value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: String,
    #[serde(default)]
    pub value: Value,
    /// A parameter for `/init` (it becomes an environment variable) and not for `/run`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
}

impl KeyValue {
    /// An annotation, or a parameter that every `/run` gets.
    pub fn new(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            init: false,
        }
    }

    /// A parameter that `/init` gets as an environment variable.
    pub fn for_init(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            init: true,
        }
    }
}

/// The value under `key`, if the list has it.
#[must_use]
pub fn find<'a>(list: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    list.iter()
        .find(|entry| entry.key == key)
        .map(|entry| &entry.value)
}

/// What an action runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    #[serde(default)]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<String>>,
}

impl Exec {
    /// An image that brings its own code.
    pub fn blackbox(image: impl Into<String>) -> Self {
        Self {
            kind: BLACKBOX.to_owned(),
            image: Some(image.into()),
            ..Self::default()
        }
    }
}

/// An action's limits, complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLimits {
    /// Time limit of `/init`, and of `/run`, in milliseconds.
    pub timeout: u64,
    /// Memory of a sandbox, in MB.
    pub memory: u64,
    /// Log of one activation, in MB.
    pub logs: u64,
    /// Invocations at once in one sandbox.
    pub concurrency: u32,
}

/// The limits that a caller sets; the others stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// Body of `PUT /namespaces/{ns}/actions/{name}`; `exec` is needed to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionPut {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Replaces all parameters if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<KeyValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// Merged into the annotations that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Vec<KeyValue>>,
    /// Names of annotations to remove.
    #[serde(
        default,
        rename = "delAnnotations",
        skip_serializing_if = "Option::is_none"
    )]
    pub del_annotations: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// An action, as `GET`, `PUT` and `DELETE` answer it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    pub namespace: String,
    pub name: String,
    /// Semantic version; each `PUT` raises the last number.
    pub version: String,
    pub publish: bool,
    pub exec: Exec,
    pub parameters: Vec<KeyValue>,
    pub limits: ActionLimits,
    pub annotations: Vec<KeyValue>,
    pub updated: u64,
}

impl Action {
    /// The text value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        find(&self.annotations, key).and_then(Value::as_str)
    }
}

/// An action in a list: no code, no parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionSummary {
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub publish: bool,
    pub exec: ExecSummary,
    pub limits: ActionLimits,
    pub annotations: Vec<KeyValue>,
    pub updated: u64,
}

/// What a list tells about an action's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSummary {
    pub binary: bool,
}

/// How an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Success,
    /// The action answered with an `error`; its sandbox lives on.
    ApplicationError,
    /// The action broke the protocol, died or took too long; its sandbox is gone.
    DeveloperError,
    /// The platform failed.
    InternalError,
}

impl Outcome {
    /// Every outcome, in the order of its code.
    pub const ALL: [Self; 4] = [
        Self::Success,
        Self::ApplicationError,
        Self::DeveloperError,
        Self::InternalError,
    ];

    /// `response.statusCode`.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::ApplicationError => 1,
            Self::DeveloperError => 2,
            Self::InternalError => 3,
        }
    }

    /// `response.status`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ApplicationError => "application error",
            Self::DeveloperError => "action developer error",
            Self::InternalError => "whisk internal error",
        }
    }

    /// HTTP status of a blocking invocation that ended so.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Success => 200,
            Self::ApplicationError | Self::DeveloperError => 502,
            Self::InternalError => 500,
        }
    }
}

/// What an activation answered. `R` is the form of the result: a platform that only passes results
/// on keeps their text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActivationResponse<R = Value> {
    /// [`Outcome::text`].
    pub status: String,
    /// [`Outcome::code`]; Apache OpenWhisk leaves it out here and says it in `status` alone.
    #[serde(
        default,
        rename = "statusCode",
        skip_serializing_if = "Option::is_none"
    )]
    pub status_code: Option<u8>,
    pub success: bool,
    /// Length of the sandbox's answer in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub result: R,
}

impl<R> ActivationResponse<R> {
    #[must_use]
    pub fn new(outcome: Outcome, result: R, size: Option<u64>) -> Self {
        Self {
            status: outcome.text().to_owned(),
            status_code: Some(outcome.code()),
            success: outcome == Outcome::Success,
            size,
            result,
        }
    }

    /// How it ended, as a type; an unknown status counts as the platform's fault.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let same = |outcome: &Outcome| outcome.text() == self.status;
        Outcome::ALL
            .into_iter()
            .find(same)
            .unwrap_or(Outcome::InternalError)
    }
}

impl ActivationResponse {
    /// `{"error": …}` with this outcome.
    #[must_use]
    pub fn error(outcome: Outcome, error: impl Into<Value>, size: Option<u64>) -> Self {
        let object = Map::from_iter([("error".to_owned(), error.into())]);
        Self::new(outcome, Value::Object(object), size)
    }
}

/// The record of one invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activation<R = Value> {
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub subject: String,
    #[serde(rename = "activationId")]
    pub activation_id: String,
    /// When `/init` (cold) or `/run` was sent.
    pub start: u64,
    pub end: u64,
    /// `/init` and `/run` together.
    pub duration: u64,
    #[serde(default)]
    pub publish: bool,
    #[serde(default)]
    pub annotations: Vec<KeyValue>,
    /// `<RFC 3339> stdout|stderr: text`.
    #[serde(default)]
    pub logs: Vec<String>,
    pub response: ActivationResponse<R>,
}

impl<R> Activation<R> {
    /// [`INIT_TIME`], if the invocation was a cold start; milliseconds.
    #[must_use]
    pub fn init_time(&self) -> Option<u64> {
        find(&self.annotations, INIT_TIME).and_then(Value::as_u64)
    }

    /// [`WAIT_TIME`] in milliseconds.
    #[must_use]
    pub fn wait_time(&self) -> Option<u64> {
        find(&self.annotations, WAIT_TIME).and_then(Value::as_u64)
    }
}

/// An activation in a list: no response, no logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActivationSummary {
    pub namespace: String,
    pub name: String,
    pub version: String,
    #[serde(rename = "activationId")]
    pub activation_id: String,
    pub start: u64,
    pub end: u64,
    pub duration: u64,
    #[serde(rename = "statusCode")]
    pub status_code: u8,
    pub publish: bool,
    pub annotations: Vec<KeyValue>,
}

/// `GET …/activations/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationLogs {
    pub logs: Vec<String>,
}

/// 202: the invocation goes on; ask for its record later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    #[serde(rename = "activationId")]
    pub activation_id: String,
}

/// Body of every error that the API itself makes (an application error has no `code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    pub error: String,
    /// The request's id; never null, or `wsk` takes it for a broken connection.
    pub code: String,
}

/// Whether `name` may name an entity: `\A([\w]|[\w][\w@ .&-]*[\w@.&-])\z`, at most [`NAME_MAX`].
#[must_use]
pub fn is_entity_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| word(c) || matches!(c, '@' | ' ' | '.' | '&' | '-');
    name.len() <= NAME_MAX
        && name.starts_with(word)
        && !name.ends_with(' ')
        && name.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_follow_openwhisks_grammar() {
        for bad in [
            "", " a", "a ", "-a", ".a", "@a", "a/b", "a:b", "ä", "a\n", "a\tb",
        ] {
            assert!(!is_entity_name(bad), "{bad:?}");
        }
        assert!(!is_entity_name(&"a".repeat(NAME_MAX + 1)));
        for good in [
            "a",
            "_",
            "7",
            "a b",
            "a@b.c-d_e",
            "a.",
            "a-",
            "a@",
            &"a".repeat(NAME_MAX),
        ] {
            assert!(is_entity_name(good), "{good:?}");
        }
    }

    #[test]
    fn a_put_takes_what_wsk_sends_and_says_nothing_that_was_not_set() {
        let body = json!({"namespace": "_", "name": "a", "exec": {"kind": "blackbox", "image": "i"},
            "limits": {"memory": 256}, "parameters": [{"key": "k", "value": 1, "init": true}]});
        let put: ActionPut = serde_json::from_value(body).unwrap();
        assert_eq!(put.limits.unwrap().timeout, None);
        assert!(put.parameters.as_ref().unwrap()[0].init);
        assert_eq!(
            serde_json::to_value(&put).unwrap(),
            json!({"exec": {"kind": "blackbox", "image": "i"}, "limits": {"memory": 256},
                "parameters": [{"key": "k", "value": 1, "init": true}]})
        );
    }

    #[test]
    fn cold_is_told_by_init_time_alone() {
        let mut record: Activation = serde_json::from_value(json!({
            "namespace": "guest", "name": "a", "version": "0.0.1", "subject": "guest",
            "activationId": "0", "start": 1, "end": 2, "duration": 1,
            "annotations": [{"key": "waitTime", "value": 7}],
            "response": {"status": "success", "success": true, "result": {}}
        }))
        .unwrap();
        assert_eq!((record.init_time(), record.wait_time()), (None, Some(7)));
        record.annotations.push(KeyValue::new(INIT_TIME, 3));
        assert_eq!(record.init_time(), Some(3));
        assert_eq!(record.response.outcome(), Outcome::Success);
    }
}
