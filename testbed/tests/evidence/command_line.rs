//! What only the command has: forms of input, times, exit codes, E_S, and `explain`.

use std::io::Write as _;
use std::process::Stdio;

use attestation::{MeasuredConfig, enclave_id};
use cli::commands::evidence::{default_policy, reason, remedy};
use serde_json::Value;

use crate::binary::{arguments, run, sesemi, verify};
use crate::case::Case;
use crate::verdicts::VERDICTS;

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn hexadecimal_pem_and_stdin_are_the_same_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::load("snp/lunal-genoa-v5");
    let (_, binary) = verify(&case, &[]);
    let digits = folder.path().join("report.hex");
    std::fs::write(&digits, hex::encode_upper(&case.body)).unwrap();
    let mut args = arguments(&case);
    args[3] = path(&digits).to_owned();
    args.push("--json".to_owned());
    let out = run("verify", &args);
    let from_hex: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(from_hex, binary);

    args[3] = "-".to_owned();
    let mut child = sesemi()
        .args(["evidence", "verify"])
        .args(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&case.body).unwrap();
    let out = child.wait_with_output().unwrap();
    let from_stdin: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(from_stdin, binary);

    let case = Case::load("ratls/gramine-cert");
    let (_, der) = verify(&case, &[]);
    let mut args = arguments(&case);
    args[3] = path(&case.folder.join("cert.pem")).to_owned();
    args.push("--json".to_owned());
    let out = run("verify", &args);
    let from_pem: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(from_pem, der);
}

#[test]
fn report_data_is_padded_and_nonces_are_compared() {
    let status = |json: &Value, name: &str| {
        let checks = json["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        check["status"].as_str().unwrap().to_owned()
    };
    let hello = hex::encode("hello-attestation");
    for (name, option, value, check, code) in [
        (
            "snp/lunal-genoa-v5",
            "--report-data",
            hello.as_str(),
            "report-data",
            0,
        ),
        (
            "snp/lunal-genoa-v5",
            "--report-data",
            &hello[2..],
            "report-data",
            2,
        ),
        ("snp/lunal-genoa-v5", "--nonce", &hello, "nonce", 2),
        // Nitro's is not padded: 64 bytes of zero, not one.
        ("nitro/dstack-prod", "--report-data", "00", "report-data", 2),
        (
            "nitro/dstack-prod",
            "--report-data",
            &"00".repeat(64),
            "report-data",
            0,
        ),
        (
            "az-tdx/lunal-live",
            "--nonce",
            "6174746573746174696f6e2d746573742d66697874757265",
            "nonce",
            0,
        ),
        ("az-tdx/lunal-live", "--nonce", "61", "nonce", 2),
        (
            "nvidia/trustee-h100",
            "--nonce",
            "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb",
            "nonce",
            0,
        ),
        ("nvidia/trustee-h100", "--nonce", "93", "nonce", 2),
        (
            "nvidia/trustee-h100",
            "--report-data",
            "93",
            "report-data",
            2,
        ),
    ] {
        let (got, json) = verify(&Case::load(name), &[option, value]);
        assert_eq!(got, code, "{name} {option} {value}: {json:#}");
        let wanted = if code == 0 { "pass" } else { "fail" };
        assert_eq!(status(&json, check), wanted, "{name} {option} {value}");
    }
}

#[test]
fn a_status_or_a_policy_file_allows_what_it_names() {
    let case = Case::load("sgx/phala-00a067-confswhard");
    for name in [
        "ConfigurationAndSWHardeningNeeded",
        "configuration-and-sw-hardening-needed",
    ] {
        let (code, json) = verify(&case, &["--allow-tcb-status", name]);
        assert_eq!((code, &json["verdict"]), (0, &Value::from("accept")));
    }
    assert_eq!(verify(&case, &["--allow-tcb-status", "OutOfDate"]).0, 2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    // A policy replaces the default: SW hardening is no longer accepted, unless it says so.
    let text = "version = 1\naccepted = [\"sgx\"]\nenclaves = \"any\"\n";
    std::fs::write(&file, text).unwrap();
    let swhard = Case::load("sgx/automata-00606a-swhard");
    assert_eq!(verify(&swhard, &["--policy", path(&file)]).0, 2);
    let more = [
        "--policy",
        path(&file),
        "--allow-tcb-status",
        "SWHardeningNeeded",
    ];
    assert_eq!(verify(&swhard, &more).0, 0);
    std::fs::write(&file, format!("{text}allow_debug = true\n")).unwrap();
    let debug = Case::load("sgx/trustee-occlum-debug-outofdate");
    let more = ["--policy", path(&file), "--allow-tcb-status", "OutOfDate"];
    assert_eq!(verify(&debug, &more).0, 0);
}

#[test]
fn with_a_measured_configuration_accepted_evidence_has_its_enclave_id() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = root.join("config/semirt.toml").canonicalize().unwrap();
    let more = ["--measured-config", path(&config)];
    let semirt = semirt::config::Config::load(&config).unwrap();
    let config = MeasuredConfig::semirt(semirt.measured(), &semirt.policy()).unwrap();
    let case = Case::load("tdx/phala-b0c06f-v5-td15ex");
    let (code, json) = verify(&case, &more);
    let outcome = case.judge(&default_policy(case.kind.tees()));
    let claims = outcome.claims.unwrap();
    let expected = enclave_id(claims.measurements(), &config.hash());
    assert_eq!((code, &json["e_s"]), (0, &expected.to_string().into()));
    // Rejected evidence has none, although it is genuine.
    let (code, json) = verify(&Case::load("sgx/phala-00a067-confswhard"), &more);
    assert_eq!((code, &json["e_s"]), (2, &Value::Null));
}

#[test]
fn wrong_usage_is_neither_accepted_nor_rejected() {
    let case = Case::load("snp/lunal-genoa-v5");
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    std::fs::write(&large, vec![7; 200_000]).unwrap();
    for more in [
        &["--nonce", "xyz"][..],
        &["--report-data", "0"],
        &["--report-data", &"00".repeat(65)],
        &["--allow-tcb-status", "Revoked"],
        &["--at", "-1"],
        &["--policy", path(&large)],
        &["--measured-config", path(&case.folder.join("meta.json"))],
        &["--unknown"],
        &["--collateral", "x", "--policy", "/does/not/exist"],
    ] {
        let out = run("verify", &[arguments(&case), strings(more)].concat());
        assert_eq!(out.status.code(), Some(1), "{more:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{more:?}");
    }
    for args in [
        &[][..],
        &["--tee", "snp"],
        &["--tee", "sgx", "--evidence", path(&large)],
        &["--tee", "sgx", "--evidence", "/does/not/exist"],
        &["--tee", "sgx", "--evidence", path(folder.path())],
    ] {
        let out = run("verify", &strings(args));
        assert_eq!(out.status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn no_time_makes_it_panic_or_accept_what_is_not_valid_then() {
    for verdict in VERDICTS {
        for at in [0, 1, i64::MAX.unsigned_abs(), u64::MAX / 1000, u64::MAX] {
            let mut case = Case::load(verdict.case);
            case.at = at;
            let policy = default_policy(case.kind.tees());
            let outcome = case.judge(&policy);
            assert!(!outcome.accepted, "{} at {at}", verdict.case);
            let (code, _) = verify(&case, &[]);
            assert_eq!(code, 2, "{} at {at}", verdict.case);
        }
    }
}

#[test]
fn every_verdict_is_explained_with_who_can_change_it_and_how() {
    for verdict in VERDICTS {
        let case = Case::load(verdict.case);
        let name = verdict.case;
        let out = run("explain", &arguments(&case));
        let code = if verdict.fails.is_empty() { 0 } else { 2 };
        assert_eq!(out.status.code(), Some(code), "{name}");
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.starts_with("This is "), "{name}: {text}");
        assert!(
            !text.contains('\u{1b}'),
            "no colour where there is no terminal"
        );
        let outcome = case.judge(&default_policy(case.kind.tees()));
        for check in outcome.failures() {
            let reason = reason(check.name);
            for part in [
                &check.name.id(),
                reason.why,
                reason.by.name(),
                reason.change,
            ] {
                assert!(text.contains(part), "{name}: {part}\n{text}");
            }
            let Some(remedy) = remedy(check, &outcome) else {
                assert!(text.contains("no policy accepts"), "{name}: {text}");
                continue;
            };
            for line in remedy.toml() {
                assert!(text.contains(&line), "{name}: {line}\n{text}");
            }
            assert!(text.contains(remedy.risk), "{name}: {text}");
        }
        assert_eq!(text.contains("1. "), code == 2, "{name}: {text}");
        if code == 0 {
            assert!(text.contains("It is genuine"), "{name}: {text}");
        }
    }
}
