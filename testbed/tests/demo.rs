//! `cargo demo`, as a test: every request right, every path seen, every refusal refused, no leak.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_demo_does_what_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let out = Command::new(env!("CARGO_BIN_EXE_sesemi-dev"))
        // As `cargo demo -- --json FILE` arrives.
        .args(["demo", "--", "--json"])
        .arg(&json)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{stdout}\n{stderr}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["leaks_found"], 0);
    let requests = report["requests"].as_array().unwrap();
    for path in ["cold", "warm", "hot"] {
        assert!(
            requests.iter().any(|r| r["path"] == path),
            "no {path} request"
        );
    }
    for request in requests {
        assert_eq!(request["ok"], true, "{request}");
        assert!(request["answer"]["label"].is_string(), "{request}");
        assert!(
            request["phases_us"]["run"].as_u64().unwrap() > 0,
            "{request}"
        );
    }
    let codes: Vec<_> = report["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["code"])
        .collect();
    let expected = [
        "not_granted",
        "enclave_not_allowed",
        "cannot_open",
        "artifact_mismatch",
        "response_mismatch",
        "replayed",
        "invalid_tensor",
        "not_attested",
    ];
    assert_eq!(codes, expected);
    // It cleans up: only the report is left.
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
