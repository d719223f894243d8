//! OpenWhisk's action container protocol: what a platform POSTs to `/init` and `/run`.
//!
//! Source: Apache OpenWhisk, docs/actions-new.md and the invoker's container proxy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Ends the log lines of one activation, once on stdout and once on stderr.
pub const LOG_SENTINEL: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";

/// Body of `POST /init`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InitRequest {
    pub value: InitValue,
}

/// What to initialise with; `code` is absent for an image that brings its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InitValue {
    pub name: String,
    pub main: String,
    pub binary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Init parameters and `__OW_*`, every value a string.
    pub env: BTreeMap<String, String>,
}

/// Body of `POST /run`. `V` is the action's own argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRequest<V = Value> {
    pub value: V,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// Milliseconds since the epoch, as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
}
