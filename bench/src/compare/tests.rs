//! Settings are chosen within the budget, goals are told as they are, and figures can be made again.

use super::*;
use crate::costs::Regime;
use crate::random::Random;
use crate::workload::Arrival;

/// Poisson, two models by turns of uneven length.
fn workload(requests: usize, gap_ms: f64) -> Workload {
    let mut random = Random::new(3);
    let mut now = 0.0;
    let arrivals = (0..requests).map(|_| {
        now -= random.unit().ln() * gap_ms * 1000.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive time"
        )]
        let at = now as u64;
        Arrival {
            at,
            model: u32::from(random.unit() < 0.4),
        }
    });
    Workload {
        name: "two".into(),
        arrivals: arrivals.collect(),
        models: vec!["m0-a".parse().unwrap(), "m1-b".parse().unwrap()],
    }
}

fn comparison(workload: &Workload, costs: &CostModel, policies: &[PolicyName]) -> Comparison {
    let pace = Pace {
        threads: 2,
        planned: &|_| (),
        ran: &|| (),
    };
    compare(workload, costs, policies, &Machine::default(), 2, &pace).unwrap()
}

#[test]
fn what_is_chosen_fits_the_budget_and_is_reported_on_other_seeds() {
    let costs = CostModel::regime(Regime::Fast);
    let all = [
        PolicyName::Affinity,
        PolicyName::EctP,
        PolicyName::Published,
    ];
    let result = comparison(&workload(300, 900.0), &costs, &all);
    assert_eq!(result.entries.len(), 3);
    assert_eq!(result.published.runs.len(), 2);
    assert_ne!(result.published.runs[0], result.published.runs[1]);
    let (published, affinity) = (&result.published.mean, &result.entries[0]);
    assert!(!affinity.over_budget);
    assert!(affinity.mean.gb_seconds <= published.gb_seconds);
    assert!(affinity.mean.mean_ms < 0.8 * published.mean_ms);
    let best = result
        .tried
        .iter()
        .filter(|t| {
            t.spec.name == PolicyName::EctP && t.figures.gb_seconds <= published.gb_seconds * BUDGET
        })
        .map(|t| score(&t.figures, &result.published_tried))
        .fold(f64::INFINITY, f64::min);
    let chosen = result
        .tried
        .iter()
        .find(|t| t.spec == result.entries[1].spec)
        .unwrap();
    assert!(score(&chosen.figures, &result.published_tried) <= best * 1.001);
}

#[test]
fn costs_of_any_size_are_tuned_alike() {
    // The same world in seconds and in milliseconds: the same ratios.
    let read = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        CostModel::read(file.path()).unwrap()
    };
    let rest = "spread = 0.03\n[default]\n";
    let slow = read(&format!(
        "start = \"1s\"\n{rest}exec = \"200ms\"\nswitch = \"400ms\"\n"
    ));
    let fast = read(&format!(
        "start = \"50ms\"\n{rest}exec = \"10ms\"\nswitch = \"20ms\"\n"
    ));
    for costs in [&slow, &fast] {
        let result = comparison(&workload(300, 900.0), costs, &[PolicyName::EctP]);
        let (published, ours) = (&result.published.mean, &result.entries[0]);
        assert!(!ours.over_budget, "{:?}", ours.spec);
        assert!(
            ours.mean.mean_ms < 0.9 * published.mean_ms,
            "{:?} {} {}",
            ours.spec,
            ours.mean.mean_ms,
            published.mean_ms
        );
    }
}

#[test]
fn a_part_is_from_all_over_and_in_order() {
    let whole = workload(1000, 100.0);
    let part = whole.part(100);
    assert_eq!(part.arrivals.len(), 100);
    assert!(part.arrivals.is_sorted_by_key(|a| a.at));
    // Gaps are those of the whole; only between windows there is none.
    let mean = |w: &Workload| w.arrivals.last().unwrap().at / w.arrivals.len() as u64;
    assert!(mean(&part).abs_diff(mean(&whole)) < mean(&whole) / 3);
}
