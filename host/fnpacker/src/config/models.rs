//! What the operator says about models: whose they are, and with which others they may live.

use std::collections::HashMap;

use protocol::{ModelId, PrincipalId};
use serde::Deserialize;

use super::InvalidConfig;
use crate::packing::Company;

/// What is known of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// Whose it is. The operator's word: `KeyService` does not ask `FnPacker` who owns what.
    pub owner: Option<PrincipalId>,
    pub company: Company,
}

/// Every model that the operator has named; others have no owner and are shared.
pub type Models = HashMap<ModelId, ModelConfig>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    name: ModelId,
    #[serde(default)]
    owner: Option<PrincipalId>,
    #[serde(default)]
    company: Company,
}

pub(super) fn checked(raw: Vec<RawModel>) -> Result<Models, InvalidConfig> {
    let mut models = Models::new();
    for RawModel {
        name,
        owner,
        company,
    } in raw
    {
        if company == Company::SameOwner && owner.is_none() {
            return Err(InvalidConfig::NoOwner(name));
        }
        if models.contains_key(&name) {
            return Err(InvalidConfig::ModelTwice(name));
        }
        models.insert(name, ModelConfig { owner, company });
    }
    Ok(models)
}
