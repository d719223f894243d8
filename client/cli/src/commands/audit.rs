//! `sesemi audit`.

use protocol::ErrorCode;
use protocol::keyservice::LogEntry;
use sdk::audit::{ChainCheck, check_chain};
use serde_json::json;

use super::Context;
use super::grant::{enclave_text, principal};
use crate::args::AuditArgs;
use crate::failure::{Exit, Failure};
use crate::report::{Report, table, utc};

pub(super) async fn run(context: &Context<'_>, arguments: &AuditArgs) -> Result<Report, Failure> {
    let (mut keyservice, _) = context.keyservice().await?;
    let page = keyservice.log().await?;
    // The chain is checked over all entries, whatever is then shown.
    let check = check_chain(&page);
    let wanted = |entry: &&LogEntry| arguments.model.as_ref().is_none_or(|m| *m == entry.model);
    let mut entries: Vec<_> = page.entries.iter().filter(wanted).collect();
    if let Some(last) = arguments.last {
        entries.drain(..entries.len().saturating_sub(last));
    }
    let profile = &context.profile;
    let rows = entries.iter().map(|entry| {
        [
            entry.seq.to_string(),
            utc(entry.at),
            entry.event.clone(),
            entry.model.to_string(),
            entry.version.map(|v| v.to_string()).unwrap_or_default(),
            entry
                .user
                .map(|u| principal(profile, &u))
                .unwrap_or_default(),
            entry
                .enclave
                .map(|e| enclave_text(profile, &e))
                .unwrap_or_default(),
        ]
    });
    let header = [
        "seq",
        "host time (UTC)",
        "event",
        "model",
        "version",
        "user",
        "enclave",
    ];
    let text = format!(
        "{}{}",
        table(header, &["seq", "version"], rows),
        verdict(&check)
    );
    let json = json!({
        "entries": entries, "head": page.head,
        "chain": { "linked": check.linked, "unlinked": check.unlinked,
                   "broken_at": check.broken_at },
    });
    let exit = if check.broken_at.is_some() {
        Exit::from(ErrorCode::NotAttested.fault())
    } else {
        Exit::Ok
    };
    Ok(Report { text, json, exit })
}

fn verdict(check: &ChainCheck) -> String {
    match check.broken_at {
        Some(seq) => format!(
            "CHAIN BROKEN at entry {seq}: the log was changed; ask the operator for its history\n"
        ),
        None => format!(
            "chain: {} entries follow from the one before, {} stand after entries of others\n",
            check.linked, check.unlinked
        ),
    }
}
