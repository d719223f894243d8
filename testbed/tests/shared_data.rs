//! Tests on the data that the design ships beside the project: arrival traces and captured evidence.
//! They fail where the data is missing. `SESEMI_SHARED` says where it is; default `../shared`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fnpacker::config::PolicyName;
use fnpacker::packing::{
    Action, Arrival, Company, Limits, Outcome, Packing, Report, Spent, Ticket,
};
use protocol::{ModelId, PrincipalId};

/// What one request takes: hot, and on top of it where another model ran before.
const HOT: Duration = Duration::from_millis(150);
const SWITCH: Duration = Duration::from_millis(300);

fn shared() -> PathBuf {
    std::env::var_os("SESEMI_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    )
}

/// A file of `t_ms,model` rows.
fn arrivals(name: &str) -> Vec<(Duration, ModelId)> {
    let path = shared().join("traces/derived").join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows = text.lines().skip(1).map(|line| {
        let (at, model) = line.split_once(',').unwrap();
        (
            Duration::from_millis(at.parse().unwrap()),
            format!("m{model}").parse().unwrap(),
        )
    });
    rows.collect()
}

/// What became of the requests of one trace.
#[derive(Debug, Default)]
struct Tally {
    served: usize,
    rejected: usize,
    switches: usize,
    /// Most requests in flight on one endpoint at a time.
    most_at_once: usize,
}

/// Runs a trace through a policy in virtual time, one model at a time on an endpoint.
fn replay(policy: PolicyName, endpoints: usize, trace: &[(Duration, ModelId)]) -> Tally {
    let mut packing = Packing::new(policy.policy(0.1), endpoints, Limits::default());
    let mut tally = Tally::default();
    let mut ends: BinaryHeap<Reverse<(Duration, Ticket, usize, usize)>> = BinaryHeap::new();
    let mut spents: Vec<Spent> = Vec::new();
    let mut models: BTreeMap<Ticket, ModelId> = BTreeMap::new();
    let mut resident: BTreeMap<usize, ModelId> = BTreeMap::new();
    let mut flying: BTreeMap<usize, usize> = BTreeMap::new();
    let mut arrivals = trace.iter().peekable();
    let user = PrincipalId::new([1; 32]);
    loop {
        let arrival = arrivals.peek().map(|(at, _)| *at);
        let end = ends.peek().map(|Reverse((at, ..))| *at);
        let mut out = Vec::new();
        let now = match (arrival, end) {
            (None, None) => break,
            (Some(at), end) if end.is_none_or(|end| at <= end) => {
                let (_, model) = arrivals.next().unwrap();
                let arrival = Arrival {
                    model,
                    user,
                    owner: None,
                    company: Company::Shared,
                    bytes: 1000,
                    deadline: None,
                };
                let ticket = packing.arrive(at, &arrival, &mut out);
                models.insert(ticket, model.clone());
                at
            }
            _ => {
                let Reverse((at, ticket, endpoint, spent)) = ends.pop().unwrap();
                let spent = spents[spent];
                *flying.get_mut(&endpoint).unwrap() -= 1;
                let report = Report {
                    spent,
                    duration: spent.exec,
                    ..Report::bare(Outcome::Served)
                };
                packing.finish(at, ticket, &report, &mut out);
                tally.served += 1;
                at
            }
        };
        for action in out {
            match action {
                Action::Dispatch {
                    ticket, endpoint, ..
                } => {
                    let (model, at) = (models[&ticket].clone(), endpoint.index());
                    let switch = resident.insert(at, model.clone()).as_ref() != Some(&model);
                    tally.switches += usize::from(switch);
                    let spent = Spent {
                        exec: HOT,
                        switch: if switch { SWITCH } else { Duration::ZERO },
                        start: Duration::ZERO,
                    };
                    let count = flying.entry(at).or_default();
                    *count += 1;
                    tally.most_at_once = tally.most_at_once.max(*count);
                    ends.push(Reverse((
                        now + spent.exec + spent.switch,
                        ticket,
                        at,
                        spents.len(),
                    )));
                    spents.push(spent);
                }
                Action::Reject { .. } => tally.rejected += 1,
                other => panic!("the policies under test ask for no {other:?}"),
            }
        }
    }
    tally
}

#[test]
fn every_request_of_the_traces_is_answered_once() {
    for name in [
        "w1_paper.csv",
        "w2_mmpp.csv",
        "w3_azure50.csv",
        "w4_sessions.csv",
    ] {
        let trace = arrivals(name);
        assert!(trace.len() > 500, "{name} has {} rows", trace.len());
        for policy in [
            PolicyName::Published,
            PolicyName::Affinity,
            PolicyName::OneToOne,
        ] {
            let tally = replay(policy, 5, &trace);
            assert_eq!(
                tally.served + tally.rejected,
                trace.len(),
                "{name} {policy:?}: {tally:?}"
            );
            assert!(
                tally.served * 2 > trace.len(),
                "{name} {policy:?}: {tally:?}"
            );
        }
    }
}

#[test]
fn affinity_switches_less_than_the_published_search() {
    // Measured before in a simulation of the same trace: affinity alone takes most switches of W1 away.
    let trace = arrivals("w1_paper.csv");
    let published = replay(PolicyName::Published, 5, &trace).switches;
    let affinity = replay(PolicyName::Affinity, 5, &trace).switches;
    assert!(
        affinity * 2 < published,
        "published {published}, affinity {affinity}"
    );
}

#[test]
fn the_captured_evidence_is_there() {
    let index = shared().join("evidence/INDEX.md");
    assert!(index.is_file(), "{} is missing", index.display());
}
