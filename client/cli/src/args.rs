//! The command line: commands, flags and their help. No secret is ever an argument.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::ModelId;

mod evidence;
mod help;
mod model;

pub use evidence::{EvidenceArgs, EvidenceCommand, EvidenceKind, Hex};
pub use model::{ModelCommand, PackArgs, PackOptions, PublishArgs, PushArgs, RegisterArgs};

/// Encrypted inference on a platform that you do not trust.
#[derive(Debug, Parser)]
#[command(
    name = "sesemi",
    version,
    about = "Encrypted inference on a platform that you do not trust",
    long_about = help::LONG_ABOUT,
    after_long_help = help::EXIT_CODES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Client configuration (see config/sesemi.toml); default: ./.state/profile.toml
    #[arg(
        long,
        global = true,
        env = "SESEMI_PROFILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub profile: Option<PathBuf>,
    /// Identity key file to act with, in place of the profile's
    #[arg(long, global = true, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Print JSON on stdout (and errors as JSON on stderr) in place of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Time for the whole operation, retries included (for example 500ms, 30s, 2m)
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make and show the key that says who you are
    #[command(subcommand, after_help = help::IDENTITY)]
    Identity(IdentityCommand),
    /// As an owner: pack, seal, push and register models
    #[command(subcommand, after_help = help::MODEL)]
    Model(ModelCommand),
    /// As an owner: say who may use a model, in which enclave
    #[command(subcommand, after_help = help::GRANT)]
    Grant(GrantCommand),
    /// As a user: register the keys that your requests are sealed with
    #[command(subcommand, after_help = help::KEY)]
    Key(KeyCommand),
    /// As a user: seal a request, send it and open the answer
    #[command(after_help = help::INFER)]
    Infer(Box<InferArgs>),
    /// Check a part of the system before you trust it
    #[command(subcommand, after_help = help::VERIFY)]
    Verify(VerifyCommand),
    /// Judge a piece of TEE evidence from a file, of any vendor
    #[command(subcommand, after_help = help::EVIDENCE)]
    Evidence(Box<EvidenceCommand>),
    /// Show KeyService's log of what concerns you
    #[command(after_help = help::AUDIT)]
    Audit(AuditArgs),
    /// Show whether KeyService, FnPacker and the store can be used from here
    #[command(after_help = help::STATUS)]
    Status,
    /// Print a completion script for your shell
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
}

/// `sesemi identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Draw a new identity key, write it with mode 0600 and print the principal id
    #[command(after_help = help::IDENTITY_NEW)]
    New {
        /// Where to write it; default: --identity, else the profile's
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the principal id of the identity key
    #[command(after_help = help::IDENTITY_SHOW)]
    Show,
}

/// A principal: 64 hexadecimal digits, or a name from [principals] in the profile.
pub type PrincipalArg = String;
/// An enclave id: 96 hexadecimal digits, or a name from [enclaves] in the profile.
pub type EnclaveArg = String;

/// `--enclave`, the same for every command that has it.
#[derive(Debug, Clone, Args)]
pub struct EnclaveFlag {
    /// E_S of the instances: 96 hex digits or a name from [enclaves]; default: the profile's
    #[arg(long, value_name = "ENCLAVE")]
    pub enclave: Option<EnclaveArg>,
}

/// `sesemi grant …`
#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// Allow a user to use a model inside instances of one enclave
    #[command(after_help = help::GRANT_ADD)]
    Add {
        #[command(flatten)]
        grant: GrantArgs,
        /// Demand more of instances than their enclave id: an appraisal policy (TOML) that
        /// KeyService applies at every release
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Revoke a grant, and print how late the revocation can take effect
    #[command(after_help = help::GRANT_RM)]
    Rm(GrantArgs),
    /// List the live grants of a model
    #[command(after_help = help::GRANT_LS)]
    Ls {
        /// The model
        model: ModelId,
    },
}

/// Which grant.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// The model
    pub model: ModelId,
    /// The user: principal id (64 hex digits) or a name from [principals]
    #[arg(long, value_name = "PRINCIPAL")]
    pub user: PrincipalArg,
    #[command(flatten)]
    pub enclave: EnclaveFlag,
}

/// `sesemi key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Draw a request key for a model and register it with KeyService
    #[command(after_help = help::KEY_REGISTER)]
    Register {
        /// The model
        model: ModelId,
        /// Whom the model must belong to: principal id (64 hex digits) or a name from [principals]
        #[arg(long, value_name = "PRINCIPAL")]
        owner: PrincipalArg,
        #[command(flatten)]
        enclave: EnclaveFlag,
        /// Demand more of instances than their enclave id: an appraisal policy (TOML) that
        /// KeyService applies at every release
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Draw a new key even if there is one
        #[arg(long)]
        rotate: bool,
    },
    /// List your registered request keys
    #[command(after_help = help::KEY_LS)]
    Ls,
    /// Drop a request key: at KeyService, and the file here
    #[command(after_help = help::KEY_RM)]
    Rm {
        /// The model
        model: ModelId,
        #[command(flatten)]
        enclave: EnclaveFlag,
    },
}

/// A named preprocessing of pictures; the client does it, so that no server sees the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preprocess {
    /// Centre square, bicubic to 224×224, RGB, (x-127)/128 → image FP32[1,3,224,224]
    EfficientnetLite,
    /// The same square, x/127.5-1 → image FP32[1,3,224,224]
    Tensorflow,
    /// The same square, ImageNet's mean and deviation → image FP32[1,3,224,224]
    Imagenet,
    /// Grey, light on dark, 8×8 area means, 0 to 16 → x FP32[1,64]
    #[value(name = "digits-8x8")]
    Digits8x8,
}

impl Preprocess {
    /// What models that want this preprocessing call their input.
    #[must_use]
    pub const fn input_name(self) -> &'static str {
        match self {
            Self::EfficientnetLite | Self::Tensorflow | Self::Imagenet => "image",
            Self::Digits8x8 => "x",
        }
    }
}

/// `sesemi infer …`
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model
    pub model: ModelId,
    /// A file of inputs: .json (Open Inference Protocol request), or [NAME=]FILE.npy,
    /// [NAME=]FILE.png, [NAME=]FILE.jpg for one input; repeatable. Without NAME: "x", for pictures
    /// the preprocessing's name
    #[arg(short, long = "input", value_name = "[NAME=]FILE", required = true)]
    pub inputs: Vec<String>,
    /// How to turn pictures into tensors
    #[arg(long, value_enum, value_name = "NAME")]
    pub preprocess: Option<Preprocess>,
    #[command(flatten)]
    pub enclave: EnclaveFlag,
    /// Send the request this many times; outputs are kept of the first 20, all are compared
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Keep this many requests under way at once
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Show this many of the largest values of an output of scores
    #[arg(long, default_value_t = 5, value_name = "K",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub top: u16,
    /// Names of the classes, one per line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Also write every output as DIR/NAME.npy
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
}

/// `sesemi verify …`
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Appraise KeyService's evidence against the pinned E_K, and print every check by name
    #[command(after_help = help::VERIFY_KEYSERVICE)]
    Keyservice,
}

/// `sesemi audit …`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only entries of this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<ModelId>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}

/// Reads `500ms`, `30s`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("write a whole number and a unit: 500ms, 30s, 2m".to_owned()),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|ms| *ms > 0 && *ms <= 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "a time between 1ms and 1440m is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "30",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1h",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
