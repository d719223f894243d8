//! Grants: the owner allows a user to use a model inside instances of one E_S, and takes it back.

use std::time::Duration;

use protocol::keyservice::{Grant, GrantList, Revoked};
use protocol::{EnclaveId, ModelId, PrincipalId};

use super::log::{Draft, Event};
use super::{
    Broker, Decided, LimitReached, Page, Principal, RestoreError, Row, RowKey, UnknownModel, Write,
};

/// Why a grant was not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("cannot grant")]
    UnknownModel(#[source] UnknownModel),
    #[error("there is no room for another grant")]
    Limit(#[source] LimitReached),
}

impl Broker {
    /// Allows `user` to use `model` in `enclave`. A repeated call answers with the epoch of the
    /// first.
    pub fn grant(
        &mut self,
        owner: &Principal,
        model: &ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        now: Duration,
    ) -> Result<Decided<Grant>, GrantError> {
        let known = self
            .model_of(owner, model)
            .map_err(GrantError::UnknownModel)?;
        if let Some(epoch) = known.grants.get(&(user, enclave)) {
            let answer = Grant {
                model: model.clone(),
                user,
                enclave,
                epoch: *epoch,
            };
            return Ok(Decided::unchanged(answer));
        }
        self.accounts
            .check_room(owner.id(), &self.limits)
            .map_err(GrantError::Limit)?;

        let epoch = self.epoch;
        self.insert_grant(model, user, enclave, epoch);
        let row = Row::Grant {
            model: model.clone(),
            user,
            enclave,
            epoch,
        };
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
            answer: Grant {
                model: model.clone(),
                user,
                enclave,
                epoch,
            },
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
            .map(|(user, enclave, epoch)| Grant {
                model: model.clone(),
                user,
                enclave,
                epoch,
            })
            .collect();
        Ok(GrantList { grants })
    }

    pub(super) fn restore_grant(
        &mut self,
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        epoch: u64,
    ) -> Result<(), RestoreError> {
        if !self.models.contains_key(&model) {
            return Err(RestoreError::GrantWithoutModel(model));
        }
        self.insert_grant(&model, user, enclave, epoch);
        Ok(())
    }

    pub(super) const fn revoked(&self, revoked: bool) -> Revoked {
        Revoked {
            revoked,
            effective_within_s: self.lease_ttl_s as u64,
        }
    }

    fn insert_grant(&mut self, model: &ModelId, user: PrincipalId, enclave: EnclaveId, epoch: u64) {
        if let Some(known) = self.models.get_mut(model) {
            known.grants.insert((user, enclave), epoch);
            self.accounts.add_row(known.owner);
        }
    }
}
