//! What KeyService counts. Labels come from closed sets, never from ids.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use protocol::ErrorCode;

/// Labels of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    /// `ok` or the name of an error code.
    outcome: &'static str,
}

/// Clones share their counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    connections: Gauge,
    refused_connections: Counter,
    commits: Histogram,
    changes: Counter,
    failed_commits: Counter,
    rows: Gauge<u64, AtomicU64>,
    log_entries: Gauge<u64, AtomicU64>,
    epoch: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            commits: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            changes: Counter::default(),
            failed_commits: Counter::default(),
            rows: Gauge::default(),
            log_entries: Gauge::default(),
            epoch: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds everything to `registry`, as `sesemi_keyservice_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sesemi_keyservice");
        registry.register(
            "calls",
            "Calls by operation and outcome",
            self.calls.clone(),
        );
        registry.register(
            "connections",
            "Attested connections open now",
            self.connections.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections that did not pass the attest gate",
            self.refused_connections.clone(),
        );
        registry.register(
            "commit_seconds",
            "Time to make a group durable",
            self.commits.clone(),
        );
        registry.register("changes", "Changes made durable", self.changes.clone());
        registry.register(
            "failed_commits",
            "Groups of changes that could not be made durable",
            self.failed_commits.clone(),
        );
        registry.register(
            "rows",
            "Versions, grants and request keys",
            self.rows.clone(),
        );
        registry.register(
            "log_entries",
            "Entries of the audit log",
            self.log_entries.clone(),
        );
        registry.register("epoch", "Revocations so far, plus one", self.epoch.clone());
    }

    /// Counts a call; `operation` is from the routes table.
    pub(crate) fn called(&self, operation: &'static str, outcome: Result<(), ErrorCode>) {
        let outcome = outcome.map_or_else(ErrorCode::name, |()| "ok");
        self.calls
            .get_or_create(&CallLabels { operation, outcome })
            .inc();
    }

    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    pub(crate) fn refused_connection(&self) {
        self.refused_connections.inc();
    }

    pub(crate) fn committed(&self, changes: u64, took: Duration) {
        self.commits.observe(took.as_secs_f64());
        self.changes.inc_by(changes);
    }

    pub(crate) fn commit_failed(&self) {
        self.failed_commits.inc();
    }

    pub(crate) fn holds(&self, rows: usize, log_entries: u64, epoch: u64) {
        self.rows.set(rows as u64);
        self.log_entries.set(log_entries);
        self.epoch.set(epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_registered_once_under_its_name() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.called("release", Err(ErrorCode::NotGranted));
        metrics.committed(3, Duration::from_millis(2));
        metrics.holds(1, 2, 3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "sesemi_keyservice_calls_total{operation=\"release\",outcome=\"not_granted\"} 1",
            "sesemi_keyservice_connections 0",
            "sesemi_keyservice_refused_connections_total 0",
            "sesemi_keyservice_commit_seconds_count 1",
            "sesemi_keyservice_changes_total 3",
            "sesemi_keyservice_failed_commits_total 0",
            "sesemi_keyservice_rows 1",
            "sesemi_keyservice_log_entries 2",
            "sesemi_keyservice_epoch 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
