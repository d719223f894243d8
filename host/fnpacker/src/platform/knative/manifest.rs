//! A function as a Knative Service, and what Knative says of it. Pure.
//!
//! Sources: knative/specs `specs/serving/runtime-contract.md`; the CRD in knative/serving
//! `config/core/300-resources/service.yaml`; `deploy/schemas` holds what is written here to it.

use serde_json::{Map, Value, json};

use super::{KnativeConfig, KnativeConfigError};
use crate::platform::FunctionSpec;

/// Where SeMIRT listens; Knative says so to it by `PORT`.
const PORT: u16 = 8080;
/// The annotation that holds the Service as it was deployed, without this annotation.
const SPEC_ANNOTATION: &str = "sesemi.dev/spec";
/// Names that Knative sets itself (runtime contract, "Process").
const RESERVED: [&str; 4] = ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"];
/// A Service's name is the beginning of its revisions' (`-00001`) and a DNS label of at most 63.
const NAME_MAX: usize = 56;

/// Whether Knative would take this function.
pub(super) fn check(spec: &FunctionSpec) -> Result<(), KnativeConfigError> {
    if spec.name.len() > NAME_MAX || !is_dns_label(&spec.name) {
        return Err(KnativeConfigError::Name(spec.name.clone()));
    }
    match RESERVED
        .into_iter()
        .find(|name| spec.env.contains_key(*name))
    {
        Some(name) => Err(KnativeConfigError::Reserved(name)),
        None => Ok(()),
    }
}

/// A DNS label of RFC 1035, as Kubernetes wants it.
pub(super) fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(inner)
}

/// The Service as it should be, annotated with itself: what `ensure` compares.
pub(super) fn service(config: &KnativeConfig, spec: &FunctionSpec) -> Wanted {
    let mut service = json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": spec.name,
            "namespace": config.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "sesemi-fnpacker",
                // Requests come from FnPacker only.
                "networking.knative.dev/visibility": "cluster-local",
            },
        },
        "spec": { "template": {
            "metadata": { "annotations": annotations(config) },
            "spec": revision(config, spec),
        } },
    });
    let spec = service.to_string();
    service["metadata"]["annotations"] = json!({ SPEC_ANNOTATION: spec });
    Wanted { spec, service }
}

/// A Service to apply.
pub(super) struct Wanted {
    /// What [`deployed_spec`] says of it once it is there.
    pub(super) spec: String,
    pub(super) service: Value,
}

fn annotations(config: &KnativeConfig) -> Value {
    let mut all = Map::new();
    let mut set = |name: &str, value: String| {
        all.insert(format!("autoscaling.knative.dev/{name}"), value.into());
    };
    set("class", "kpa.autoscaling.knative.dev".into());
    set("metric", "concurrency".into());
    set("min-scale", config.min_scale.to_string());
    set("max-scale", config.max_scale.to_string());
    // A place is an enclave's thread: fill all of them, and count them one by one.
    set("target-utilization-percentage", "100".into());
    set("target-burst-capacity", "-1".into());
    set(
        "scale-to-zero-pod-retention-period",
        format!("{}s", config.keep_alive.as_secs()),
    );
    Value::Object(all)
}

fn revision(config: &KnativeConfig, spec: &FunctionSpec) -> Value {
    let env: Vec<_> = spec
        .env
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let (cpu, memory) = (&config.cpu, format!("{}Mi", spec.memory_mb));
    let mut limits = json!({ "cpu": cpu, "memory": memory });
    for (name, amount) in &config.limits {
        limits[name] = amount.as_str().into();
    }
    let mut revision = json!({
        "containerConcurrency": spec.concurrency,
        "timeoutSeconds": spec.timeout_ms.div_ceil(1000).max(1),
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "semirt",
            "image": spec.image,
            "env": env,
            "ports": [{ "name": "http1", "containerPort": PORT }],
            "readinessProbe": { "httpGet": { "path": "/v2/health/ready" } },
            "livenessProbe": { "httpGet": { "path": "/v2/health/live" } },
            "resources": { "requests": { "cpu": cpu, "memory": memory }, "limits": limits },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
        }],
    });
    if let Some(class) = &config.runtime_class {
        revision["runtimeClassName"] = class.as_str().into();
    }
    if let Some(user) = config.user {
        revision["containers"][0]["securityContext"]["runAsUser"] = user.into();
    }
    revision
}

/// The specification that a Service was deployed with, if we deployed it.
pub(super) fn deployed_spec(service: &Value) -> Option<&str> {
    service["metadata"]["annotations"][SPEC_ANNOTATION].as_str()
}

/// Whether a Service can take requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    NotYet,
    /// Knative gave up for now: reason and message.
    Failed(String),
}

/// What the status says, if it is of the newest generation (Knative's error-conditions contract).
pub(super) fn readiness(service: &Value) -> Readiness {
    let status = &service["status"];
    let observed = &status["observedGeneration"];
    if observed.is_null() || *observed != service["metadata"]["generation"] {
        return Readiness::NotYet;
    }
    let conditions = status["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    let text = |field: &str| ready.and_then(|c| c[field].as_str()).unwrap_or_default();
    match text("status") {
        "True" => Readiness::Ready,
        "False" => Readiness::Failed(format!("{}: {}", text("reason"), text("message"))),
        _ => Readiness::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_another_generation_says_nothing() {
        let service = |generation: Value, observed: Value, ready: &str| {
            json!({
                "metadata": { "generation": generation },
                "status": { "observedGeneration": observed, "conditions": [
                    { "type": "RoutesReady", "status": "True" },
                    { "type": "Ready", "status": ready, "reason": "R", "message": "m" },
                ] },
            })
        };
        let failed = Readiness::Failed("R: m".into());
        for (service, expected) in [
            (json!({}), Readiness::NotYet),
            (
                json!({ "metadata": { "generation": 1 } }),
                Readiness::NotYet,
            ),
            (service(2.into(), 1.into(), "True"), Readiness::NotYet),
            (service(2.into(), 1.into(), "False"), Readiness::NotYet),
            (service(2.into(), 2.into(), "Unknown"), Readiness::NotYet),
            (service(2.into(), 2.into(), "False"), failed),
            (service(2.into(), 2.into(), "True"), Readiness::Ready),
        ] {
            assert_eq!(readiness(&service), expected, "{service}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "sesemi-main-0", "x9"] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "9a", "A", "a_b", "a.b"] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }
}
