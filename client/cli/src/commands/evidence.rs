//! `sesemi evidence …`: evidence from a file, judged with nothing but files and built-in roots.

mod explain;
mod files;
mod outcome;

use std::time::Duration;

use attestation::tee::ccc::examine_certificate;
use attestation::tee::{azure, nvidia};
use attestation::{
    Allowed, AppraisalPolicy, CheckName, ConfigHash, Endorsements, Evidence, Expected,
    RelyingParty, Scorecard, TcbStatus, Tee,
};
use sdk::WallTime;
use serde_json::json;

use crate::args::{EvidenceArgs, EvidenceCommand, EvidenceKind, Hex};
use crate::failure::{Exit, Failure};
use crate::report::{Report, fields, table, utc};
pub use explain::{Line, Party, Reason, Remedy, reason, remedy};
pub use files::FileError;
pub use outcome::Outcome;

/// Rejected evidence. Shares its number with [`Exit::Caller`]: what was named is not acceptable.
const REJECTED: Exit = Exit::Caller;
/// Most characters of a value in the table; `--json` has all of them.
const SHOWN_MAX: usize = 72;
/// Report data of SGX, TDX and SEV-SNP, in bytes.
const REPORT_DATA: usize = 64;

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::usage(&error, error.advice())
    }
}

pub(super) fn run(command: &EvidenceCommand) -> Result<Report, Failure> {
    let (EvidenceCommand::Verify(args) | EvidenceCommand::Explain(args)) = command;
    let now = args
        .at
        .map_or_else(|| WallTime::system().now(), Duration::from_secs);
    let outcome = examine(args, now)?;
    let (text, mut json) = (verify_text(args, &outcome, now), outcome.json());
    let text = match command {
        EvidenceCommand::Verify(_) => text,
        EvidenceCommand::Explain(_) => {
            json["explanation"] = explain::json(&outcome);
            explain::text(args.tee, &outcome, now)
        }
    };
    let notes = notes(args);
    if !notes.is_empty() {
        json["notes"] = json!(notes);
    }
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(Report {
        text: text + &notes,
        json,
        exit: if outcome.accepted { Exit::Ok } else { REJECTED },
    })
}

/// Without `--policy`: strict, but for any measurement, and platforms that software hardens.
#[must_use]
pub fn default_policy(tees: &[Tee]) -> AppraisalPolicy {
    let mut policy = AppraisalPolicy::strict(tees.to_vec(), Allowed::Any);
    policy.accepted_tcb.push(TcbStatus::SwHardeningNeeded);
    policy
}

fn policy(args: &EvidenceArgs) -> Result<AppraisalPolicy, FileError> {
    let mut policy = match &args.policy {
        Some(path) => files::policy(path)?,
        None => default_policy(args.tee.tees()),
    };
    for status in &args.allow_tcb_status {
        if !policy.accepted_tcb.contains(status) {
            policy.accepted_tcb.push(*status);
        }
    }
    Ok(policy)
}

fn endorsements(args: &EvidenceArgs) -> Result<Endorsements, FileError> {
    match args.tee {
        EvidenceKind::Sgx | EvidenceKind::Tdx | EvidenceKind::AzTdx | EvidenceKind::Ratls => {
            let collateral = args.collateral.as_deref().map(files::endorsement);
            Ok(match collateral.transpose()? {
                Some(collateral) => Endorsements::Dcap { collateral },
                None => Endorsements::None,
            })
        }
        EvidenceKind::Snp | EvidenceKind::AzSnp => {
            let vek = args.vek.as_deref().map(files::certificate).transpose()?;
            let chain = args.ca.as_deref().map(files::certificates).transpose()?;
            Ok(match (vek, chain) {
                (None, None) => Endorsements::None,
                (vek, chain) => Endorsements::Snp {
                    vek: vek.unwrap_or_default(),
                    chain: chain.unwrap_or_default(),
                },
            })
        }
        EvidenceKind::Nitro | EvidenceKind::Nvidia => Ok(Endorsements::None),
    }
}

fn expected(args: &EvidenceArgs) -> Result<Expected, FileError> {
    let report_data = args.report_data.as_ref();
    let report_data = report_data.map(|Hex(bytes)| match args.tee {
        EvidenceKind::Nitro | EvidenceKind::Nvidia => Ok(bytes.clone()),
        _ if bytes.len() > REPORT_DATA => Err(FileError::ReportData {
            got: bytes.len(),
            max: REPORT_DATA,
        }),
        _ => {
            let mut padded = bytes.clone();
            padded.resize(REPORT_DATA, 0);
            Ok(padded)
        }
    });
    Ok(Expected {
        report_data: report_data.transpose()?,
        nonce: args.nonce.as_ref().map(|Hex(bytes)| bytes.clone()),
    })
}

fn examine(args: &EvidenceArgs, now: Duration) -> Result<Outcome, FileError> {
    let policy = policy(args)?;
    let expected = expected(args)?;
    let config = args.measured_config.as_deref();
    let config = config.map(files::measured_config).transpose()?;
    let exhibit = exhibit(args)?;
    Ok(judge(exhibit, policy, &expected, config.as_ref(), now))
}

fn exhibit(args: &EvidenceArgs) -> Result<Exhibit, FileError> {
    let mut endorsements = endorsements(args)?;
    let body = match args.tee {
        EvidenceKind::Ratls => files::certificate(&args.evidence)?,
        _ => files::evidence(&args.evidence)?,
    };
    if args.tee == EvidenceKind::AzSnp
        && args.vek.is_none()
        && let Some(enclosed) = azure::endorsements_in(&body)
        && let Endorsements::Snp { vek, .. } = &mut endorsements
    {
        *vek = enclosed;
    }
    let device_chain = match (args.tee, &args.ca) {
        (EvidenceKind::Nvidia, Some(path)) => files::endorsement(path)?,
        _ => Vec::new(),
    };
    Ok(Exhibit {
        kind: args.tee,
        body,
        endorsements,
        device_chain,
    })
}

/// Evidence and what came with it.
#[derive(Debug, Clone)]
pub struct Exhibit {
    pub kind: EvidenceKind,
    pub body: Vec<u8>,
    pub endorsements: Endorsements,
    /// NVIDIA: the device's certificates, leaf first, PEM.
    pub device_chain: Vec<u8>,
}

/// Judges evidence, whatever it is, against a policy and as of a time.
#[must_use]
pub fn judge(
    exhibit: Exhibit,
    policy: AppraisalPolicy,
    expected: &Expected,
    config: Option<&ConfigHash>,
    now: Duration,
) -> Outcome {
    let Exhibit {
        kind,
        body,
        endorsements,
        device_chain,
    } = exhibit;
    let relying = RelyingParty {
        verifiers: attestation::tee::real_verifiers(),
        policy,
    };
    let tee = match kind {
        EvidenceKind::Sgx => Tee::Sgx,
        EvidenceKind::Tdx => Tee::Tdx,
        EvidenceKind::Snp => Tee::Snp,
        EvidenceKind::Nitro => Tee::Nitro,
        EvidenceKind::AzSnp => Tee::AzSnp,
        EvidenceKind::AzTdx => Tee::AzTdx,
        EvidenceKind::Ratls => {
            let found = examine_certificate(&relying, &body, &endorsements, expected, now);
            return Outcome::of(kind, found, relying.policy);
        }
        EvidenceKind::Nvidia => {
            let card = judge_gpu(&body, &device_chain, expected, now);
            return Outcome::of_gpu(card, relying.policy);
        }
    };
    let evidence = Evidence { tee, body };
    let found = attestation::examine(&relying, &evidence, &endorsements, expected, config, now);
    Outcome::of(kind, found, relying.policy)
}

/// A GPU is no TEE of a policy: its report is shown to be genuine, and that is all.
fn judge_gpu(body: &[u8], chain: &[u8], expected: &Expected, now: Duration) -> Scorecard {
    let mut card = Scorecard::new(&[
        CheckName::EvidenceFormat,
        CheckName::ReportData,
        CheckName::Nonce,
        CheckName::GpuMeasurements,
    ]);
    let nonce = expected.nonce.as_deref();
    let genuine = nvidia::examine(body, chain, nonce, now, &mut card);
    let ok = genuine.is_ok();
    let got = genuine.map_or_else(
        |failed| format!("failed at \"{}\"", failed.check()),
        |_| "genuine".to_owned(),
    );
    let wanted = "a report signed by a device of the vendor";
    card.record(CheckName::EvidenceGenuine, ok, wanted, got);
    if let Some(wanted) = &expected.report_data {
        let got = "GPU reports have no report data: use --nonce";
        card.record(CheckName::ReportData, false, hex::encode(wanted), got);
    }
    card
}

/// Options that this kind of evidence has no use for: nobody should believe that they counted.
fn notes(args: &EvidenceArgs) -> Vec<String> {
    use EvidenceKind as Kind;
    let dcap = matches!(args.tee, Kind::Sgx | Kind::Tdx | Kind::AzTdx | Kind::Ratls);
    let snp = matches!(args.tee, Kind::Snp | Kind::AzSnp);
    let name = args.tee.name();
    let mut notes = Vec::new();
    if args.collateral.is_some() && !dcap {
        notes.push(format!("--collateral is not used for {name}"));
    }
    if args.vek.is_some() && !snp {
        notes.push(format!("--vek is not used for {name}"));
    }
    if args.ca.is_some() && !snp && args.tee != Kind::Nvidia {
        let roots = "the vendor's root is built in";
        notes.push(format!("--ca is not used for {name}: {roots}"));
    }
    let judged = [
        ("--policy", args.policy.is_some()),
        ("--allow-tcb-status", !args.allow_tcb_status.is_empty()),
        ("--measured-config", args.measured_config.is_some()),
    ];
    for (option, given) in judged {
        if given && args.tee == Kind::Nvidia {
            notes.push(format!(
                "{option} is not used for {name}: no policy is about GPUs"
            ));
        }
    }
    notes
}

fn verify_text(args: &EvidenceArgs, outcome: &Outcome, now: Duration) -> String {
    let head = fields(head(args.tee, outcome, now));
    let checks = outcome.checks().iter().map(|check| {
        [
            check.name.id(),
            check.status.to_string(),
            shown(&check.expected),
            shown(&check.got),
        ]
    });
    let checks = table(["check", "status", "expected", "got"], &[], checks);
    format!("{head}\n{checks}")
}

fn head(kind: EvidenceKind, outcome: &Outcome, now: Duration) -> Vec<(&'static str, String)> {
    let verdict = match outcome.first_failure() {
        None if outcome.accepted => "ACCEPTED".to_owned(),
        Some(check) => format!("REJECTED at \"{}\" ({})", check.name, check.name.id()),
        None => "REJECTED".to_owned(),
    };
    let unknown = || "cannot be read".to_owned();
    let mut head = vec![
        ("evidence", kind.name().to_owned()),
        ("verdict", verdict),
        ("as of", time(now.as_secs())),
        (
            "measurement",
            outcome.measurement.clone().unwrap_or_else(unknown),
        ),
    ];
    if let Some(enclave) = &outcome.enclave
        && outcome.accepted
    {
        head.push(("enclave (E_S)", enclave.to_string()));
    }
    head
}

/// A value short enough for a line.
fn shown(text: &str) -> String {
    let line: String = text.chars().take(SHOWN_MAX).collect();
    if line.len() < text.len() {
        format!("{line}..")
    } else {
        line
    }
}

/// `2025-06-27 04:53:20 UTC (1751000000)`: as people and as `--at` write it.
fn time(seconds: u64) -> String {
    format!("{} UTC ({seconds})", utc(seconds))
}

#[cfg(test)]
mod tests;
