//! `sesemi evidence explain`: the scorecard in plain words.

mod about;
mod remedy;
mod texts;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use attestation::{Check, CheckName, Status};
use serde_json::{Value, json};

use super::{Outcome, head, shown};
use crate::args::EvidenceKind;
use crate::report::fields;
pub use remedy::{Line, Remedy, remedy};
pub use texts::{Party, Reason, reason};

/// For people.
pub(super) fn text(kind: EvidenceKind, outcome: &Outcome, now: Duration) -> String {
    let mut text = format!("This {}.\n\n", about::sentence(kind, outcome));
    let mut rows = head(kind, outcome, now);
    rows.extend(about::details(outcome));
    text += &fields(rows);
    for (index, check) in outcome.failures().enumerate() {
        let _written = write!(text, "\n{}", failure(index, check, outcome));
    }
    if outcome.accepted {
        text += match kind {
            EvidenceKind::Nvidia => "\nIt is genuine. No policy is about GPUs.\n",
            _ => "\nIt is genuine, and nothing in it is against the policy.\n",
        };
    }
    text += &unchecked(outcome);
    text
}

fn failure(index: usize, check: &Check, outcome: &Outcome) -> String {
    let reason = reason(check.name);
    let number = index.saturating_add(1);
    let mut text = format!("{number}. {} ({}): FAIL\n", check.name, check.name.id());
    text += &fields([
        ("   expected", shown(&check.expected)),
        ("   got", shown(&check.got)),
        ("   why it matters", reason.why.to_owned()),
        (
            "   what to change",
            format!("{}: {}", reason.by.name(), reason.change),
        ),
    ]);
    match remedy(check, outcome) {
        Some(remedy) => {
            text += "   or accept it, with this in a policy:\n";
            for line in remedy.toml() {
                let _written = writeln!(text, "       {line}");
            }
            let _written = writeln!(text, "   at the risk that {}", remedy.risk);
        }
        None if genuineness(check.name) => {
            text += "   no policy accepts what is not shown to be genuine\n";
        }
        None => text += "   no policy accepts it\n",
    }
    text
}

/// What was not asked for, so that nobody takes it for checked.
fn unchecked(outcome: &Outcome) -> String {
    let said = outcome.claims.as_ref().map(|claims| &claims.said);
    let nonce = said.is_none_or(|said| said.nonce.is_some());
    let gpu = outcome.kind == EvidenceKind::Nvidia;
    let all = [
        (
            CheckName::ReportData,
            !gpu,
            "give --report-data, or whom it speaks for is unknown",
        ),
        (
            CheckName::Nonce,
            nonce,
            "give --nonce, or it may be a copy of older evidence",
        ),
        (
            CheckName::Measurement,
            true,
            "name reference values in a policy, or any code is accepted",
        ),
        (
            CheckName::GpuMeasurements,
            true,
            "compare them with the vendor's reference values",
        ),
    ];
    let open = |name| {
        let check = outcome.card.check(name);
        check.is_some_and(|check| check.status == Status::Unchecked)
    };
    let lines: String = all
        .into_iter()
        .filter(|(name, applies, _)| *applies && open(*name))
        .map(|(name, _, text)| format!("  {}: {text}\n", name.id()))
        .collect();
    if lines.is_empty() {
        return lines;
    }
    format!("\nNot checked:\n{lines}")
}

/// Whether a check is part of whether evidence is genuine, which no policy changes.
fn genuineness(name: CheckName) -> bool {
    (CheckName::EvidenceFormat..=CheckName::EvidenceGenuine).contains(&name)
}

/// For programs.
pub(super) fn json(outcome: &Outcome) -> Value {
    let failures = outcome.failures().map(|check| {
        let reason = reason(check.name);
        let remedy = remedy(check, outcome);
        json!({
            "name": check.name,
            "why": reason.why,
            "by": reason.by.name(),
            "change": reason.change,
            "policy": remedy.as_ref().map(Remedy::toml),
            "risk": remedy.as_ref().map(|remedy| remedy.risk),
        })
    });
    json!({
        "about": about::sentence(outcome.kind, outcome),
        "details": about::details(outcome).into_iter().collect::<BTreeMap<_, _>>(),
        "failures": failures.collect::<Vec<_>>(),
    })
}
