//! The rules of the house that a machine can hold: arrows, budgets, names, documents.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// What `cargo metadata` says; from the lock file, without a network.
fn metadata() -> Value {
    let cargo = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
        ])
        .arg(concat!("x86_64", "-unknown-linux-gnu"))
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        cargo.status.success(),
        "{}",
        String::from_utf8_lossy(&cargo.stderr)
    );
    serde_json::from_slice(&cargo.stdout).unwrap()
}

/// Every arrow that may exist between our crates. A new one needs a decision record.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("crypto", &["protocol"]),
    ("attestation", &["crypto", "protocol"]),
    ("service", &[]),
    ("endorsements", &["attestation", "crypto", "service"]),
    ("transport", &["attestation", "crypto", "protocol"]),
    ("attesters", &["attestation", "crypto"]),
    ("kernels", &[]),
    ("inference", &["kernels", "protocol"]),
    (
        "keyservice",
        &[
            "attestation",
            "attesters",
            "crypto",
            "endorsements",
            "protocol",
            "service",
            "transport",
        ],
    ),
    (
        "semirt",
        &[
            "attestation",
            "attesters",
            "crypto",
            "endorsements",
            "inference",
            "protocol",
            "service",
            "transport",
        ],
    ),
    ("platform", &["protocol", "service"]),
    ("fnpacker", &["protocol", "service"]),
    ("sdk", &["attestation", "crypto", "protocol", "transport"]),
    (
        "cli",
        &[
            "attestation",
            "crypto",
            "inference",
            "protocol",
            "sdk",
            "transport",
        ],
    ),
    (
        "bench",
        &[
            "attestation",
            "crypto",
            "fnpacker",
            "inference",
            "protocol",
            "sdk",
            "service",
        ],
    ),
];

/// Libraries that can encrypt, decrypt, verify evidence or run a model.
const NOT_ON_THE_HOST: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "ring",
    "rustls",
    "rustls-webpki",
    "tokio-rustls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "boring",
    "aes",
    "aes-gcm",
    "chacha20poly1305",
    "sha2",
    "ed25519-dalek",
    "p256",
    "p384",
    "rsa",
    "rcgen",
    "x509-parser",
    "rten",
    "sesemi-kernels",
    "tract-onnx",
    "ort",
];

/// Workspace packages by the short name that `use` gives them, with their normal and build
/// dependencies, resolved for this platform.
struct Graph {
    names: BTreeMap<String, String>,
    ours: BTreeMap<String, String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

impl Graph {
    fn read() -> Self {
        let metadata = metadata();
        let names: BTreeMap<_, _> = list(&metadata["packages"])
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let ours = list(&metadata["workspace_members"])
            .map(|id| {
                (
                    names[&text(id)].trim_start_matches("sesemi-").to_owned(),
                    text(id),
                )
            })
            .collect();
        let edges = list(&metadata["resolve"]["nodes"]).map(|node| {
            let shipped = list(&node["deps"])
                .filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"] != "dev"))
                .map(|dep| text(&dep["pkg"]));
            (text(&node["id"]), shipped.collect())
        });
        Self {
            edges: edges.collect(),
            names,
            ours,
        }
    }

    fn closure(&self, from: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![self.ours[from].clone()];
        while let Some(id) = todo.pop() {
            for next in &self.edges[&id] {
                if seen.insert(next.clone()) {
                    todo.push(next.clone());
                }
            }
        }
        seen.iter().map(|id| self.names[id].clone()).collect()
    }
}

#[test]
fn arrows_between_our_crates_are_the_declared_ones() {
    let graph = Graph::read();
    for (name, allowed) in ARROWS {
        let direct = graph.edges[&graph.ours[*name]]
            .iter()
            .map(|id| &graph.names[id]);
        for target in direct.filter_map(|n| n.strip_prefix("sesemi-")) {
            assert!(
                allowed.contains(&target),
                "{name} must not depend on {target}"
            );
        }
    }
    for name in graph.ours.keys() {
        let known = ARROWS.iter().any(|(n, _)| n == name) || name == "testbed";
        assert!(
            known,
            "{name} is not in the table of arrows: write a decision record"
        );
        assert!(
            !graph.closure(name).contains("sesemi-testbed"),
            "{name} depends on testbed"
        );
    }
}

#[test]
fn the_host_links_no_crypto() {
    let graph = Graph::read();
    for name in ["platform", "fnpacker"] {
        let closure = graph.closure(name);
        for banned in NOT_ON_THE_HOST {
            assert!(!closure.contains(*banned), "{name} links {banned}");
        }
    }
    // The check bites: the trusted side does link what the host may not.
    assert!(graph.closure("semirt").contains("aws-lc-rs"));
}

#[test]
fn trusted_parts_know_no_host_and_no_client() {
    let graph = Graph::read();
    for name in ["keyservice", "semirt", "inference", "attesters"] {
        let closure = graph.closure(name);
        for banned in [
            "sesemi-platform",
            "sesemi-fnpacker",
            "sesemi-sdk",
            "sesemi-cli",
        ] {
            assert!(!closure.contains(banned), "{name} reaches {banned}");
        }
    }
}

#[test]
fn the_sans_io_crates_have_no_runtime() {
    let graph = Graph::read();
    for name in ["protocol", "crypto", "attestation", "inference", "kernels"] {
        for banned in ["tokio", "hyper", "axum", "reqwest"] {
            assert!(
                !graph.closure(name).contains(banned),
                "{name} links {banned}"
            );
        }
    }
}

/// Files that git tracks, or would: also those not yet added.
fn tracked() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "git ls-files failed");
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(PathBuf::from)
        .filter(|p| root().join(p).is_file())
        .collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn rust_files() -> impl Iterator<Item = (PathBuf, String)> {
    let rust = tracked()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"));
    rust.map(|p| (p.clone(), read(&p).unwrap()))
}

fn is_test(path: &Path) -> bool {
    path.components()
        .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "examples")
        || path.ends_with("tests.rs")
        || path.ends_with("testing.rs")
}

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    for (path, text) in rust_files() {
        let first = text
            .lines()
            .find(|l| !l.starts_with("#!"))
            .unwrap_or_default();
        assert!(
            first.starts_with("//! "),
            "{} does not open with a //! sentence",
            path.display()
        );
    }
}

#[test]
fn files_stay_under_five_hundred_lines() {
    for (path, text) in rust_files().filter(|(p, _)| !is_test(p)) {
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines without its tests",
            path.display()
        );
    }
}

#[test]
fn names_say_something() {
    let files = [
        "utils.rs",
        "util.rs",
        "types.rs",
        "common.rs",
        "helpers.rs",
        "misc.rs",
        "mod.rs",
    ];
    let suffixes = ["Manager", "Helper", "Util", "Utils", "Info", "Impl"];
    for (path, text) in rust_files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            !files.contains(&name),
            "{}: a file is named after what it holds",
            path.display()
        );
        for (i, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace().skip_while(|w| w.starts_with("pub"));
            let at = || format!("{}:{}", path.display(), i + 1);
            match (words.next(), words.next()) {
                (Some("struct" | "enum" | "trait" | "type"), Some(item)) => {
                    let item: String = item.chars().take_while(|c| c.is_alphanumeric()).collect();
                    let bad = suffixes.iter().find(|s| item.ends_with(*s));
                    assert!(bad.is_none(), "{}: {item} ends in {bad:?}", at());
                }
                (Some("fn"), Some(item)) => {
                    assert!(!item.starts_with("get_"), "{}: {item} needs no get_", at());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_simulated_tee_lives_in_testbed_only() {
    // Split, so that this file does not hold the marker itself.
    let marker = concat!("SESEMI-SIMULATED", "-TEE");
    let holds: Vec<_> = rust_files()
        .filter(|(_, text)| text.contains(marker))
        .map(|(p, _)| p)
        .collect();
    assert!(
        !holds.is_empty(),
        "the marker is gone, so nothing can look for it"
    );
    for path in holds {
        // Tests of `attestation` have a small TEE of their own, behind the `testing` feature.
        let tests_only =
            path.starts_with("testbed") || path.starts_with("shared/attestation/src/testing");
        assert!(
            tests_only,
            "{} holds the simulated TEE's marker",
            path.display()
        );
    }
}

#[test]
fn documents_exist_and_stay_short() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/glossary.md",
        "docs/protocol.md",
    ] {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
    let lines = |p: &Path| read(p).unwrap().lines().count();
    assert!(lines(Path::new("ARCHITECTURE.md")) <= 300);
    for path in tracked().iter().filter(|p| p.starts_with("docs/decisions")) {
        assert!(
            lines(path) <= 60,
            "{} is longer than a page",
            path.display()
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in tracked()
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = read(path).unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") || file.contains(' ') {
                continue;
            }
            let at = root().join(path).parent().unwrap().join(file);
            assert!(
                at.exists(),
                "{}: link to {target} leads nowhere",
                path.display()
            );
        }
    }
}

#[test]
fn every_configuration_file_in_config_is_toml() {
    for path in tracked().iter().filter(|p| p.starts_with("config")) {
        let parsed = read(path).unwrap().parse::<toml::Table>();
        assert!(parsed.is_ok(), "{}: {parsed:?}", path.display());
    }
}
