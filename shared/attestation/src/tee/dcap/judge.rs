//! What a policy asks of Intel's platforms, on claims that are genuine.

use crate::evidence::Claims;
use crate::facts::DcapFacts;
use crate::measurements::{Measurements, TdxMeasurements};
use crate::policy::{Hex, IntelPolicy, ServiceTds};
use crate::scorecard::{CheckName, Scorecard, Status};

use super::quote::{MIGRATABLE, SEPT_VE_DISABLE, SERVTD_EXT};

const NONE: [u8; 48] = [0; 48];

/// The checks that only SGX and TDX have; all of them go on the card.
///
/// Debug, security version, TCB state and measurements are checked for every TEE alike.
pub(crate) fn judge(
    claims: &Claims,
    facts: &DcapFacts,
    policy: &IntelPolicy,
    card: &mut Scorecard,
) {
    card.record(
        CheckName::TcbEvaluation,
        facts.tcb_evaluation >= policy.minimum_tcb_evaluation,
        format!("at least {}", policy.minimum_tcb_evaluation),
        facts.tcb_evaluation.to_string(),
    );
    judge_advisories(facts, policy, card);
    for (name, flag, allowed) in [
        (
            CheckName::DynamicPlatform,
            facts.dynamic_platform,
            policy.allow_dynamic_platform,
        ),
        (
            CheckName::CachedKeys,
            facts.cached_keys,
            policy.allow_cached_keys,
        ),
        (
            CheckName::SimultaneousMultithreading,
            facts.smt,
            policy.allow_smt,
        ),
    ] {
        judge_flag(name, flag, allowed, card);
    }
    judge_platform(facts, policy, card);
    card.record(
        CheckName::ReservedAttributes,
        facts.reserved_attributes == 0,
        "0x0",
        format!("{:#x}", facts.reserved_attributes),
    );
    match claims.measurements() {
        Measurements::Tdx(td) => judge_td(td, facts, policy, card),
        Measurements::AzTdx(azure) => judge_td(&azure.hardware, facts, policy, card),
        _ => {
            for name in [
                CheckName::NotMigratable,
                CheckName::ServiceTd,
                CheckName::SeptVeDisable,
                CheckName::HostConfig,
            ] {
                card.note(name, Status::NotApplicable, "");
            }
        }
    }
}

fn judge_advisories(facts: &DcapFacts, policy: &IntelPolicy, card: &mut Scorecard) {
    let named = |list: &[String], advisory: &str| {
        list.iter()
            .any(|named| named.eq_ignore_ascii_case(advisory))
    };
    let open = facts.advisories.iter().filter(|advisory| {
        let accepted = policy.accepted_advisories.as_deref();
        named(&policy.refused_advisories, advisory)
            || accepted.is_some_and(|accepted| !named(accepted, advisory))
    });
    let refused: Vec<_> = open.map(String::as_str).collect();
    let expected = match &policy.accepted_advisories {
        Some(accepted) => format!("none but [{}]", accepted.join(", ")),
        None => format!("none of [{}]", policy.refused_advisories.join(", ")),
    };
    let got = format!("[{}]", facts.advisories.join(", "));
    card.record(CheckName::Advisories, refused.is_empty(), expected, got);
}

fn judge_flag(name: CheckName, flag: Option<bool>, allowed: bool, card: &mut Scorecard) {
    let got = match flag {
        Some(true) => "yes",
        Some(false) => "no",
        // Certificates of the processor CA do not say: single-socket machines without these.
        None => "the certificate does not say",
    };
    let expected = if allowed { "anything" } else { "no" };
    card.record(name, allowed || flag != Some(true), expected, got);
}

fn judge_platform(facts: &DcapFacts, policy: &IntelPolicy, card: &mut Scorecard) {
    let got = format!("PPID {}", hex::encode(&facts.ppid));
    match &policy.ppids {
        None => card.note(CheckName::Platform, Status::Unchecked, got),
        Some(ppids) => {
            let ok = ppids.iter().any(|ppid| ppid.0[..] == facts.ppid);
            card.record(CheckName::Platform, ok, format!("one of {ppids:?}"), got);
        }
    }
}

fn judge_td(td: &TdxMeasurements, facts: &DcapFacts, policy: &IntelPolicy, card: &mut Scorecard) {
    let is_set = |bit: u64| td.td_attributes & bit != 0;
    let attributes = format!("TD attributes {:#x}", td.td_attributes);
    card.record(
        CheckName::NotMigratable,
        !is_set(MIGRATABLE),
        "MIGRATABLE clear",
        attributes.clone(),
    );
    card.record(
        CheckName::SeptVeDisable,
        is_set(SEPT_VE_DISABLE),
        "SEPT_VE_DISABLE set",
        attributes,
    );
    judge_service_td(facts, is_set(SERVTD_EXT), &policy.service_tds, card);
    let config = Hex(td.mr_config_id);
    match &policy.mr_config_ids {
        None => card.note(
            CheckName::HostConfig,
            Status::Unchecked,
            format!("MRCONFIGID {config}"),
        ),
        Some(ids) => card.record(
            CheckName::HostConfig,
            ids.contains(&config),
            format!("MRCONFIGID in {ids:?}"),
            config.to_string(),
        ),
    }
}

fn judge_service_td(
    facts: &DcapFacts,
    extensible: bool,
    allowed: &ServiceTds,
    card: &mut Scorecard,
) {
    // What was bound at the TD's creation and what is bound now.
    let bound = [facts.mr_service_td, facts.current_service_td];
    let bound = bound.into_iter().flatten().filter(|mr| *mr != NONE);
    let mut bound: Vec<_> = bound.map(Hex).collect();
    bound.dedup();
    let got = match (&bound[..], extensible) {
        ([], false) => "none".to_owned(),
        ([], true) => "none yet, SERVTD_EXT set".to_owned(),
        (bound, _) => format!("{bound:?}"),
    };
    let (ok, expected) = match allowed {
        ServiceTds::Any => {
            card.note(CheckName::ServiceTd, Status::Unchecked, got);
            return;
        }
        // The attribute lets one be bound later, too.
        ServiceTds::These(none) if none.is_empty() => {
            (bound.is_empty() && !extensible, "none".to_owned())
        }
        ServiceTds::These(these) => (
            // Where one can be bound later, what is bound now must be known.
            bound.iter().all(|mr| these.contains(mr))
                && (!extensible
                    || facts
                        .current_service_td
                        .is_some_and(|mr| these.contains(&Hex(mr)))),
            format!("none or one of {these:?}"),
        ),
    };
    card.record(CheckName::ServiceTd, ok, expected, got);
}

#[cfg(test)]
mod tests;
