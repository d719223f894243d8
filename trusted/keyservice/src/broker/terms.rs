//! Terms: what an owner or a user demands of an instance beyond its enclave id.

use attestation::policy::PolicyError;
use attestation::{AppraisalPolicy, AppraiseError, satisfies};
use protocol::PolicyHash;
use protocol::keyservice::PolicyText;

use super::Instance;

/// Why a text is no appraisal policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("the appraisal policy is not valid: {0}")]
    Text(String),
    #[error("the appraisal policy cannot be hashed")]
    Hash(#[source] PolicyError),
}

/// An appraisal policy that instances must satisfy, as it was given and as it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    text: PolicyText,
    policy: AppraisalPolicy,
    hash: PolicyHash,
}

impl Terms {
    /// # Errors
    /// [`TermsError`] says what is wrong with the text.
    pub fn parse(text: &PolicyText) -> Result<Self, TermsError> {
        let policy: AppraisalPolicy = toml::from_str(text.as_str())
            .map_err(|error| TermsError::Text(error.message().to_owned()))?;
        let hash = policy.hash().map_err(TermsError::Hash)?;
        Ok(Self {
            text: text.clone(),
            policy,
            hash,
        })
    }

    /// As it was given.
    #[must_use]
    pub const fn text(&self) -> &PolicyText {
        &self.text
    }

    /// Of the canonical form: two texts that accept the same have one hash.
    #[must_use]
    pub const fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// # Errors
    /// [`AppraiseError`] names the first check that `instance` fails.
    pub(super) fn allow(&self, instance: &Instance) -> Result<(), AppraiseError> {
        let (claims, enclave) = (instance.claims(), instance.enclave());
        satisfies(claims, &enclave, &self.policy, instance.at()).map(drop)
    }
}

/// Both absent, or one and the same policy.
pub(super) fn same(held: Option<&Terms>, asked: Option<&Terms>) -> bool {
    held.map(Terms::hash) == asked.map(Terms::hash)
}
