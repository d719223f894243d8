//! The command line of model owners and data users, for real TEEs only.

use std::process::ExitCode;

use attestation::VerifierSet;

/// No TEE's verifier is in this build yet: every KeyService is refused, and by name.
#[tokio::main]
async fn main() -> ExitCode {
    let code = cli::run(std::env::args_os(), &|_profile| {
        Ok(VerifierSet::new(Vec::new()))
    })
    .await;
    ExitCode::from(code)
}
