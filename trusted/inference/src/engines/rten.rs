//! rten 0.27: a small engine in Rust. Reads the ONNX graph that our encoder wrote, uses the weights
//! where they lie.
//!
//! rten computes with f32, i32, i8 and u8. An ONNX model's i64, bool and f64 tensors are i32 and f32
//! inside; this seam gives callers the types that the model states, and refuses what does not fit.
//! Inside a graph rten saturates 64-bit integers silently; like its other silent differences (Softmax
//! before opset 13, cubic Resize, ties of ArgMax), a package's example is what catches them.
//!
//! SECURITY: rten does not bound the memory or time that a model takes to run, does not zeroise
//! weights and activations when it frees them, and prints what it loads and runs when `RTEN_*` variables are set. The
//! enclave's memory bounds the first; enclave teardown does the second; `load` refuses the third.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use protocol::package::{EngineName, Manifest};
use protocol::tensor::check_inputs;
use protocol::{Tensor, TensorSpec};
use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};

use crate::blob::Blob;
use crate::engine::{Engine, ForUser, LoadError, LoadLimits, Model, RunError, Session};
use crate::onnx::{self, Interface, WeightsRef};

mod values;

/// Loads ONNX graphs with external weights into rten.
#[derive(Debug, Clone, Copy)]
pub struct RtenEngine {
    /// Threads of each session's own pool; `None` shares rten's global pool.
    session_threads: Option<NonZeroUsize>,
}

impl RtenEngine {
    /// All sessions share one pool of as many threads as there are cores: lowest latency of one
    /// request at a time.
    #[must_use]
    pub const fn shared() -> Self {
        Self {
            session_threads: None,
        }
    }

    /// Each session has its own pool: requests side by side do not wait for each other.
    #[must_use]
    pub const fn per_session(threads: NonZeroUsize) -> Self {
        Self {
            session_threads: Some(threads),
        }
    }
}

const NAME: EngineName = EngineName::Rten;

/// Text of a caught panic. Only used while loading, when no request's values are in memory.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").chars().take(200).collect()
}

/// The checked graph as our own bytes, and the tensors that it takes and gives.
fn checked(
    manifest: &Manifest,
    graph: &[u8],
    weights: &[u8],
    limits: &LoadLimits,
) -> Result<Vec<u8>, LoadError> {
    let too_long = |what, max: usize| {
        LoadError::Graph(onnx::OnnxError::Limit {
            what,
            max: max as u64,
        })
    };
    if weights.len() > limits.weight_bytes {
        return Err(too_long("bytes of weights", limits.weight_bytes));
    }
    let lens = [
        (manifest.graph_len, graph.len()),
        (manifest.weights_len, weights.len()),
    ];
    if lens.iter().any(|(said, is)| *said != *is as u64) {
        return Err(LoadError::Manifest(
            "the lengths of graph and weights".into(),
        ));
    }
    let model = onnx::Model::parse(graph, limits)?;
    let blob = WeightsRef {
        name: manifest.weights_name.as_deref(),
        len: weights.len() as u64,
    };
    let interface = onnx::check(&model, blob, limits)?;
    agree(manifest, &interface)?;
    for spec in manifest.inputs.iter().chain(&manifest.outputs) {
        if !values::takes(spec.datatype) {
            let (name, datatype) = (spec.name.clone(), spec.datatype);
            return Err(LoadError::Datatype {
                engine: NAME,
                name,
                datatype,
            });
        }
    }
    Ok(model.encode_for_engine())
}

/// Absent is refused: the manifest must say of inputs and outputs exactly what the graph says.
fn agree(manifest: &Manifest, graph: &Interface) -> Result<(), LoadError> {
    if manifest.inputs != graph.inputs {
        return Err(LoadError::Manifest("the inputs".into()));
    }
    let same =
        manifest.outputs.len() == graph.outputs.len()
            && manifest.outputs.iter().zip(&graph.outputs).all(
                |(said, (name, datatype, shape))| {
                    said.name == *name
                        && said.datatype == *datatype
                        && shape.as_ref().is_none_or(|s| *s == said.shape)
                },
            );
    if same {
        Ok(())
    } else {
        Err(LoadError::Manifest("the outputs".into()))
    }
}

/// The error of a run, naming the operator as the model's file does.
fn failed(error: &rten::RunError) -> RunError {
    let path = error.node_path();
    let operator = path
        .iter()
        .rev()
        .flatten()
        .next()
        .copied()
        .unwrap_or("of the model");
    RunError::Operator {
        operator: onnx::shown(operator),
        detail: ForUser(error.to_string()),
    }
}

fn refused(error: impl Error + Send + Sync + 'static) -> LoadError {
    LoadError::Engine {
        engine: NAME,
        source: Box::new(error),
    }
}

/// SECURITY: the host sets an enclave's environment, and several variables (`RTEN_TIMING`,
/// `RTEN_INFER_SHAPES_DEBUG`, `RTEN_OPTIMIZER_DEBUG`) make rten print a model's operators and shapes
/// to standard output. So none that is rten's may be set (test
/// `no_variable_of_the_engine_is_accepted`).
fn engine_variable(mut names: impl Iterator<Item = OsString>) -> Option<String> {
    let name = names.find(|name| name.as_encoded_bytes().starts_with(b"RTEN_"))?;
    Some(name.to_string_lossy().into_owned())
}

impl Engine for RtenEngine {
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
        if let Some(name) = engine_variable(std::env::vars_os().map(|(name, _)| name)) {
            return Err(LoadError::Environment(name));
        }
        let clean = checked(manifest, &graph, &weights, limits)?;
        drop(graph);
        let memory = weights.len() as u64 + 4 * clean.len() as u64;
        let mut options = ModelOptions::with_all_ops();
        if let Some(name) = &manifest.weights_name {
            options.external_data(name, weights.into_vec());
        }
        let inner = catch_unwind(AssertUnwindSafe(|| options.load(clean)))
            .map_err(|p| LoadError::Panicked {
                engine: NAME,
                detail: panic_text(&*p),
            })?
            .map_err(refused)?;
        let ids = |specs: &[TensorSpec]| {
            let id = |s: &TensorSpec| inner.node_id(&s.name);
            specs.iter().map(id).collect::<Result<Vec<_>, _>>()
        };
        Ok(Arc::new(RtenModel {
            input_ids: ids(&manifest.inputs).map_err(refused)?,
            output_ids: ids(&manifest.outputs).map_err(refused)?,
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
            session_threads: self.session_threads,
            memory,
            inner,
        }))
    }
}

struct RtenModel {
    inner: rten::Model,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_ids: Vec<NodeId>,
    output_ids: Vec<NodeId>,
    session_threads: Option<NonZeroUsize>,
    memory: u64,
}

/// Prints no names of operators: a model's structure is its owner's.
impl fmt::Debug for RtenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtenModel")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Model for RtenModel {
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
        let pool = self
            .session_threads
            .map(|n| Arc::new(ThreadPool::with_num_threads(n.get())));
        Ok(Box::new(RtenSession { model: self, pool }))
    }
}

struct RtenSession {
    model: Arc<RtenModel>,
    pool: Option<Arc<ThreadPool>>,
}

impl fmt::Debug for RtenSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtenSession")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Session for RtenSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let model = &self.model;
        check_inputs(&model.inputs, inputs)?;
        let mut given = Vec::with_capacity(inputs.len());
        for (spec, id) in model.inputs.iter().zip(&model.input_ids) {
            // INVARIANT: `check_inputs` found exactly one tensor for each specification.
            for tensor in inputs.iter().filter(|t| t.name() == spec.name) {
                given.push((*id, ValueOrView::from(values::to_rten(tensor)?)));
            }
        }
        let options = RunOptions::default().with_thread_pool(self.pool.clone());
        // rten's model is immutable while it runs and each run has its own buffers, so nothing that
        // a panic leaves half-done is seen by the next run.
        let run = || model.inner.run(given, &model.output_ids, Some(options));
        let outputs = catch_unwind(AssertUnwindSafe(run))
            .map_err(|_| RunError::Panicked)?
            .map_err(|e| failed(&e))?;
        model
            .outputs
            .iter()
            .zip(outputs)
            .map(|(s, v)| values::from_rten(s, v))
            .collect()
    }
}

#[cfg(test)]
mod tests;
