//! `sesemi audit`.

use protocol::ErrorCode;
use protocol::keyservice::LogEntry;
use sdk::audit::{ChainCheck, check_chain};
use serde_json::json;

use super::Context;
use super::grant::{enclave_text, principal};
use crate::args::AuditArgs;
use crate::failure::{Exit, Failure};
use crate::report::{Report, table};

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

/// Seconds since 1970 as `2026-11-23 18:05:09` (proleptic Gregorian calendar, UTC).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day is the last day of the year (Howard
    // Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_700_000_000, "2023-11-14 22:13:20"),
            (4_102_444_799, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn a_host_that_lies_about_time_does_no_harm() {
        assert!(!utc(u64::MAX).is_empty());
    }
}
