//! Grants: the owner allows a user to use a model inside instances of one E_S, and takes it back.

use std::time::Duration;

use protocol::keyservice::{Grant, GrantList, GrantTerms, Revoked};
use protocol::{EnclaveId, ModelId, PrincipalId};

use super::log::{Draft, Event};
use super::terms::{Terms, TermsError, same};
use super::{
    Broker, Decided, LimitReached, Page, Principal, RestoreError, Row, RowKey, UnknownModel, Write,
};

/// A live grant.
#[derive(Debug)]
pub(super) struct HeldGrant {
    /// When it was made.
    pub(super) epoch: u64,
    pub(super) terms: Option<Terms>,
}

impl HeldGrant {
    fn answer(&self, model: &ModelId, user: PrincipalId, enclave: EnclaveId) -> Grant {
        Grant {
            model: model.clone(),
            user,
            enclave,
            epoch: self.epoch,
            policy: self.terms.as_ref().map(Terms::hash),
        }
    }
}

/// Why a grant was not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("cannot grant")]
    UnknownModel(#[source] UnknownModel),
    #[error("cannot grant on these terms")]
    Terms(#[source] TermsError),
    #[error("model {0} is granted to this user in this enclave on other terms; revoke it first")]
    OtherTerms(ModelId),
    #[error("there is no room for another grant")]
    Limit(#[source] LimitReached),
}

impl Broker {
    /// Allows `user` to use `model` in instances of `enclave` that satisfy the terms' policy. A
    /// repeated call answers with the epoch of the first.
    pub fn grant(
        &mut self,
        owner: &Principal,
        model: &ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        terms: &GrantTerms,
        now: Duration,
    ) -> Result<Decided<Grant>, GrantError> {
        let known = self
            .model_of(owner, model)
            .map_err(GrantError::UnknownModel)?;
        let terms = terms.policy.as_ref().map(Terms::parse).transpose();
        let terms = terms.map_err(GrantError::Terms)?;
        if let Some(held) = known.grants.get(&(user, enclave)) {
            return if same(held.terms.as_ref(), terms.as_ref()) {
                Ok(Decided::unchanged(held.answer(model, user, enclave)))
            } else {
                Err(GrantError::OtherTerms(model.clone()))
            };
        }
        self.accounts
            .check_room(owner.id(), &self.limits)
            .map_err(GrantError::Limit)?;

        let row = Row::Grant {
            model: model.clone(),
            user,
            enclave,
            epoch: self.epoch,
            policy: terms.as_ref().map(|terms| terms.text().clone()),
        };
        let held = HeldGrant {
            epoch: self.epoch,
            terms,
        };
        let answer = held.answer(model, user, enclave);
        self.insert_grant(model, user, enclave, held);
        let entry = self.chain.append(
            Draft {
                event: Event::Granted,
                model: model.clone(),
                user: Some(user),
                enclave: Some(enclave),
                version: None,
                owner: Some(owner.id()),
            },
            now,
        );
        Ok(Decided {
            answer,
            writes: vec![Write::Put(row), Write::Append(entry)],
        })
    }

    /// Takes a grant back. Revoking what is not granted succeeds and says so; the bound on its
    /// effect holds either way, because an earlier answer may have been lost.
    pub fn revoke(
        &mut self,
        owner: &Principal,
        model: &ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        now: Duration,
    ) -> Result<Decided<Revoked>, UnknownModel> {
        self.model_of(owner, model)?;
        let removed = self
            .models
            .get_mut(model)
            .and_then(|known| known.grants.remove(&(user, enclave)))
            .is_some();
        let answer = self.revoked(removed);
        if !removed {
            return Ok(Decided::unchanged(answer));
        }
        self.accounts.remove_row(owner.id());
        self.epoch += 1;
        let entry = self.chain.append(
            Draft {
                event: Event::Revoked,
                model: model.clone(),
                user: Some(user),
                enclave: Some(enclave),
                version: None,
                owner: Some(owner.id()),
            },
            now,
        );
        let row = RowKey::Grant {
            model: model.clone(),
            user,
            enclave,
        };
        Ok(Decided {
            answer,
            writes: vec![Write::Remove(row), Write::Append(entry)],
        })
    }

    /// Live grants of one model of the caller.
    pub fn grants(
        &self,
        owner: &Principal,
        model: &ModelId,
        page: &Page<(PrincipalId, EnclaveId)>,
    ) -> Result<GrantList, UnknownModel> {
        let known = self.model_of(owner, model)?;
        let grants = known
            .grants_after(page.after.as_ref())
            .take(page.limit)
            .map(|(user, enclave, held)| held.answer(model, user, enclave))
            .collect();
        Ok(GrantList { grants })
    }

    pub(super) fn restore_grant(&mut self, row: Row) -> Result<(), RestoreError> {
        let Row::Grant {
            model,
            user,
            enclave,
            epoch,
            policy,
        } = row
        else {
            return Ok(());
        };
        let terms = policy.as_ref().map(Terms::parse).transpose();
        let terms = terms.map_err(RestoreError::Terms)?;
        if !self.models.contains_key(&model) {
            return Err(RestoreError::GrantWithoutModel(model));
        }
        self.insert_grant(&model, user, enclave, HeldGrant { epoch, terms });
        Ok(())
    }

    pub(super) const fn revoked(&self, revoked: bool) -> Revoked {
        Revoked {
            revoked,
            effective_within_s: self.lease_ttl_s as u64,
        }
    }

    fn insert_grant(
        &mut self,
        model: &ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        held: HeldGrant,
    ) {
        if let Some(known) = self.models.get_mut(model) {
            known.grants.insert((user, enclave), held);
            self.accounts.add_row(known.owner);
        }
    }
}
