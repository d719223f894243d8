//! The command line of model owners and data users, for real TEEs only.

use std::process::ExitCode;

/// Verifiers of real TEEs only: a simulated KeyService is refused, and by name.
#[tokio::main]
async fn main() -> ExitCode {
    let code = cli::run(std::env::args_os(), &|_profile| {
        Ok(attestation::tee::real_verifiers())
    })
    .await;
    ExitCode::from(code)
}
