//! The owner's side: an ONNX file becomes a package that was loaded and compared before it is sealed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use protocol::oip::{InferReply, InferRequest, OipError};
use protocol::package::{EngineName, Example, Manifest, PackageError};
use protocol::{Tensor, TensorSpec};

use crate::assemble::padding;
use crate::engine::{Engines, LoadError, LoadLimits, Model, RunError};
use crate::engines::conv::{Compiled, Uncovered, compile, is_convolutional};
use crate::onnx::check::WEIGHT_ALIGN;
use crate::onnx::schema::{OnnxError, TensorBytes, TensorFault, TensorProto, shown, tensor_len};
use crate::onnx::{self, Interface, WeightsRef};

mod compare;

pub use compare::{Mismatch, compare, largest_difference};

/// Name by which a packed graph refers to its weights. rten takes names that end in `.data`.
pub const WEIGHTS_NAME: &str = "weights.data";
/// Constants of at least this many bytes move out of the graph.
const EXTERNAL_FROM: usize = 256;

/// How the packed model is checked against the model's own answers.
#[derive(Debug, Clone, Copy)]
pub enum Check<'a> {
    /// The engine must give `expected` for `inputs`; see [`compare`] for `tolerance`. Both go into
    /// the package, so that an instance can check itself again.
    Example {
        inputs: &'a [Tensor],
        expected: &'a [Tensor],
        tolerance: f32,
    },
    /// The owner takes it on themselves that the engine computes what they mean.
    AllowUnchecked,
}

/// Why an ONNX file cannot become a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    #[error("reading the ONNX model")]
    Onnx(#[from] OnnxError),
    #[error("graph output '{0}' has no shape, and there is no example to learn it from")]
    OutputShape(String),
    #[error("example has no expected output '{0}'")]
    ExpectedMissing(String),
    #[error("example does not fit a package")]
    Example(#[from] OipError),
    #[error("loading the packed model")]
    Load(#[from] LoadError),
    /// In full, since the example is the owner's own.
    #[error("running the packed model on the example: {}", .0.for_user())]
    Run(RunError),
    #[error("engine {engine:?} does not give what the example expects")]
    Mismatch {
        engine: EngineName,
        source: Mismatch,
    },
    #[error("laying out the package")]
    Package(#[from] PackageError),
    #[error("compiling the model for our kernels")]
    Uncovered(#[from] Uncovered),
}

/// A model as the owner seals it.
#[derive(Debug)]
pub struct Package {
    pub manifest: Manifest,
    pub graph: Vec<u8>,
    pub weights: Vec<u8>,
}

/// Packs a self-contained ONNX file.
pub fn pack(onnx: &[u8], check: Check<'_>) -> Result<Package, PackError> {
    pack_with_external(onnx, &BTreeMap::new(), check)
}

/// Packs a self-contained ONNX file for one engine, whatever [`pack`] would choose.
pub fn pack_for(onnx: &[u8], engine: EngineName, check: Check<'_>) -> Result<Package, PackError> {
    let mut package = lay_out(onnx, &BTreeMap::new(), engine, check)?;
    package.finish(check)?;
    Ok(package)
}

/// Packs an ONNX file some of whose tensors are in the files `external` (by name).
pub fn pack_with_external(
    onnx: &[u8],
    external: &BTreeMap<&str, &[u8]>,
    check: Check<'_>,
) -> Result<Package, PackError> {
    if let Some(package) = by_our_kernels(onnx, external, check) {
        return Ok(package);
    }
    let mut package = lay_out(onnx, external, EngineName::Rten, check)?;
    package.finish(check)?;
    Ok(package)
}

/// The owner's own file: anything that fits a package may be read.
fn owners_limits() -> LoadLimits {
    LoadLimits {
        graph_bytes: usize::try_from(protocol::limits::PACKAGE_MAX).unwrap_or(usize::MAX),
        fields: 1 << 26,
        ..LoadLimits::default()
    }
}

/// The model on our own kernels, if it is a convolutional network, they cover all of it, and give what
/// the example expects. Without an example nothing tells their answers from the model's, and the
/// general engine takes it.
fn by_our_kernels(
    onnx: &[u8],
    external: &BTreeMap<&str, &[u8]>,
    check: Check<'_>,
) -> Option<Package> {
    let Check::Example { .. } = check else {
        return None;
    };
    let limits = owners_limits();
    if !is_convolutional(&onnx::Model::parse(onnx, &limits).ok()?) {
        return None;
    }
    let mut package = lay_out(onnx, external, EngineName::Conv, check).ok()?;
    package.finish(check).ok()?;
    Some(package)
}

/// Rewrites the graph so that its large constants are in one blob, or as a plan of our kernels, and
/// describes it.
pub(crate) fn lay_out(
    onnx: &[u8],
    external: &BTreeMap<&str, &[u8]>,
    engine: EngineName,
    check: Check<'_>,
) -> Result<Package, PackError> {
    let limits = owners_limits();
    let mut model = onnx::Model::parse(onnx, &limits)?;
    let mut weights = Vec::new();
    model.graph.for_each_tensor(&mut |t| {
        bring_in(t, external).map_err(|fault| OnnxError::Tensor {
            name: shown(t.name),
            fault,
        })?;
        if engine == EngineName::Rten {
            move_out(t, &mut weights);
        }
        Ok::<_, OnnxError>(())
    })?;
    let blob = WeightsRef {
        name: Some(WEIGHTS_NAME),
        len: weights.len() as u64,
    };
    let interface = onnx::check(&model, blob, &limits)?;
    let (graph, weights, weights_name) = match engine {
        EngineName::Rten => {
            let name = (!weights.is_empty()).then(|| WEIGHTS_NAME.to_owned());
            (model.encode(), weights, name)
        }
        EngineName::Conv => {
            let Compiled { plan, weights } = compile(&model, &interface)?;
            (plan, weights, None)
        }
    };
    let manifest = Manifest {
        engine,
        outputs: outputs(&interface, check)?,
        inputs: interface.inputs,
        graph_len: graph.len() as u64,
        weights_len: weights.len() as u64,
        weights_name,
        example: None,
    };
    Ok(Package {
        manifest,
        graph,
        weights,
    })
}

/// Replaces a reference to a given external file by its bytes.
fn bring_in<'a>(
    tensor: &mut TensorProto<'a>,
    external: &BTreeMap<&str, &'a [u8]>,
) -> Result<(), TensorFault> {
    let TensorBytes::External {
        location,
        offset,
        length,
    } = &tensor.bytes
    else {
        return Ok(());
    };
    let (shape, datatype) = (tensor.dims.clone(), tensor.datatype);
    let Some(file) = external.get(location.as_ref()) else {
        return Err(TensorFault::ExternalMissing(shown(location)));
    };
    let max = file.len() as u64;
    let expected = tensor_len(&tensor.dims, datatype)
        .filter(|n| *n <= max)
        .ok_or_else(|| TensorFault::TooLarge {
            shape: shape.clone(),
            datatype,
            max,
        })?;
    let got = length.unwrap_or(expected);
    if got != expected {
        return Err(TensorFault::Length {
            shape,
            datatype,
            expected,
            got,
        });
    }
    let end = offset.saturating_add(expected);
    let range = (usize::try_from(*offset).ok(), usize::try_from(end).ok());
    let bytes = match range {
        (Some(from), Some(to)) => file.get(from..to),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| TensorFault::ExternalRange {
        location: shown(location),
        end,
        len: max,
    })?;
    tensor.bytes = TensorBytes::Inline(bytes.into());
    Ok(())
}

/// Moves a large constant to the end of `weights`.
fn move_out(tensor: &mut TensorProto<'_>, weights: &mut Vec<u8>) {
    let TensorBytes::Inline(bytes) = &tensor.bytes else {
        return;
    };
    if bytes.len() < EXTERNAL_FROM {
        return;
    }
    let offset = (weights.len() as u64).next_multiple_of(WEIGHT_ALIGN);
    weights.resize(weights.len() + padding(weights.len() as u64), 0);
    weights.extend_from_slice(bytes);
    let length = Some(bytes.len() as u64);
    tensor.bytes = TensorBytes::External {
        location: WEIGHTS_NAME.into(),
        offset,
        length,
    };
}

/// Specifications of the outputs; a shape that the graph leaves open is learnt from the example.
fn outputs(interface: &Interface, check: Check<'_>) -> Result<Vec<TensorSpec>, PackError> {
    let rank_of = |name: &str| match check {
        Check::Example { expected, .. } => expected
            .iter()
            .find(|t| t.name() == name)
            .map(|t| t.shape().len()),
        Check::AllowUnchecked => None,
    };
    let spec = |(name, datatype, shape): &(String, _, Option<Vec<i64>>)| {
        let shape = shape
            .clone()
            .or_else(|| rank_of(name).map(|rank| vec![-1; rank]));
        let shape = shape.ok_or_else(|| PackError::OutputShape(shown(name)))?;
        Ok(TensorSpec {
            name: name.clone(),
            datatype: *datatype,
            shape,
        })
    };
    interface.outputs.iter().map(spec).collect()
}

fn example(inputs: &[Tensor], expected: &[Tensor], tolerance: f32) -> Result<Example, PackError> {
    let request = InferRequest {
        inputs: inputs.into(),
    }
    .encode()?;
    let reply = InferReply::Outputs {
        model_name: String::new(),
        model_version: String::new(),
        outputs: expected.into(),
    };
    Ok(Example {
        request: BASE64.encode(request),
        reply: BASE64.encode(reply.encode()?),
        tolerance,
    })
}

/// Runs a loaded model on an example and compares: silent wrong answers of an engine end here.
pub fn verify_model(
    engine: EngineName,
    model: &Arc<dyn Model>,
    inputs: &[Tensor],
    expected: &[Tensor],
    tolerance: f32,
) -> Result<(), PackError> {
    let got = Arc::clone(model)
        .session()?
        .run(inputs)
        .map_err(PackError::Run)?;
    for output in &got {
        let expected = expected.iter().find(|t| t.name() == output.name());
        let expected = expected.ok_or_else(|| PackError::ExpectedMissing(shown(output.name())))?;
        compare(expected, output, tolerance)
            .map_err(|source| PackError::Mismatch { engine, source })?;
    }
    Ok(())
}

impl Package {
    /// Loads the package as SeMIRT would, and compares against the example.
    fn verify(&self, check: Check<'_>) -> Result<(), PackError> {
        let engine = self.manifest.engine;
        let model = Engines::standard(&[engine]).load_package(
            &self.manifest,
            self.graph.clone(),
            self.weights.clone(),
        )?;
        match check {
            Check::Example {
                inputs,
                expected,
                tolerance,
            } => verify_model(engine, &model, inputs, expected, tolerance),
            Check::AllowUnchecked => Ok(()),
        }
    }

    /// Loads and compares, and keeps the example.
    fn finish(&mut self, check: Check<'_>) -> Result<(), PackError> {
        self.verify(check)?;
        if let Check::Example {
            inputs,
            expected,
            tolerance,
        } = check
        {
            self.manifest.example = Some(example(inputs, expected, tolerance)?);
        }
        // A package that could not be laid out must fail here and not while sealing.
        self.manifest.head()?;
        Ok(())
    }

    /// The package's bytes, as a stream: what the owner seals.
    pub fn reader(&self) -> Result<impl Read, PackageError> {
        let head = self.manifest.head()?;
        // `head` ends on the alignment, so the graph's own length decides the zeros after it.
        let zeros = vec![0; padding(self.graph.len() as u64)];
        Ok(io::Cursor::new(head)
            .chain(self.graph.as_slice())
            .chain(io::Cursor::new(zeros))
            .chain(self.weights.as_slice()))
    }

    /// Writes the package's bytes and says how many.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<u64, WriteError> {
        let written = io::copy(&mut self.reader()?, &mut &mut *out)?;
        out.flush()?;
        Ok(written)
    }
}

/// Why a package was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("laying out the package")]
    Package(#[from] PackageError),
    #[error("writing the package")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests;
