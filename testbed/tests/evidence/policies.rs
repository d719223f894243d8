//! Policies that accept what the default one rejects, made of the lines that
//! `sesemi evidence explain` gives for each failed check: a line that does not help is noticed.

use std::collections::BTreeMap;

use attestation::{AppraisalPolicy, CheckName};
use cli::commands::evidence::{Line, default_policy, remedy};
use toml::{Table, Value};

use crate::case::Case;

/// The policy with these settings in it.
pub(crate) fn with_lines(policy: &AppraisalPolicy, lines: &[Line]) -> AppraisalPolicy {
    let mut file: Table = toml::to_string(policy).unwrap().parse().unwrap();
    for line in lines {
        let setting: Table = format!("{} = {}", line.key, line.value).parse().unwrap();
        let table = match line.table {
            "" => &mut file,
            table => file[table].as_table_mut().unwrap(),
        };
        table.extend(setting);
    }
    Value::Table(file).try_into().unwrap()
}

/// The policy with a remedy for each check that the case fails, but for `left`.
pub(crate) fn with_remedies(
    case: &Case,
    policy: &AppraisalPolicy,
    left: Option<CheckName>,
) -> AppraisalPolicy {
    let outcome = case.judge(policy);
    let failures = outcome.failures().filter(|check| Some(check.name) != left);
    let remedies = failures.filter_map(|check| remedy(check, &outcome));
    let lines: Vec<_> = remedies.flat_map(|remedy| remedy.lines).collect();
    with_lines(policy, &lines)
}

/// That policy, if the case is accepted by it.
pub(crate) fn allowing(
    case: &Case,
    policy: &AppraisalPolicy,
    left: Option<CheckName>,
) -> Option<AppraisalPolicy> {
    let policy = with_remedies(case, policy, left);
    case.judge(&policy).accepted.then_some(policy)
}

/// For each case a policy that accepts it, so that it is the change to it that is rejected.
#[derive(Default)]
pub(crate) struct Accepting(BTreeMap<String, AppraisalPolicy>);

impl Accepting {
    pub(crate) fn of(&mut self, case: &Case) -> AppraisalPolicy {
        let make = || {
            let mut policy = default_policy(case.kind.tees());
            // So that it is the certificates' validity that times are held against.
            policy.nitro.max_age_s = u64::from(u32::MAX);
            let policy = allowing(case, &policy, None);
            policy.unwrap_or_else(|| panic!("no policy accepts {}", case.name))
        };
        self.0.entry(case.name.clone()).or_insert_with(make).clone()
    }
}
