//! `sesemi key …`.

use protocol::ModelId;
use protocol::keyservice::PolicyText;
use sdk::{Demands, RequestKeyring};
use serde_json::json;

use super::Context;
use super::grant::{enclave_text, policy_text, principal};
use crate::args::{EnclaveFlag, KeyCommand};
use crate::failure::Failure;
use crate::report::{Report, table};

pub(super) async fn run(context: &Context<'_>, command: KeyCommand) -> Result<Report, Failure> {
    match command {
        KeyCommand::Register {
            model,
            owner,
            enclave,
            policy,
            rotate,
        } => {
            let policy = policy.as_deref().map(policy_text).transpose()?;
            register(context, &model, (&owner, policy), &enclave, rotate).await
        }
        KeyCommand::Ls => list(context).await,
        KeyCommand::Rm { model, enclave } => remove(context, &model, &enclave).await,
    }
}

async fn register(
    context: &Context<'_>,
    model: &ModelId,
    (owner, policy): (&str, Option<PolicyText>),
    enclave: &EnclaveFlag,
    rotate: bool,
) -> Result<Report, Failure> {
    let profile = &context.profile;
    let owner = profile.principal(owner)?;
    let enclave = profile.enclave(enclave.enclave.as_deref())?;
    let (mut keyservice, home) = context.keyservice().await?;
    let keyring = RequestKeyring::new(home.keys());
    let registered = keyservice
        .user()
        .register_request_key_for(&keyring, model, &enclave, Demands { owner, policy }, rotate)
        .await?;
    let mut text = format!(
        "{} request key for {model} in enclave {}, if {} owns the model\n",
        if registered.new { "new" } else { "same" },
        enclave_text(profile, &enclave),
        principal(profile, &owner)
    );
    if let Some(seconds) = registered.replaced_within_s {
        text.push_str(&format!(
            "instances that hold the old key refuse the new one for at most {seconds} s\n"
        ));
    }
    let json = json!({
        "request_key": registered.record,
        "new": registered.new,
        "replaced_within_s": registered.replaced_within_s,
    });
    Ok(Report::ok(text, json))
}

async fn list(context: &Context<'_>) -> Result<Report, Failure> {
    let profile = &context.profile;
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
    let keys = list.request_keys.iter();
    let json: Vec<_> = keys
        .map(|key| json!({ "registered": key, "here": is_here(&key.model, &key.enclave) }))
        .collect();
    Ok(Report::ok(text, json!({ "request_keys": json })))
}

async fn remove(
    context: &Context<'_>,
    model: &ModelId,
    enclave: &EnclaveFlag,
) -> Result<Report, Failure> {
    let enclave = context.profile.enclave(enclave.enclave.as_deref())?;
    let (mut keyservice, home) = context.keyservice().await?;
    let keyring = RequestKeyring::new(home.keys());
    let revoked = keyservice
        .user()
        .drop_request_key(&keyring, model, &enclave)
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

pub(super) fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
