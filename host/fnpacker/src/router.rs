//! The way of one request: find its pool, wait for an endpoint, invoke it, pass the answer on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use protocol::invoke::TIMEOUT_HEADER;
use protocol::invoke::{Routing, micros};
use protocol::{EnclaveId, WireError};
use service::{ErrorChain, SharedClock, Shutdown, in_place};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::answer::{RequestView, RoutedView, RunAnswer, read_answer};
use crate::config::{Config, ModelConfig, Models};
use crate::metrics::Metrics;
use crate::packing::{Arrival, Company, EndpointId, Outcome, Rejection, Report, Spent};
use crate::platform::{Answer, FunctionRef, Platform, PlatformError, Record};
use crate::pools::{Errand, Function, Lease, Pool, Turn};

/// The platform may queue an invocation and start a sandbox before the function's own time begins.
const PLATFORM_GRACE: Duration = Duration::from_secs(60);
/// How long an endpoint that the platform refuses to deploy is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// An object without any field of a request: starts an instance, which answers with an error.
const START_BODY: &[u8] = b"{}";

/// Why a request was not answered. Says whose fault it is and what to do, in `server`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InferError {
    #[error("the request is not of the expected form")]
    Form(#[source] serde_json::Error),
    #[error("the header {TIMEOUT_HEADER} is not a number of milliseconds from 1")]
    Timeout,
    #[error("the request broke off before its end")]
    BrokeOff,
    #[error("the request has {size} bytes, and the platform takes at most {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("no pool serves enclave {0}")]
    NoPool(EnclaveId),
    #[error("the request was not taken")]
    Rejected(Rejection),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("cannot deploy the function")]
    Deploy(#[source] PlatformError),
    #[error("cannot invoke the function")]
    Invoke(#[source] PlatformError),
    #[error("the instance refused the request")]
    Refused(#[source] WireError),
    #[error("the answer is too long for the platform: {0}")]
    AnswerTooLong(String),
    #[error("the function '{function}' did not answer as SeMIRT does: {message}")]
    Unexpected { function: String, message: String },
    #[error("the router stops")]
    Stopping,
}

/// Routes requests to the pools' endpoints.
#[derive(Debug)]
pub(crate) struct Router {
    platform: Arc<dyn Platform>,
    pools: HashMap<EnclaveId, Arc<Pool>>,
    clock: SharedClock,
    shutdown: Shutdown,
    metrics: Metrics,
    patience: Duration,
    patience_max: Duration,
    models: Models,
}

impl Router {
    /// A router with the pools of `config`; starts their timers.
    pub(crate) fn start(
        config: &Config,
        platform: Arc<dyn Platform>,
        clock: &SharedClock,
        metrics: Metrics,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let frees_memory = platform.caps().delete_frees_memory;
        let (mut pools, mut errands) = (HashMap::new(), Vec::new());
        for pool in &config.pools {
            let (pool, to_run) = Pool::new(pool.clone(), frees_memory, Arc::clone(clock));
            shutdown
                .tracker()
                .spawn(Arc::clone(&pool).keep_time(shutdown.token()));
            errands.push((Arc::clone(&pool), to_run));
            pools.insert(pool.config.enclave, pool);
        }
        let router = Arc::new(Self {
            platform,
            pools,
            clock: Arc::clone(clock),
            shutdown: shutdown.clone(),
            metrics,
            patience: config.patience,
            patience_max: config.patience_max,
            models: config.models.clone(),
        });
        for (pool, to_run) in errands {
            shutdown
                .tracker()
                .spawn(Arc::clone(&router).run_errands(pool, to_run));
        }
        router
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.platform.caps().max_payload
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Routes one request, which is passed on as it came. `patience` is what its caller gives it.
    /// Returns the JSON of a [`protocol::invoke::RoutedResponse`].
    pub(crate) async fn infer(
        self: &Arc<Self>,
        body: Bytes,
        patience: Option<Duration>,
    ) -> Result<Bytes, InferError> {
        if self.shutdown.token().is_cancelled() {
            return Err(InferError::Stopping);
        }
        let received = self.clock.monotonic();
        let limit = self.max_payload();
        if body.len() > limit {
            return Err(InferError::TooLarge {
                size: body.len(),
                limit,
            });
        }
        let view: RequestView<'_> = serde_json::from_slice(&body).map_err(InferError::Form)?;
        let pool = self
            .pools
            .get(&view.enclave)
            .ok_or(InferError::NoPool(view.enclave))?;
        let patience = patience.unwrap_or(self.patience).min(self.patience_max);
        let deadline = received + patience;
        tracing::debug!(request = %view.request_id, model = %view.model, pool = pool.config.name,
            "request arrived");
        let said = self.models.get(&view.model).copied();
        let ModelConfig { owner, company } = said.unwrap_or_default();
        let began = self.clock.monotonic();
        let mut waiting = pool.arrive(&Arrival {
            model: &view.model,
            user: view.user,
            owner,
            company,
            bytes: body.len(),
            deadline: Some(deadline),
        });
        drop(view);
        self.metrics
            .decided(self.clock.monotonic().saturating_sub(began));
        let lease = match waiting.turn().await {
            Some(Turn::Go(lease)) => lease,
            Some(Turn::Rejected(rejection)) => return Err(InferError::Rejected(rejection)),
            None => return Err(InferError::Stopping),
        };
        self.metrics.dispatched(lease.queued);
        // An endpoint is busy until the platform is done with it, whether or not the caller still
        // waits.
        let serve = Arc::clone(self).serve(lease, body, received, deadline);
        let served = in_place(self.shutdown.tracker(), serve);
        let left = deadline.saturating_sub(self.clock.monotonic());
        tokio::time::timeout(left, served)
            .await
            .unwrap_or(Err(InferError::Late(patience)))
    }

    async fn serve(
        self: Arc<Self>,
        lease: Lease,
        body: Bytes,
        received: Duration,
        deadline: Duration,
    ) -> Result<Bytes, InferError> {
        let answer = match self.invoke(&lease, &body, deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                lease.finish(&failure(&error));
                return Err(error);
            }
        };
        let function = lease.function().spec.name.clone();
        let queued = lease.queued;
        let run = read_answer(&answer.body);
        lease.finish(&report(&run, &answer.record));
        match run {
            RunAnswer::Sealed(sealed) => {
                self.metrics.served(sealed.telemetry.path);
                let record = answer.record;
                let routing = Routing {
                    function,
                    platform_cold: record.init.is_some(),
                    queue_us: micros(queued),
                    start_us: micros(record.wait + record.init.unwrap_or_default()),
                    activation: record.activation,
                    total_us: micros(self.clock.monotonic().saturating_sub(received)),
                };
                let view = RoutedView {
                    sealed: &sealed,
                    routing: &routing,
                };
                let json = serde_json::to_vec(&view).map_err(|source| InferError::Unexpected {
                    function: routing.function.clone(),
                    message: source.to_string(),
                })?;
                Ok(json.into())
            }
            RunAnswer::Refused { error, .. } => Err(InferError::Refused(error)),
            RunAnswer::TooLong { message } => Err(InferError::AnswerTooLong(message)),
            RunAnswer::Unexpected { message } => Err(InferError::Unexpected { function, message }),
        }
    }

    /// Invokes, and once more if the first invocation surely did not execute.
    async fn invoke(
        &self,
        lease: &Lease,
        body: &Bytes,
        deadline: Duration,
    ) -> Result<Answer, InferError> {
        let mut last_chance = false;
        loop {
            let error = match self.try_invoke(lease, body).await {
                Err(InferError::Invoke(error)) if error.surely_not_executed() => error,
                other => return other,
            };
            if matches!(error, PlatformError::NotFound { .. }) {
                lease.function().forget();
            }
            if last_chance || self.clock.monotonic() >= deadline {
                return Err(InferError::Invoke(error));
            }
            tracing::warn!(function = lease.function().spec.name, error = %ErrorChain(&error),
                "invocation did not execute, sending it again");
            self.metrics.retried();
            last_chance = true;
        }
    }

    async fn try_invoke(&self, lease: &Lease, body: &Bytes) -> Result<Answer, InferError> {
        let function = match self.deployed(lease).await {
            Ok(function) => function,
            Err(error) => {
                self.leave_alone(lease.pool(), lease.endpoint);
                return Err(InferError::Deploy(error));
            }
        };
        // The same limit bounds the start and the run.
        let patience = lease.pool().config.timeout * 2 + PLATFORM_GRACE;
        let answer = self
            .platform
            .invoke(&function, body.clone(), patience)
            .await;
        answer.map_err(InferError::Invoke)
    }

    async fn deployed(&self, lease: &Lease) -> Result<FunctionRef, PlatformError> {
        let cell = lease.function().deployed();
        let function = cell
            .get_or_try_init(|| async {
                self.disown(lease.function()).await?;
                let function = self.platform.ensure(&lease.function().spec).await?;
                if function.written {
                    self.metrics.deployed();
                    tracing::info!(function = function.name, "function deployed");
                }
                Ok(function)
            })
            .await?;
        Ok(function.clone())
    }

    /// Deletes a function of an earlier process before its first use, if any model may not share
    /// an instance with just any other: nobody knows any more who used that one.
    async fn disown(&self, function: &Function) -> Result<(), PlatformError> {
        let choosy = self
            .models
            .values()
            .any(|model| model.company != Company::Shared);
        if choosy && function.inherited.load(Ordering::Relaxed) {
            self.platform.delete(&function.spec.name).await?;
        }
        function.inherited.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Sends requests elsewhere for a while.
    fn leave_alone(&self, pool: &Arc<Pool>, endpoint: EndpointId) {
        pool.set_ready(endpoint, false);
        let (pool, stop) = (Arc::clone(pool), self.shutdown.token());
        self.shutdown.tracker().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(REFUSED_PAUSE) => pool.set_ready(endpoint, true),
            }
        });
    }

    async fn run_errands(self: Arc<Self>, pool: Arc<Pool>, mut to_run: UnboundedReceiver<Errand>) {
        let stop = self.shutdown.token();
        loop {
            let errand = tokio::select! {
                () = stop.cancelled() => return,
                errand = to_run.recv() => errand,
            };
            match errand {
                Some(Errand::Start(lease)) => {
                    let router = Arc::clone(&self);
                    self.shutdown.tracker().spawn(router.start_instance(lease));
                }
                Some(Errand::Retire(endpoint)) => {
                    let retire = Arc::clone(&self).retire(Arc::clone(&pool), endpoint);
                    self.shutdown.tracker().spawn(retire);
                }
                None => return,
            }
        }
    }

    async fn start_instance(self: Arc<Self>, lease: Lease) {
        match self
            .try_invoke(&lease, &Bytes::from_static(START_BODY))
            .await
        {
            Ok(answer) => lease.finish(&report(&read_answer(&answer.body), &answer.record)),
            Err(error) => {
                tracing::warn!(function = lease.function().spec.name, error = %ErrorChain(&error),
                    "cannot start an instance ahead of need");
                lease.finish(&failure(&error));
            }
        }
    }

    /// Deletes the function. When it is deployed again it is another one, which no platform serves
    /// with an instance of this one (see each `Platform`); so nothing that was in there meets the
    /// next tenants.
    async fn retire(self: Arc<Self>, pool: Arc<Pool>, endpoint: EndpointId) {
        let function = &pool.functions[endpoint.index()];
        function.forget();
        let gone = match self.platform.delete(&function.spec.name).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(function = function.spec.name, error = %ErrorChain(&error),
                    "cannot let an idle instance go");
                tokio::select! {
                    () = self.shutdown.token().cancelled_owned() => {}
                    () = tokio::time::sleep(REFUSED_PAUSE) => {}
                }
                false
            }
        };
        pool.retired(endpoint, gone);
    }
}

/// What packing learns from an answer.
fn report(run: &RunAnswer<'_>, record: &Record) -> Report {
    let start = record
        .init
        .map_or(Duration::ZERO, |init| record.wait + init);
    let (outcome, telemetry) = match run {
        RunAnswer::Sealed(sealed) => (Outcome::Served, Some(&sealed.telemetry)),
        RunAnswer::Refused { telemetry, .. } => (Outcome::Refused, telemetry.as_ref()),
        RunAnswer::TooLong { .. } | RunAnswer::Unexpected { .. } => (Outcome::Refused, None),
    };
    Report {
        outcome,
        duration: record.duration,
        instance: telemetry.map(|telemetry| telemetry.instance.clone()),
        start: telemetry.map(|telemetry| telemetry.path),
        spent: telemetry.map_or_else(Spent::default, |t| Spent::from_telemetry(t, start)),
    }
}

/// What packing learns from a failure.
fn failure(error: &InferError) -> Report {
    let outcome = match error {
        InferError::Invoke(
            PlatformError::InstanceFailed { .. }
            | PlatformError::TimeLimit { .. }
            | PlatformError::Deadline { .. },
        ) => Outcome::InstanceFailed,
        _ => Outcome::Unreached,
    };
    let record = match error {
        InferError::Invoke(error) => error.record(),
        _ => None,
    };
    let duration = record.map_or(Duration::ZERO, |record| record.duration);
    Report {
        duration,
        ..Report::bare(outcome)
    }
}
