//! What a model owner asks of KeyService.

use protocol::keyservice::{
    Grant, GrantList, GrantTerms, ModelList, ModelRecord, RegisterModel, Revoked,
};
use protocol::{Digest, EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId};

use super::{Keyservice, KeyserviceError};
use crate::explain::Explain;
use crate::publish::{ModelShelf, PublishError, Pushed};

/// The calls of a model owner.
#[derive(Debug)]
pub struct Owner<'k> {
    pub(super) keyservice: &'k mut Keyservice,
}

/// Why a pushed version was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("cannot use what was pushed")]
    Shelf(#[from] PublishError),
    #[error("cannot register the version")]
    Keyservice(#[from] KeyserviceError),
}

impl Explain for RegisterError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Shelf(error) => error.code(),
            Self::Keyservice(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Shelf(error) => error.retryable(),
            Self::Keyservice(error) => error.retryable(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Shelf(error) => error.advice(),
            Self::Keyservice(error) => error.advice(),
        }
    }
}

impl Owner<'_> {
    /// Registers what was pushed: its digest, and its key from the shelf. Idempotent.
    pub async fn register(
        &mut self,
        shelf: &ModelShelf,
        pushed: &Pushed,
    ) -> Result<ModelRecord, RegisterError> {
        let key = shelf.key(pushed)?;
        let body = RegisterModel {
            digest: pushed.digest,
            key: key.to_wire(),
        };
        Ok(self
            .register_with(&pushed.model, pushed.version, &body)
            .await?)
    }

    /// Registers a version whose key the caller keeps elsewhere.
    pub async fn register_with(
        &mut self,
        model: &ModelId,
        version: ModelVersion,
        body: &RegisterModel,
    ) -> Result<ModelRecord, KeyserviceError> {
        self.keyservice
            .call(async |client| client.register_model(model, version, body).await)
            .await
    }

    /// All versions of all own models.
    pub async fn models(&mut self) -> Result<ModelList, KeyserviceError> {
        self.keyservice
            .call(async |client| client.list_models().await)
            .await
    }

    /// All versions of one model.
    pub async fn versions(&mut self, model: &ModelId) -> Result<ModelList, KeyserviceError> {
        self.keyservice
            .call(async |client| client.versions(model).await)
            .await
    }

    /// Allows `user` to use `model` inside instances of `enclave`. Idempotent.
    pub async fn grant(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
    ) -> Result<Grant, KeyserviceError> {
        let terms = GrantTerms::NONE;
        self.grant_on_terms(model, user, enclave, &terms).await
    }

    /// As [`Self::grant`], to instances that also satisfy an appraisal policy: KeyService applies
    /// it to their evidence at every release.
    pub async fn grant_on_terms(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
        terms: &GrantTerms,
    ) -> Result<Grant, KeyserviceError> {
        let grant = self
            .keyservice
            .call(async |client| client.grant_on_terms(model, user, enclave, terms).await)
            .await?;
        self.keyservice.learn(grant.epoch)?;
        Ok(grant)
    }

    /// Takes a grant back. The answer says how late that can take effect.
    pub async fn revoke(
        &mut self,
        model: &ModelId,
        user: &PrincipalId,
        enclave: &EnclaveId,
    ) -> Result<Revoked, KeyserviceError> {
        self.keyservice
            .call(async |client| client.revoke(model, user, enclave).await)
            .await
    }

    /// Live grants of a model.
    pub async fn grants(&mut self, model: &ModelId) -> Result<GrantList, KeyserviceError> {
        self.keyservice
            .call(async |client| client.grants(model).await)
            .await
    }

    /// Whether a version is registered with exactly this digest.
    pub async fn is_registered(
        &mut self,
        model: &ModelId,
        version: ModelVersion,
        digest: &Digest,
    ) -> Result<bool, KeyserviceError> {
        let list = self.versions(model).await?;
        Ok(list
            .models
            .iter()
            .any(|m| m.version == version && m.digest == *digest))
    }
}
