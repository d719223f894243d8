//! Chooses settings: a coarse grid first, then the neighbours of the best, step by step.
//!
//! Prices of memory are tried relative to what serving a request costs, so that models of a
//! millisecond are tuned as well as models of a second.

use std::collections::BTreeMap;
use std::time::Duration;

use fnpacker::config::PolicyName;

use super::{Tried, score};
use crate::policy::PolicySpec;
use crate::report::Figures;

/// Each parameter's steps, fine enough for a last refinement.
const ENDPOINTS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32];
const MODELS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16];
const TTLS: [u64; 12] = [5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600];
/// Each price is this many times the one before; the first, in services of a request.
const PRICE_STEP: f64 = 1.19;
const PRICE_FIRST: f64 = 0.01;
const PRICES: usize = 44;
/// Starting points of the refinement.
const BEAM: usize = 4;
/// Rounds of it at most.
pub(super) const ROUNDS: usize = 8;

/// A place on the scales of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point([usize; 4]);

/// The settings that a policy has, and which were tried with what result.
#[derive(Debug)]
pub(super) struct Search {
    name: PolicyName,
    /// What a price counts in: seconds that serving a request takes.
    service: f64,
    tried: BTreeMap<Point, Figures>,
    best: f64,
}

impl Search {
    pub(super) const fn new(name: PolicyName, service: f64) -> Self {
        Self {
            name,
            service,
            tried: BTreeMap::new(),
            best: f64::INFINITY,
        }
    }

    pub(super) const fn name(&self) -> PolicyName {
        self.name
    }

    /// Which parameters the policy listens to: endpoints, models, keep-alive, price.
    const fn moves(&self) -> [bool; 4] {
        match self.name {
            PolicyName::OneToOne | PolicyName::AllInOne => [false, false, true, false],
            PolicyName::Published | PolicyName::PublishedStrict | PolicyName::Affinity => {
                [true, false, true, false]
            }
            PolicyName::ChBl | PolicyName::EctG => [true, true, true, false],
            PolicyName::EctP => [true, true, true, true],
        }
    }

    /// Steps of each parameter in the coarse grid; the last ones are those of a policy with a
    /// price, which needs no other bound on what is kept.
    fn coarse(&self) -> [Vec<usize>; 4] {
        let [endpoints, models, ttl, price] = self.moves();
        let steps = |moves: bool, all: &[usize], fixed: usize| {
            if moves { all.to_vec() } else { vec![fixed] }
        };
        let ttls: &[usize] = if price { &[6] } else { &[2, 4, 6, 10] };
        let endpoints_coarse: &[usize] = if price {
            &[0, 1, 2, 3, 5, 7, 9, 11]
        } else {
            &[0, 1, 2, 3, 4, 5, 7, 9, 11]
        };
        [
            steps(endpoints, endpoints_coarse, 4),
            steps(models, &[0, 1, 2, 3, 5, 7], 0),
            steps(ttl, ttls, 6),
            steps(price, &[0, 6, 12, 16, 20, 24, 28, 32, 38], 0),
        ]
    }

    fn spec(&self, Point([endpoints, models, ttl, price]): Point) -> PolicySpec {
        let mut spec = PolicySpec::new(self.name);
        if self.moves()[0] {
            spec.endpoints = ENDPOINTS[endpoints];
        }
        spec.models = MODELS[models];
        spec.ttl = Duration::from_secs(TTLS[ttl]);
        if self.moves()[3] {
            let step = f64::from(u32::try_from(price).unwrap_or(u32::MAX));
            let exact = self.service * PRICE_FIRST * PRICE_STEP.powf(step);
            spec.price = three_digits(exact);
        }
        spec.named()
    }

    /// The first settings to try.
    pub(super) fn grid(&self) -> Vec<Candidate> {
        let [endpoints, models, ttls, prices] = self.coarse();
        let mut all = Vec::new();
        for e in &endpoints {
            for m in &models {
                for t in &ttls {
                    for p in &prices {
                        all.push(self.candidate(Point([*e, *m, *t, *p])));
                    }
                }
            }
        }
        all
    }

    fn candidate(&self, point: Point) -> Candidate {
        Candidate {
            point,
            spec: self.spec(point),
        }
    }

    pub(super) fn learn(&mut self, candidate: &Candidate, figures: Figures) {
        self.tried.insert(candidate.point, figures);
    }

    /// Settings beside the best so far that were not tried; none when the last ones brought
    /// nothing.
    pub(super) fn neighbours(&mut self, published: &Figures) -> Vec<Candidate> {
        let beam = self.ranked(published, 1.0, BEAM);
        let best = beam
            .first()
            .map_or(f64::INFINITY, |point| score(&self.tried[point], published));
        if best > self.best * 0.999 && self.best.is_finite() {
            return Vec::new();
        }
        self.best = best;
        // The best just over the budget may have a neighbour within it that is better still.
        let over = self.ranked(published, 1.05, 1);
        let moves = self.moves();
        let mut new = BTreeMap::new();
        for Point(from) in beam.into_iter().chain(over) {
            let lengths = [ENDPOINTS.len(), MODELS.len(), TTLS.len(), PRICES];
            for axis in (0..4).filter(|axis| moves[*axis]) {
                let steps: &[isize] = if axis == 3 { &[-3, -1, 1, 3] } else { &[-1, 1] };
                for step in steps {
                    let to = from[axis].checked_add_signed(*step);
                    if let Some(to) = to.filter(|to| *to < lengths[axis]) {
                        let mut point = from;
                        point[axis] = to;
                        new.insert(Point(point), ());
                    }
                }
            }
        }
        new.into_keys()
            .filter(|point| !self.tried.contains_key(point))
            .map(|point| self.candidate(point))
            .collect()
    }

    /// The best of those with at most `share` of the budget.
    fn ranked(&self, published: &Figures, share: f64, count: usize) -> Vec<Point> {
        let budget = published.gb_seconds * share;
        let within = self.tried.iter().filter(|(_, f)| f.gb_seconds <= budget);
        let mut scored: Vec<_> = within
            .map(|(point, f)| (score(f, published), *point))
            .collect();
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        scored.into_iter().take(count).map(|(_, p)| p).collect()
    }

    /// The best for the budget and for less: what fits on a part may not fit on the whole.
    pub(super) fn finalists(&self, published: &Figures, count: usize) -> Vec<Candidate> {
        let shares = [
            (1.0, 2),
            (0.94, 1),
            (0.88, 1),
            (1.06, 1),
            (0.75, 1),
            (0.5, 1),
        ];
        let each = |(share, parts): (f64, usize)| {
            self.ranked(published, share, (count * parts).div_ceil(7))
        };
        let mut points: Vec<_> = shares.into_iter().flat_map(each).collect();
        points.sort_unstable();
        points.dedup();
        let cheapest = || {
            let all = self.tried.iter();
            all.min_by(|a, b| a.1.gb_seconds.total_cmp(&b.1.gb_seconds))
        };
        if let Some((point, _)) = cheapest()
            && !points.contains(point)
        {
            points.push(*point);
        }
        points.into_iter().map(|p| self.candidate(p)).collect()
    }

    pub(super) fn restart(&mut self) {
        self.tried.clear();
        self.best = f64::INFINITY;
    }

    /// The best within the budget, or the cheapest if none is within; and whether it is over.
    pub(super) fn choice(&self, published: &Figures) -> Option<(PolicySpec, bool)> {
        if let Some(point) = self.ranked(published, 1.0, 1).first() {
            return Some((self.spec(*point), false));
        }
        let all = self.tried.iter();
        let (point, _) = all.min_by(|a, b| a.1.gb_seconds.total_cmp(&b.1.gb_seconds))?;
        Some((self.spec(*point), true))
    }

    pub(super) fn results(&self) -> impl Iterator<Item = Tried> {
        self.tried.iter().map(|(point, figures)| Tried {
            spec: self.spec(*point),
            figures: *figures,
        })
    }
}

/// Settings that may be tried.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    point: Point,
    pub(super) spec: PolicySpec,
}

fn three_digits(value: f64) -> f64 {
    let scale = 10_f64.powf(2.0 - value.log10().floor());
    (value * scale).round() / scale
}
