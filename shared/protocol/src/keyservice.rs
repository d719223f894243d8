//! Messages of KeyService's HTTP API. Bodies are JSON; keys occur only inside the attested channel.
//!
//! | method and path | who | body → answer |
//! |---|---|---|
//! | `GET /v1/status` | anyone | → [`Status`] |
//! | `PUT /v1/models/{model}/versions/{version}` | owner | [`RegisterModel`] → [`ModelRecord`] |
//! | `GET /v1/models` | owner | → [`ModelList`] |
//! | `GET /v1/models/{model}/versions` | owner | → [`ModelList`] |
//! | `PUT /v1/models/{model}/grants/{user}/{enclave}` | owner | [`GrantTerms`] → [`Grant`] |
//! | `DELETE /v1/models/{model}/grants/{user}/{enclave}` | owner | → [`Revoked`] |
//! | `GET /v1/models/{model}/grants` | owner | → [`GrantList`] |
//! | `PUT /v1/request-keys/{model}/{enclave}` | user | [`RegisterRequestKey`] → [`RequestKeyRecord`] |
//! | `DELETE /v1/request-keys/{model}/{enclave}` | user | → [`Revoked`] |
//! | `GET /v1/request-keys` | user | → [`RequestKeyList`] |
//! | `POST /v1/release` | attested instance | [`ReleaseRequest`] → [`Release`] |
//! | `GET /v1/log` | owner, user | → [`LogPage`] |

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, EnclaveId, LeaseId, ModelId, ModelVersion, PolicyHash, PrincipalId};
use crate::limits::POLICY_MAX;

/// Key bytes on the wire, inside the attested channel only. Prints nothing, and is overwritten
/// when dropped; `crypto` turns it into a key type at once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct WireKey(
    #[serde(with = "crate::invoke::base64_bytes")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    Vec<u8>,
);

impl WireKey {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for WireKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for WireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireKey")
    }
}

/// An appraisal policy as its owner wrote it: TOML, at most [`POLICY_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyText(String);

#[cfg(feature = "schema")]
impl schemars::JsonSchema for PolicyText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PolicyText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": POLICY_MAX })
    }
}

/// A policy is longer than [`POLICY_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an appraisal policy has at most {POLICY_MAX} bytes, got {0}")]
pub struct PolicyTooLong(usize);

impl PolicyText {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PolicyText {
    type Error = PolicyTooLong;

    fn try_from(text: String) -> Result<Self, PolicyTooLong> {
        if text.len() > POLICY_MAX {
            return Err(PolicyTooLong(text.len()));
        }
        Ok(Self(text))
    }
}

impl From<PolicyText> for String {
    fn from(text: PolicyText) -> Self {
        text.0
    }
}

macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
    };
}

message! {
    /// What anyone on the channel may know. `epoch` never falls; clients remember the highest.
    Status { version: String, epoch: u64, enclave: EnclaveId, }
}
message! {
    /// The owner's key for one version of a model and the digest of the artifact sealed with it.
    RegisterModel { digest: Digest,
        /// 32 bytes, base64.
        key: WireKey, }
}
message! {
    /// A registered version, without its key.
    ModelRecord { model: ModelId, version: ModelVersion, owner: PrincipalId, digest: Digest, }
}
message! {
    /// Registered versions, by model and version.
    ModelList { models: Vec<ModelRecord>, }
}
message! {
    /// What the owner demands of an instance beyond its enclave id.
    GrantTerms {
        /// An appraisal policy, as TOML; without one, KeyService's own decides.
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyText>, }
}
impl GrantTerms {
    /// The enclave id is enough.
    pub const NONE: Self = Self { policy: None };
}
message! {
    /// The owner allows `user` to use `model` inside instances of `enclave`.
    Grant { model: ModelId, user: PrincipalId, enclave: EnclaveId,
        /// KeyService's epoch when it was granted.
        epoch: u64,
        /// Of the policy that the owner demands beyond the enclave id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyHash>, }
}
message! {
    /// Live grants of one model.
    GrantList { grants: Vec<Grant>, }
}
message! {
    /// Whether there was something to revoke, and when the last lease given under it ends.
    Revoked { revoked: bool,
        /// Longest time for which an instance may still use what it was given, in seconds.
        effective_within_s: u64, }
}
message! {
    /// The user's request key for one (model, enclave). The user also names the owner that the
    /// model must belong to, so that nobody can put another model under the same name.
    RegisterRequestKey { owner: PrincipalId,
        /// 32 bytes, base64.
        key: WireKey,
        /// What the user demands of an instance beyond its enclave id: an appraisal policy, TOML.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyText>, }
}
message! {
    /// A registered request key, without the key.
    RequestKeyRecord { model: ModelId, enclave: EnclaveId, owner: PrincipalId, epoch: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyHash>, }
}
message! {
    /// The caller's live request keys.
    RequestKeyList { request_keys: Vec<RequestKeyRecord>, }
}
message! {
    /// An attested instance asks for what it needs to serve `user` on `model`. Its enclave id is
    /// not in the message: it comes from the appraised evidence of the connection.
    ReleaseRequest { model: ModelId, user: PrincipalId, }
}
message! {
    /// Keys and the one artifact that may be opened with them, for as long as the lease lasts.
    Release { model: ModelId, version: ModelVersion, owner: PrincipalId, digest: Digest,
        model_key: WireKey, request_key: WireKey, lease: Lease, }
}
message! {
    /// How long a release may be used: a bound on how late a revocation can take effect.
    Lease { id: LeaseId, ttl_s: u64, epoch: u64, }
}
message! {
    /// One entry of the audit log, as the caller may see it.
    LogEntry { seq: u64,
        /// Host time in seconds since 1970: advisory, the host sets it.
        at: u64,
        event: String, model: ModelId, user: Option<PrincipalId>, enclave: Option<EnclaveId>,
        version: Option<ModelVersion>,
        /// SHA-256 over the previous entry's hash and this entry, hexadecimal.
        hash: Digest, }
}
message! {
    /// The entries that concern the caller, oldest first.
    LogPage { entries: Vec<LogEntry>, head: Digest, }
}
