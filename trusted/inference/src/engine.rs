//! The three traits between SeMIRT and an inference engine, and the set of engines that a build has.

use std::error::Error;
use std::fmt::{self, Debug};
use std::num::NonZeroUsize;
use std::sync::Arc;

use protocol::package::{EngineName, Manifest};
use protocol::tensor::TensorError;
use protocol::{Datatype, Tensor, TensorSpec};

use crate::blob::Blob;
use crate::engines::conv::ConvEngine;
use crate::engines::rten::RtenEngine;
use crate::onnx::OnnxError;

/// Bounds that a model file is held to before an engine sees it.
///
/// They bound what *reading* a model may take. What *running* one may take depends on its operators
/// and inputs, and is the enclave's memory size to bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Bytes of the graph.
    pub graph_bytes: usize,
    /// Bytes of the weights.
    pub weight_bytes: usize,
    /// Operators, in the graph and in the bodies inside it.
    pub nodes: usize,
    /// Protobuf fields in the whole graph: bounds what a parser allocates.
    pub fields: usize,
    /// Bodies (`If`, `Loop`) inside bodies: bounds recursion, since a stack overflow is no error.
    pub depth: usize,
    /// Operators one behind the other: engines walk a graph by recursion.
    pub chain: usize,
    /// Bytes of any one tensor that the graph states the shape of.
    pub tensor_bytes: u64,
    /// Multiply-adds of a run for one image, where the engine knows them before.
    pub work: u64,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            graph_bytes: 64 << 20,
            weight_bytes: 4 << 30,
            nodes: 1 << 16,
            fields: 1 << 22,
            depth: 8,
            chain: 4096,
            tensor_bytes: 2 << 30,
            work: 1 << 42,
        }
    }
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("engine {0:?} is not part of this configuration")]
    EngineMissing(EngineName),
    #[error("reading the model's graph")]
    Graph(#[from] OnnxError),
    #[error("manifest and graph disagree on {0}")]
    Manifest(String),
    #[error("tensor '{name}' is {datatype}, which engine {engine:?} does not take")]
    Datatype {
        engine: EngineName,
        name: String,
        datatype: Datatype,
    },
    #[error("engine {engine:?} refused the model")]
    Engine {
        engine: EngineName,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("engine {engine:?} failed inside while loading the model: {detail}")]
    Panicked { engine: EngineName, detail: String },
    #[error("environment variable {0} would make the engine print what it computes")]
    Environment(String),
}

/// Why one request got no answer. What it displays holds no element's value and may be logged;
/// [`RunError::for_user`] may quote the request and is for sealed answers only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error("checking the inputs")]
    Input(#[from] TensorError),
    #[error("input '{name}': element {index} of {datatype} is out of the engine's range ({range})")]
    Range {
        name: String,
        index: usize,
        datatype: Datatype,
        range: &'static str,
    },
    #[error("operator '{operator}' failed")]
    Operator {
        operator: String,
        /// The engine's own words, which may quote values of the request.
        detail: ForUser,
    },
    #[error("output '{name}' is larger than an answer may be, or has too many dimensions")]
    OutputSize { name: String },
    #[error(
        "output '{name}' is not what the model's manifest says: expected {expected}, got {got}"
    )]
    Output {
        name: String,
        expected: String,
        got: String,
    },
    #[error("the engine failed inside while running the model")]
    Panicked,
}

/// Text for the user who sent the request: SeMIRT seals it, and nobody else may see it.
pub struct ForUser(pub String);

impl Debug for ForUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForUser({} bytes)", self.0.len())
    }
}

impl RunError {
    /// The message for the user: like `Display`, with the engine's own words.
    #[must_use]
    pub fn for_user(&self) -> String {
        match self {
            Self::Operator { detail, .. } => format!("{self}: {}", detail.0),
            Self::Input(source) => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    /// Whether the request, and not the model, is to blame.
    #[must_use]
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Input(_) | Self::Range { .. })
    }
}

/// Turns the parts of a package into a model. Touches memory only: no file, no clock, no network.
pub trait Engine: Send + Sync + Debug {
    fn name(&self) -> EngineName;

    /// Checks `graph` and `weights` against `limits` and `manifest`, then loads them. A panic inside
    /// the engine is an error.
    fn load(
        &self,
        manifest: &Manifest,
        graph: Vec<u8>,
        weights: Blob,
        limits: &LoadLimits,
    ) -> Result<Arc<dyn Model>, LoadError>;
}

/// A loaded model: immutable, shared by all sessions.
pub trait Model: Send + Sync + Debug {
    /// What a request must bring.
    fn inputs(&self) -> &[TensorSpec];
    /// What an answer holds, in this order.
    fn outputs(&self) -> &[TensorSpec];
    /// Bytes held while loaded: an estimate for the cache's budget.
    fn memory(&self) -> u64;
    /// A worker's own execution state.
    fn session(self: Arc<Self>) -> Result<Box<dyn Session>, LoadError>;
}

/// Execution state that belongs to one worker.
pub trait Session: Send + Debug {
    /// Checks the inputs, then runs the model on them. Whatever goes wrong, also a panic inside the
    /// engine, is an error of this call only: the session serves the next one.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError>;
}

/// The engines that the measured configuration allows.
#[derive(Debug, Clone)]
pub struct Engines {
    engines: Vec<Arc<dyn Engine>>,
    limits: LoadLimits,
}

impl Engines {
    /// The named engines with default limits; all sessions share one pool of as many threads as
    /// there are cores.
    #[must_use]
    pub fn standard(names: &[EngineName]) -> Self {
        Self::build(names, RtenEngine::shared(), ConvEngine::shared())
    }

    /// The named engines, each session with its own pool of `threads`: for many requests at once.
    #[must_use]
    pub fn with_session_threads(names: &[EngineName], threads: NonZeroUsize) -> Self {
        let conv = ConvEngine::per_session(threads);
        Self::build(names, RtenEngine::per_session(threads), conv)
    }

    fn build(names: &[EngineName], rten: RtenEngine, conv: ConvEngine) -> Self {
        let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
        if names.contains(&EngineName::Rten) {
            engines.push(Arc::new(rten));
        }
        if names.contains(&EngineName::Conv) {
            engines.push(Arc::new(conv));
        }
        Self {
            engines,
            limits: LoadLimits::default(),
        }
    }

    /// Holds models to other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: LoadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The bounds that models are held to.
    #[must_use]
    pub const fn limits(&self) -> &LoadLimits {
        &self.limits
    }

    /// Loads a package with the engine that its manifest names.
    pub fn load_package(
        &self,
        manifest: &Manifest,
        graph: Vec<u8>,
        weights: impl Into<Blob>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        self.engines
            .iter()
            .find(|e| e.name() == manifest.engine)
            .ok_or(LoadError::EngineMissing(manifest.engine))?
            .load(manifest, graph, weights.into(), &self.limits)
    }
}
