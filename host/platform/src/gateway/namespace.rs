//! What the API tells about itself: limits, usage, the host.

use serde_json::{Value, json};

use super::{Gateway, Reject, Reply};

impl Gateway {
    /// `GET …/limits`.
    pub(super) fn limits(&self) -> Result<Reply, Reject> {
        let rules = &self.rules;
        Reply::ok(&json!({
            "invocationsPerMinute": rules.invocations_per_minute,
            "concurrentInvocations": rules.concurrent_invocations,
            "firesPerMinute": 0,
            "minActionMemory": rules.memory_mb.0,
            "maxActionMemory": rules.memory_mb.1,
            "minActionLogs": rules.logs_mb.0,
            "maxActionLogs": rules.logs_mb.1,
            "minActionTimeout": rules.timeout_ms.0,
            "maxActionTimeout": rules.timeout_ms.1,
            "minActionConcurrency": rules.concurrency.0,
            "maxActionConcurrency": rules.concurrency.1,
            "maxParameterSize": format!("{} B", rules.parameters_max),
            "maxActionInstances": rules.concurrent_invocations,
        }))
    }

    /// `GET …/usage`, an addition to OpenWhisk's API: the memory that this platform holds and
    /// held, in GB-seconds. It is the machine's, not one namespace's.
    pub(super) fn usage(&self) -> Result<Reply, Reject> {
        let now = self.pool.occupancy();
        Reply::ok(&json!({
            "provisionedGbSeconds": now.provisioned_gb_seconds,
            "busyGbSeconds": now.busy_gb_seconds,
            "billedGbSeconds": self.metrics.billed_gb_seconds(),
            "memoryMb": now.used_mb,
            "instances": now.instances,
            "idleInstances": now.idle,
            "waitingInvocations": now.waiting,
            "sandboxesStarted": now.started,
        }))
    }

    /// `GET /`.
    pub(super) fn about_host(&self) -> Value {
        let rules = &self.rules;
        json!({
            "description": "OpenWhisk",
            "support": {"software": "SeSeMI embedded platform"},
            "api_paths": ["/api/v1"],
            "limits": {
                "actions_per_minute": rules.invocations_per_minute,
                "triggers_per_minute": 0,
                "concurrent_actions": rules.concurrent_invocations,
                "sequence_length": 0,
                "min_action_duration": rules.timeout_ms.0,
                "max_action_duration": rules.timeout_ms.1,
                "min_action_memory": rules.memory_mb.0 << 20,
                "max_action_memory": rules.memory_mb.1 << 20,
                "min_action_logs": rules.logs_mb.0 << 20,
                "max_action_logs": rules.logs_mb.1 << 20,
            },
            "runtimes": {
                "blackbox": [{"kind": "blackbox", "default": true, "deprecated": false}],
            },
        })
    }
}
