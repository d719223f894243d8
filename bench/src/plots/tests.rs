//! Pictures are SVG that shows what was measured.

use super::*;
use crate::compare::{Tried, published};
use crate::costs::{CostModel, Regime};
use crate::simulation::{Machine, Simulation};
use crate::workload::Source;

#[test]
fn each_picture_has_its_axes_its_units_and_every_policy() {
    let source: Source = "poisson:rate=2,models=3,seconds=60".parse().unwrap();
    let workload = source.workload().unwrap();
    let costs = CostModel::regime(Regime::Fast);
    let spec = published();
    let (tally, lived) = Simulation::traced(&workload, &costs, &spec, &Machine::default(), 1);
    let latencies = tally.latencies();
    assert_eq!(latencies.len(), workload.arrivals.len());
    assert!(latencies.is_sorted());
    let curve = Curve {
        policy: spec.name,
        latencies,
    };
    let picture = cdf("latencies", &[curve]).unwrap();
    for text in [
        "<svg",
        "latency, from the intended",
        "99 %",
        "published",
        " ms",
    ] {
        assert!(picture.contains(text), "{text}");
    }
    let figures = tally.figures();
    let cloud = Cloud {
        workload: "w".to_owned(),
        published: figures,
        tried: vec![Tried { spec, figures }],
    };
    for axis in [Axis::P99, Axis::Mean] {
        let picture = pareto(&[cloud.clone(), cloud.clone()], axis).unwrap();
        for text in ["GB·s", "100 %", "published", "latency (log"] {
            assert!(picture.contains(text), "{text}");
        }
    }
    let strip = Strip::busiest(&lived, 20.0);
    let picture = timeline("w", &lived, strip).unwrap();
    for text in ["seconds since", "cold", "hot", "instances"] {
        assert!(picture.contains(text), "{text}");
    }
    // Every request is on an instance that lived then.
    assert_eq!(lived.spans.len(), workload.arrivals.len());
    for span in &lived.spans {
        let life = lived
            .lives
            .iter()
            .find(|life| life.instance == span.instance);
        assert!(life.is_some_and(|life| life.from <= span.from && span.to <= life.to));
    }
}

#[test]
fn nothing_to_draw_is_no_failure() {
    assert!(cdf("none", &[]).is_ok());
    assert!(pareto(&[], Axis::P99).is_ok());
    let empty = crate::simulation::timeline::Timeline::default();
    assert!(timeline("none", &empty, Strip::busiest(&empty, 10.0)).is_ok());
}
