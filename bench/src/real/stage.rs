//! A system with everything in place for a run: its models offered, its driver and meter ready.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fnpacker::config::PolicyName;
use protocol::ModelId;
use protocol::invoke::StartKind;
use sdk::gateway::GatewayError;
use tokio::time::Instant;

use super::asker::{AskError, Asked, Asker, Meter, OfferError, Question, Usage, UsageError};
use super::driver::{NoPace, Pace, Sent, Served, Service, drive};
use super::models::{ModelError, ModelSize, Specimen};
use super::outcome::Metered;
use super::system::{Packing, System, SystemError, Wishes};
use crate::policy::PolicySpec;
use crate::workload::Workload;

/// Memory of an instance without a model, in MiB; and what a model takes beside its weights.
const INSTANCE_MB: u64 = 128;
const MODEL_EXTRA_MB: u64 = 8;
/// How long one request may take before it counts as an error.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the meter.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long instances may outlive their keep-alive time.
const LINGER: Duration = Duration::from_secs(15);

/// Why a run cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("cannot start the system")]
    System(#[from] SystemError),
    #[error("cannot make a model")]
    Model(#[from] ModelError),
    #[error("cannot offer model '{model}'")]
    Offer { model: ModelId, source: OfferError },
    #[error("no size is named for the models")]
    NoSize,
    #[error("interrupted")]
    Interrupted,
    #[error("cannot use FnPacker's address")]
    Gateway(#[from] GatewayError),
    #[error("cannot read the platform's meter")]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Pace(#[from] NoPace),
    #[error("model {0} is not offered")]
    Unknown(u32),
    #[error("a request failed")]
    Ask(#[from] AskError),
}

/// What is to be set up.
#[derive(Debug, Clone)]
pub struct Scene {
    /// `sesemi-dev`.
    pub dev: PathBuf,
    pub spec: PolicySpec,
    /// Model number `i` has the size `i` modulo their count.
    pub sizes: Vec<ModelSize>,
    pub seed: u64,
}

impl Scene {
    /// The size of a model, by its number.
    #[must_use]
    pub fn size(&self, model: usize) -> Option<ModelSize> {
        let count = self.sizes.len();
        self.sizes.get(model.checked_rem(count)?).copied()
    }

    /// The sizes of so many models, by name.
    #[must_use]
    pub fn names(&self, models: usize) -> Vec<String> {
        (0..models)
            .filter_map(|model| self.size(model))
            .map(|size| size.to_string())
            .collect()
    }

    /// What the platform sets aside for an instance: as many of the largest models as it is to
    /// hold, and room to load one.
    #[must_use]
    pub fn instance_mb(&self) -> u64 {
        INSTANCE_MB + (self.spec.models as u64) * (self.largest_mb() + MODEL_EXTRA_MB)
    }

    fn largest_mb(&self) -> u64 {
        let largest = self.sizes.iter().map(|size| size.bytes()).max();
        largest.unwrap_or(0).div_ceil(1 << 20)
    }

    /// Memory for exactly so many of the largest models: half a model more than they weigh.
    fn model_memory_mb(&self) -> u64 {
        let half = self.largest_mb() / 2 + 1;
        self.spec.models as u64 * (self.largest_mb() + 1) + half
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            dev: self.dev.clone(),
            endpoints: u32::try_from(self.spec.endpoints).unwrap_or(u32::MAX),
            concurrency: 1,
            packing: Some(Packing {
                policy: self.spec.name.name().to_owned(),
                models_per_instance: self.spec.models,
                model_memory_mb: self.model_memory_mb(),
                instance_memory_mb: self.instance_mb(),
                instances: self.spec.instances,
                keep_alive: self.spec.ttl,
                price: (self.spec.name == PolicyName::EctP).then_some(self.spec.price),
            }),
        }
    }
}

/// A system that is ready for load.
#[derive(Debug)]
pub struct Stage {
    system: System,
    crowd: Arc<Crowd>,
    meter: Meter,
    keep_alive: Duration,
}

/// Everybody who asks.
#[derive(Debug)]
struct Crowd {
    asker: Asker,
    questions: Vec<Question>,
}

impl Service for Crowd {
    async fn ask(&self, model: u32) -> Result<Served, String> {
        let question = self.questions.get(model as usize);
        let question = question.ok_or_else(|| StageError::Unknown(model).to_string())?;
        let asked = self.asker.ask(question).await;
        asked
            .map(|asked| served(&asked))
            .map_err(|error| service::ErrorChain(&error).to_string())
    }
}

/// What counts as cold is that the platform started an instance for the request, as the
/// simulator counts it.
fn served(asked: &Asked) -> Served {
    let phases = asked.telemetry.phases_us;
    let start = match asked.telemetry.path {
        _ if asked.routing.platform_cold => StartKind::Cold,
        StartKind::Hot => StartKind::Hot,
        StartKind::Warm | StartKind::Cold => StartKind::Warm,
    };
    Served {
        start,
        retries: asked.retries,
        inside: Duration::from_micros(phases.open + phases.run + phases.seal),
        queued: Duration::from_micros(asked.routing.queue_us),
    }
}

impl Stage {
    /// Starts the system and offers every model. `step` hears what is done, and says whether to
    /// go on. Blocks.
    pub fn build(
        scene: &Scene,
        models: &[ModelId],
        mut step: impl FnMut(&str) -> bool,
    ) -> Result<Self, StageError> {
        let mut go_on = |text: &str| step(text).then_some(()).ok_or(StageError::Interrupted);
        go_on("starting the system")?;
        let system = System::start(scene.wishes())?;
        let mut questions = Vec::with_capacity(models.len());
        for (number, model) in models.iter().enumerate() {
            let size = scene.size(number).ok_or(StageError::NoSize)?;
            go_on(&format!(
                "offering model {} of {}: {model}, {size}",
                number + 1,
                models.len()
            ))?;
            let made = Specimen::make(size, scene.seed.wrapping_add(number as u64))?;
            let question = Question::offer(&system, model, &made);
            questions.push(question.map_err(|source| StageError::Offer {
                model: model.clone(),
                source,
            })?);
        }
        let asker = Asker::new(system.fnpacker_url(), PATIENCE)?;
        Ok(Self {
            meter: Meter::new(&system)?,
            crowd: Arc::new(Crowd { asker, questions }),
            system,
            keep_alive: scene.spec.ttl,
        })
    }

    /// The system itself.
    #[must_use]
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// Asks one model now.
    pub async fn ask(&self, model: u32) -> Result<Asked, StageError> {
        let question = self.crowd.questions.get(model as usize);
        let question = question.ok_or(StageError::Unknown(model))?;
        Ok(self.crowd.asker.ask(question).await?)
    }

    /// Plays the workload, then waits until the platform has let every instance go: an instance's
    /// memory counts to the end of its life, as in the simulator.
    pub async fn play(
        &self,
        workload: &Workload,
        progress: impl FnMut(&Sent),
    ) -> Result<(Vec<Sent>, Metered), StageError> {
        self.no_instances().await?;
        let before = self.meter.usage().await?;
        let began = Instant::now();
        let pace = Pace::by_thread(began, &workload.arrivals)?;
        let sent = drive(&self.crowd, &workload.arrivals, began, pace, progress).await;
        let after = self.no_instances().await?;
        let metered = Metered {
            gb_seconds: after.provisioned_gb_seconds - before.provisioned_gb_seconds,
            billed_gb_seconds: after.billed_gb_seconds - before.billed_gb_seconds,
            sandboxes: after.sandboxes_started - before.sandboxes_started,
        };
        Ok((sent, metered))
    }

    /// Waits until there is no instance, or until there should be none.
    pub async fn no_instances(&self) -> Result<Usage, StageError> {
        let until = Instant::now() + self.keep_alive + LINGER;
        loop {
            let usage = self.meter.usage().await?;
            if usage.instances == 0 || Instant::now() > until {
                return Ok(usage);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
