//! The one path that a request takes: keys, open, model, session, run, seal.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crypto::{Binding, ResponseKey, open_request, seal_response, sha256};
use inference::{Engines, LoadLimits, Session};
use protocol::id::InstanceId;
use protocol::invoke::{
    Ciphertext, RunResult, SealedResponse, StoredAt, SubmittedRequest, Telemetry,
};
use protocol::measured::Isolation;
use protocol::oip::{InferReply, InferRequest, OipError};
use protocol::{EnclaveId, ModelId, PrincipalId, RequestId, Tensor};
use service::{ErrorChain, SharedClock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::keys::{How, Keys, Obtained, ReleasedKeys};
use crate::lock::lock;
use crate::meter::{Meter, Phase};
use crate::models::load::{LoadTimes, Loader};
use crate::models::{Had, ModelLease, Models};
use crate::refusal::{Failure, Refusal};
use crate::replay::{FirstUse, REMEMBERED_MAX, ReplayWindow};
use crate::sources::{ArtifactSource, Sources};
use crate::stored::{self, StoredError};
use crate::workers::{Ticket, Worker, Workers};

/// Work on more bytes than this goes to a thread that may block.
const INLINE_MAX: usize = 128 * 1024;
/// How often expired keys are overwritten even if nobody asks for them.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Who this instance is, and what it runs with.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// E_S.
    pub(crate) enclave: EnclaveId,
    pub(crate) instance: InstanceId,
}

/// One instance's serving state.
#[derive(Debug)]
pub(crate) struct Serve {
    identity: Identity,
    isolation: Isolation,
    keys: Arc<Keys>,
    models: Arc<Models>,
    requests: Arc<dyn ArtifactSource>,
    workers: Workers,
    replay: Mutex<ReplayWindow>,
    seq: AtomicU64,
    clock: SharedClock,
    tracker: TaskTracker,
}

/// What a request is bound to.
#[derive(Debug, Clone)]
struct Ids {
    user: PrincipalId,
    model: ModelId,
    enclave: EnclaveId,
    request_id: RequestId,
}

impl Ids {
    const fn binding(&self) -> Binding<'_> {
        Binding {
            user: &self.user,
            model: &self.model,
            enclave: &self.enclave,
            request_id: &self.request_id,
        }
    }
}

/// A request that opened and is new. Only [`Serve::open`] makes one.
struct Opened {
    request: Result<InferRequest, OipError>,
    response_key: ResponseKey,
    _first: FirstUse,
}

/// What a worker gives back.
struct Ran {
    outputs: Result<Vec<Tensor>, Failure>,
    made_session: Option<Duration>,
    run: Duration,
}

impl Serve {
    pub(crate) fn new(
        config: &Config,
        identity: Identity,
        sources: Sources,
        clock: SharedClock,
        tracker: TaskTracker,
    ) -> Self {
        let (measured, host) = (config.measured(), config.host());
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let budget = usize::try_from(measured.model_memory).unwrap_or(usize::MAX);
        let limits = LoadLimits::default();
        let limits = LoadLimits {
            graph_bytes: limits.graph_bytes.min(budget),
            weight_bytes: limits.weight_bytes.min(budget),
            ..limits
        };
        let engines = Engines::standard(&measured.engines).with_limits(limits);
        let ttl = Duration::from_secs(measured.key_ttl_s.into());
        let keys = Keys::new(
            sources.keys,
            Arc::clone(&clock),
            tracker.clone(),
            ttl,
            measured.isolation,
        );
        let loader = Loader::new(
            sources.artifacts,
            engines,
            threads,
            Arc::clone(&clock),
            tracker.clone(),
        );
        let models = Models::new(
            loader,
            Arc::clone(&clock),
            tracker.clone(),
            measured.model_memory,
            host.queue_wait,
        );
        Self {
            identity,
            isolation: measured.isolation,
            keys: Arc::new(keys),
            models: Arc::new(models),
            requests: sources.requests,
            workers: Workers::new(measured.concurrency.into(), host.queue_wait),
            replay: Mutex::new(ReplayWindow::new(REMEMBERED_MAX)),
            seq: AtomicU64::new(0),
            clock,
            tracker,
        }
    }

    /// Overwrites expired keys until `stop`.
    pub(crate) fn sweep_until(self: &Arc<Self>, stop: CancellationToken) {
        let keys = Arc::downgrade(&self.keys);
        self.tracker.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(SWEEP_EVERY) => {}
                }
                let Some(keys) = keys.upgrade() else { return };
                keys.sweep();
            }
        });
    }

    /// What is told beside the refusal of a request that was not let in, which is not counted.
    pub(crate) fn unread(&self) -> Telemetry {
        let seq = self.seq.load(Ordering::Relaxed) + 1;
        let clock = Arc::clone(&self.clock);
        Meter::new(clock, self.identity.instance.clone(), seq).telemetry()
    }

    /// Serves one request that was let in. Never fails as a call: what goes wrong is the answer.
    pub(crate) async fn serve(
        &self,
        _ticket: &Ticket,
        request: impl Into<SubmittedRequest>,
    ) -> RunResult {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let clock = Arc::clone(&self.clock);
        let mut meter = Meter::new(clock, self.identity.instance.clone(), seq);
        let SubmittedRequest {
            user,
            model,
            enclave,
            request_id,
            ciphertext,
        } = request.into();
        let ids = Ids {
            user,
            model,
            enclave,
            request_id,
        };
        match self.answer(&ids, ciphertext, &mut meter).await {
            Ok(ciphertext) => RunResult::Sealed(SealedResponse {
                request_id,
                ciphertext,
                telemetry: meter.telemetry(),
            }),
            Err(refusal) => {
                tracing::warn!(
                    seq,
                    model = %ids.model,
                    user = %ids.user.short(),
                    error = %ErrorChain(&refusal),
                    "request refused"
                );
                RunResult::Error {
                    error: refusal.wire(),
                    telemetry: Some(meter.telemetry()),
                }
            }
        }
    }

    async fn answer(
        &self,
        ids: &Ids,
        ciphertext: Ciphertext,
        meter: &mut Meter,
    ) -> Result<Vec<u8>, Refusal> {
        if ids.enclave != self.identity.enclave {
            return Err(Refusal::OtherEnclave);
        }
        let ciphertext = match ciphertext {
            Ciphertext::Here(bytes) => bytes,
            Ciphertext::Stored(at) => self.fetch_request(&at, meter).await?,
        };
        // In sequence means: nothing of the next request begins before this one has ended.
        let worker = match self.isolation {
            Isolation::Sequential => Some(self.workers.worker().await?),
            Isolation::Shared | Isolation::PerOwner => None,
        };
        let keys = self.released_keys(ids, meter).await?;
        let Opened {
            request,
            response_key,
            ..
        } = self.open(ids, ciphertext, &keys, meter).await?;
        let reply = match self.infer(request, &keys, worker, meter).await {
            Ok(outputs) => InferReply::Outputs {
                model_name: keys.model.to_string(),
                model_version: keys.version.to_string(),
                outputs,
            },
            Err(failure) => {
                tracing::warn!(
                    model = %keys.model,
                    version = %keys.version,
                    error = failure.for_log(),
                    "request failed; its user is told why under seal"
                );
                InferReply::Error(failure.wire())
            }
        };
        self.seal(ids, response_key, reply, meter).await
    }

    /// Before the worker and the keys are asked for, as if the bytes had come with the request.
    async fn fetch_request(&self, at: &StoredAt, meter: &mut Meter) -> Result<Vec<u8>, Refusal> {
        let start = meter.now();
        let bytes = stored::fetch(&self.requests, at).await?;
        let check = move || (sha256(&bytes), bytes);
        let checked = self.offload(usize::try_from(at.size).unwrap_or(usize::MAX), check);
        let (digest, bytes) = checked.await.ok_or(Refusal::Task)?;
        if digest != at.digest {
            return Err(StoredError::Digest.into());
        }
        meter.add_since(Phase::Fetch, start);
        Ok(bytes)
    }

    async fn released_keys(
        &self,
        ids: &Ids,
        meter: &mut Meter,
    ) -> Result<Arc<ReleasedKeys>, Refusal> {
        let pair = (ids.user, ids.model.clone());
        let Obtained { keys, how } = match self.isolation {
            Isolation::Sequential => self.keys.ask(&pair).await?,
            Isolation::Shared | Isolation::PerOwner => self.keys.obtain(&pair).await?,
        };
        match how {
            How::Kept => {}
            How::Asked { attest, keys } => {
                meter.missing();
                meter.add(Phase::Attest, attest);
                meter.add(Phase::Keys, keys);
            }
            How::Waited(time) => {
                meter.missing();
                meter.add(Phase::Keys, time);
            }
        }
        Ok(keys)
    }

    async fn open(
        &self,
        ids: &Ids,
        ciphertext: Vec<u8>,
        keys: &Arc<ReleasedKeys>,
        meter: &mut Meter,
    ) -> Result<Opened, Refusal> {
        let start = meter.now();
        let (keys, bound) = (Arc::clone(keys), ids.clone());
        let size = ciphertext.len();
        let open = move || {
            let (payload, key) = open_request(&keys.request_key, &bound.binding(), &ciphertext)?;
            Ok::<_, Refusal>((InferRequest::decode(&payload), key))
        };
        let (request, response_key) = self.offload(size, open).await.ok_or(Refusal::Task)??;
        let first = lock(&self.replay).record(&ids.user, &ids.model, &ids.request_id)?;
        meter.add_since(Phase::Open, start);
        Ok(Opened {
            request,
            response_key,
            _first: first,
        })
    }

    async fn infer(
        &self,
        request: Result<InferRequest, OipError>,
        keys: &Arc<ReleasedKeys>,
        worker: Option<Worker>,
        meter: &mut Meter,
    ) -> Result<Vec<Tensor>, Failure> {
        let InferRequest { inputs } = request.map_err(Failure::Request)?;
        let (lease, had) = match self.isolation {
            Isolation::Sequential => self.models.load_alone(keys).await?,
            Isolation::Shared | Isolation::PerOwner => self.models.lease(keys).await?,
        };
        match had {
            Had::Kept => {}
            Had::Loaded(LoadTimes { fetch, open, load }) => {
                meter.missing();
                meter.add(Phase::Fetch, fetch);
                meter.add(Phase::Open, open);
                meter.add(Phase::Load, load);
            }
            Had::Waited(time) => {
                meter.missing();
                meter.add(Phase::Load, time);
            }
        }
        let worker = match worker {
            Some(worker) => worker,
            None => self.workers.worker().await?,
        };
        let clock = Arc::clone(&self.clock);
        let ran = self
            .tracker
            .spawn_blocking(move || run(&lease, &inputs, &clock, worker));
        let Ran {
            outputs,
            made_session,
            run,
        } = ran.await.map_err(|_| Failure::Task)?;
        if let Some(time) = made_session {
            meter.missing();
            meter.add(Phase::Load, time);
        }
        meter.add(Phase::Run, run);
        outputs
    }

    async fn seal(
        &self,
        ids: &Ids,
        key: ResponseKey,
        reply: InferReply,
        meter: &mut Meter,
    ) -> Result<Vec<u8>, Refusal> {
        let start = meter.now();
        let bound = ids.clone();
        let size = match &reply {
            InferReply::Outputs { outputs, .. } => outputs.iter().map(|t| t.data().len()).sum(),
            InferReply::Error(_) => 0,
        };
        let seal = move || {
            let payload = match reply.encode() {
                Ok(payload) => payload,
                // An error is short, so it fits where the outputs did not.
                Err(error) => InferReply::Error(Failure::Reply(error).wire())
                    .encode()
                    .map_err(|_| Refusal::Task)?,
            };
            Ok::<_, Refusal>(seal_response(&key, &bound.binding(), &payload)?)
        };
        let sealed = self.offload(size, seal).await.ok_or(Refusal::Task)??;
        meter.add_since(Phase::Seal, start);
        Ok(sealed)
    }

    /// Does work on `size` bytes here if that is quick, else where blocking is allowed. `None` if
    /// the work panicked there.
    async fn offload<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if size <= INLINE_MAX {
            return Some(work());
        }
        self.tracker.spawn_blocking(work).await.ok()
    }
}

/// One run on one worker; returns only when the engine has really ended.
fn run(lease: &ModelLease, inputs: &[Tensor], clock: &SharedClock, _worker: Worker) -> Ran {
    let start = clock.monotonic();
    let (mut session, made_session) = match lease.idle_session() {
        Some(session) => (session, None),
        None => match lease.new_session() {
            Ok(session) => (session, Some(clock.monotonic().saturating_sub(start))),
            Err(error) => {
                let outputs = Err(Failure::Session(error));
                return Ran {
                    outputs,
                    made_session: None,
                    run: Duration::ZERO,
                };
            }
        },
    };
    let start = clock.monotonic();
    let outputs = session.run(inputs);
    let run = clock.monotonic().saturating_sub(start);
    keep_session(
        lease,
        session,
        outputs.as_ref().err().is_none_or(|e| e.is_callers_fault()),
    );
    Ran {
        outputs: outputs.map_err(Failure::Run),
        made_session,
        run,
    }
}

/// A session in which the engine itself failed is not used again.
fn keep_session(lease: &ModelLease, session: Box<dyn Session>, sound: bool) {
    if sound {
        lease.put_back(session);
    }
}

#[cfg(test)]
mod tests;
