//! The one path an invocation takes: a lease, `/init` if the instance is new, `/run`, the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::action::RunRequest;
use protocol::openwhisk::{INIT_TIME, KeyValue, TIMEOUT, WAIT_TIME};
use serde_json::json;
use service::{ErrorChain, SharedClock};

use crate::activations::{Activation, Activations};
use crate::config::Image;
use crate::functions::{Function, provides_api_key};
use crate::json::Json;
use crate::metrics::Metrics;
use crate::pool::{Instance, Lease, Phase, Pool};
use crate::record::{Place, Recorder};
use crate::sandbox::call::Caller;
use crate::sandbox::{Exit, Sandbox};
use crate::scheduler::InstanceId;
use crate::verdict::{
    Answer, PROVISION_ERROR, RunVerdict, Verdict, died, judge_run, platform_fault,
};

mod startup;

/// Instances that are tried for one invocation, if each gives it back unserved.
const INSTANCES_MAX: u32 = 3;
/// How long an instance that broke a connection may take to end, so that the cause is known.
const EXIT_WAIT: Duration = Duration::from_millis(250);

/// Annotation of this platform: the instance that ran it, as [`INSTANCE_HEADER`] takes it.
pub(crate) const INSTANCE: &str = "instance";
/// Header with the instance that an invocation is wished to run in. One that is gone, busy or
/// another function's counts for nothing.
pub(crate) const INSTANCE_HEADER: &str = "x-sesemi-instance";

/// One call of a function.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) function: Arc<Function>,
    pub(crate) activation_id: String,
    pub(crate) request_id: String,
    /// The caller's namespace, which is also the subject.
    pub(crate) namespace: String,
    /// The caller's `uuid:secret`.
    pub(crate) api_key: String,
    /// Parameters and body, merged; what goes to `/init` is not in it.
    pub(crate) value: Json,
    /// Where its caller wishes it to run.
    pub(crate) prefers: Option<InstanceId>,
    /// Monotonic time of receipt.
    pub(crate) received: Duration,
}

impl Invocation {
    /// Time limit of `/init`, and of `/run`.
    fn limit(&self) -> Duration {
        Duration::from_millis(self.function.action.limits.timeout)
    }

    /// `/namespace/action`.
    fn path(&self) -> String {
        format!(
            "/{}/{}",
            self.function.action.namespace, self.function.action.name
        )
    }

    fn api_key(&self) -> Option<String> {
        provides_api_key(&self.function.action).then(|| self.api_key.clone())
    }
}

/// What invocations share.
#[derive(Debug)]
pub(crate) struct Invoker {
    pub(crate) pool: Arc<Pool>,
    pub(crate) activations: Arc<Activations>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) clock: SharedClock,
    pub(crate) images: BTreeMap<String, Image>,
    /// `__OW_API_HOST` of the sandboxes.
    pub(crate) api_host: String,
    /// Longest answer of a sandbox, in bytes.
    pub(crate) payload_max: usize,
}

/// How an invocation ended.
struct Settled {
    verdict: Verdict,
    /// When `/init` or `/run` was sent; the wait ends here.
    begun: Duration,
    /// How long `/init` took, if it ran for this invocation.
    init: Option<Duration>,
    instance: Option<Arc<Instance>>,
    /// Absent if it was given back already.
    lease: Option<Lease>,
}

/// An instance that is initialised.
struct Started {
    caller: Arc<Caller>,
    /// When this invocation sent `/init`, and how long that took, if it did.
    init: Option<(Duration, Duration)>,
}

/// Why an instance cannot run anything.
struct NotStarted {
    verdict: Verdict,
    /// When the attempt to initialise began.
    begun: Duration,
    /// How long it took, if `/init` was reached or waited for.
    init: Option<Duration>,
}

impl Invoker {
    /// Runs one invocation to its end and keeps its record.
    pub(crate) async fn perform(&self, invocation: Invocation) -> Arc<Activation> {
        let settled = self.settle(&invocation).await;
        let Settled {
            verdict,
            begun,
            init,
            instance,
            lease,
        } = settled;
        let keep = verdict.keep;
        let duration = self.clock.monotonic().saturating_sub(begun);
        let waited = begun.saturating_sub(invocation.received);
        let start = millis(self.clock.now().saturating_sub(duration));
        let action = &invocation.function.action;
        let mut annotations = vec![
            KeyValue::new("path", invocation.path().trim_start_matches('/')),
            KeyValue::new("kind", action.exec.kind.as_str()),
            KeyValue::new("limits", json!(action.limits)),
            KeyValue::new(TIMEOUT, verdict.timeout),
            KeyValue::new(WAIT_TIME, millis(waited)),
        ];
        annotations.extend(init.map(|init| KeyValue::new(INIT_TIME, millis(init))));
        let place = instance.as_ref().map(|instance| instance.id.0);
        annotations.extend(place.map(|id| KeyValue::new(INSTANCE, id.to_string())));
        let record = Arc::new(Activation {
            namespace: invocation.namespace.clone(),
            name: action.name.clone(),
            version: action.version.clone(),
            subject: invocation.namespace.clone(),
            activation_id: invocation.activation_id.clone(),
            start,
            end: start.saturating_add(millis(duration)),
            duration: millis(duration),
            publish: false,
            annotations,
            logs: Vec::new(),
            response: verdict.response,
        });
        self.metrics
            .observe(&record, init, waited, action.limits.memory);
        self.activations.add(record.clone());
        if let Some(instance) = instance {
            if instance.log.needs_drain()
                && let Some(sandbox) = instance.sandbox()
            {
                sandbox.drain_output();
            }
            instance.log.recorded(&invocation.activation_id, !keep);
        }
        if let Some(lease) = lease {
            lease.finish(keep);
        }
        record
    }

    /// Starts one more instance of the function, if memory is free, for nobody yet. The invocation
    /// is the occasion: it is not run.
    pub(crate) async fn prewarm(&self, invocation: Invocation) {
        let Some(lease) = self.pool.prewarm(&invocation.function) else {
            tracing::info!(function = %invocation.function.key, "no memory to start it ahead");
            return;
        };
        match self.start(&invocation, &lease).await {
            Ok(_) => lease.finish(true),
            Err(NotStarted { verdict, .. }) => {
                let function = &invocation.function.key;
                tracing::warn!(%function, "an instance could not be started ahead of need");
                lease.fail(Arc::new(verdict));
            }
        }
    }

    async fn settle(&self, invocation: &Invocation) -> Settled {
        let mut lease = match self
            .pool
            .acquire(&invocation.function, invocation.prefers)
            .await
        {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "no instance for an invocation");
                return self.unplaced();
            }
        };
        let mut attempts = 1;
        loop {
            let instance = lease.instance.clone();
            instance.log.begin(&invocation.activation_id);
            let started = if lease.first {
                self.start(invocation, &lease).await
            } else {
                self.started_by_another(&instance).await
            };
            let Started { caller, init } = match started {
                Ok(started) => started,
                Err(NotStarted {
                    verdict,
                    begun,
                    init,
                }) => {
                    lease.fail(Arc::new(verdict.clone()));
                    return Settled {
                        verdict,
                        begun,
                        init,
                        instance: Some(instance),
                        lease: None,
                    };
                }
            };
            let begun = init.map_or_else(|| self.clock.monotonic(), |(begun, _)| begun);
            let init = init.map(|(_, took)| took);
            let verdict = match self.run(invocation, &instance, &caller).await {
                RunVerdict::Settled(verdict) => verdict,
                RunVerdict::NotServed if attempts == INSTANCES_MAX => died(),
                RunVerdict::NotServed => {
                    attempts += 1;
                    lease = match lease.hand_back().await {
                        Ok(lease) => lease,
                        Err(_) => return self.unplaced(),
                    };
                    continue;
                }
            };
            return Settled {
                verdict,
                begun,
                init,
                instance: Some(instance),
                lease: Some(lease),
            };
        }
    }

    /// The platform had no instance to give.
    fn unplaced(&self) -> Settled {
        let (verdict, begun) = (platform_fault(PROVISION_ERROR), self.clock.monotonic());
        Settled {
            verdict,
            begun,
            init: None,
            instance: None,
            lease: None,
        }
    }

    async fn started_by_another(&self, instance: &Instance) -> Result<Started, NotStarted> {
        let verdict = match instance.settled().await {
            Phase::Ready(caller) => return Ok(Started { caller, init: None }),
            Phase::Failed(verdict) => (*verdict).clone(),
            Phase::Starting => platform_fault(PROVISION_ERROR),
        };
        Err(NotStarted {
            verdict,
            begun: self.clock.monotonic(),
            init: None,
        })
    }

    async fn run(
        &self,
        invocation: &Invocation,
        instance: &Instance,
        caller: &Caller,
    ) -> RunVerdict {
        let action = &invocation.function.action;
        let limit = invocation.limit();
        let body = serde_json::to_vec(&RunRequest {
            value: &invocation.value,
            namespace: Some(invocation.namespace.clone()),
            action_name: Some(invocation.path()),
            action_version: Some(action.version.clone()),
            activation_id: Some(invocation.activation_id.clone()),
            transaction_id: Some(invocation.request_id.clone()),
            deadline: Some(self.deadline(limit)),
            api_key: invocation.api_key(),
        });
        let Ok(body) = body else {
            return RunVerdict::Settled(platform_fault(PROVISION_ERROR));
        };
        let sandbox = instance.sandbox();
        let answer = self
            .call(caller, sandbox.as_deref(), "/run", body.into(), limit)
            .await;
        judge_run(&answer, limit)
    }

    /// One recorded call to a sandbox, within `limit`.
    async fn call(
        &self,
        caller: &Caller,
        sandbox: Option<&dyn Sandbox>,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Answer {
        self.recorder.append(Place::SandboxRequest, &body);
        let call = caller.post(path, body, self.payload_max);
        let mut answer = tokio::time::timeout(limit, call)
            .await
            .unwrap_or(Answer::TimedOut);
        if answer == Answer::Nothing
            && let Some(sandbox) = sandbox
        {
            answer = silence(sandbox).await;
        }
        if let Answer::Complete { body, .. } | Answer::TooLong { head: body, .. } = &answer {
            self.recorder.append(Place::SandboxResponse, body);
        }
        answer
    }

    /// Wall time after `limit`, in milliseconds since 1970, as text.
    fn deadline(&self, limit: Duration) -> String {
        millis(self.clock.now() + limit).to_string()
    }
}

/// Why a sandbox said nothing: it tells when it ends, which it soon does if that is why.
async fn silence(sandbox: &dyn Sandbox) -> Answer {
    match tokio::time::timeout(EXIT_WAIT, sandbox.exited()).await {
        Ok(Exit::MemoryExhausted) => Answer::MemoryExhausted,
        Ok(Exit::Ended) | Err(_) => Answer::Nothing,
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
