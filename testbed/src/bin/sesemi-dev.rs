//! The developer system: KeyService, platform, FnPacker and SeMIRT processes on the simulated TEE.

use std::process::ExitCode;

fn main() -> ExitCode {
    testbed::commands::main(std::env::args_os().collect())
}
