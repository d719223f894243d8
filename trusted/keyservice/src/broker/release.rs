//! The release of keys: what KeyService exists to refuse.

use std::time::Duration;

use attestation::CheckName;
use protocol::id::LeaseId;
use protocol::keyservice::{Lease, Release, ReleaseRequest, WireKey};
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};

use super::log::{Draft, Event};
use super::{Broker, Decided, Instance, Write};

/// Why keys were not released. Exact, for the log: the peer learns only whether its enclave is the
/// reason (docs/protocol.md), so that it cannot probe for models, users and owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReleaseError {
    #[error("no such model")]
    UnknownModel,
    #[error("the owner granted this user nothing on this model")]
    NoGrant,
    #[error("the owner granted this user other enclaves than the asking one")]
    GrantForOtherEnclave,
    #[error("the user registered no request key for this model")]
    NoRequestKey,
    #[error("the user registered request keys for other enclaves than the asking one")]
    RequestKeyForOtherEnclave,
    #[error("the user named another owner for this model")]
    OtherOwner,
    #[error("the instance fails the owner's policy at \"{0}\"")]
    OwnerPolicy(CheckName),
    #[error("the instance fails the user's policy at \"{0}\"")]
    UserPolicy(CheckName),
}

/// Owner and user both allow this instance what it asks for. Made only by [`Broker::authorize`],
/// and the only thing that a [`Release`] is made from.
#[derive(Debug)]
struct Authorized<'a> {
    model: &'a ModelId,
    user: PrincipalId,
    enclave: EnclaveId,
    owner: PrincipalId,
    version: ModelVersion,
    digest: Digest,
    model_key: WireKey,
    request_key: WireKey,
}

impl Broker {
    /// Releases the newest version of the model to `instance` under the lease `id`, which the
    /// caller draws at random.
    // INVARIANT: every release has a live grant for exactly (model, user, E_S) and a live request
    // key of that user for exactly (model, E_S) that names the model's owner
    // (broker/tests.rs: no_release_without_consent).
    pub fn release(
        &mut self,
        instance: &Instance,
        request: &ReleaseRequest,
        id: LeaseId,
        now: Duration,
    ) -> Result<Decided<Release>, ReleaseError> {
        let lease = Lease {
            id,
            ttl_s: u64::from(self.lease_ttl_s),
            epoch: self.epoch,
        };
        let authorized = self.authorize(instance, request)?;
        let (draft, answer) = (authorized.draft(), authorized.release(lease));
        let entry = self.chain.append(draft, now);
        Ok(Decided {
            answer,
            writes: vec![Write::Append(entry)],
        })
    }

    /// The decision alone.
    fn authorize<'a>(
        &self,
        instance: &Instance,
        request: &'a ReleaseRequest,
    ) -> Result<Authorized<'a>, ReleaseError> {
        let (model, user, enclave) = (&request.model, request.user, instance.enclave());
        let known = self.models.get(model).ok_or(ReleaseError::UnknownModel)?;
        let Some(granted) = known.grants.get(&(user, enclave)) else {
            let elsewhere = known.grants.keys().any(|(granted, _)| *granted == user);
            return Err(if elsewhere {
                ReleaseError::GrantForOtherEnclave
            } else {
                ReleaseError::NoGrant
            });
        };
        let keys = self
            .request_keys
            .get(&user)
            .ok_or(ReleaseError::NoRequestKey)?;
        let Some(held) = keys.get(&(model.clone(), enclave)) else {
            let elsewhere = keys.keys().any(|(keyed, _)| keyed == model);
            return Err(if elsewhere {
                ReleaseError::RequestKeyForOtherEnclave
            } else {
                ReleaseError::NoRequestKey
            });
        };
        if held.owner != known.owner {
            return Err(ReleaseError::OtherOwner);
        }
        if let Some(terms) = &granted.terms {
            let allowed = terms.allow(instance);
            allowed.map_err(|error| ReleaseError::OwnerPolicy(error.failed()))?;
        }
        if let Some(terms) = &held.terms {
            let allowed = terms.allow(instance);
            allowed.map_err(|error| ReleaseError::UserPolicy(error.failed()))?;
        }
        let (version, newest) = known
            .versions
            .last_key_value()
            .ok_or(ReleaseError::UnknownModel)?;
        Ok(Authorized {
            model,
            user,
            enclave,
            owner: known.owner,
            version: *version,
            digest: newest.digest,
            model_key: newest.key.to_wire(),
            request_key: held.key.to_wire(),
        })
    }
}

impl Authorized<'_> {
    fn draft(&self) -> Draft {
        Draft {
            event: Event::Released,
            model: self.model.clone(),
            user: Some(self.user),
            enclave: Some(self.enclave),
            version: Some(self.version),
            owner: Some(self.owner),
        }
    }

    fn release(self, lease: Lease) -> Release {
        Release {
            model: self.model.clone(),
            version: self.version,
            owner: self.owner,
            digest: self.digest,
            model_key: self.model_key,
            request_key: self.request_key,
            lease,
        }
    }
}
