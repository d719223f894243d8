//! The commands: each turns its arguments into a [`Report`] or a [`Failure`].

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use attestation::VerifierSet;
use crypto::{IdentityKey, KeyFileError};
use protocol::ErrorCode;
use sdk::keyring::KeyringError;
use sdk::keyservice::PinnedKeyservice;
use sdk::{EpochMemory, Keyservice, RetryPolicy, WallTime};

use crate::args::{Command, Global, VerifyCommand};
use crate::failure::{Exit, Failure};
use crate::profile::{Home, Profile};
use crate::progress::Progress;
use crate::report::Report;

mod audit;
mod completions;
pub mod evidence;
mod grant;
mod identity;
mod infer;
mod key;
mod model;
mod status;
mod verify;

/// Time for one call to KeyService, unless `--deadline` says otherwise.
const CONTROL_DEADLINE: Duration = Duration::from_secs(10);

/// Why the verifiers that a profile asks for cannot be made.
pub type VerifiersError = Box<dyn Error + Send + Sync>;
/// Makes the verifiers for a profile: which TEEs a build accepts, and with which roots of trust
/// (see [`Profile::root`]).
pub type Verifiers<'a> =
    &'a (dyn Fn(&Profile) -> Result<VerifierSet, VerifiersError> + Send + Sync);

/// What every command works with.
pub struct Context<'a> {
    pub global: Global,
    pub profile: Profile,
    pub verifiers: Verifiers<'a>,
    pub progress: Progress,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Runs one command.
pub async fn run(context: &Context<'_>, command: Command) -> Result<Report, Failure> {
    match command {
        Command::Identity(command) => identity::run(context, command),
        Command::Model(command) => model::run(context, command).await,
        Command::Grant(command) => grant::run(context, command).await,
        Command::Key(command) => key::run(context, command).await,
        Command::Infer(arguments) => infer::run(context, &arguments).await,
        Command::Verify(VerifyCommand::Keyservice) => verify::keyservice(context).await,
        Command::Evidence(command) => evidence::run(&command),
        Command::Audit(arguments) => audit::run(context, &arguments).await,
        Command::Status => status::run(context).await,
        Command::Completions { shell } => Ok(completions::run(shell)),
    }
}

impl Context<'_> {
    fn retry(&self, default: Duration) -> RetryPolicy {
        RetryPolicy::with_deadline(self.global.deadline.unwrap_or(default))
    }

    fn home(&self) -> Result<Home, Failure> {
        Ok(Home::beside(self.profile.identity()?))
    }

    /// The identity to act with, and where its files are.
    fn identity(&self) -> Result<(IdentityKey, Home), Failure> {
        let home = self.home()?;
        match IdentityKey::read_file(home.identity()) {
            Ok(identity) => Ok((identity, home)),
            Err(KeyFileError::Read { path, source })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Err(Failure {
                    exit: Exit::Caller,
                    code: ErrorCode::NotFound,
                    retryable: false,
                    message: format!("there is no identity key at {}", path.display()),
                    advice: "make one with `sesemi identity new`, or name another with --identity"
                        .to_owned(),
                })
            }
            Err(error) => Err(KeyringError::from(error).into()),
        }
    }

    fn pinned(&self) -> Result<PinnedKeyservice, Failure> {
        let settings = self.profile.keyservice()?;
        let verifiers = (self.verifiers)(&self.profile).map_err(|error| {
            Failure::usage(&*error, "correct [roots] in the profile".to_owned())
        })?;
        Ok(settings.pin(verifiers))
    }

    /// A KeyService that has proved to be the pinned one.
    async fn keyservice(&self) -> Result<(Keyservice, Home), Failure> {
        let pinned = self.pinned()?;
        let (identity, home) = self.identity()?;
        let epochs = EpochMemory::new(home.epochs());
        let retry = self.retry(CONTROL_DEADLINE);
        let keyservice =
            Keyservice::connect(pinned, &identity, epochs, retry, WallTime::system()).await?;
        Ok((keyservice, home))
    }
}
