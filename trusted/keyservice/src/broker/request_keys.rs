//! Request keys: the user's consent, one key for one (model, E_S), naming the model's owner.

use std::ops::Bound;
use std::time::Duration;

use crypto::{KeyLengthError, RequestKey};
use protocol::keyservice::{RegisterRequestKey, RequestKeyList, RequestKeyRecord, Revoked};
use protocol::{EnclaveId, ModelId, PrincipalId};

use super::log::{Draft, Event};
use super::terms::{Terms, TermsError, same};
use super::{Broker, Decided, LimitReached, Page, Principal, RestoreError, Row, RowKey, Write};

/// A live request key.
#[derive(Debug)]
pub(super) struct HeldRequestKey {
    pub(super) owner: PrincipalId,
    pub(super) epoch: u64,
    pub(super) key: RequestKey,
    pub(super) terms: Option<Terms>,
}

/// Why a request key was not registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRequestKeyError {
    #[error("the request key has the wrong length")]
    KeyLength(#[source] KeyLengthError),
    #[error(
        "another request key, owner or policy is registered for model {0} and this enclave; drop it first"
    )]
    OtherContent(ModelId),
    #[error("cannot register a request key on these terms")]
    Terms(#[source] TermsError),
    #[error("there is no room for another request key")]
    Limit(#[source] LimitReached),
}

impl Broker {
    /// Registers the caller's request key. It does not ask whether the model exists or a grant
    /// does: owner and user may act in either order, and the answer would tell about others.
    pub fn register_request_key(
        &mut self,
        user: &Principal,
        model: &ModelId,
        enclave: EnclaveId,
        registration: &RegisterRequestKey,
        now: Duration,
    ) -> Result<Decided<RequestKeyRecord>, RegisterRequestKeyError> {
        let key =
            RequestKey::from_wire(&registration.key).map_err(RegisterRequestKeyError::KeyLength)?;
        let terms = registration.policy.as_ref().map(Terms::parse).transpose();
        let terms = terms.map_err(RegisterRequestKeyError::Terms)?;
        let owner = registration.owner;
        let user = user.id();
        let held_under = (model.clone(), enclave);
        if let Some(held) = self
            .request_keys
            .get(&user)
            .and_then(|keys| keys.get(&held_under))
        {
            let same_terms = same(held.terms.as_ref(), terms.as_ref());
            return if held.owner == owner && same_terms && held.key.ct_eq(&key) {
                Ok(Decided::unchanged(held.record(model, enclave)))
            } else {
                Err(RegisterRequestKeyError::OtherContent(model.clone()))
            };
        }
        self.accounts
            .check_room(user, &self.limits)
            .map_err(RegisterRequestKeyError::Limit)?;

        let held = HeldRequestKey {
            owner,
            epoch: self.epoch,
            key,
            terms,
        };
        let answer = held.record(model, enclave);
        let row = Row::RequestKey {
            user,
            model: model.clone(),
            enclave,
            owner,
            epoch: self.epoch,
            key: registration.key.clone(),
            policy: registration.policy.clone(),
        };
        self.request_keys
            .entry(user)
            .or_default()
            .insert(held_under, held);
        self.accounts.add_row(user);
        let entry = self.chain.append(
            Draft {
                event: Event::RequestKeyRegistered,
                model: model.clone(),
                user: Some(user),
                enclave: Some(enclave),
                version: None,
                owner: None,
            },
            now,
        );
        Ok(Decided {
            answer,
            writes: vec![Write::Put(row), Write::Append(entry)],
        })
    }

    /// Withdraws the caller's consent and forgets the key.
    pub fn drop_request_key(
        &mut self,
        user: &Principal,
        model: &ModelId,
        enclave: EnclaveId,
        now: Duration,
    ) -> Decided<Revoked> {
        let user = user.id();
        let removed = self.forget_request_key(user, model, enclave);
        let answer = self.revoked(removed);
        if !removed {
            return Decided::unchanged(answer);
        }
        self.accounts.remove_row(user);
        self.epoch += 1;
        let entry = self.chain.append(
            Draft {
                event: Event::RequestKeyDropped,
                model: model.clone(),
                user: Some(user),
                enclave: Some(enclave),
                version: None,
                owner: None,
            },
            now,
        );
        let row = RowKey::RequestKey {
            user,
            model: model.clone(),
            enclave,
        };
        Decided {
            answer,
            writes: vec![Write::Remove(row), Write::Append(entry)],
        }
    }

    /// The caller's live request keys, without the keys.
    #[must_use]
    pub fn list_request_keys(
        &self,
        user: &Principal,
        page: &Page<(ModelId, EnclaveId)>,
    ) -> RequestKeyList {
        let request_keys = self
            .request_keys_of(user.id(), page.after.clone())
            .take(page.limit)
            .map(|(model, enclave, held)| held.record(model, enclave))
            .collect();
        RequestKeyList { request_keys }
    }

    /// The live request keys of `user` after `after`, in order of model and enclave.
    pub(super) fn request_keys_of(
        &self,
        user: PrincipalId,
        after: Option<(ModelId, EnclaveId)>,
    ) -> impl Iterator<Item = (&ModelId, EnclaveId, &HeldRequestKey)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.request_keys
            .get(&user)
            .into_iter()
            .flat_map(move |keys| keys.range((start.clone(), Bound::Unbounded)))
            .map(|((model, enclave), held)| (model, *enclave, held))
    }

    fn forget_request_key(
        &mut self,
        user: PrincipalId,
        model: &ModelId,
        enclave: EnclaveId,
    ) -> bool {
        let Some(keys) = self.request_keys.get_mut(&user) else {
            return false;
        };
        let removed = keys.remove(&(model.clone(), enclave)).is_some();
        if keys.is_empty() {
            self.request_keys.remove(&user);
        }
        removed
    }

    pub(super) fn restore_request_key(&mut self, row: Row) -> Result<(), RestoreError> {
        let Row::RequestKey {
            user,
            model,
            enclave,
            owner,
            epoch,
            key,
            policy,
        } = row
        else {
            return Ok(());
        };
        let key = RequestKey::from_wire(&key).map_err(RestoreError::KeyLength)?;
        let terms = policy.as_ref().map(Terms::parse).transpose();
        let held = HeldRequestKey {
            owner,
            epoch,
            key,
            terms: terms.map_err(RestoreError::Terms)?,
        };
        self.request_keys
            .entry(user)
            .or_default()
            .insert((model, enclave), held);
        self.accounts.add_row(user);
        Ok(())
    }
}

impl HeldRequestKey {
    fn record(&self, model: &ModelId, enclave: EnclaveId) -> RequestKeyRecord {
        RequestKeyRecord {
            model: model.clone(),
            enclave,
            owner: self.owner,
            epoch: self.epoch,
            policy: self.terms.as_ref().map(Terms::hash),
        }
    }
}
