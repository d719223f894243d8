//! The one task that owns the state: it decides in order, commits in groups, and answers after.
//!
//! While a group is on its way to the disk, the next calls gather; they share the next fsync. If a
//! group cannot be made durable, nobody in it is told that it was, and the state is rebuilt from
//! the disk.

mod storage;

use std::path::Path;
use std::time::Duration;

use crypto::SealingKey;
use protocol::EnclaveId;
use protocol::keyservice::LogPage;
use service::{ErrorChain, SharedClock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::broker::{
    Broker, Decided, GrantError, Limits, RegisterModelError, RegisterRequestKeyError, ReleaseError,
    UnknownModel, Write,
};
use crate::command::{Answer, Change, Command, Question};
use crate::metrics::Metrics;
use crate::vault::{LockError, VaultDirectory};

pub use storage::LoadError;

use storage::Storage;

/// Calls that wait; the next one is told to come again.
const QUEUE: usize = 1024;
/// Most calls that share one fsync.
const GROUP: usize = 256;
/// After the disk was full, changes are refused for this long without trying: each failed attempt
/// costs opening the vault again.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// The same after the vault could not be opened again.
const LOAD_PAUSE: Duration = Duration::from_millis(250);

/// Why a call was not done. Whether it was is never in doubt: on every refusal nothing was
/// acknowledged, and repeating the call is safe.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("cannot register the version")]
    RegisterModel(#[source] RegisterModelError),
    #[error("cannot answer")]
    UnknownModel(#[source] UnknownModel),
    #[error("cannot grant")]
    Grant(#[source] GrantError),
    #[error("cannot register the request key")]
    RegisterRequestKey(#[source] RegisterRequestKeyError),
    #[error("keys are not released")]
    Release(#[source] ReleaseError),
    #[error("too many calls wait")]
    Busy,
    #[error("there is no room left to store this; nothing was changed")]
    StorageFull,
    #[error("the storage failed; nothing was acknowledged")]
    StorageFailed,
    #[error("this KeyService is stopping")]
    Stopping,
    #[error("no lease id could be drawn")]
    Random,
}

/// Why the keeper did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("lock the vault")]
    Lock(#[from] LockError),
    #[error("load the vault")]
    Load(#[from] LoadError),
    #[error("the task that opens the vault was stopped")]
    Stopped,
}

/// What the keeper needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Measured: the longest time for which an instance may use what it was given, in seconds.
    pub lease_ttl_s: u32,
    pub limits: Limits,
    /// E_K of this KeyService.
    pub enclave: EnclaveId,
}

struct Job {
    command: Command,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// Where to send calls; clones share one keeper. It ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct KeeperHandle {
    jobs: mpsc::Sender<Job>,
    epoch: watch::Receiver<u64>,
}

impl KeeperHandle {
    /// Has the call done. When this returns `Ok`, what it changed is durable.
    pub async fn call(&self, command: Command) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .try_send(Job { command, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
            })?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// The durable epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    /// None while a blocking task has it, and for good if that task was stopped.
    storage: Option<Storage>,
    /// None if the vault could not be opened after a failure.
    broker: Option<Broker>,
    enclave: EnclaveId,
    clock: SharedClock,
    metrics: Metrics,
    jobs: mpsc::Receiver<Job>,
    epoch: watch::Sender<u64>,
    /// No changes before this reading of the monotonic clock.
    full_until: Duration,
    /// No attempt to open the vault before this reading.
    closed_until: Duration,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Locks `state_dir`, opens or makes the vault in it, and checks every record. Run the keeper
    /// to have calls answered.
    pub async fn start(
        state_dir: &Path,
        key: SealingKey,
        settings: Settings,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<(Self, KeeperHandle), StartError> {
        let path = state_dir.to_owned();
        let opening = spawn_blocking(move || {
            let directory = VaultDirectory::lock(&path, key)?;
            let mut storage = Storage::new(directory, settings.lease_ttl_s, settings.limits);
            let broker = storage.load()?;
            Ok::<_, StartError>((storage, broker))
        });
        let (storage, broker) = opening.await.map_err(|_| StartError::Stopped)??;
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let (epoch, epochs) = watch::channel(broker.head().epoch);
        let keeper = Self {
            storage: Some(storage),
            broker: Some(broker),
            enclave: settings.enclave,
            clock,
            metrics,
            jobs: receiver,
            epoch,
            full_until: Duration::ZERO,
            closed_until: Duration::ZERO,
        };
        keeper.publish();
        Ok((
            keeper,
            KeeperHandle {
                jobs,
                epoch: epochs,
            },
        ))
    }

    /// Serves until every handle is dropped.
    pub async fn run(mut self) {
        let mut jobs = Vec::with_capacity(GROUP);
        while self.jobs.recv_many(&mut jobs, GROUP).await > 0 {
            self.serve(std::mem::take(&mut jobs)).await;
        }
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        if self.broker.is_none() {
            self.load().await;
        }
        let mut changes = Vec::new();
        let mut questions = Vec::new();
        for Job { command, reply } in jobs {
            match command {
                Command::Change(change) => changes.push((change, reply)),
                Command::Question(question) => questions.push((question, reply)),
            }
        }
        self.change(changes).await;
        // Questions of this group come after its changes: they were asked at the same time, and
        // must not see what may still fail.
        for (question, reply) in questions {
            let answer = self.answer(question).await;
            let _gone = reply.send(answer);
        }
    }

    /// Decides each change on top of those before it, makes all durable at once, and answers.
    async fn change(&mut self, changes: Vec<(Change, oneshot::Sender<Result<Answer, Refusal>>)>) {
        if changes.is_empty() {
            return;
        }
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let paused = monotonic < self.full_until;
        let mut writes = Vec::new();
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, reply) in changes {
            let outcome = match &mut self.broker {
                None => Err(Refusal::StorageFailed),
                Some(_) if paused => Err(Refusal::StorageFull),
                Some(broker) => decide(broker, change, now, &mut writes),
            };
            outcomes.push((outcome, reply));
        }
        let failure = if writes.is_empty() {
            None
        } else {
            self.commit(writes).await
        };
        for (outcome, reply) in outcomes {
            // A refusal may rest on a change of the same group that failed: it fails as well.
            let outcome = match failure {
                Some(full) => Err(if full {
                    Refusal::StorageFull
                } else {
                    Refusal::StorageFailed
                }),
                None => outcome,
            };
            let _gone = reply.send(outcome);
        }
    }

    /// None if the writes are durable; else whether it was for lack of room.
    async fn commit(&mut self, writes: Vec<Write>) -> Option<bool> {
        let broker = self.broker.as_ref()?;
        let (head, started) = (broker.head(), self.clock.monotonic());
        let entries = writes
            .iter()
            .filter(|write| matches!(write, Write::Append(_)))
            .count();
        let committed = self
            .with_storage(move |storage| storage.commit(head, &writes))
            .await;
        match committed {
            Some(Ok(())) => {
                let took = self.clock.monotonic().saturating_sub(started);
                self.metrics.committed(entries as u64, took);
                self.publish();
                None
            }
            Some(Err(error)) => {
                tracing::error!(error = %ErrorChain(&error), "changes are not durable");
                self.metrics.commit_failed();
                let full = error.is_full();
                if full {
                    self.full_until = self.clock.monotonic() + FULL_PAUSE;
                }
                self.broker = None;
                self.load().await;
                Some(full)
            }
            None => {
                self.broker = None;
                Some(false)
            }
        }
    }

    /// Rebuilds the state from the disk.
    async fn load(&mut self) {
        if self.clock.monotonic() < self.closed_until {
            return;
        }
        match self.with_storage(Storage::load).await {
            Some(Ok(broker)) => {
                self.broker = Some(broker);
                self.publish();
            }
            Some(Err(error)) => {
                tracing::error!(error = %ErrorChain(&error), "the vault cannot be opened again");
                self.closed_until = self.clock.monotonic() + LOAD_PAUSE;
            }
            None => {}
        }
    }

    async fn answer(&mut self, question: Question) -> Result<Answer, Refusal> {
        let broker = self.broker.as_ref().ok_or(Refusal::StorageFailed)?;
        match question {
            Question::Status => Ok(Answer::Status(broker.status(self.enclave))),
            Question::ListModels { owner, page } => {
                Ok(Answer::Models(broker.list_models(&owner, &page)))
            }
            Question::Versions { owner, model, page } => broker
                .versions(&owner, &model, &page)
                .map(Answer::Models)
                .map_err(Refusal::UnknownModel),
            Question::Grants { owner, model, page } => broker
                .grants(&owner, &model, &page)
                .map(Answer::Grants)
                .map_err(Refusal::UnknownModel),
            Question::RequestKeys { user, page } => {
                Ok(Answer::RequestKeys(broker.list_request_keys(&user, &page)))
            }
            Question::Log { principal, page } => {
                let head = broker.head().chain.head;
                let read = self
                    .with_storage(move |storage| storage.read_log(principal.id(), &page))
                    .await
                    .ok_or(Refusal::StorageFailed)?;
                let entries = read.map_err(|error| {
                    tracing::error!(error = %ErrorChain(&error), "the log cannot be read");
                    Refusal::StorageFailed
                })?;
                Ok(Answer::Log(LogPage { entries, head }))
            }
        }
    }

    /// Lends the storage to a blocking task. None if the runtime is going away.
    async fn with_storage<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Storage) -> T + Send + 'static,
    ) -> Option<T> {
        let mut storage = self.storage.take()?;
        let lent = spawn_blocking(move || {
            let done = work(&mut storage);
            (storage, done)
        });
        match lent.await {
            Ok((storage, done)) => {
                self.storage = Some(storage);
                Some(done)
            }
            Err(error) => {
                tracing::error!(%error, "the storage task ended");
                None
            }
        }
    }

    fn publish(&self) {
        if let Some(broker) = &self.broker {
            let head = broker.head();
            self.metrics
                .holds(broker.rows(), head.chain.entries, head.epoch);
            self.epoch.send_replace(head.epoch);
        }
    }
}

/// Decides one change; what must become durable is added to `writes`.
fn decide(
    broker: &mut Broker,
    change: Change,
    now: Duration,
    writes: &mut Vec<Write>,
) -> Result<Answer, Refusal> {
    match change {
        Change::RegisterModel {
            owner,
            model,
            version,
            registration,
        } => broker
            .register_model(&owner, &model, version, &registration, now)
            .map(|decided| Answer::Model(keep(decided, writes)))
            .map_err(Refusal::RegisterModel),
        Change::Grant {
            owner,
            model,
            user,
            enclave,
            terms,
        } => broker
            .grant(&owner, &model, user, enclave, &terms, now)
            .map(|decided| Answer::Grant(keep(decided, writes)))
            .map_err(Refusal::Grant),
        Change::Revoke {
            owner,
            model,
            user,
            enclave,
        } => broker
            .revoke(&owner, &model, user, enclave, now)
            .map(|decided| Answer::Revoked(keep(decided, writes)))
            .map_err(Refusal::UnknownModel),
        Change::RegisterRequestKey {
            user,
            model,
            enclave,
            registration,
        } => broker
            .register_request_key(&user, &model, enclave, &registration, now)
            .map(|decided| Answer::RequestKey(keep(decided, writes)))
            .map_err(Refusal::RegisterRequestKey),
        Change::DropRequestKey {
            user,
            model,
            enclave,
        } => {
            let decided = broker.drop_request_key(&user, &model, enclave, now);
            Ok(Answer::Revoked(keep(decided, writes)))
        }
        Change::Release { instance, request } => {
            let lease = crypto::random_lease_id().map_err(|_| Refusal::Random)?;
            broker
                .release(&instance, &request, lease, now)
                .map(|decided| Answer::Release(keep(decided, writes)))
                .map_err(Refusal::Release)
        }
    }
}

fn keep<T>(decided: Decided<T>, writes: &mut Vec<Write>) -> T {
    writes.extend(decided.writes);
    decided.answer
}

#[cfg(test)]
mod tests;
