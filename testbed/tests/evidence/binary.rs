//! The same through a real process, as anybody would type it.

use std::path::PathBuf;
use std::process::{Command, Output};

use cli::args::EvidenceKind;
use serde_json::Value;

use crate::case::Case;

/// `sesemi`: the binary that `SESEMI_EXE` names, else the developer's, which has the same command.
pub(crate) fn sesemi() -> Command {
    std::env::var_os("SESEMI_EXE").map_or_else(
        || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sesemi-dev"));
            command.arg("cli");
            command
        },
        Command::new,
    )
}

/// Runs `sesemi evidence …` with these arguments.
pub(crate) fn run(command: &str, args: &[String]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut process = sesemi();
    process
        .args(["evidence", command])
        .args(args)
        // No profile, and none is needed.
        .current_dir(folder.path())
        .env_remove("SESEMI_PROFILE");
    process.output().unwrap()
}

/// The arguments for a case, without any policy.
pub(crate) fn arguments(case: &Case) -> Vec<String> {
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    let mut args = vec![
        "--tee".to_owned(),
        case.kind.name().to_owned(),
        "--evidence".to_owned(),
        path(case.evidence_file()),
        "--at".to_owned(),
        case.at.to_string(),
    ];
    let files = match case.kind {
        EvidenceKind::Nvidia => &[("--ca", "chain.pem")][..],
        _ => &[
            ("--collateral", "collateral.json"),
            ("--vek", "vek.der"),
            ("--ca", "ca.pem"),
        ],
    };
    for (option, file) in files {
        let file = case.folder.join(file);
        if file.is_file() {
            args.extend([(*option).to_owned(), path(file)]);
        }
    }
    args
}

/// Exit code and JSON of `verify --json`.
pub(crate) fn verify(case: &Case, more: &[&str]) -> (i32, Value) {
    let mut args = arguments(case);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args.push("--json".to_owned());
    let out = run("verify", &args);
    let json = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&out.stderr);
        panic!("{}: {error}: {stderr}", case.name)
    });
    (out.status.code().unwrap(), json)
}
