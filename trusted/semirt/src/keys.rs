//! Keys of (user, model): asked of KeyService with retries, once for all who wait, and kept for as
//! long as the lease allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crypto::{KeyLengthError, ModelKey, RequestKey};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use protocol::keyservice::{Release, ReleaseRequest};
use protocol::measured::Isolation;
use protocol::{Digest, ErrorCode, ModelId, ModelVersion, PrincipalId};
use service::{ErrorChain, SharedClock};
use tokio_util::task::TaskTracker;

use crate::keys::cache::KeyCache;
use crate::lock::lock;
use crate::sources::{KeySource, KeySourceError, Released};

pub(crate) mod cache;

/// Waits between the tries when KeyService cannot be reached: three tries in all.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// Releases that one instance keeps; the least recently used goes first.
const KEPT_MAX: usize = 4096;

/// Whose keys for which model.
pub(crate) type Pair = (PrincipalId, ModelId);

/// Keys as released, and the one artifact that they open. Its keys are overwritten when the last
/// request that uses them ends.
#[derive(Debug)]
pub(crate) struct ReleasedKeys {
    pub(crate) owner: PrincipalId,
    pub(crate) model: ModelId,
    pub(crate) version: ModelVersion,
    pub(crate) digest: Digest,
    pub(crate) model_key: ModelKey,
    pub(crate) request_key: RequestKey,
    /// Monotonic time from which no new request may use them.
    not_after: Duration,
}

/// Why there are no keys. Clones share the cause: everyone who waited gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("reach KeyService in {tries} tries")]
    Unavailable {
        tries: usize,
        #[source]
        last: Arc<KeySourceError>,
    },
    #[error("get keys released")]
    Source(#[source] Arc<KeySourceError>),
    #[error("KeyService released model '{0}', which was not asked for")]
    OtherModel(ModelId),
    #[error("this instance serves the models of another owner")]
    OtherOwner,
    #[error("read a released key")]
    KeyLength(#[from] KeyLengthError),
    #[error("the task that asks KeyService failed")]
    Task,
}

/// Keys, and what it took to have them.
#[derive(Debug, Clone)]
pub(crate) struct Obtained {
    pub(crate) keys: Arc<ReleasedKeys>,
    pub(crate) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// They were there.
    Kept,
    /// This request asked.
    Asked { attest: Duration, keys: Duration },
    /// Another request was asking already.
    Waited(Duration),
}

type Flight = Shared<BoxFuture<'static, Result<(Arc<ReleasedKeys>, How), KeyError>>>;

#[derive(Debug)]
struct State {
    kept: KeyCache<ReleasedKeys>,
    asking: HashMap<Pair, Flight>,
}

/// The keys of one instance.
#[derive(Debug)]
pub(crate) struct Keys {
    source: Arc<dyn KeySource>,
    clock: SharedClock,
    tracker: TaskTracker,
    /// Longest time that a release is kept, whatever the lease says.
    ttl: Duration,
    /// With isolation per owner: whose keys came first. No others are ever kept or used here.
    only_owner: Option<OnceLock<PrincipalId>>,
    state: Mutex<State>,
}

impl Keys {
    pub(crate) fn new(
        source: Arc<dyn KeySource>,
        clock: SharedClock,
        tracker: TaskTracker,
        ttl: Duration,
        isolation: Isolation,
    ) -> Self {
        let state = State {
            kept: KeyCache::new(KEPT_MAX),
            asking: HashMap::new(),
        };
        let only_owner = (isolation == Isolation::PerOwner).then(OnceLock::new);
        Self {
            source,
            clock,
            tracker,
            ttl,
            only_owner,
            state: Mutex::new(state),
        }
    }

    /// Keys from the cache, or from KeyService. The asking goes on when the request that began it
    /// is given up, so that others who wait for it lose nothing.
    pub(crate) async fn obtain(self: &Arc<Self>, pair: &Pair) -> Result<Obtained, KeyError> {
        let start = self.clock.monotonic();
        let (flight, began) = {
            let mut state = lock(&self.state);
            if let Some(keys) = state.kept.find(pair, start) {
                return Ok(Obtained {
                    keys,
                    how: How::Kept,
                });
            }
            match state.asking.get(pair) {
                Some(flight) => (flight.clone(), false),
                None => {
                    let flight = self.start(pair.clone());
                    state.asking.insert(pair.clone(), flight.clone());
                    (flight, true)
                }
            }
        };
        let (keys, how) = flight.await?;
        let waited = self.clock.monotonic().saturating_sub(start);
        Ok(Obtained {
            keys,
            how: if began { how } else { How::Waited(waited) },
        })
    }

    /// Keys from KeyService, kept nowhere: for sequential isolation.
    pub(crate) async fn ask(&self, pair: &Pair) -> Result<Obtained, KeyError> {
        let (keys, how) = self.ask_with_retries(pair).await?;
        Ok(Obtained { keys, how })
    }

    /// Overwrites what has expired even if nobody asks for it again.
    pub(crate) fn sweep(&self) {
        lock(&self.state).kept.sweep(self.clock.monotonic());
    }

    fn start(self: &Arc<Self>, pair: Pair) -> Flight {
        let this = Arc::clone(self);
        let task = self.tracker.spawn(async move {
            let result = this.ask_with_retries(&pair).await;
            let mut state = lock(&this.state);
            state.asking.remove(&pair);
            if let Ok((keys, _)) = &result {
                let now = this.clock.monotonic();
                state.kept.keep(pair, Arc::clone(keys), keys.not_after, now);
            }
            result
        });
        task.map(|joined| joined.unwrap_or(Err(KeyError::Task)))
            .boxed()
            .shared()
    }

    async fn ask_with_retries(&self, pair: &Pair) -> Result<(Arc<ReleasedKeys>, How), KeyError> {
        let request = ReleaseRequest {
            model: pair.1.clone(),
            user: pair.0,
        };
        let mut waits = BACKOFF.iter();
        loop {
            // Before asking: the lease must not seem to start later than it did.
            let asked = self.clock.monotonic();
            match self.source.release(&request).await {
                Ok(released) => return self.read(pair, released, asked),
                Err(error) if worth_another_try(&error) => match waits.next() {
                    Some(wait) => {
                        tracing::debug!(error = %ErrorChain(&error), "no keys yet, trying again");
                        tokio::time::sleep(*wait).await;
                    }
                    None => {
                        let tries = BACKOFF.len() + 1;
                        return Err(KeyError::Unavailable {
                            tries,
                            last: Arc::new(error),
                        });
                    }
                },
                Err(error) => return Err(KeyError::Source(Arc::new(error))),
            }
        }
    }

    fn read(
        &self,
        pair: &Pair,
        released: Released,
        asked: Duration,
    ) -> Result<(Arc<ReleasedKeys>, How), KeyError> {
        let Released {
            release,
            attest,
            keys,
        } = released;
        let Release {
            model,
            version,
            owner,
            digest,
            model_key,
            request_key,
            lease,
        } = release;
        if model != pair.1 {
            return Err(KeyError::OtherModel(model));
        }
        if let Some(only) = &self.only_owner
            && *only.get_or_init(|| owner) != owner
        {
            return Err(KeyError::OtherOwner);
        }
        let ttl = Duration::from_secs(lease.ttl_s).min(self.ttl);
        let released = ReleasedKeys {
            owner,
            model,
            version,
            digest,
            model_key: ModelKey::from_wire(&model_key)?,
            request_key: RequestKey::from_wire(&request_key)?,
            not_after: asked.saturating_add(ttl),
        };
        Ok((Arc::new(released), How::Asked { attest, keys }))
    }
}

/// A busy or failing KeyService may answer the next time; a refusal stays one.
fn worth_another_try(error: &KeySourceError) -> bool {
    match error {
        KeySourceError::Unreachable(_) => true,
        KeySourceError::Refused(wire) => {
            wire.code.retryable() && wire.code != ErrorCode::StorageFull
        }
        KeySourceError::NotAttested(_) | KeySourceError::Malformed(_) => false,
    }
}

#[cfg(test)]
mod tests;
