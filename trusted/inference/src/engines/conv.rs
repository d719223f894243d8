//! Our own engine for convolutional networks: kernels over blocked images (crate `kernels`), run by a
//! plan that [`compile()`] made when the owner packed the model.
//!
//! It covers whole models of 32-bit floats with one input, batches of images: convolution (dense and
//! depthwise), batch normalisation, ReLU and Clip, addition, concatenation of channels, pooling, dense
//! layers and softmax. Everything else is rten's.
//!
//! SECURITY: a plan is as hostile as a graph; `program` says what holds of one that was loaded. What
//! an earlier request left in a session's memory is never read: every float is written before, in
//! the same run. Weights and activations are not zeroised when they are freed, as with rten.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use kernels::buffer::Weights;
use kernels::{Alone, Crew, Isa, Team};
use protocol::package::{EngineName, Manifest};
use protocol::tensor::check_inputs;
use protocol::{Datatype, Tensor, TensorSpec};

use crate::blob::Blob;
use crate::engine::{Engine, ForUser, LoadError, LoadLimits, Model, RunError, Session};

mod compile;
mod plan;
mod program;

pub use compile::{Compiled, Uncovered, compile, is_convolutional};
pub use program::PlanError;
use program::{Arena, Door, Program};

const NAME: EngineName = EngineName::Conv;

/// Loads compiled plans.
#[derive(Debug, Clone)]
pub struct ConvEngine {
    isa: Isa,
    threads: Threads,
}

#[derive(Debug, Clone)]
enum Threads {
    /// One team of as many threads as there are cores, made when it is first needed.
    Shared(Arc<OnceLock<Team>>),
    /// Each session has its own team.
    PerSession(NonZeroUsize),
}

impl ConvEngine {
    /// All sessions share one team of as many threads as there are cores. A request that finds it
    /// taken runs on its own thread: there are never more than twice as many running as cores.
    #[must_use]
    pub fn shared() -> Self {
        Self {
            isa: Isa::detect(),
            threads: Threads::Shared(Arc::default()),
        }
    }

    /// Each session has its own team.
    #[must_use]
    pub fn per_session(threads: NonZeroUsize) -> Self {
        Self {
            isa: Isa::detect(),
            threads: Threads::PerSession(threads),
        }
    }

    /// With another instruction set than the fastest.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }
}

/// The manifest must say of inputs and outputs exactly what the plan does.
fn agree(manifest: &Manifest, program: &Program) -> Result<(), LoadError> {
    let same = |spec: &TensorSpec, door: &Door| {
        let rest = spec.shape.iter().skip(1).zip(&door.shape);
        spec.name == door.name
            && spec.datatype == Datatype::Fp32
            && spec.shape.len() == door.shape.len() + 1
            && rest.fold(true, |all, (said, is)| {
                all && (*said == -1 || usize::try_from(*said) == Ok(*is))
            })
    };
    let input = match manifest.inputs.as_slice() {
        // The engine's own check of a request is against these sizes, so none may be open.
        [spec] => same(spec, &program.input) && spec.shape.iter().skip(1).all(|d| *d >= 0),
        _ => false,
    };
    let batch = |specs: &[TensorSpec]| specs.first().and_then(|s| s.shape.first().copied());
    let doors = &program.outputs;
    let outputs = manifest.outputs.len() == doors.len()
        && (manifest.outputs.iter().zip(doors)).all(|(spec, door)| {
            same(spec, door)
                && (spec.shape.first() == Some(&-1)
                    || spec.shape.first().copied() == batch(&manifest.inputs))
        });
    if !input {
        Err(LoadError::Manifest("the inputs".into()))
    } else if !outputs {
        Err(LoadError::Manifest("the outputs".into()))
    } else {
        Ok(())
    }
}

fn refused(error: PlanError) -> LoadError {
    LoadError::Engine {
        engine: NAME,
        source: Box::new(error),
    }
}

impl Engine for ConvEngine {
    fn name(&self) -> EngineName {
        NAME
    }

    fn load(
        &self,
        manifest: &Manifest,
        graph: Vec<u8>,
        weights: Blob,
        limits: &LoadLimits,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let limit = |what, is: usize, max: usize| {
            let max = max as u64;
            let fits = is as u64 <= max;
            fits.then_some(())
                .ok_or_else(|| refused(PlanError::Limit { what, max }))
        };
        limit("bytes of plan", graph.len(), limits.graph_bytes)?;
        limit("bytes of weights", weights.len(), limits.weight_bytes)?;
        let lens = (graph.len() as u64, weights.len() as u64);
        if (manifest.graph_len, manifest.weights_len) != lens || manifest.weights_name.is_some() {
            return Err(LoadError::Manifest(
                "the lengths of graph and weights".into(),
            ));
        }
        let plan = plan::Plan::decode(&graph).map_err(|e| refused(e.into()))?;
        let program = Program::new(&plan, weights.len() / 4, limits).map_err(refused)?;
        agree(manifest, &program)?;
        let memory = graph.len() as u64;
        drop(graph);
        let (weights, start) = weights.into_parts();
        let weights = Weights::new(weights, start).ok_or_else(|| refused(PlanError::Memory))?;
        Ok(Arc::new(ConvModel {
            isa: self.isa,
            threads: self.threads.clone(),
            // One session's arena counts too: a small plan may ask for a large one.
            memory: memory + weights.held() as u64 + program.arena_bytes(),
            program,
            weights,
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
        }))
    }
}

struct ConvModel {
    isa: Isa,
    threads: Threads,
    program: Program,
    weights: Weights,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    memory: u64,
}

/// Prints no steps: a model's structure is its owner's.
impl fmt::Debug for ConvModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConvModel")
            .field("isa", &self.isa.name())
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Model for ConvModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn memory(&self) -> u64 {
        self.memory
    }

    fn session(self: Arc<Self>) -> Result<Box<dyn Session>, LoadError> {
        let (workers, team) = match &self.threads {
            Threads::Shared(team) => {
                let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                (team.get_or_init(|| Team::new(cores())).workers(), None)
            }
            Threads::PerSession(threads) => {
                let team = Team::new(threads.get());
                (team.workers(), Some(team))
            }
        };
        let arena = Arena::new(&self.program, workers);
        let arena = arena.ok_or_else(|| refused(PlanError::Memory))?;
        Ok(Box::new(ConvSession {
            model: self,
            arena,
            team,
        }))
    }
}

struct ConvSession {
    model: Arc<ConvModel>,
    arena: Arena,
    team: Option<Team>,
}

impl fmt::Debug for ConvSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConvSession")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl ConvSession {
    /// Every image of the batch, one after the other; the team works on each.
    fn batch(&mut self, images: &[u8], outputs: &mut [Vec<u8>]) -> Result<(), RunError> {
        let model = &*self.model;
        let team = match &model.threads {
            Threads::Shared(team) => team.get(),
            Threads::PerSession(_) => self.team.as_ref(),
        };
        let lease = team.and_then(Team::lease);
        let crew: &dyn Crew = match &lease {
            Some(lease) => lease,
            None => &Alone,
        };
        for image in images.chunks_exact(model.program.input.bytes()) {
            let (isa, arena) = (model.isa, &mut self.arena);
            model
                .program
                .run((isa, crew), &model.weights, arena, image, outputs)
                .map_err(|error| RunError::Operator {
                    operator: "of the plan".into(),
                    detail: ForUser(error.to_string()),
                })?;
        }
        Ok(())
    }
}

impl Session for ConvSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let model = Arc::clone(&self.model);
        check_inputs(&model.inputs, inputs)?;
        // INVARIANT: `check_inputs` found exactly the one tensor that the model takes.
        let input = inputs.first().ok_or(RunError::Panicked)?;
        let batch = input.shape().first().copied().unwrap_or(0);
        let doors = &model.program.outputs;
        let too_large = |door: &Door| RunError::OutputSize {
            name: door.name.clone(),
        };
        let mut outputs = Vec::with_capacity(doors.len());
        // A plan may name one image in many outputs: together they have to fit into an answer.
        let mut room = protocol::limits::PAYLOAD_MAX;
        for door in doors {
            let bytes = usize::try_from(batch)
                .ok()
                .and_then(|n| n.checked_mul(door.bytes()));
            let bytes = bytes.ok_or_else(|| too_large(door))?;
            room = room.checked_sub(bytes).ok_or_else(|| too_large(door))?;
            let mut output = Vec::new();
            output
                .try_reserve_exact(bytes)
                .map_err(|_| too_large(door))?;
            outputs.push(output);
        }
        // An arena is written before it is read in every run, so nothing that a panic leaves
        // half-done is seen by the next.
        let run = || self.batch(input.data(), &mut outputs);
        catch_unwind(AssertUnwindSafe(run)).map_err(|_| RunError::Panicked)??;
        let tensor = |(door, bytes): (&Door, Vec<u8>)| {
            let shape = door.shape.iter().map(|d| *d as u64);
            let shape = [batch].into_iter().chain(shape).collect();
            Tensor::new(door.name.clone(), Datatype::Fp32, shape, bytes)
                .map_err(|_| too_large(door))
        };
        doors.iter().zip(outputs).map(tensor).collect()
    }
}

#[cfg(test)]
mod tests;
