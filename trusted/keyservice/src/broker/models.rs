//! Models and their versions: a model belongs to whoever registered it first, versions only grow.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use crypto::{KeyLengthError, ModelKey};
use protocol::keyservice::{ModelList, ModelRecord, RegisterModel};
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};

use super::grants::HeldGrant;
use super::log::{Draft, Event};
use super::{Broker, Decided, LimitReached, Page, Principal, RestoreError, Row, Write};

/// A registered version.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) digest: Digest,
    pub(super) key: ModelKey,
}

/// A model: its owner, its versions, and who may use it where.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) owner: PrincipalId,
    pub(super) versions: BTreeMap<ModelVersion, Version>,
    /// By (user, E_S).
    pub(super) grants: BTreeMap<(PrincipalId, EnclaveId), HeldGrant>,
}

/// The caller owns no model of this name. Whether somebody else does is not said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the caller has no model {0}")]
pub struct UnknownModel(pub ModelId);

/// Why a version was not registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterModelError {
    #[error("versions start at 1")]
    VersionZero,
    #[error("the model key has the wrong length")]
    KeyLength(#[source] KeyLengthError),
    #[error("model {0} belongs to another owner")]
    OtherOwner(ModelId),
    #[error("version {version} of model {model} is registered with another digest or key")]
    OtherContent {
        model: ModelId,
        version: ModelVersion,
    },
    #[error("versions only grow, and version {newest} of model {model} is registered already")]
    NotNewer {
        model: ModelId,
        newest: ModelVersion,
    },
    #[error("there is no room for another version")]
    Limit(#[source] LimitReached),
}

impl Broker {
    /// Registers a version. Repeating the call changes nothing and answers the same.
    pub fn register_model(
        &mut self,
        owner: &Principal,
        model: &ModelId,
        version: ModelVersion,
        registration: &RegisterModel,
        now: Duration,
    ) -> Result<Decided<ModelRecord>, RegisterModelError> {
        let owner = owner.id();
        if version.0 == 0 {
            return Err(RegisterModelError::VersionZero);
        }
        let key = ModelKey::from_wire(&registration.key).map_err(RegisterModelError::KeyLength)?;
        let answer = ModelRecord {
            model: model.clone(),
            version,
            owner,
            digest: registration.digest,
        };
        if let Some(known) = self.models.get(model) {
            if known.owner != owner {
                return Err(RegisterModelError::OtherOwner(model.clone()));
            }
            if let Some(registered) = known.versions.get(&version) {
                return if registered.digest == registration.digest && registered.key.ct_eq(&key) {
                    Ok(Decided::unchanged(answer))
                } else {
                    Err(RegisterModelError::OtherContent {
                        model: model.clone(),
                        version,
                    })
                };
            }
            if let Some(newest) = known.newest().filter(|newest| *newest > version) {
                return Err(RegisterModelError::NotNewer {
                    model: model.clone(),
                    newest,
                });
            }
        }
        self.accounts
            .check_room(owner, &self.limits)
            .map_err(RegisterModelError::Limit)?;

        let row = Row::Version {
            model: model.clone(),
            version,
            owner,
            digest: registration.digest,
            key: registration.key.clone(),
        };
        self.insert_version(
            model,
            version,
            owner,
            Version {
                digest: registration.digest,
                key,
            },
        );
        let entry = self.chain.append(
            Draft {
                event: Event::ModelRegistered,
                model: model.clone(),
                user: None,
                enclave: None,
                version: Some(version),
                owner: Some(owner),
            },
            now,
        );
        Ok(Decided {
            answer,
            writes: vec![Write::Put(row), Write::Append(entry)],
        })
    }

    /// All versions of all models of the caller.
    #[must_use]
    pub fn list_models(
        &self,
        owner: &Principal,
        page: &Page<(ModelId, ModelVersion)>,
    ) -> ModelList {
        let from = page.after.as_ref().map(|(model, _)| model);
        let records = self
            .accounts
            .models_from(owner.id(), from)
            .filter_map(|id| self.models.get(id).map(|model| (id, model)))
            .flat_map(|(id, model)| model.records(id))
            .filter(|record| {
                page.after.as_ref().is_none_or(|(model, version)| {
                    (&record.model, record.version) > (model, *version)
                })
            });
        ModelList {
            models: records.take(page.limit).collect(),
        }
    }

    /// All versions of one model of the caller.
    pub fn versions(
        &self,
        owner: &Principal,
        model: &ModelId,
        page: &Page<ModelVersion>,
    ) -> Result<ModelList, UnknownModel> {
        let known = self.model_of(owner, model)?;
        let after = page.after.unwrap_or(ModelVersion(0));
        let records = known.records(model).filter(|record| record.version > after);
        Ok(ModelList {
            models: records.take(page.limit).collect(),
        })
    }

    /// The model, if it is the caller's.
    pub(super) fn model_of(
        &self,
        owner: &Principal,
        model: &ModelId,
    ) -> Result<&Model, UnknownModel> {
        self.models
            .get(model)
            .filter(|known| known.owner == owner.id())
            .ok_or_else(|| UnknownModel(model.clone()))
    }

    pub(super) fn restore_version(&mut self, row: Row) -> Result<(), RestoreError> {
        let Row::Version {
            model,
            version,
            owner,
            digest,
            key,
        } = row
        else {
            return Ok(());
        };
        if self
            .models
            .get(&model)
            .is_some_and(|known| known.owner != owner)
        {
            return Err(RestoreError::TwoOwners(model));
        }
        let key = ModelKey::from_wire(&key).map_err(RestoreError::KeyLength)?;
        self.insert_version(&model, version, owner, Version { digest, key });
        Ok(())
    }

    fn insert_version(
        &mut self,
        model: &ModelId,
        version: ModelVersion,
        owner: PrincipalId,
        content: Version,
    ) {
        let entry = self.models.entry(model.clone()).or_insert_with(|| Model {
            owner,
            versions: BTreeMap::new(),
            grants: BTreeMap::new(),
        });
        entry.versions.insert(version, content);
        self.accounts.add_row(owner);
        self.accounts.add_model(owner, model.clone());
    }
}

impl Model {
    fn newest(&self) -> Option<ModelVersion> {
        self.versions.last_key_value().map(|(version, _)| *version)
    }

    fn records(&self, model: &ModelId) -> impl Iterator<Item = ModelRecord> {
        self.versions
            .iter()
            .map(move |(version, content)| ModelRecord {
                model: model.clone(),
                version: *version,
                owner: self.owner,
                digest: content.digest,
            })
    }

    /// The grants, in order, after `after`.
    pub(super) fn grants_after(
        &self,
        after: Option<&(PrincipalId, EnclaveId)>,
    ) -> impl Iterator<Item = (PrincipalId, EnclaveId, &HeldGrant)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.grants
            .range((start, Bound::Unbounded))
            .map(|((user, enclave), held)| (*user, *enclave, held))
    }
}
