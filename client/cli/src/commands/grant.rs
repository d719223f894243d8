//! `sesemi grant …`.

use std::path::Path;

use attestation::AppraisalPolicy;
use protocol::keyservice::{Grant, GrantTerms, PolicyText};
use protocol::limits::POLICY_MAX;
use protocol::{EnclaveId, PrincipalId};
use serde_json::json;

use super::Context;
use crate::args::{GrantArgs, GrantCommand};
use crate::failure::Failure;
use crate::input::read_bounded;
use crate::profile::Profile;
use crate::report::{Report, table};

pub(super) async fn run(context: &Context<'_>, command: GrantCommand) -> Result<Report, Failure> {
    match command {
        GrantCommand::Add {
            grant: arguments,
            policy,
        } => {
            let terms = GrantTerms {
                policy: policy.as_deref().map(policy_text).transpose()?,
            };
            let (user, enclave) = resolve(&context.profile, &arguments)?;
            let (mut keyservice, _) = context.keyservice().await?;
            let grant = keyservice
                .owner()
                .grant_on_terms(&arguments.model, &user, &enclave, &terms)
                .await?;
            let text = format!(
                "{} may use {} in enclave {} (epoch {})\n",
                principal(&context.profile, &user),
                arguments.model,
                enclave_text(&context.profile, &enclave),
                grant.epoch
            );
            Ok(Report::ok(text, json!({ "grant": grant })))
        }
        GrantCommand::Rm(arguments) => {
            let (user, enclave) = resolve(&context.profile, &arguments)?;
            let (mut keyservice, _) = context.keyservice().await?;
            let revoked = keyservice
                .owner()
                .revoke(&arguments.model, &user, &enclave)
                .await?;
            let text = if revoked.revoked {
                format!(
                    "revoked; an instance may still use what it holds for at most {} s\n",
                    revoked.effective_within_s
                )
            } else {
                "there was no such grant\n".to_owned()
            };
            Ok(Report::ok(text, json!(revoked)))
        }
        GrantCommand::Ls { model } => {
            let (mut keyservice, _) = context.keyservice().await?;
            let list = keyservice.owner().grants(&model).await?;
            Ok(Report::ok(
                grants_text(&context.profile, &list.grants),
                json!(list),
            ))
        }
    }
}

/// Reads and checks an appraisal policy before anything is sent.
pub(super) fn policy_text(path: &Path) -> Result<PolicyText, Failure> {
    let advice = || "write it as docs/cli.md shows, \"Appraisal policies\"".to_owned();
    let text = read_bounded(path, POLICY_MAX)
        .map_err(|error| Failure::usage(&error, advice()))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    toml::from_str::<AppraisalPolicy>(&text).map_err(|error| Failure::usage(&error, advice()))?;
    PolicyText::try_from(text).map_err(|error| Failure::usage(&error, advice()))
}

fn resolve(profile: &Profile, arguments: &GrantArgs) -> Result<(PrincipalId, EnclaveId), Failure> {
    let user = profile.principal(&arguments.user)?;
    let enclave = profile.enclave(arguments.enclave.enclave.as_deref())?;
    Ok((user, enclave))
}

fn grants_text(profile: &Profile, grants: &[Grant]) -> String {
    let rows = grants.iter().map(|g| {
        let user = principal(profile, &g.user);
        [
            g.model.to_string(),
            user,
            enclave_text(profile, &g.enclave),
            g.epoch.to_string(),
        ]
    });
    table(["model", "user", "enclave", "epoch"], &["epoch"], rows)
}

/// A principal by its name in the profile, else in full: it may have to be copied.
pub(super) fn principal(profile: &Profile, id: &PrincipalId) -> String {
    profile
        .name_of(id)
        .map_or_else(|| id.to_string(), str::to_owned)
}

/// An enclave by its name in the profile, else in full.
pub(super) fn enclave_text(profile: &Profile, id: &EnclaveId) -> String {
    profile
        .enclave_name_of(id)
        .map_or_else(|| id.to_string(), str::to_owned)
}
