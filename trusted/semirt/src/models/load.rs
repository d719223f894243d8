//! Loads one model: ciphertext streams from the store through the opener into the package's parts,
//! and from there into the engine. No copy of the artifact is ever whole in memory.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crypto::{ArtifactError, ArtifactOpener, PlaintextSink, SinkError};
use futures::StreamExt as _;
use inference::assemble::{AssembleError, PackageAssembler};
use inference::{Engines, Model};
use service::SharedClock;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::keys::ReleasedKeys;
use crate::models::ModelError;
use crate::sources::{Artifact, ArtifactSource, FetchError};

/// Chunks that may lie between the store and the opener.
const CHUNKS_AHEAD: usize = 2;

/// Time that a load took, by what it was waiting for or working at. The parts do not overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadTimes {
    pub(crate) fetch: Duration,
    pub(crate) open: Duration,
    pub(crate) load: Duration,
}

/// Fetches, opens and loads.
#[derive(Debug)]
pub(crate) struct Loader {
    source: Arc<dyn ArtifactSource>,
    engines: Engines,
    /// Threads that open one artifact.
    threads: NonZeroUsize,
    clock: SharedClock,
    tracker: TaskTracker,
}

impl Loader {
    pub(crate) fn new(
        source: Arc<dyn ArtifactSource>,
        engines: Engines,
        threads: NonZeroUsize,
        clock: SharedClock,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            source,
            engines,
            threads,
            clock,
            tracker,
        }
    }

    /// The model that `keys` open. `room` is asked, before anything of the model's size is
    /// allocated, for as many bytes as its package has.
    pub(crate) async fn load<F>(
        &self,
        keys: Arc<ReleasedKeys>,
        room: impl FnOnce(u64) -> F,
    ) -> Result<(Arc<dyn Model>, LoadTimes), ModelError>
    where
        F: Future<Output = Result<(), ModelError>>,
    {
        let start = self.clock.monotonic();
        let Artifact { len, mut chunks } = self.source.fetch(&keys.digest).await.map_err(fetch)?;
        let mut times = LoadTimes {
            fetch: self.since(start),
            ..LoadTimes::default()
        };
        // The length is the store's word, so it is a bound here and a check at the end.
        let plain = crypto::plaintext_len(len).map_err(|e| ModelError::Mismatch(Arc::new(e)))?;
        let asked = self.clock.monotonic();
        room(plain).await?;
        times.load += self.since(asked);

        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let work = Work {
            keys,
            len,
            package_max: plain,
            threads: self.threads,
            engines: self.engines.clone(),
            clock: Arc::clone(&self.clock),
        };
        let working = self
            .tracker
            .spawn_blocking(move || work.run(receiver, times));
        let mut broken = None;
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => {
                    if sender.send(chunk).await.is_err() {
                        // The opener hung up: it has found what is wrong.
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let result = working.await.unwrap_or(Err(ModelError::Task));
        // A broken transfer looks truncated to the opener: what broke it is the better answer.
        match broken {
            Some(error) => Err(fetch(error)),
            None => result,
        }
    }

    fn since(&self, start: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(start)
    }
}

fn fetch(error: FetchError) -> ModelError {
    ModelError::Fetch(Arc::new(error))
}

/// The half that computes, on a thread that may block.
struct Work {
    keys: Arc<ReleasedKeys>,
    len: u64,
    /// Bytes for which there is room.
    package_max: u64,
    threads: NonZeroUsize,
    engines: Engines,
    clock: SharedClock,
}

impl Work {
    fn run(
        self,
        mut chunks: mpsc::Receiver<Bytes>,
        mut times: LoadTimes,
    ) -> Result<(Arc<dyn Model>, LoadTimes), ModelError> {
        let Self {
            keys,
            len,
            package_max,
            threads,
            engines,
            clock,
        } = self;
        let mut last = clock.monotonic();
        let mut lap = move || {
            let now = clock.monotonic();
            let time = now.saturating_sub(last);
            last = now;
            time
        };
        let mut sink = Sink::new(package_max);
        let mut opener = ArtifactOpener::new(
            &keys.model_key,
            &keys.model,
            keys.version,
            keys.digest,
            len,
            threads.get(),
        )
        .map_err(|e| sink.explain(e))?;
        times.open += lap();
        while let Some(chunk) = chunks.blocking_recv() {
            times.fetch += lap();
            opener
                .push(&chunk, &mut sink)
                .map_err(|e| sink.explain(e))?;
            times.open += lap();
        }
        times.fetch += lap();
        opener.finish(&mut sink).map_err(|e| sink.explain(e))?;
        // Only now is the plaintext what the owner registered, and may be looked at.
        let assembler = sink.assembler.ok_or(ModelError::Task)?;
        let (manifest, graph, weights) = assembler
            .finish()
            .map_err(|e| ModelError::Package(Arc::new(e)))?;
        times.open += lap();
        let model = engines
            .load_package(&manifest, graph, weights)
            .map_err(|e| ModelError::Load(Arc::new(e)))?;
        times.load += lap();
        Ok((model, times))
    }
}

/// Lets the package's assembler take what the opener gives.
#[derive(Debug)]
struct Sink {
    package_max: u64,
    assembler: Option<PackageAssembler>,
    /// Why the assembler refused; the opener only knows that it did.
    refused: Option<AssembleError>,
}

impl Sink {
    const fn new(package_max: u64) -> Self {
        Self {
            package_max,
            assembler: None,
            refused: None,
        }
    }

    fn refuse(&mut self, error: AssembleError) -> SinkError {
        self.refused = Some(error);
        SinkError::new("the assembler refused")
    }

    /// What an error of the opener means for the model.
    fn explain(&mut self, error: ArtifactError) -> ModelError {
        if let Some(refused) = self.refused.take() {
            return ModelError::Package(Arc::new(refused));
        }
        let error = Arc::new(error);
        match *error {
            ArtifactError::CannotOpen { .. } => ModelError::Open(error),
            _ => ModelError::Mismatch(error),
        }
    }
}

impl PlaintextSink for Sink {
    fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError> {
        let assembler = PackageAssembler::new(plaintext_len, self.package_max);
        self.assembler = Some(assembler.map_err(|e| self.refuse(e))?);
        Ok(())
    }

    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        let pushed = match &mut self.assembler {
            Some(assembler) => assembler.push(segment),
            None => return Err(SinkError::new("bytes before their length")),
        };
        pushed.map_err(|e| self.refuse(e))
    }
}
