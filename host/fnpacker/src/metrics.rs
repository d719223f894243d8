//! What FnPacker counts. Labels come from closed sets; no id of anybody is one.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use protocol::invoke::StartKind;

/// How a request to FnPacker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ended {
    /// With a sealed answer.
    Served,
    /// With an error that the instance gave.
    Refused,
    /// Not taken: queue full, deadline, no pool, too large.
    Rejected,
    /// The platform or the instance failed.
    Failed,
}

/// How much had to be done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Start {
    Cold,
    Warm,
    Hot,
}

impl From<StartKind> for Start {
    fn from(kind: StartKind) -> Self {
        match kind {
            StartKind::Cold => Self::Cold,
            StartKind::Warm => Self::Warm,
            StartKind::Hot => Self::Hot,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabel {
    outcome: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StartLabel {
    start: Start,
}

/// All of FnPacker's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<EndedLabel, Counter>,
    starts: Family<StartLabel, Counter>,
    retries: Counter,
    deployments: Counter,
    decision_time: Histogram,
    queue_time: Histogram,
    request_time: Histogram,
    queued: Gauge,
    in_flight: Gauge,
}

impl Metrics {
    /// Makes and registers them, with the prefix `sesemi_fnpacker`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        // 100 µs to 105 s.
        let buckets = || exponential_buckets(0.0001, 2.0, 21);
        let metrics = Self {
            requests: Family::default(),
            starts: Family::default(),
            retries: Counter::default(),
            deployments: Counter::default(),
            // 1 µs to 33 ms.
            decision_time: Histogram::new(exponential_buckets(0.000_001, 2.0, 16)),
            queue_time: Histogram::new(buckets()),
            request_time: Histogram::new(buckets()),
            queued: Gauge::default(),
            in_flight: Gauge::default(),
        };
        let ours = registry.sub_registry_with_prefix("sesemi_fnpacker");
        ours.register("requests", "Requests that ended", metrics.requests.clone());
        ours.register(
            "starts",
            "Served requests by start kind",
            metrics.starts.clone(),
        );
        ours.register("retries", "Invocations sent again", metrics.retries.clone());
        ours.register(
            "deployments",
            "Functions written",
            metrics.deployments.clone(),
        );
        let decision_time = metrics.decision_time.clone();
        let help = "To place an arriving request, or to let it wait";
        ours.register_with_unit("decision", help, Unit::Seconds, decision_time);
        let (queue_time, request_time) = (metrics.queue_time.clone(), metrics.request_time.clone());
        ours.register_with_unit("queue", "Time in the queue", Unit::Seconds, queue_time);
        ours.register_with_unit("request", "Receipt to answer", Unit::Seconds, request_time);
        ours.register("queued", "Requests that wait now", metrics.queued.clone());
        ours.register(
            "in_flight",
            "Requests at the platform now",
            metrics.in_flight.clone(),
        );
        metrics
    }

    pub(crate) fn ended(&self, outcome: Ended, total: Duration) {
        self.requests.get_or_create(&EndedLabel { outcome }).inc();
        self.request_time.observe(total.as_secs_f64());
    }

    pub(crate) fn served(&self, start: StartKind) {
        self.starts
            .get_or_create(&StartLabel {
                start: start.into(),
            })
            .inc();
    }

    /// A policy has placed an arrival; waiting for its lock is inside.
    pub(crate) fn decided(&self, took: Duration) {
        self.decision_time.observe(took.as_secs_f64());
    }

    pub(crate) fn dispatched(&self, queued: Duration) {
        self.queue_time.observe(queued.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn deployed(&self) {
        self.deployments.inc();
    }

    pub(crate) fn load(&self, queued: usize, in_flight: u32) {
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.in_flight.set(i64::from(in_flight));
    }
}
