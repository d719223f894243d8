//! The lines of a policy that would let a failed check pass, and what is risked with them.

use attestation::facts::SnpTcb;
use attestation::measurements::{SnpMeasurements, TdxMeasurements};
use attestation::policy::Hex;
use attestation::{Allowed, Check, CheckName, Claims, Facts, Measurements, TcbStatus};

use super::super::Outcome;

/// One setting of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Empty for the settings above all tables.
    pub table: &'static str,
    pub key: &'static str,
    /// In TOML.
    pub value: String,
}

/// How a policy would accept what failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub lines: Vec<Line>,
    pub risk: &'static str,
}

impl Remedy {
    /// The settings as a policy file has them.
    #[must_use]
    pub fn toml(&self) -> Vec<String> {
        let mut table = "";
        let mut text = Vec::new();
        for line in &self.lines {
            if line.table != table {
                table = line.table;
                text.push(format!("[{table}]"));
            }
            text.push(format!("{} = {}", line.key, line.value));
        }
        text
    }
}

fn line(table: &'static str, key: &'static str, value: impl Into<String>) -> Vec<Line> {
    let value = value.into();
    vec![Line { table, key, value }]
}

fn list(values: impl IntoIterator<Item = String>) -> String {
    let values: Vec<_> = values.into_iter().collect();
    format!("[{}]", values.join(", "))
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("\"{value}\"")
}

/// `None` if no policy can accept it.
#[must_use]
pub fn remedy(check: &Check, outcome: &Outcome) -> Option<Remedy> {
    if check.name == CheckName::TeeAccepted {
        return tee_accepted(outcome);
    }
    let claims = outcome.claims.as_ref()?;
    let (lines, risk) = match check.name {
        CheckName::NotDebug => (
            line("", "allow_debug", "true"),
            "the host reads everything: keys, models and requests",
        ),
        CheckName::TcbStatus => (
            tcb_status(claims.tcb, outcome)?,
            "somebody with a published attack on this platform breaks into the enclave",
        ),
        CheckName::SecurityVersion => (
            line("", "minimum_svn", claims.svn.to_string()),
            "faults of this version are used that later versions do not have",
        ),
        CheckName::Enclave => (
            enclave(outcome)?,
            "this enclave does something else than you believe",
        ),
        CheckName::Measurement => (
            measurement(claims)?,
            "this code does something else than you believe: review it first",
        ),
        CheckName::Freshness => (
            line("nitro", "max_age_s", u64::from(u32::MAX).to_string()),
            "the evidence is a copy, and the enclave that it speaks of is gone",
        ),
        _ => return platform(check.name, claims, outcome),
    };
    Some(Remedy { lines, risk })
}

fn platform(name: CheckName, claims: &Claims, outcome: &Outcome) -> Option<Remedy> {
    let (lines, risk) = match &claims.facts {
        Facts::Dcap(_) => intel(name, claims).or_else(|| registers(name, outcome))?,
        Facts::Snp(_) => snp(name, claims, outcome)?,
        Facts::Nitro(_) | Facts::None => registers(name, outcome)?,
    };
    Some(Remedy { lines, risk })
}

type Found = Option<(Vec<Line>, &'static str)>;

fn intel(name: CheckName, claims: &Claims) -> Found {
    let Facts::Dcap(facts) = &claims.facts else {
        return None;
    };
    let set = |key, value: String| line("intel", key, value);
    let yes = |key| line("intel", key, "true");
    Some(match name {
        CheckName::ServiceTd => {
            let bound = [facts.mr_service_td, facts.current_service_td];
            let bound = bound.into_iter().flatten().filter(|mr| *mr != [0; 48]);
            let mut bound: Vec<_> = bound.map(|mr| quoted(Hex(mr))).collect();
            bound.dedup();
            if bound.is_empty() {
                return None;
            }
            (
                set("service_tds", format!("{{ these = {} }}", list(bound))),
                "whoever controls that service TD reads or changes this TD's memory",
            )
        }
        CheckName::DynamicPlatform => (
            yes("allow_dynamic_platform"),
            "a processor that you never judged is added to the machine",
        ),
        CheckName::CachedKeys => (
            yes("allow_cached_keys"),
            "the vendor's copy of the platform's keys is misused",
        ),
        CheckName::SimultaneousMultithreading => (
            yes("allow_smt"),
            "code on a sibling thread learns secrets through shared caches",
        ),
        CheckName::TcbEvaluation => (
            set("minimum_tcb_evaluation", facts.tcb_evaluation.to_string()),
            "weaknesses that the vendor has learned of since are open",
        ),
        CheckName::Advisories => (
            [
                set(
                    "accepted_advisories",
                    list(facts.advisories.iter().map(quoted)),
                ),
                set("refused_advisories", "[]".to_owned()),
            ]
            .concat(),
            "these advisories describe how such a platform is attacked",
        ),
        CheckName::Platform => (
            set("ppids", list([quoted(hex::encode(&facts.ppid))])),
            "this machine is in hands that you do not know",
        ),
        CheckName::HostConfig => (
            set(
                "mr_config_ids",
                list([quoted(Hex(trust_domain(claims)?.mr_config_id))]),
            ),
            "it runs with a configuration that you did not choose",
        ),
        _ => return None,
    })
}

fn snp(name: CheckName, claims: &Claims, outcome: &Outcome) -> Found {
    let Facts::Snp(facts) = &claims.facts else {
        return None;
    };
    let guest = guest(claims)?;
    let policy = &outcome.policy.snp;
    let set = |key, value: String| line("snp", key, value);
    Some(match name {
        CheckName::Vmpl => {
            let levels = policy.vmpls.iter().chain([&guest.vmpl]);
            (
                set("vmpls", list(levels.map(ToString::to_string))),
                "software at a more privileged level of the guest rules this one: measure it",
            )
        }
        CheckName::SigningKey => (
            set("signing_keys", list(["vcek", "vlek"].map(quoted))),
            "the cloud provider signs for any of its machines, and its key leaks for all of them",
        ),
        CheckName::ChipNotMasked => (
            set("allow_masked_chip", "true".to_owned()),
            "it runs on a machine that you cannot tell from others",
        ),
        CheckName::NotMigratable => (
            set("allow_migration_agent", "true".to_owned()),
            "the migration agent moves the guest, with its memory, to a machine that it chooses",
        ),
        CheckName::MinimumAbi => {
            let (major, minor) = facts.policy_abi;
            (
                set("minimum_abi", list([major, minor].map(|n| n.to_string()))),
                "the guest runs on firmware with known faults",
            )
        }
        CheckName::SimultaneousMultithreading => (
            set("allow_smt", "true".to_owned()),
            "code on a sibling thread learns secrets through shared caches",
        ),
        CheckName::AliasCheck => (
            set("require_alias_check", "false".to_owned()),
            "somebody with access to the memory modules reads and changes memory",
        ),
        CheckName::MinimumTcb => {
            let tcbs = [&facts.reported_tcb, &facts.committed_tcb, &facts.launch_tcb];
            let product = format!("{:?}", facts.product).to_ascii_lowercase();
            let value = format!("{{ {product} = {} }}", tcb_toml(&lowest(tcbs)));
            (
                set("minimum_tcb", value),
                "weaknesses of older firmware and microcode are open",
            )
        }
        CheckName::Platform => {
            let product = format!("{:?}", facts.product).to_ascii_lowercase();
            let mut lines = set("products", list([quoted(product)]));
            if policy.chip_ids.is_some() && !facts.chip_masked {
                lines.extend(set("chip_ids", list([quoted(Hex(facts.chip_id))])));
            }
            (lines, "this machine is in hands that you do not know")
        }
        CheckName::HostConfig => (
            set("host_data", list([quoted(Hex(guest.host_data))])),
            "it runs with a configuration that you did not choose",
        ),
        CheckName::IdKeyDigest => (
            set("id_key_digests", list([quoted(Hex(guest.id_key_digest))])),
            "the guest was made by somebody else than you believe",
        ),
        _ => return registers(name, outcome),
    })
}

/// Registers that a policy names by value: without them, any value passes.
fn registers(name: CheckName, outcome: &Outcome) -> Found {
    if name == CheckName::SecureBoot {
        let lines = line("azure", "require_secure_boot", "false");
        return Some((lines, "the machine started software that nobody signed"));
    }
    if name != CheckName::Pcrs {
        return None;
    }
    let claims = outcome.claims.as_ref()?;
    let table = match &claims.facts {
        Facts::Nitro(_) => "nitro",
        _ => "azure",
    };
    let risk = "something else was booted than you believe";
    Some((line(table, "pcrs", "[]"), risk))
}

fn trust_domain(claims: &Claims) -> Option<&TdxMeasurements> {
    match claims.measurements() {
        Measurements::Tdx(td) => Some(td),
        Measurements::AzTdx(azure) => Some(&azure.hardware),
        _ => None,
    }
}

fn guest(claims: &Claims) -> Option<&SnpMeasurements> {
    match claims.measurements() {
        Measurements::Snp(guest) => Some(guest),
        Measurements::AzSnp(azure) => Some(&azure.hardware),
        _ => None,
    }
}

/// Part by part, so that each of them passes.
fn lowest(tcbs: [&SnpTcb; 3]) -> SnpTcb {
    let least = |part: fn(&SnpTcb) -> u8| tcbs.into_iter().map(part).min().unwrap_or_default();
    SnpTcb {
        fmc: least(|tcb| tcb.fmc),
        boot_loader: least(|tcb| tcb.boot_loader),
        tee: least(|tcb| tcb.tee),
        snp: least(|tcb| tcb.snp),
        microcode: least(|tcb| tcb.microcode),
    }
}

fn tcb_toml(tcb: &SnpTcb) -> String {
    let SnpTcb {
        fmc,
        boot_loader,
        tee,
        snp,
        microcode,
    } = tcb;
    format!(
        "{{ fmc = {fmc}, boot_loader = {boot_loader}, tee = {tee}, snp = {snp}, \
         microcode = {microcode} }}"
    )
}

fn tee_accepted(outcome: &Outcome) -> Option<Remedy> {
    let tees = outcome.policy.accepted.iter().chain(outcome.kind.tees());
    let tees = tees.map(|tee| quoted(tee.name()));
    Some(Remedy {
        lines: line("", "accepted", list(tees)),
        risk: "you depend on this vendor, too",
    })
}

fn tcb_status(got: TcbStatus, outcome: &Outcome) -> Option<Vec<Line>> {
    if matches!(got, TcbStatus::Revoked | TcbStatus::NotApplicable) {
        return None;
    }
    let statuses = outcome.policy.accepted_tcb.iter().chain([&got]);
    let statuses = statuses.map(|status| quoted(status.name()));
    Some(line("", "accepted_tcb", list(statuses)))
}

fn enclave(outcome: &Outcome) -> Option<Vec<Line>> {
    let Allowed::These(pinned) = &outcome.policy.enclaves else {
        return None;
    };
    let all = pinned.iter().chain(&outcome.enclave);
    let all = list(all.map(quoted));
    Some(line("", "enclaves", format!("{{ these = {all} }}")))
}

fn measurement(claims: &Claims) -> Option<Vec<Line>> {
    let set = |key, value: [u8; 48]| line("measurements", key, list([quoted(Hex(value))]));
    Some(match claims.measurements() {
        Measurements::Sgx(sgx) => {
            let value = list([quoted(Hex(sgx.mrenclave))]);
            line("measurements", "mrenclave", value)
        }
        Measurements::Tdx(_) | Measurements::AzTdx(_) => {
            let td = trust_domain(claims)?;
            let [rtmr0, rtmr1, rtmr2] = td.rtmr;
            let mut lines = [
                set("mrtd", td.mrtd),
                set("rtmr0", rtmr0),
                set("rtmr1", rtmr1),
                set("rtmr2", rtmr2),
            ]
            .concat();
            if let Facts::Dcap(facts) = &claims.facts
                && let Some(rtmr3) = facts.rtmr3
            {
                lines.extend(set("rtmr3", rtmr3));
            }
            lines
        }
        Measurements::Snp(_) | Measurements::AzSnp(_) => set("snp", guest(claims)?.measurement),
        Measurements::Nitro(nitro) => {
            let [pcr0, ..] = nitro.pcr;
            set("pcr0", pcr0)
        }
        Measurements::Simulated(_) => return None,
    })
}
