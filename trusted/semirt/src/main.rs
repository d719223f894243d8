//! The production SeMIRT: finds the TEE that it runs in, and refuses to run without one.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use semirt::Args;
use service::ErrorChain;

/// The configuration or the command line is wrong.
const EXIT_USAGE: u8 = 1;
/// There is no TEE to run in.
const EXIT_NO_TEE: u8 = 3;

/// Devices through which a TEE gives evidence, by kernel interface.
const DEVICES: [(&str, &str); 5] = [
    ("/dev/sgx_enclave", "Intel SGX"),
    ("/dev/attestation", "Intel SGX (Gramine)"),
    ("/dev/tdx_guest", "Intel TDX"),
    ("/dev/sev-guest", "AMD SEV-SNP"),
    ("/dev/nsm", "AWS Nitro Enclaves"),
];

fn main() -> ExitCode {
    let args = Args::parse();
    match args.configuration() {
        Ok(_) => stop(EXIT_NO_TEE, &no_tee()),
        Err(error) => stop(EXIT_USAGE, &ErrorChain(&error).to_string()),
    }
}

/// SECURITY: there is no fallback. Outside of a TEE this process would only pretend.
fn no_tee() -> String {
    let found: Vec<_> = DEVICES
        .iter()
        .filter(|(path, _)| Path::new(path).exists())
        .map(|(_, tee)| *tee)
        .collect();
    if found.is_empty() {
        "no trusted execution environment found: it runs in SGX, TDX, SEV-SNP or Nitro Enclaves \
         only; to try SeSeMI without one, use `sesemi-dev`"
            .into()
    } else {
        format!(
            "found {}, for which this version has no attester yet",
            found.join(", ")
        )
    }
}

fn stop(code: u8, why: &str) -> ExitCode {
    // When stderr is closed there is nobody to tell; the exit code still does.
    writeln!(io::stderr(), "semirt: {why}").ok();
    ExitCode::from(code)
}
