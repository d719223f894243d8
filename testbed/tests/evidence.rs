//! The captured evidence of real TEEs, and the negatives made of it: through the library, through
//! the command line, and beside other people's verifiers. Fails where the data is missing:
//! `SESEMI_SHARED` says where it is; default `../shared`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking; one of them measures how long it takes"
)]

#[path = "evidence/binary.rs"]
mod binary;
#[path = "evidence/case.rs"]
mod case;
#[path = "evidence/classes.rs"]
mod classes;
#[path = "evidence/command_line.rs"]
mod command_line;
#[path = "evidence/der.rs"]
mod der;
#[path = "evidence/forge.rs"]
mod forge;
#[path = "evidence/negatives.rs"]
mod negatives;
#[path = "evidence/others.rs"]
mod others;
#[path = "evidence/policies.rs"]
mod policies;
#[path = "evidence/policy_negatives.rs"]
mod policy_negatives;
#[path = "evidence/verdicts.rs"]
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use attestation::{CheckName, Status};
use cli::commands::evidence::{Outcome, default_policy};

use case::{CASES, Case};
use negatives::{Built, NEGATIVES};
use others::Other;
use policies::allowing;
use verdicts::{Otherwise, VERDICTS};

/// The negatives have to be through in this time.
const NEGATIVES_WITHIN: Duration = Duration::from_secs(60);

/// The checks that failed, without the one that sums up.
fn failed(outcome: &Outcome) -> BTreeSet<CheckName> {
    outcome.failures().map(|check| check.name).collect()
}

#[test]
fn the_table_has_every_case_once_and_says_what_the_evidence_says() {
    let mut folders = Vec::new();
    for kind in std::fs::read_dir(case::evidence()).unwrap() {
        let kind = kind.unwrap().path();
        if kind.is_dir() {
            let cases = std::fs::read_dir(&kind).unwrap();
            folders.extend(cases.map(|case| case.unwrap().path()));
        }
    }
    let name = |path: &std::path::Path| {
        let mut parts = path.iter().rev().map(|part| part.to_str().unwrap());
        let (case, kind) = (parts.next().unwrap(), parts.next().unwrap());
        format!("{kind}/{case}")
    };
    let folders: BTreeSet<_> = folders.iter().map(|path| name(path)).collect();
    let table: BTreeSet<_> = VERDICTS.iter().map(|v| v.case.to_owned()).collect();
    assert_eq!((table.len(), VERDICTS.len()), (CASES, CASES));
    assert_eq!(table, folders);
    for verdict in VERDICTS {
        verdict.check_against_meta(&Case::load(verdict.case));
    }
}

#[test]
fn every_case_gets_its_verdict_for_its_reasons_and_no_others() {
    for verdict in VERDICTS {
        let case = Case::load(verdict.case);
        let outcome = case.judge(&default_policy(case.kind.tees()));
        let name = verdict.case;
        assert_eq!(
            failed(&outcome),
            verdict.fails(),
            "{name}: {}",
            outcome.card
        );
        assert_eq!(outcome.accepted, verdict.fails.is_empty(), "{name}");
        let measurement = case.expect("measurement").as_str();
        assert_eq!(outcome.measurement.as_deref(), measurement, "{name}");
        // What nobody asked for is not said to be checked.
        for check in [CheckName::ReportData, CheckName::Nonce] {
            let status = outcome.card.check(check).map(|check| check.status);
            assert_eq!(status, Some(Status::Unchecked), "{name}: {check}");
        }
    }
}

#[test]
fn what_is_rejected_is_accepted_when_a_policy_names_each_reason_and_only_then() {
    for verdict in VERDICTS {
        let case = Case::load(verdict.case);
        let default = default_policy(case.kind.tees());
        let name = verdict.case;
        let remedied = allowing(&case, &default, None);
        match verdict.otherwise {
            Otherwise::Never => assert!(remedied.is_none(), "{name}"),
            Otherwise::Accepted | Otherwise::ByPolicy => {
                assert!(remedied.is_some(), "{name}: {}", case.judge(&default).card);
            }
        }
        if verdict.otherwise != Otherwise::ByPolicy {
            continue;
        }
        // With all reasons named but one, that one still fails.
        for left in verdict.fails {
            let policy = policies::with_remedies(&case, &default, Some(*left));
            let outcome = case.judge(&policy);
            assert_eq!(failed(&outcome), [*left].into(), "{name}");
            assert!(!outcome.accepted, "{name}");
        }
    }
}

#[test]
fn a_platform_that_intel_learned_more_about_is_out_of_date() {
    let mut case = Case::load("tdx/phala-b0c06f-v4-uptodate");
    let policy = default_policy(case.kind.tees());
    assert!(case.judge(&policy).accepted);
    let alt = case.meta["alt"].clone();
    let newer = case.folder.join(alt["collateral"].as_str().unwrap());
    case.endorsements = attestation::Endorsements::Dcap {
        collateral: case::read(&newer),
    };
    case.at = alt["verify_at"].as_u64().unwrap();
    let outcome = case.judge(&policy);
    assert_eq!(
        failed(&outcome),
        [CheckName::TcbStatus].into(),
        "{}",
        outcome.card
    );
    let check = outcome.card.check(CheckName::TcbStatus).unwrap();
    assert_eq!(check.got, "out-of-date");
    assert!(allowing(&case, &policy, None).is_some());
}

#[test]
fn the_command_line_gives_the_same_verdicts() {
    for verdict in VERDICTS {
        let case = Case::load(verdict.case);
        let name = verdict.case;
        let (code, json) = binary::verify(&case, &[]);
        let accept = verdict.fails.is_empty();
        assert_eq!(code, if accept { 0 } else { 2 }, "{name}: {json:#}");
        assert_eq!(json["verdict"], if accept { "accept" } else { "reject" });
        assert_eq!(json["tee"], case.kind.name());
        assert_eq!(&json["measurement"], case.expect("measurement"), "{name}");
        assert!(json["e_s"].is_null(), "{name}");
        let outcome = case.judge(&default_policy(case.kind.tees()));
        let checks = serde_json::to_value(outcome.checks()).unwrap();
        assert_eq!(json["checks"], checks, "{name}");
    }
}

/// One negative that was tried.
struct Tried {
    class: String,
    by: CheckName,
    other: Option<(Other, bool)>,
    tries: usize,
}

fn must_be_rejected(negative: &negatives::Negative, outcome: &Outcome) -> CheckName {
    assert!(!outcome.accepted, "{negative:?} is accepted");
    let by = outcome.first_failure().unwrap_or_else(|| {
        panic!("{negative:?} is rejected by nothing: {}", outcome.card);
    });
    assert!(
        classes::may_reject(negative, by.name),
        "{negative:?} is rejected by {:?}: expected {}, got {}",
        by.name,
        by.expected,
        by.got
    );
    by.name
}

fn try_negative(negative: &negatives::Negative, policies: &mut policies::Accepting) -> Tried {
    let original = Case::load(&negative.fixture);
    let policy = policies.of(&original);
    let (cases, policy) = match negative.build() {
        Built::Cases(cases) => (cases, policy),
        Built::DefaultPolicy => {
            let default = default_policy(original.kind.tees());
            (vec![original], default)
        }
        Built::Forged(case, root) => {
            classes::must_be_genuine_under(&case, &root, &policy);
            (vec![*case], policy)
        }
    };
    let mut tried = Tried {
        class: negative.class.clone(),
        by: CheckName::EvidenceGenuine,
        other: None,
        tries: cases.len(),
    };
    for (index, case) in cases.iter().enumerate().rev() {
        let outcome = case.judge(&policy);
        tried.by = must_be_rejected(negative, &outcome);
        // The first is the one that the words are about: the others are more of the same.
        let other = others::verdict(case, &policy);
        tried.other = other.map(|(other, verdict)| (other, verdict.is_ok()));
        if index == 0
            && negative
                .sev_crate
                .as_deref()
                .is_some_and(|s| s.starts_with("ACC"))
        {
            assert_eq!(tried.other, Some((Other::Sev, true)), "{negative:?}");
        }
    }
    tried
}

#[test]
fn every_negative_is_rejected_by_a_check_of_its_kind() {
    let started = Instant::now();
    let negatives = negatives::load();
    assert_eq!(negatives.len(), NEGATIVES);
    let mut policies = policies::Accepting::default();
    let mut table: BTreeMap<(String, CheckName), usize> = BTreeMap::new();
    let mut laxer: BTreeMap<Other, usize> = BTreeMap::new();
    let mut tries = 0;
    for negative in &negatives {
        let tried = try_negative(negative, &mut policies);
        *table.entry((tried.class, tried.by)).or_default() += 1;
        tries += tried.tries;
        if let Some((other, true)) = tried.other {
            *laxer.entry(other).or_default() += 1;
        }
    }
    let took = started.elapsed();
    println!("{:<12}  {:<22}  {:>5}", "class", "rejected by", "count");
    for ((class, by), count) in &table {
        println!("{class:<12}  {:<22}  {count:>5}", by.id());
    }
    println!(
        "{} negatives, {tries} tries with every bit flipped, {took:.1?}",
        negatives.len()
    );
    println!("accepted by other verifiers: {laxer:?}");
    assert_eq!(table.values().sum::<usize>(), NEGATIVES);
    assert!(took < NEGATIVES_WITHIN, "{took:?}");
}

#[test]
fn nothing_is_accepted_that_another_verifier_rejects() {
    let mut compared = 0;
    for verdict in VERDICTS {
        let case = Case::load(verdict.case);
        let default = default_policy(case.kind.tees());
        let lenient = policies::with_remedies(&case, &default, None);
        for policy in [default, lenient] {
            let ours = case.judge(&policy).accepted;
            if let Some((other, theirs)) = others::verdict(&case, &policy) {
                compared += 1;
                let name = verdict.case;
                assert!(!ours || theirs.is_ok(), "{name}: {other:?}: {theirs:?}");
            }
        }
    }
    // 13 quotes and 6 reports, by two policies each.
    assert_eq!(compared, 38);
}
