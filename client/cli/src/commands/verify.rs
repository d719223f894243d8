//! `sesemi verify …`.

use attestation::{Check, Scorecard, Status};
use crypto::IdentityKey;
use protocol::EnclaveId;
use sdk::keyring::KeyringError;
use sdk::keyservice::KeyserviceError;
use sdk::{EpochMemory, Keyservice, WallTime};
use serde_json::json;

use super::{CONTROL_DEADLINE, Context};
use crate::failure::{Exit, Failure};
use crate::report::{Report, fields, table};

/// Name of the check that the client adds to the appraisal's.
const NOT_ROLLED_BACK: &str = "state is not older than seen before";

pub(super) async fn keyservice(context: &Context<'_>) -> Result<Report, Failure> {
    let settings = context.profile.keyservice()?;
    let (address, pinned_enclave) = (settings.address.clone(), settings.enclave);
    let pinned = context.pinned()?;
    let retry = context.retry(CONTROL_DEADLINE);
    // Anyone may verify: without an identity a passing one is made, and nothing is remembered.
    let scratch;
    let (identity, epochs) = match context.profile.identity() {
        Ok(path) if path.exists() => {
            let (identity, home) = context.identity()?;
            (identity, EpochMemory::new(home.epochs()))
        }
        _ => {
            scratch = tempfile::tempdir().map_err(|error| {
                let advice = "make room in the folder for temporary files".to_owned();
                Failure::usage(&error, advice)
            })?;
            let identity = IdentityKey::generate().map_err(KeyringError::from)?;
            (
                identity,
                EpochMemory::new(scratch.path().join("epochs.json")),
            )
        }
    };
    let before = epochs.highest(&pinned_enclave)?;
    match Keyservice::connect(pinned, &identity, epochs, retry, WallTime::system()).await {
        Ok(mut keyservice) => {
            let status = keyservice.status().await?;
            let appraised = keyservice.appraised();
            let checks = appraised.map(|a| rows(a.scorecard())).unwrap_or_default();
            let tee = appraised.map(|a| a.tee().name()).unwrap_or_default();
            let epoch = EpochCheck {
                seen: before,
                got: Some(status.epoch),
                passed: true,
            };
            let head = [
                ("KeyService", format!("{address}, accepted")),
                ("enclave (E_K)", pinned_enclave.to_string()),
                ("TEE", tee.to_owned()),
                ("epoch", status.epoch.to_string()),
                ("version", status.version.clone()),
            ];
            let json = json!({
                "accepted": true, "address": address, "enclave": pinned_enclave, "tee": tee,
                "epoch": status.epoch, "version": status.version,
                "checks": checks, "rollback": epoch.json(),
            });
            Ok(Report::ok(
                format!("{}\n{}", fields(head), checks_text(&checks, &epoch)),
                json,
            ))
        }
        Err(error) => rejected(&address, &pinned_enclave, before, &error),
    }
}

/// The report of a refusal, where there is anything to show; else the failure itself.
fn rejected(
    address: &str,
    enclave: &EnclaveId,
    seen: u64,
    error: &KeyserviceError,
) -> Result<Report, Failure> {
    let failure = Failure::describe(error);
    let rolled_back = matches!(error, KeyserviceError::Epoch(_));
    if failure.exit != Exit::Denied || (error.scorecard().is_none() && !rolled_back) {
        return Err(failure);
    }
    let checks = error.scorecard().map(rows).unwrap_or_default();
    let epoch = EpochCheck {
        seen,
        got: None,
        passed: !rolled_back,
    };
    let head = fields([
        ("KeyService", format!("{address}, REJECTED")),
        ("pinned (E_K)", enclave.to_string()),
        ("why", failure.message.clone()),
        ("what to do", failure.advice.clone()),
    ]);
    let json = json!({
        "accepted": false, "address": address, "enclave": enclave,
        "checks": checks, "rollback": epoch.json(), "error": failure.json()["error"],
    });
    let text = format!("{head}\n{}", checks_text(&checks, &epoch));
    Ok(Report {
        text,
        json,
        exit: failure.exit,
    })
}

struct EpochCheck {
    seen: u64,
    got: Option<u64>,
    /// False only if it was the one that failed.
    passed: bool,
}

impl EpochCheck {
    fn status(&self) -> &'static str {
        match (self.passed, self.got) {
            (false, _) => "FAIL",
            (true, Some(_)) => "pass",
            (true, None) => "unchecked",
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "status": self.status().to_lowercase(), "seen": self.seen, "got": self.got })
    }
}

fn rows(scorecard: &Scorecard) -> Vec<Check> {
    scorecard.checks().to_vec()
}

fn checks_text(checks: &[Check], epoch: &EpochCheck) -> String {
    let appraisal = checks.iter().map(|check| {
        let detail = match check.status {
            Status::Fail => format!("expected {}, got {}", check.expected, check.got),
            _ => check.got.clone(),
        };
        [check.status.to_string(), check.name.to_string(), detail]
    });
    let got = epoch
        .got
        .map(|got| format!("epoch {got}, "))
        .unwrap_or_default();
    let last = [
        epoch.status().to_owned(),
        NOT_ROLLED_BACK.to_owned(),
        format!("{got}highest seen before {}", epoch.seen),
    ];
    table(["result", "check", "detail"], &[], appraisal.chain([last]))
}
