//! The commands of `sesemi`, with the verifiers as an argument.
//!
//! The `sesemi` binary accepts real TEEs only. A development binary runs the same commands with a
//! verifier of its own:
//!
//! ```no_run
//! # async fn example(my_verifier: std::sync::Arc<dyn attestation::Verifier>) {
//! let exit_code = cli::run(std::env::args_os(), &move |_profile| {
//!     Ok(attestation::VerifierSet::new(vec![my_verifier.clone()]))
//! })
//! .await;
//! # }
//! ```

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

pub mod args;
pub mod commands;
pub mod failure;
pub mod input;
pub mod profile;
pub mod progress;
pub mod report;

pub use commands::{Verifiers, VerifiersError};
pub use failure::Exit;
pub use profile::Profile;

use args::{Arguments, Command};
use commands::Context;
use failure::Failure;
use progress::Progress;

/// Runs one command line (with the program's name first), writes to stdout and stderr, and returns
/// the exit code: 0 ok, 1 usage, 2 caller, 3 denied, 4 service (`evidence`: 2 rejected).
pub async fn run(arguments: impl IntoIterator<Item = OsString>, verifiers: Verifiers<'_>) -> u8 {
    let arguments: Vec<_> = arguments.into_iter().collect();
    run_to(arguments, verifiers, &mut io::stdout(), &mut io::stderr()).await
}

/// [`run`] with other places to write to.
pub async fn run_to(
    arguments: Vec<OsString>,
    verifiers: Verifiers<'_>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    // Known before parsing, so that a wrong command line is also told in JSON.
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, wants_json, stdout, stderr),
    };
    log_to_stderr(arguments.global.verbose);
    let json = arguments.global.json;
    let result = async {
        // Evidence in a file is judged without anybody's settings, and without a correct profile.
        let profile = match arguments.command {
            Command::Evidence(_) => Profile::default(),
            _ => Profile::find(&arguments.global)?,
        };
        let progress = Progress::for_stderr(json);
        let context = Context {
            global: arguments.global,
            profile,
            verifiers,
            progress,
        };
        commands::run(&context, arguments.command).await
    };
    match result.await {
        Ok(report) => {
            let text = if json {
                format!("{:#}\n", report.json)
            } else {
                report.text
            };
            // Nobody reads any more (`| head`): not an error of the command.
            let _closed = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
            report.exit.code()
        }
        Err(failure) => {
            tell(&failure, json, stderr);
            failure.exit.code()
        }
    }
}

fn tell(failure: &Failure, json: bool, stderr: &mut dyn Write) {
    let text = if json {
        format!("{}\n", failure.json())
    } else {
        failure.text()
    };
    let _closed = stderr.write_all(text.as_bytes());
}

/// Help and version go to stdout; everything else that the parser says is a usage error.
fn refuse(error: &clap::Error, json: bool, stdout: &mut dyn Write, stderr: &mut dyn Write) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() {
        let _closed = stdout.write_all(text.as_bytes());
        return Exit::Ok.code();
    }
    if json {
        let advice = "see `sesemi --help`".to_owned();
        let mut failure = Failure::usage(error, advice);
        failure.message = text.trim_start_matches("error: ").trim_end().to_owned();
        tell(&failure, true, stderr);
    } else {
        let _closed = stderr.write_all(text.as_bytes());
    }
    Exit::Usage.code()
}

/// Logs of the libraries, below the command's own output. A process that logs already keeps its
/// own settings.
fn log_to_stderr(verbose: u8) {
    let filter = match verbose {
        0 => "error",
        1 => "warn,sdk=info,cli=info,transport=info",
        _ => "info,sdk=trace,cli=trace,transport=trace,attestation=trace",
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .without_time();
    let filter: Targets = filter.parse().unwrap_or_default();
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let _kept = tracing::subscriber::set_global_default(subscriber);
}
