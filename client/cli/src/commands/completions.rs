//! `sesemi completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Arguments;
use crate::report::Report;

pub(super) fn run(shell: Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "sesemi", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let json = json!({ "shell": shell.to_string(), "script": script });
    Report::ok(script, json)
}
