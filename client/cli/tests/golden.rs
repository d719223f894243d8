//! Golden texts: the help of every command, and what bad input gets, word for word.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sesemi-cli --test golden` writes them anew.
#![expect(
    clippy::disallowed_methods,
    reason = "tests read UPDATE_GOLDEN from the environment"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests report by panic")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attestation::{CheckName, VerifierSet};
use clap::{CommandFactory as _, Parser as _};
use cli::args::Arguments;

/// Compares with `tests/golden/NAME`, or writes it.
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs from its golden; UPDATE_GOLDEN=1 writes it anew\n--- golden\n{golden}\n--- now\n{text}"
    );
}

#[test]
fn the_help_of_every_command() {
    fn walk(command: &clap::Command, path: &str, text: &mut String) {
        let help = command.clone().term_width(100).render_long_help();
        write!(text, "$ {path} --help\n{help}\n\n").unwrap();
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            walk(sub, &format!("{path} {}", sub.get_name()), text);
        }
    }
    let mut command = Arguments::command();
    command.build();
    let mut text = String::new();
    walk(&command, "sesemi", &mut text);
    // Trailing spaces come from clap; they would only be noise here.
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    check("help.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn every_command_has_an_example() {
    fn walk(command: &clap::Command) {
        let help = command.clone().render_long_help().to_string();
        assert!(
            help.contains("Examples:\n  sesemi "),
            "{}",
            command.get_name()
        );
        command
            .get_subcommands()
            .filter(|s| s.get_name() != "help")
            .for_each(walk);
    }
    walk(&Arguments::command());
}

/// The command lines of a text: those that begin with `sesemi`, continued over `\\`.
fn command_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("sesemi ") || line.starts_with("sesemi-owner "))
        .map(|line| {
            line.split(" | ")
                .next()
                .unwrap()
                .split(" > ")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

/// Every example that people may paste is a command line that the parser takes.
#[test]
fn the_examples_of_help_and_of_the_walk_through_parse() {
    fn walk(command: &clap::Command, lines: &mut Vec<String>) {
        let texts = [command.get_after_help(), command.get_after_long_help()];
        texts
            .into_iter()
            .flatten()
            .for_each(|t| lines.extend(command_lines(&t.to_string())));
        command.get_subcommands().for_each(|sub| walk(sub, lines));
    }
    let mut lines = Vec::new();
    walk(&Arguments::command(), &mut lines);
    assert!(lines.len() > 40, "{lines:#?}");
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let doc = command_lines(&fs::read_to_string(doc).unwrap());
    assert!(doc.len() > 12, "{doc:#?}");
    for line in lines.iter().chain(&doc) {
        let line = line
            .replace("64-HEX-DIGITS", &"1".repeat(64))
            .replace("96-HEX-DIGITS", &"1".repeat(96));
        let parsed = Arguments::try_parse_from(line.split_whitespace());
        assert!(parsed.is_ok(), "{line}\n{}", parsed.unwrap_err());
    }
}

#[test]
fn no_secret_is_an_argument() {
    fn walk(command: &clap::Command) {
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            for word in ["secret", "password", "token", "model_key", "request_key"] {
                assert!(!name.contains(word), "{} --{name}", command.get_name());
            }
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Arguments::command());
}

/// A folder with a profile, an identity and broken files.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let desk = Self { dir };
        let zeros = "0".repeat(96);
        // Port 1 refuses at once; nothing of this test reaches a network.
        desk.write(
            "profile.toml",
            &format!(
                "identity = \"alice.pem\"\n[keyservice]\naddress = \"127.0.0.1:1\"\n\
                 enclave = \"{zeros}\"\naccepted = [\"sgx\"]\n[inference]\n\
                 url = \"http://127.0.0.1:1\"\nenclave = \"{zeros}\"\n[store]\n\
                 url = \"file:///nowhere/at/all\"\n[principals]\nhospital = \"{}\"\n",
                "1".repeat(64)
            ),
        );
        desk.write("exposed.pem", "x");
        fs::set_permissions(desk.path("exposed.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        desk.write("broken.pem", "-----BEGIN PRIVATE KEY-----\n");
        fs::set_permissions(desk.path("broken.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        desk.write("typo.toml", "[keyservice]\nadress = \"x\"\n");
        desk.write("not.json", "{");
        desk.write(
            "short.json",
            r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2]}]}"#,
        );
        desk.write(
            "dtype.json",
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[256]}]}"#,
        );
        desk.write(
            "good.json",
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1]}]}"#,
        );
        desk.write("picture.png", "not a picture");
        desk.write("array.npy", "not an array");
        desk.write("notes.txt", "x");
        desk.write("model.onnx", "not a model");
        desk.write("model.package", "not a package");
        desk.write("large.bin", &"x".repeat(200_000));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs a command line; `@name` is a file on the desk. Gives exit code, stdout and stderr with
    /// the desk's path replaced.
    fn run(&self, line: &str) -> (u8, String, String) {
        let mut arguments = vec![OsString::from("sesemi")];
        let root = self.dir.path().display().to_string();
        arguments.extend(
            line.split_whitespace()
                .map(|word| word.replace("@65", &"00".repeat(65)))
                .map(|word| word.replace('@', &format!("{root}/")).into()),
        );
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let none = |_: &cli::Profile| Ok(VerifierSet::new(Vec::new()));
        let code = runtime.block_on(cli::run_to(arguments, &none, &mut stdout, &mut stderr));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&root, "DESK");
        (code, text(stdout), text(stderr))
    }
}

/// What bad input gets. Every line ends in an error whose class is the first column.
const BAD: &[(u8, &str)] = &[
    (1, "infer"),
    (1, "infer Digits --input @good.json"),
    (1, "infer digits --input @good.json --count 0"),
    (1, "--deadline 5 status"),
    (1, "frobnicate"),
    (1, "identity show --profile @missing.toml"),
    (1, "identity show --profile @typo.toml"),
    (1, "grant add digits --user nobody --profile @profile.toml"),
    (
        1,
        "grant add digits --user hospital --enclave prod --profile @profile.toml",
    ),
    (2, "identity show --profile @profile.toml"),
    (2, "identity show --identity @exposed.pem"),
    (2, "identity show --identity @broken.pem"),
    (2, "identity new --out @exposed.pem"),
    (2, "infer digits --input @not.json --profile @profile.toml"),
    (
        2,
        "infer digits --input @short.json --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input @dtype.json --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input @missing.json --profile @profile.toml",
    ),
    (2, "infer digits --input @notes.txt --profile @profile.toml"),
    (
        2,
        "infer digits --input @picture.png --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input @picture.png --preprocess digits-8x8 --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input x=@array.npy --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input x=@good.json --profile @profile.toml",
    ),
    (
        2,
        "infer digits --input @good.json --input @good.json --profile @profile.toml",
    ),
    (1, "evidence verify --tee sgx"),
    (1, "evidence verify --tee sev --evidence @notes.txt"),
    (1, "evidence verify --tee sgx --evidence @missing.bin"),
    (1, "evidence verify --tee sgx --evidence @large.bin"),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --nonce 0g",
    ),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --report-data 123",
    ),
    (
        1,
        "evidence verify --tee snp --evidence @notes.txt --report-data @65",
    ),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --allow-tcb-status Revoked",
    ),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --at yesterday",
    ),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --policy @typo.toml",
    ),
    (
        1,
        "evidence verify --tee sgx --evidence @notes.txt --measured-config @typo.toml",
    ),
    (
        1,
        "evidence explain --tee snp --evidence @notes.txt --ca @broken.pem",
    ),
    (2, "model pack @model.onnx"),
    (2, "model pack @missing.onnx --allow-unchecked"),
    (2, "model inspect @model.package"),
    (2, "model inspect @missing.package"),
];

#[test]
fn what_bad_input_gets() {
    let desk = Desk::new();
    let mut text = String::new();
    for (expected, line) in BAD {
        let (code, stdout, stderr) = desk.run(line);
        assert_eq!(code, *expected, "{line}\n{stderr}");
        assert_eq!(stdout, "", "{line}: an error says nothing on stdout");
        write!(text, "$ sesemi {line}\n{stderr}[exit {code}]\n\n").unwrap();
    }
    check("errors.txt", &text);
}

/// Its text is the engine's, so it is not in the golden.
#[test]
fn what_is_not_a_model_is_the_callers_fault() {
    let desk = Desk::new();
    let (code, stdout, stderr) = desk.run("model pack @model.onnx --allow-unchecked");
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("cannot pack DESK/model.onnx"), "{stderr}");
    assert!(stderr.contains("invalid_model"), "{stderr}");
}

#[test]
fn errors_in_json_have_the_same_exit_code_and_parse() {
    let desk = Desk::new();
    for (expected, line) in BAD {
        let (code, stdout, stderr) = desk.run(&format!("{line} --json"));
        assert_eq!((code, stdout.as_str()), (*expected, ""), "{line}");
        let error: serde_json::Value = serde_json::from_str(&stderr).expect(&stderr);
        assert_eq!(error["error"]["exit"], *expected, "{line}");
        for field in ["code", "fault", "message", "advice"] {
            assert!(
                error["error"][field]
                    .as_str()
                    .is_some_and(|t| !t.is_empty()),
                "{line}: {field}"
            );
        }
    }
}

#[test]
fn with_an_identity_what_is_unreachable_is_the_services_fault() {
    let desk = Desk::new();
    assert_eq!(desk.run("identity new --profile @profile.toml").0, 0);
    let mode = fs::metadata(desk.path("alice.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for line in [
        "verify keyservice --deadline 50ms --profile @profile.toml",
        "grant ls digits --deadline 50ms --profile @profile.toml",
        "audit --deadline 50ms --profile @profile.toml",
    ] {
        let (code, _, stderr) = desk.run(line);
        assert_eq!(code, 4, "{line}: {stderr}");
        assert!(stderr.contains("keyservice_unavailable"), "{stderr}");
        assert!(stderr.contains("a retry may succeed"), "{stderr}");
    }
    let (code, stdout, _) = desk.run("status --deadline 50ms --profile @profile.toml");
    assert_eq!(code, 4, "{stdout}");
    assert!(stdout.contains("identity    ok"), "{stdout}");
    let (code, _, stderr) = desk.run("infer digits --input @good.json --profile @profile.toml");
    assert_eq!(code, 2, "no request key yet: {stderr}");
    assert!(stderr.contains("sesemi key register digits"), "{stderr}");
}

#[test]
fn help_and_version_go_to_stdout_and_completions_exist_for_every_shell() {
    let desk = Desk::new();
    for line in ["--help", "--version", "infer --help"] {
        let (code, stdout, stderr) = desk.run(line);
        assert!(
            code == 0 && stderr.is_empty() && stdout.len() > 10,
            "{line}"
        );
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = desk.run(&format!("completions {shell}"));
        assert!(code == 0 && stdout.contains("keyservice"), "{shell}");
    }
}

/// What anybody could have written is rejected, and not a fault of the command line: for each
/// kind, with and without `--json`, with the same exit code.
#[test]
fn malformed_evidence_is_rejected_and_says_at_which_check() {
    let desk = Desk::new();
    desk.write("empty", "");
    for tee in [
        "sgx", "tdx", "snp", "nitro", "az-snp", "az-tdx", "ratls", "nvidia",
    ] {
        for file in ["@notes.txt", "@empty", "@short.json"] {
            for command in ["verify", "explain"] {
                let line = format!("evidence {command} --tee {tee} --evidence {file}");
                let (code, text, stderr) = desk.run(&line);
                assert_eq!((code, stderr.as_str()), (2, ""), "{line}: {text}");
                assert!(text.contains("evidence-format"), "{line}: {text}");
                let (code, stdout, _) = desk.run(&format!("{line} --json"));
                assert_eq!(code, 2, "{line}");
                let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
                assert_eq!(json["verdict"], "reject");
                assert_eq!(json["tee"], tee);
                assert!(json["measurement"].is_null() && json["e_s"].is_null());
                let checks = json["checks"].as_array().unwrap();
                let failed = checks.iter().find(|check| check["status"] == "fail");
                assert_eq!(failed.unwrap()["name"], "evidence-format", "{line}");
            }
        }
    }
}

/// Evidence is judged from files alone: a wrong profile is nobody's business here.
#[test]
fn evidence_needs_no_profile() {
    let desk = Desk::new();
    let (code, _, stderr) =
        desk.run("evidence verify --tee snp --evidence @notes.txt --profile @typo.toml");
    assert_eq!((code, stderr.as_str()), (2, ""));
}

#[test]
fn the_explanation_of_every_check() {
    let mut text = String::new();
    for name in CheckName::ALL {
        let reason = cli::commands::evidence::reason(*name);
        write!(
            text,
            "{} ({name})\n  why:     {}\n  change:  {}: {}\n\n",
            name.id(),
            reason.why,
            reason.by.name(),
            reason.change
        )
        .unwrap();
    }
    check("checks.txt", &text);
}
