//! What a model user asks of KeyService.

use protocol::keyservice::{
    PolicyText, RegisterRequestKey, RequestKeyList, RequestKeyRecord, Revoked,
};
use protocol::{EnclaveId, ErrorCode, ModelId, PrincipalId};

use super::{Keyservice, KeyserviceError};
use crate::explain::Explain;
use crate::keyring::{KeyringError, RequestKeyring};

/// The calls of a model user.
#[derive(Debug)]
pub struct User<'k> {
    pub(super) keyservice: &'k mut Keyservice,
}

/// Why a request key was not registered or dropped.
#[derive(Debug, thiserror::Error)]
pub enum RequestKeyError {
    #[error("cannot use the keyring")]
    Keyring(#[from] KeyringError),
    #[error("another key or owner is registered for model '{model}' in this enclave")]
    OtherKey { model: ModelId },
    #[error("cannot change the request key at KeyService")]
    Keyservice(#[from] KeyserviceError),
}

impl Explain for RequestKeyError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Keyring(error) => error.code(),
            Self::OtherKey { .. } => ErrorCode::Conflict,
            Self::Keyservice(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Keyring(error) => error.retryable(),
            Self::OtherKey { .. } => false,
            Self::Keyservice(error) => error.retryable(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Keyring(error) => error.advice(),
            Self::OtherKey { .. } => {
                "add --rotate to drop the registered key and register this one".to_owned()
            }
            Self::Keyservice(error) => error.advice(),
        }
    }
}

fn is_conflict<T>(result: &Result<T, KeyserviceError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.code() == ErrorCode::Conflict)
}

/// A request key that is in use now.
#[derive(Debug, Clone)]
pub struct Registered {
    pub record: RequestKeyRecord,
    /// Whether requests used another key before, or none.
    pub new: bool,
    /// Set if a registered key was dropped for this one: instances that hold the old key refuse
    /// requests sealed with the new one for at most so many seconds.
    pub replaced_within_s: Option<u64>,
}

/// What a request key is registered for.
#[derive(Debug, Clone)]
pub struct Demands {
    /// Whom the model must belong to.
    pub owner: PrincipalId,
    /// An appraisal policy that KeyService applies to the instance's evidence at every release.
    pub policy: Option<PolicyText>,
}

impl User<'_> {
    /// Registers a request key for (model, enclave) and takes it into use. A key that is in use is
    /// registered again, which changes nothing. With `rotate`, a fresh key takes the place of
    /// whatever is registered; requests under way with the old one may then fail. `owner` is whom
    /// the model must belong to.
    pub async fn register_request_key(
        &mut self,
        keyring: &RequestKeyring,
        model: &ModelId,
        enclave: &EnclaveId,
        owner: PrincipalId,
        rotate: bool,
    ) -> Result<Registered, RequestKeyError> {
        let demands = Demands {
            owner,
            policy: None,
        };
        self.register_request_key_for(keyring, model, enclave, demands, rotate)
            .await
    }

    /// As [`Self::register_request_key`], for instances that also satisfy an appraisal policy.
    pub async fn register_request_key_for(
        &mut self,
        keyring: &RequestKeyring,
        model: &ModelId,
        enclave: &EnclaveId,
        demands: Demands,
        rotate: bool,
    ) -> Result<Registered, RequestKeyError> {
        let staged = keyring.stage(model, enclave, rotate)?;
        let body = RegisterRequestKey {
            owner: demands.owner,
            key: staged.key().to_wire(),
            policy: demands.policy,
        };
        let mut result = self.put_request_key(model, enclave, &body).await;
        let mut replaced_within_s = None;
        if is_conflict(&result) && rotate {
            let dropped = self
                .keyservice
                .call(async |client| client.drop_request_key(model, enclave).await)
                .await?;
            replaced_within_s = dropped.revoked.then_some(dropped.effective_within_s);
            result = self.put_request_key(model, enclave, &body).await;
        }
        if is_conflict(&result) {
            staged.discard()?;
            return Err(RequestKeyError::OtherKey {
                model: model.clone(),
            });
        }
        let record = result?;
        self.keyservice.learn(record.epoch)?;
        let new = staged.is_new();
        staged.commit()?;
        Ok(Registered {
            record,
            new,
            replaced_within_s,
        })
    }

    async fn put_request_key(
        &mut self,
        model: &ModelId,
        enclave: &EnclaveId,
        body: &RegisterRequestKey,
    ) -> Result<RequestKeyRecord, KeyserviceError> {
        self.keyservice
            .call(async |client| client.register_request_key(model, enclave, body).await)
            .await
    }

    /// Drops a request key: at KeyService first, then the file.
    pub async fn drop_request_key(
        &mut self,
        keyring: &RequestKeyring,
        model: &ModelId,
        enclave: &EnclaveId,
    ) -> Result<Revoked, RequestKeyError> {
        let revoked = self
            .keyservice
            .call(async |client| client.drop_request_key(model, enclave).await)
            .await?;
        keyring.remove(model, enclave)?;
        Ok(revoked)
    }

    /// Own live request keys, without the keys.
    pub async fn request_keys(&mut self) -> Result<RequestKeyList, KeyserviceError> {
        self.keyservice
            .call(async |client| client.request_keys().await)
            .await
    }
}
