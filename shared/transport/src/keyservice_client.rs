//! KeyService's API as typed calls over an attested channel; paths and bodies are those of
//! `protocol::keyservice`.

use http::Method;
use protocol::keyservice::{
    Grant, GrantList, GrantTerms, LogPage, ModelList, ModelRecord, RegisterModel,
    RegisterRequestKey, Release, ReleaseRequest, RequestKeyList, RequestKeyRecord, Revoked, Status,
};
use protocol::{EnclaveId, ModelId, ModelVersion, PrincipalId};
use serde::de::DeserializeOwned;

use crate::channel::{CallError, Channel};

const NO_BODY: Option<&()> = None;

/// A client of the KeyService at the other end of a channel. What it may do depends on who it
/// connected as; KeyService decides.
#[derive(Debug)]
pub struct KeyserviceClient {
    channel: Channel,
}

type Answer<T> = Result<T, CallError>;

impl KeyserviceClient {
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self { channel }
    }

    #[must_use]
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether another call makes sense; else connect again.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.channel.is_alive()
    }

    async fn read<R: DeserializeOwned>(&mut self, path: &str) -> Answer<R> {
        self.channel.call(Method::GET, path, NO_BODY).await
    }

    /// What anyone may know of this KeyService.
    pub async fn status(&mut self) -> Answer<Status> {
        self.read("/v1/status").await
    }

    /// Owner: registers a version of a model. Again with the same content is no error.
    pub async fn register_model(
        &mut self,
        model: &ModelId,
        version: ModelVersion,
        body: &RegisterModel,
    ) -> Answer<ModelRecord> {
        let path = format!("/v1/models/{model}/versions/{version}");
        self.channel.call(Method::PUT, &path, Some(body)).await
    }

    /// Owner: all versions of all own models.
    pub async fn list_models(&mut self) -> Answer<ModelList> {
        self.read("/v1/models").await
    }

    /// Owner: all versions of one model.
    pub async fn versions(&mut self, model: &ModelId) -> Answer<ModelList> {
        self.read(&format!("/v1/models/{model}/versions")).await
    }

    /// Owner: allows `user` to use `model` inside instances of `enclave`.
    pub async fn grant(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
    ) -> Answer<Grant> {
        let terms = GrantTerms::NONE;
        self.grant_on_terms(model, user, enclave, &terms).await
    }

    /// Owner: allows `user` to use `model` inside instances of `enclave` that satisfy the terms.
    pub async fn grant_on_terms(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
        terms: &GrantTerms,
    ) -> Answer<Grant> {
        let path = grant_path(model, user, enclave);
        self.channel.call(Method::PUT, &path, Some(terms)).await
    }

    /// Owner: takes a grant back.
    pub async fn revoke(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
    ) -> Answer<Revoked> {
        let path = grant_path(model, user, enclave);
        self.channel.call(Method::DELETE, &path, NO_BODY).await
    }

    /// Owner: live grants of one model.
    pub async fn grants(&mut self, model: &ModelId) -> Answer<GrantList> {
        self.read(&format!("/v1/models/{model}/grants")).await
    }

    /// User: registers the request key for (model, enclave).
    pub async fn register_request_key(
        &mut self,
        model: &ModelId,
        enclave: &EnclaveId,
        body: &RegisterRequestKey,
    ) -> Answer<RequestKeyRecord> {
        let path = format!("/v1/request-keys/{model}/{enclave}");
        self.channel.call(Method::PUT, &path, Some(body)).await
    }

    /// User: takes a request key back.
    pub async fn drop_request_key(
        &mut self,
        model: &ModelId,
        enclave: &EnclaveId,
    ) -> Answer<Revoked> {
        let path = format!("/v1/request-keys/{model}/{enclave}");
        self.channel.call(Method::DELETE, &path, NO_BODY).await
    }

    /// User: own live request keys.
    pub async fn request_keys(&mut self) -> Answer<RequestKeyList> {
        self.read("/v1/request-keys").await
    }

    /// Attested instance: keys and artifact for `user` on `model`.
    pub async fn release(&mut self, body: &ReleaseRequest) -> Answer<Release> {
        self.channel
            .call(Method::POST, "/v1/release", Some(body))
            .await
    }

    /// Owner or user: the log entries that concern the caller.
    pub async fn log(&mut self) -> Answer<LogPage> {
        self.read("/v1/log").await
    }
}

fn grant_path(model: &ModelId, user: &PrincipalId, enclave: &EnclaveId) -> String {
    format!("/v1/models/{model}/grants/{user}/{enclave}")
}
