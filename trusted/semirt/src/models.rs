//! Loaded models: opened once for all who wait, kept within a memory budget, never taken away from
//! a request that uses them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crypto::ArtifactError;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use inference::{LoadError, Model, Session};
use protocol::{Digest, ModelId, ModelVersion, PrincipalId};
use service::SharedClock;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::keys::ReleasedKeys;
use crate::lock::lock;
use crate::models::load::{LoadTimes, Loader};
use crate::models::shelf::{NoRoom, Shelf, Stay};
use crate::sources::FetchError;

pub(crate) mod load;
mod shelf;

/// Exactly one artifact of one owner: what two requests must agree on to share a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ModelTag {
    pub(crate) owner: PrincipalId,
    pub(crate) model: ModelId,
    pub(crate) version: ModelVersion,
    pub(crate) digest: Digest,
}

impl ModelTag {
    pub(crate) fn of(keys: &ReleasedKeys) -> Self {
        Self {
            owner: keys.owner,
            model: keys.model.clone(),
            version: keys.version,
            digest: keys.digest,
        }
    }
}

/// Why there is no model. Clones share the cause: everyone who waited gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ModelError {
    #[error("get the artifact")]
    Fetch(#[source] Arc<FetchError>),
    /// Wrong length or digest: what the store gave is not what the owner registered.
    #[error("check the artifact against the digest that its owner registered")]
    Mismatch(#[source] Arc<ArtifactError>),
    /// The right bytes, but not an artifact under the registered key, or no package inside.
    #[error("open the artifact")]
    Open(#[source] Arc<ArtifactError>),
    #[error("read the model package")]
    Package(#[source] Arc<inference::assemble::AssembleError>),
    #[error("load the model")]
    Load(#[source] Arc<LoadError>),
    #[error("a model of {need} bytes does not fit the {budget} bytes that are there for models")]
    TooLarge { need: u64, budget: u64 },
    #[error("memory for models is taken by models in use")]
    NoRoom,
    #[error("the task that loads the model failed")]
    Task,
}

type Flight = Shared<BoxFuture<'static, Result<LoadTimes, ModelError>>>;

struct Slot {
    loading: Option<Flight>,
    model: Option<Arc<dyn Model>>,
    /// Sessions that no request uses just now. They go with the model.
    idle: Vec<Box<dyn Session>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.model.is_some();
        f.debug_struct("Slot")
            .field("loaded", &loaded)
            .field("idle", &self.idle.len())
            .finish()
    }
}

#[derive(Debug)]
struct State {
    shelf: Shelf<ModelTag>,
    slots: HashMap<ModelTag, Slot>,
}

impl State {
    /// Takes models off and hands them to the caller, who drops them outside of the lock.
    fn take(&mut self, tags: &[ModelTag]) -> Vec<Slot> {
        tags.iter()
            .filter_map(|tag| self.slots.remove(tag))
            .collect()
    }
}

/// The models of one instance.
#[derive(Debug)]
pub(crate) struct Models {
    loader: Loader,
    clock: SharedClock,
    tracker: TaskTracker,
    /// Longest time that a load waits for memory.
    wait: Duration,
    room: Notify,
    state: Mutex<State>,
}

/// What it took to have a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Had {
    /// It was there.
    Kept,
    /// This request loaded it.
    Loaded(LoadTimes),
    /// Another request was loading it already.
    Waited(Duration),
}

impl Models {
    pub(crate) fn new(
        loader: Loader,
        clock: SharedClock,
        tracker: TaskTracker,
        budget: u64,
        wait: Duration,
    ) -> Self {
        let state = State {
            shelf: Shelf::new(budget),
            slots: HashMap::new(),
        };
        Self {
            loader,
            clock,
            tracker,
            wait,
            room: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// The model that `keys` open, for as long as the lease is held. The loading goes on when the
    /// request that began it is given up, so that others who wait for it lose nothing.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        keys: &Arc<ReleasedKeys>,
    ) -> Result<(ModelLease, Had), ModelError> {
        let start = self.clock.monotonic();
        let tag = ModelTag::of(keys);
        let (pin, loading, began) = {
            let mut state = lock(&self.state);
            let stay = state.shelf.pin(&tag);
            let pin = Pin {
                models: Arc::clone(self),
                tag: tag.clone(),
                stay,
            };
            match state.slots.get(&tag) {
                Some(slot) => (pin, slot.loading.clone(), false),
                None => {
                    let flight = self.start(tag.clone(), Arc::clone(keys));
                    let slot = Slot {
                        loading: Some(flight.clone()),
                        model: None,
                        idle: Vec::new(),
                    };
                    state.slots.insert(tag.clone(), slot);
                    (pin, Some(flight), true)
                }
            }
        };
        let had = match loading {
            None => Had::Kept,
            Some(flight) => {
                let times = flight.await?;
                let waited = self.clock.monotonic().saturating_sub(start);
                if began {
                    Had::Loaded(times)
                } else {
                    Had::Waited(waited)
                }
            }
        };
        let model = lock(&self.state)
            .slots
            .get(&tag)
            .and_then(|slot| slot.model.clone());
        // A pinned model stays, so it is there.
        let model = model.ok_or(ModelError::Task)?;
        Ok((
            ModelLease {
                model,
                pin: Some(pin),
            },
            had,
        ))
    }

    /// A model of one request's own, kept nowhere: for sequential isolation.
    pub(crate) async fn load_alone(
        &self,
        keys: &Arc<ReleasedKeys>,
    ) -> Result<(ModelLease, Had), ModelError> {
        let budget = lock(&self.state).shelf.budget();
        let fits = |need| async move {
            if need > budget {
                Err(ModelError::TooLarge { need, budget })
            } else {
                Ok(())
            }
        };
        let (model, times) = self.loader.load(Arc::clone(keys), fits).await?;
        fits(model.memory()).await?;
        Ok((ModelLease { model, pin: None }, Had::Loaded(times)))
    }

    fn start(self: &Arc<Self>, tag: ModelTag, keys: Arc<ReleasedKeys>) -> Flight {
        let this = Arc::clone(self);
        let task = self.tracker.spawn(async move {
            let unfinished = Unfinished {
                models: &this,
                tag: &tag,
            };
            let room = |bytes| this.room_for(&tag, bytes);
            let (model, times) = this.loader.load(keys, room).await?;
            this.settle(&tag, model)?;
            std::mem::forget(unfinished);
            Ok(times)
        });
        task.map(|joined| joined.unwrap_or(Err(ModelError::Task)))
            .boxed()
            .shared()
    }

    /// Waits until `bytes` are set aside for `tag`.
    async fn room_for(&self, tag: &ModelTag, bytes: u64) -> Result<(), ModelError> {
        let waiting = async {
            loop {
                let freed = self.room.notified();
                tokio::pin!(freed);
                // From here on no notification is missed.
                freed.as_mut().enable();
                if self.reserve(tag, bytes)? {
                    return Ok(());
                }
                freed.await;
            }
        };
        tokio::time::timeout(self.wait, waiting)
            .await
            .unwrap_or(Err(ModelError::NoRoom))
    }

    fn reserve(&self, tag: &ModelTag, bytes: u64) -> Result<bool, ModelError> {
        let mut state = lock(&self.state);
        match state.shelf.reserve(tag, bytes) {
            Ok(evicted) => {
                let gone = state.take(&evicted);
                drop(state);
                log_evicted(&evicted);
                drop(gone);
                Ok(true)
            }
            Err(NoRoom::Later) => Ok(false),
            Err(NoRoom::Never) => Err(ModelError::TooLarge {
                need: bytes,
                budget: state.shelf.budget(),
            }),
        }
    }

    /// Puts a loaded model on the shelf, if what it really takes still fits.
    fn settle(&self, tag: &ModelTag, model: Arc<dyn Model>) -> Result<(), ModelError> {
        let need = model.memory();
        let mut state = lock(&self.state);
        let evicted = state
            .shelf
            .settle(tag, need)
            .map_err(|no_room| match no_room {
                NoRoom::Never => ModelError::TooLarge {
                    need,
                    budget: state.shelf.budget(),
                },
                // Waiting here, with memory in hand, for another that waits the same way would hold
                // both up.
                NoRoom::Later => ModelError::NoRoom,
            })?;
        let gone = state.take(&evicted);
        if let Some(slot) = state.slots.get_mut(tag) {
            slot.model = Some(model);
            slot.loading = None;
        }
        drop(state);
        log_evicted(&evicted);
        drop(gone);
        Ok(())
    }
}

fn log_evicted(tags: &[ModelTag]) {
    for tag in tags {
        tracing::info!(model = %tag.model, version = %tag.version, "idle model evicted");
    }
}

/// Clears a slot whose loading failed, also by a panic, so that the next request tries again.
struct Unfinished<'a> {
    models: &'a Models,
    tag: &'a ModelTag,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.models.state);
        state.shelf.remove(self.tag);
        let slot = state.slots.remove(self.tag);
        drop(state);
        drop(slot);
        self.models.room.notify_waiters();
    }
}

/// Keeps one model from being evicted.
#[derive(Debug)]
struct Pin {
    models: Arc<Models>,
    tag: ModelTag,
    stay: Stay,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if lock(&self.models.state).shelf.unpin(&self.tag, self.stay) {
            self.models.room.notify_waiters();
        }
    }
}

/// The right to use a model.
#[derive(Debug)]
pub(crate) struct ModelLease {
    model: Arc<dyn Model>,
    /// `None` for a model of this request's own.
    pin: Option<Pin>,
}

impl ModelLease {
    /// A session that lies idle, if there is one.
    pub(crate) fn idle_session(&self) -> Option<Box<dyn Session>> {
        let pin = self.pin.as_ref()?;
        lock(&pin.models.state).slots.get_mut(&pin.tag)?.idle.pop()
    }

    /// A new session. May take long: call it where blocking is allowed.
    pub(crate) fn new_session(&self) -> Result<Box<dyn Session>, LoadError> {
        Arc::clone(&self.model).session()
    }

    /// Keeps a session for the next request to this model.
    pub(crate) fn put_back(&self, session: Box<dyn Session>) {
        let Some(pin) = &self.pin else { return };
        if let Some(slot) = lock(&pin.models.state).slots.get_mut(&pin.tag) {
            slot.idle.push(session);
        }
    }
}
