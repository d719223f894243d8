//! What the platform counts, in Prometheus' text format at `GET /metrics`.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use protocol::openwhisk::Outcome;

use crate::activations::Activation;
use crate::meter::Bill;
use crate::pool::Occupancy;

/// How an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum OutcomeLabel {
    Success,
    ApplicationError,
    DeveloperError,
    InternalError,
}

/// Whether `/init` ran for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum StartLabel {
    Cold,
    Reused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActivationLabels {
    outcome: OutcomeLabel,
    start: StartLabel,
}

/// Every metric of the platform.
#[derive(Debug)]
pub(crate) struct Metrics {
    activations: Family<ActivationLabels, Counter>,
    throttled: Counter,
    wait: Histogram,
    init: Histogram,
    duration: Histogram,
    instances: Gauge<i64, AtomicI64>,
    idle: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    memory: Gauge<i64, AtomicI64>,
    started: Counter,
    provisioned: Counter<f64, AtomicU64>,
    busy: Counter<f64, AtomicU64>,
    billed: Counter<f64, AtomicU64>,
    bill: Mutex<Bill>,
}

impl Metrics {
    /// Makes the metrics and registers each; names begin with `sesemi_platform`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 18));
        let metrics = Self {
            activations: Family::default(),
            throttled: Counter::default(),
            wait: histogram(),
            init: histogram(),
            duration: histogram(),
            instances: Gauge::default(),
            idle: Gauge::default(),
            waiting: Gauge::default(),
            memory: Gauge::default(),
            started: Counter::default(),
            provisioned: Counter::default(),
            busy: Counter::default(),
            billed: Counter::default(),
            bill: Mutex::default(),
        };
        let r = registry.sub_registry_with_prefix("sesemi_platform");
        let m = &metrics;
        r.register(
            "activations",
            "Activations that ended",
            m.activations.clone(),
        );
        r.register(
            "throttled",
            "Invocations refused with 429",
            m.throttled.clone(),
        );
        let seconds = |r: &mut Registry, name: &str, help: &str, metric: &Histogram| {
            r.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        seconds(r, "wait", "From receipt to /init or /run", &m.wait);
        seconds(r, "init", "Start of the server and /init", &m.init);
        seconds(r, "duration", "/init and /run together", &m.duration);
        r.register(
            "instances",
            "Sandboxes whose memory is not free",
            m.instances.clone(),
        );
        r.register(
            "idle_instances",
            "Sandboxes without an invocation",
            m.idle.clone(),
        );
        r.register(
            "waiting_invocations",
            "Invocations without a sandbox",
            m.waiting.clone(),
        );
        let help = "Memory limits of all sandboxes";
        r.register_with_unit("memory", help, Unit::Bytes, m.memory.clone());
        r.register(
            "sandboxes_started",
            "Sandboxes that were started",
            m.started.clone(),
        );
        let help = "Memory of all sandboxes over their lives";
        r.register("provisioned_gb_seconds", help, m.provisioned.clone());
        let help = "Memory of sandboxes while they had an invocation";
        r.register("busy_gb_seconds", help, m.busy.clone());
        let help = "Memory limit times duration of every activation, in steps of 100 ms";
        r.register("billed_gb_seconds", help, m.billed.clone());
        metrics
    }

    /// One activation ended.
    pub(crate) fn observe(
        &self,
        record: &Activation,
        init: Option<Duration>,
        waited: Duration,
        memory_mb: u64,
    ) {
        let outcome = match record.response.outcome() {
            Outcome::Success => OutcomeLabel::Success,
            Outcome::ApplicationError => OutcomeLabel::ApplicationError,
            Outcome::DeveloperError => OutcomeLabel::DeveloperError,
            Outcome::InternalError => OutcomeLabel::InternalError,
        };
        let start = if init.is_some() {
            StartLabel::Cold
        } else {
            StartLabel::Reused
        };
        self.activations
            .get_or_create(&ActivationLabels { outcome, start })
            .inc();
        self.wait.observe(waited.as_secs_f64());
        self.duration
            .observe(Duration::from_millis(record.duration).as_secs_f64());
        if let Some(init) = init {
            self.init.observe(init.as_secs_f64());
        }
        let mut bill = self.bill.lock().unwrap_or_else(PoisonError::into_inner);
        bill.add(memory_mb, record.duration);
    }

    /// One invocation was refused with 429.
    pub(crate) fn throttled(&self) {
        self.throttled.inc();
    }

    /// GB-seconds of all activations so far.
    #[must_use]
    pub(crate) fn billed_gb_seconds(&self) -> f64 {
        self.bill
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .gb_seconds()
    }

    /// Takes over what the pool knows, before the metrics are read.
    pub(crate) fn refresh(&self, now: &Occupancy) {
        let level = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.instances.set(level(now.instances));
        self.idle.set(level(now.idle));
        self.waiting.set(level(now.waiting));
        self.memory
            .set(i64::try_from(now.used_mb << 20).unwrap_or(i64::MAX));
        // Readers at the same time must not both add the difference.
        let bill = self.bill.lock().unwrap_or_else(PoisonError::into_inner);
        self.started
            .inc_by(now.started.saturating_sub(self.started.get()));
        let raise = |counter: &Counter<f64, AtomicU64>, to: f64| {
            counter.inc_by((to - counter.get()).max(0.0));
        };
        raise(&self.provisioned, now.provisioned_gb_seconds);
        raise(&self.busy, now.busy_gb_seconds);
        raise(&self.billed, bill.gb_seconds());
    }
}
