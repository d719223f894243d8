//! `sesemi status`: one line for each part, and the class of the worst.

use std::time::Duration;

use sdk::Gateway;
use sdk::publish::open_store;
use serde_json::{Value, json};

use super::Context;
use crate::failure::{Exit, Failure};
use crate::profile::ProfileError;
use crate::report::{Report, table};

/// Time for each part, unless `--deadline` says otherwise.
const DEADLINE: Duration = Duration::from_secs(3);

struct Part {
    name: &'static str,
    /// A sentence, and the facts.
    result: Result<(String, Value), Failure>,
}

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Failure> {
    if context.profile.path().is_none() {
        return Err(ProfileError::None.into());
    }
    let parts = [
        Part {
            name: "profile",
            result: profile(context),
        },
        Part {
            name: "identity",
            result: identity(context),
        },
        Part {
            name: "KeyService",
            result: keyservice(context).await,
        },
        Part {
            name: "FnPacker",
            result: fnpacker(context).await,
        },
        Part {
            name: "store",
            result: store(context),
        },
    ];
    let rows = parts.iter().map(|part| match &part.result {
        Ok((text, _)) => [part.name.to_owned(), "ok".to_owned(), text.clone()],
        Err(failure) => [
            part.name.to_owned(),
            "FAILED".to_owned(),
            failure.message.clone(),
        ],
    });
    let mut text = table(["part", "state", "detail"], &[], rows);
    for part in &parts {
        if let Err(failure) = &part.result {
            text.push_str(&format!(
                "what to do about {}: {}\n",
                part.name, failure.advice
            ));
        }
    }
    let json: Vec<_> = parts
        .iter()
        .map(|part| match &part.result {
            Ok((_, facts)) => json!({ "part": part.name, "ok": true, "facts": facts }),
            Err(failure) => {
                json!({ "part": part.name, "ok": false, "error": failure.json()["error"] })
            }
        })
        .collect();
    let exits = parts
        .iter()
        .filter_map(|part| part.result.as_ref().err().map(|f| f.exit));
    let exit = exits.max().unwrap_or(Exit::Ok);
    Ok(Report {
        text,
        json: json!({ "parts": json }),
        exit,
    })
}

fn profile(context: &Context<'_>) -> Result<(String, Value), Failure> {
    context.profile.keyservice()?;
    let path = context
        .profile
        .path()
        .map(|p| p.display().to_string())
        .unwrap_or_default();
    Ok((path.clone(), json!({ "path": path })))
}

fn identity(context: &Context<'_>) -> Result<(String, Value), Failure> {
    let (identity, home) = context.identity()?;
    let principal = identity.principal();
    let text = format!("{principal} ({})", home.identity().display());
    Ok((text, json!({ "principal": principal })))
}

async fn keyservice(context: &Context<'_>) -> Result<(String, Value), Failure> {
    let mut global = context.global.clone();
    global.deadline = global.deadline.or(Some(DEADLINE));
    let short = Context {
        global,
        profile: context.profile.clone(),
        ..*context
    };
    let (mut keyservice, _) = short.keyservice().await?;
    let status = keyservice.status().await?;
    let address = &context.profile.keyservice()?.address;
    let text = format!(
        "{address} attested, version {}, epoch {}",
        status.version, status.epoch
    );
    Ok((text, json!(status)))
}

async fn fnpacker(context: &Context<'_>) -> Result<(String, Value), Failure> {
    let gateway = Gateway::new(context.profile.inference_url()?)?;
    let status = gateway
        .status(context.global.deadline.unwrap_or(DEADLINE))
        .await?;
    Ok((gateway.url().to_string(), status))
}

fn store(context: &Context<'_>) -> Result<(String, Value), Failure> {
    let url = context.profile.store_url(None)?;
    open_store(url)?;
    Ok((url.to_owned(), json!({ "url": url })))
}
