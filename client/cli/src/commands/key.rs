//! `sesemi key …`.

use sdk::RequestKeyring;
use serde_json::json;

use super::Context;
use super::grant::{enclave_text, principal};
use crate::args::KeyCommand;
use crate::failure::Failure;
use crate::report::{Report, table};

pub(super) async fn run(context: &Context<'_>, command: KeyCommand) -> Result<Report, Failure> {
    let profile = &context.profile;
    match command {
        KeyCommand::Register {
            model,
            owner,
            enclave,
            rotate,
        } => {
            let owner = profile.principal(&owner)?;
            let enclave = profile.enclave(enclave.enclave.as_deref())?;
            let (mut keyservice, home) = context.keyservice().await?;
            let keyring = RequestKeyring::new(home.keys());
            let registered = keyservice
                .user()
                .register_request_key(&keyring, &model, &enclave, owner, rotate)
                .await?;
            let text = format!(
                "{} request key for {model} in enclave {}, if {} owns the model\n",
                if registered.new { "new" } else { "same" },
                enclave_text(profile, &enclave),
                principal(profile, &owner)
            );
            let json = json!({ "request_key": registered.record, "new": registered.new });
            Ok(Report::ok(text, json))
        }
        KeyCommand::Ls => {
            let (mut keyservice, home) = context.keyservice().await?;
            let list = keyservice.user().request_keys().await?;
            let here = RequestKeyring::new(home.keys()).list()?;
            let is_here = |m, e| {
                here.iter()
                    .any(|(model, enclave)| model == m && enclave == e)
            };
            let rows = list.request_keys.iter().map(|record| {
                [
                    record.model.to_string(),
                    enclave_text(profile, &record.enclave),
                    principal(profile, &record.owner),
                    record.epoch.to_string(),
                    yes_no(is_here(&record.model, &record.enclave)),
                ]
            });
            let text = table(
                ["model", "enclave", "owner", "epoch", "key here"],
                &["epoch"],
                rows,
            );
            let json: Vec<_> = list
                .request_keys
                .iter()
                .map(|record| {
                    json!({ "registered": record, "here": is_here(&record.model, &record.enclave) })
                })
                .collect();
            Ok(Report::ok(text, json!({ "request_keys": json })))
        }
        KeyCommand::Rm { model, enclave } => {
            let enclave = profile.enclave(enclave.enclave.as_deref())?;
            let (mut keyservice, home) = context.keyservice().await?;
            let keyring = RequestKeyring::new(home.keys());
            let revoked = keyservice
                .user()
                .drop_request_key(&keyring, &model, &enclave)
                .await?;
            let text = if revoked.revoked {
                format!(
                    "dropped; an instance may still use what it holds for at most {} s\n",
                    revoked.effective_within_s
                )
            } else {
                "there was no such request key\n".to_owned()
            };
            Ok(Report::ok(text, json!(revoked)))
        }
    }
}

pub(super) fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
