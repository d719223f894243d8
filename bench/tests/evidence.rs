//! `bench evidence` measures every kind of TEE, and its figures hang together.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::process::Command;

use serde_json::Value;

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap()
}

#[test]
fn every_tee_is_measured_against_its_floor() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["evidence", "--rounds", "3", "--json"])
        .arg(file.path())
        .env_remove("SESEMI_SHARED")
        .output()
        .unwrap();
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{table}");
    let json: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    let cases = json["cases"].as_array().unwrap();
    for tee in ["sgx", "tdx", "snp", "nitro", "az-snp", "az-tdx", "nvidia"] {
        assert!(cases.iter().any(|case| case["tee"] == tee), "{tee}");
    }
    for case in cases {
        let name = case["name"].as_str().unwrap();
        assert!(table.contains(name), "{name} is not in the table");
        assert_eq!(case["captured"], false, "{name}");
        let cost = &case["cost"];
        assert!(number(cost, "median_ms") > 0.0, "{name}");
        assert!(
            number(cost, "p99_ms") >= number(cost, "median_ms"),
            "{name}"
        );
        let floor = number(case, "floor_ms");
        assert!(floor > 0.0, "{name}");
        let ratio = number(cost, "median_ms") / floor;
        assert!((ratio - number(case, "ratio")).abs() < 1e-9, "{name}");
    }
}
