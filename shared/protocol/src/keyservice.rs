//! Messages of KeyService's HTTP API. Bodies are JSON; keys occur only inside the attested channel.
//!
//! | method and path | who | body → answer |
//! |---|---|---|
//! | `GET /v1/status` | anyone | → [`Status`] |
//! | `PUT /v1/models/{model}/versions/{version}` | owner | [`RegisterModel`] → [`ModelRecord`] |
//! | `GET /v1/models` | owner | → [`ModelList`] |
//! | `GET /v1/models/{model}/versions` | owner | → [`ModelList`] |
//! | `PUT /v1/models/{model}/grants/{user}/{enclave}` | owner | → [`Grant`] |
//! | `DELETE /v1/models/{model}/grants/{user}/{enclave}` | owner | → [`Revoked`] |
//! | `GET /v1/models/{model}/grants` | owner | → [`GrantList`] |
//! | `PUT /v1/request-keys/{model}/{enclave}` | user | [`RegisterRequestKey`] → [`RequestKeyRecord`] |
//! | `DELETE /v1/request-keys/{model}/{enclave}` | user | → [`Revoked`] |
//! | `GET /v1/request-keys` | user | → [`RequestKeyList`] |
//! | `POST /v1/release` | attested instance | [`ReleaseRequest`] → [`Release`] |
//! | `GET /v1/log` | owner, user | → [`LogPage`] |

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, EnclaveId, LeaseId, ModelId, ModelVersion, PrincipalId};

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
    /// The owner allows `user` to use `model` inside instances of `enclave`.
    Grant { model: ModelId, user: PrincipalId, enclave: EnclaveId,
        /// KeyService's epoch when it was granted.
        epoch: u64, }
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
        key: WireKey, }
}
message! {
    /// A registered request key, without the key.
    RequestKeyRecord { model: ModelId, enclave: EnclaveId, owner: PrincipalId, epoch: u64, }
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
