//! The simulator against figures that can be worked out by hand, and the order of the policies.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::fmt::Write as _;

use bench::costs::{CostModel, Regime};
use bench::policy::PolicySpec;
use bench::random::Random;
use bench::report::Figures;
use bench::simulation::{Machine, Simulation};
use bench::workload::Workload;

fn workload(lines: &str) -> Workload {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("t_ms,model\n{lines}")).unwrap();
    Workload::read(file.path()).unwrap()
}

/// Start 1 s, switch 300 ms, execution 100 ms, without any spread; `slow` executes for 1 s.
fn exact() -> CostModel {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "start = \"1s\"\nspread = 0.0\n\
        [default]\nexec = \"100ms\"\nswitch = \"300ms\"\n\
        [model.slow]\nexec = \"1s\"\nswitch = \"300ms\"\n";
    std::fs::write(file.path(), text).unwrap();
    CostModel::read(file.path()).unwrap()
}

fn run(workload: &Workload, costs: &CostModel, policy: &str, machine: &Machine) -> Figures {
    let spec: PolicySpec = policy.parse().unwrap();
    Simulation::run(workload, costs, &spec, machine, 1).figures()
}

fn near(got: f64, expected: f64) {
    assert!(
        (got - expected).abs() < 1e-6 * expected.abs().max(1.0),
        "{got}, not {expected}"
    );
}

#[test]
fn one_model_cold_then_hot_then_cold_again() {
    let workload = workload("0,a\n5000,a\n100000,a\n");
    let figures = run(&workload, &exact(), "published:ttl=60", &Machine::default());
    near(figures.mean_ms, (1400.0 + 100.0 + 1400.0) / 3.0);
    near(figures.cold, 2.0 / 3.0);
    // Alive from 0 to 5.1 + 60 s, and from 100 to 101.4 + 60 s, with 96 + 64 MiB.
    near(figures.gb_seconds, (65.1 + 61.4) * 160.0 / 1024.0);
    near(
        figures.billed_gb_seconds,
        (1.4 + 0.1 + 1.4) * 160.0 / 1024.0,
    );
    near(figures.slo_2x, 1.0 / 3.0);
}

#[test]
fn two_models_take_turns_on_function_0_as_published_and_stay_apart_with_affinity() {
    let workload = workload("0,a\n5000,b\n10000,a\n15000,b\n");
    let published = run(&workload, &exact(), "published", &Machine::default());
    near(published.mean_ms, (1400.0 + 400.0 * 3.0) / 4.0);
    near(published.warm, 0.75);
    let affinity = run(&workload, &exact(), "affinity", &Machine::default());
    near(affinity.mean_ms, (1400.0 * 2.0 + 100.0 * 2.0) / 4.0);
    near(affinity.hot, 0.5);
}

#[test]
fn memory_bounds_the_instances_and_the_rest_waits() {
    let workload = workload("0,a\n0,a\n0,a\n");
    let free = run(&workload, &exact(), "one-to-one", &Machine::default());
    near(free.p99_ms, 1400.0);
    near(free.peak_instances, 3.0);
    let bound = run(
        &workload,
        &exact(),
        "one-to-one:instances=1",
        &Machine::default(),
    );
    near(bound.p50_ms, 1500.0);
    near(bound.p99_ms, 1600.0);
    near(bound.peak_instances, 1.0);
}

#[test]
fn cores_are_shared() {
    let workload = workload("0,a\n0,b\n");
    let machine = Machine {
        cores: Some(1.0),
        ..Machine::default()
    };
    near(
        run(&workload, &exact(), "one-to-one", &machine).mean_ms,
        2800.0,
    );
    near(
        run(&workload, &exact(), "one-to-one", &Machine::default()).mean_ms,
        1400.0,
    );
}

#[test]
fn the_strict_variant_makes_callers_retry() {
    let workload = workload("0,slow\n1,a\n");
    let strict = run(
        &workload,
        &exact(),
        "published-strict:endpoints=1",
        &Machine::default(),
    );
    // Busy until 2,300 ms; retries at 101, 201, … 2,301 ms, then a switch.
    near(strict.retries_per_request, 23.0 / 2.0);
    near(strict.mean_ms, (2300.0 + 2300.0 + 400.0) / 2.0);
    let waits = run(
        &workload,
        &exact(),
        "published:endpoints=1",
        &Machine::default(),
    );
    near(waits.mean_ms, (2300.0 + 2299.0 + 400.0) / 2.0);
    near(waits.retries_per_request, 0.0);
}

/// Poisson arrivals at a rate that alternates, over Zipf-popular models.
fn bursts() -> Workload {
    let mut random = Random::new(7);
    let (mut lines, mut now) = (String::new(), 0.0);
    while now < 600_000.0 {
        let rate = if now % 120_000.0 < 60_000.0 { 3.0 } else { 8.0 };
        now -= random.unit().ln() * 1000.0 / rate;
        // P(rank > k) falls as 1/k: the inverse of the uniform draw, cut at 12 models.
        let rank = (1.0 / random.unit()).floor().min(12.0);
        writeln!(lines, "{now},m{rank}").unwrap();
    }
    workload(&lines)
}

#[test]
fn the_same_seed_gives_the_same_run_and_nobody_is_lost() {
    let (workload, costs) = (bursts(), CostModel::regime(Regime::Fast));
    for policy in fnpacker::config::PolicyName::ALL.map(|policy| policy.name()) {
        let spec: PolicySpec = policy.parse().unwrap();
        let run =
            |seed| Simulation::run(&workload, &costs, &spec, &Machine::default(), seed).figures();
        let (first, again, other) = (run(1), run(1), run(2));
        assert_eq!(first, again, "{policy}");
        assert_ne!(first, other, "{policy}");
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let asked = workload.arrivals.len() as f64;
        near(first.requests, asked);
        near(first.errors, 0.0);
        near(first.cold + first.warm + first.hot, 1.0);
    }
}

#[test]
fn better_policies_are_better() {
    let workload = bursts();
    for regime in [Regime::Fast, Regime::Paper] {
        let costs = CostModel::regime(regime);
        let run = |policy| run(&workload, &costs, policy, &Machine::default());
        let published = run("published");
        for better in ["affinity", "ch-bl", "ect-g"] {
            let figures = run(better);
            assert!(
                figures.mean_ms < published.mean_ms,
                "{better}, {regime:?}: {figures:?}"
            );
        }
        let ect = run("ect-g");
        assert!(
            ect.mean_ms < 0.7 * published.mean_ms,
            "{regime:?}: {ect:?} {published:?}"
        );
        assert!(
            ect.p99_ms < published.p99_ms,
            "{regime:?}: {ect:?} {published:?}"
        );
    }
}

#[test]
fn a_start_that_waits_needs_no_core() {
    // Two models start at once on one core, one instance each.
    let workload = workload("0,a\n0,b\n");
    let machine = Machine {
        cores: Some(1.0),
        ..Machine::default()
    };
    let mean = |share: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "start = \"1s\"\nspread = 0.0\n{share}\n\
             [default]\nexec = \"100ms\"\nswitch = \"300ms\"\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let costs = CostModel::read(file.path()).unwrap();
        run(&workload, &costs, "one-to-one", &machine).mean_ms
    };
    // All of it is work: each gets half of the core for 1.4 s of work.
    near(mean(""), 2800.0);
    // 0.75 s of waiting, side by side, then 0.65 s of work at half speed.
    near(mean("start_work = 0.25"), 750.0 + 1300.0);
}
