//! Arguments of `sesemi model …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::ModelId;

use super::help;

/// `sesemi model …`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Turn an ONNX file into a model package, checked against an example
    #[command(after_help = help::MODEL_PACK)]
    Pack(PackArgs),
    /// Seal a package with a fresh model key and push the artifact to the store
    #[command(after_help = help::MODEL_PUSH)]
    Push(PushArgs),
    /// Register the pushed version (its digest and key) with KeyService
    #[command(after_help = help::MODEL_REGISTER)]
    Register(RegisterArgs),
    /// Pack, seal, push and register in one go
    #[command(after_help = help::MODEL_PUBLISH)]
    Publish(PublishArgs),
    /// List your models
    #[command(after_help = help::MODEL_LS)]
    Ls,
    /// List the versions of a model: at KeyService, and what is here
    #[command(after_help = help::MODEL_VERSIONS)]
    Versions {
        /// The model
        model: ModelId,
    },
    /// Show what a package takes, gives and weighs
    #[command(after_help = help::MODEL_INSPECT)]
    Inspect {
        /// A package that `model pack` wrote
        package: PathBuf,
    },
}

/// How to pack.
#[derive(Debug, Clone, Args)]
pub struct PackOptions {
    /// Example inputs (JSON in Open Inference Protocol form, or [NAME=]FILE.npy); repeatable
    #[arg(long, value_name = "[NAME=]FILE", requires = "example_outputs")]
    pub example_input: Vec<String>,
    /// The right outputs for them, from the framework that trained the model; repeatable
    #[arg(
        long = "example-output",
        id = "example_outputs",
        value_name = "[NAME=]FILE",
        requires = "example_input"
    )]
    pub example_output: Vec<String>,
    /// Largest difference of an output element, relative to the largest expected magnitude
    #[arg(long, default_value_t = 1e-4, value_name = "RATIO", value_parser = parse_tolerance)]
    pub tolerance: f32,
    /// A file beside the ONNX file that holds weights, by the name that the ONNX file uses; repeatable
    #[arg(long, value_name = "FILE")]
    pub external: Vec<PathBuf>,
    /// Pack without an example: nobody has then checked that the engine computes this model rightly
    #[arg(long, conflicts_with_all = ["example_input", "example_outputs"])]
    pub allow_unchecked: bool,
}

/// `sesemi model pack …`
#[derive(Debug, Args)]
pub struct PackArgs {
    /// The model, as ONNX
    pub onnx: PathBuf,
    /// Where to write the package; default: the ONNX file's name with .package
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub options: PackOptions,
}

/// `sesemi model push …`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A package that `model pack` wrote
    pub package: PathBuf,
    /// Under which name
    #[arg(long, value_name = "MODEL")]
    pub model: ModelId,
    /// As which version; default: one more than the last one here
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
    /// Model store; default: the profile's
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// `sesemi model register …`
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The model
    pub model: ModelId,
    /// Which pushed version; default: the last one here
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
}

/// `sesemi model publish …`
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The model, as ONNX
    pub onnx: PathBuf,
    /// Under which name
    #[arg(long, value_name = "MODEL")]
    pub model: ModelId,
    /// As which version; default: one more than the last one here and at KeyService
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
    /// Model store; default: the profile's
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    #[command(flatten)]
    pub options: PackOptions,
}

fn parse_tolerance(text: &str) -> Result<f32, String> {
    text.parse::<f32>()
        .ok()
        .filter(|t| t.is_finite() && *t >= 0.0 && *t <= 1.0)
        .ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}
