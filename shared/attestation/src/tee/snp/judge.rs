//! What a policy says about AMD's platforms, guests and keys.

use crate::facts::SnpFacts;
use crate::measurements::SnpMeasurements;
use crate::policy::{Hex, SnpPolicy};
use crate::scorecard::{CheckName, Scorecard, Status};

/// Bits of the guest's policy (AMD 56860, table 9).
const SMT_ALLOWED: u64 = 1 << 16;
const RESERVED_ONE: u64 = 1 << 17;
const MIGRATE_MA: u64 = 1 << 18;
/// Bits that no version of the specification has given a meaning: they must be zero.
const RESERVED_ZERO: u64 = !0 << 26;
/// Bits of `PLATFORM_INFO` (table 24).
const SMT_ENABLED: u64 = 1 << 0;
const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;

/// Judges genuine evidence; every check goes on the card. Debug mode and the reference
/// measurements are judged with those of the other TEEs.
pub(crate) fn judge(
    guest: &SnpMeasurements,
    facts: &SnpFacts,
    policy: &SnpPolicy,
    card: &mut Scorecard,
) {
    judge_guest(guest, facts, policy, card);
    judge_keys(facts, policy, card);
    judge_platform(facts, policy, card);
    listed(
        CheckName::HostConfig,
        policy.host_data.as_deref(),
        guest.host_data,
        card,
    );
    listed(
        CheckName::IdKeyDigest,
        policy.id_key_digests.as_deref(),
        guest.id_key_digest,
        card,
    );
}

fn judge_guest(
    guest: &SnpMeasurements,
    facts: &SnpFacts,
    policy: &SnpPolicy,
    card: &mut Scorecard,
) {
    card.record(
        CheckName::Vmpl,
        policy.vmpls.contains(&guest.vmpl),
        format!("one of {:?}", policy.vmpls),
        guest.vmpl.to_string(),
    );
    card.record(
        CheckName::GuestPolicy,
        guest.policy & RESERVED_ONE != 0 && guest.policy & RESERVED_ZERO == 0,
        "bit 17 set, bits 26 to 63 clear",
        format!("{:#x}", guest.policy),
    );
    let migratable = guest.policy & MIGRATE_MA != 0;
    card.record(
        CheckName::NotMigratable,
        policy.allow_migration_agent || !migratable,
        if policy.allow_migration_agent {
            "a migration agent or none"
        } else {
            "no migration agent"
        },
        if migratable {
            "a migration agent may be bound"
        } else {
            "none may be bound"
        },
    );
    let (major, minor) = facts.policy_abi;
    let (minimum_major, minimum_minor) = policy.minimum_abi;
    card.record(
        CheckName::MinimumAbi,
        facts.policy_abi >= policy.minimum_abi,
        format!("at least {minimum_major}.{minimum_minor}"),
        format!("{major}.{minor}"),
    );
    // The guest's policy binds the platform for the guest's life; the platform's state is of now.
    let smt = [
        guest.policy & SMT_ALLOWED != 0,
        facts.platform_info & SMT_ENABLED != 0,
    ];
    card.record(
        CheckName::SimultaneousMultithreading,
        policy.allow_smt || smt == [false; 2],
        if policy.allow_smt { "on or off" } else { "off" },
        match smt {
            [false, false] => "refused by the guest, off",
            [false, true] => "refused by the guest, on",
            [true, false] => "allowed by the guest, off",
            [true, true] => "allowed by the guest, on",
        },
    );
}

fn judge_keys(facts: &SnpFacts, policy: &SnpPolicy, card: &mut Scorecard) {
    card.record(
        CheckName::SigningKey,
        policy.signing_keys.contains(&facts.signing_key),
        format!("one of {:?}", policy.signing_keys),
        format!("{:?}", facts.signing_key),
    );
    card.record(
        CheckName::ChipNotMasked,
        policy.allow_masked_chip || !facts.chip_masked,
        if policy.allow_masked_chip {
            "named or masked"
        } else {
            "named"
        },
        if facts.chip_masked { "masked" } else { "named" },
    );
}

fn judge_platform(facts: &SnpFacts, policy: &SnpPolicy, card: &mut Scorecard) {
    let checked = facts.platform_info & ALIAS_CHECK_COMPLETE != 0;
    let got = if checked {
        "checked"
    } else {
        "not known to be checked"
    };
    if policy.require_alias_check {
        card.record(CheckName::AliasCheck, checked, "checked", got);
    } else {
        card.note(CheckName::AliasCheck, Status::Unchecked, got);
    }

    // Reported is what the key is derived from, committed what the host cannot go back behind,
    // and launch what the guest was measured by.
    let minimum = policy.minimum_tcb.get(&facts.product);
    for (name, tcb) in [
        ("reported", &facts.reported_tcb),
        ("committed", &facts.committed_tcb),
        ("launch", &facts.launch_tcb),
    ] {
        let got = format!("{name}: {tcb}");
        match minimum {
            Some(minimum) => card.record(
                CheckName::MinimumTcb,
                tcb.at_least(minimum),
                format!("at least {minimum}"),
                got,
            ),
            None if name == "reported" => {
                card.note(CheckName::MinimumTcb, Status::Unchecked, got);
            }
            None => {}
        }
    }

    let chip = Hex(facts.chip_id);
    let product = policy.products.contains(&facts.product);
    let listed = |chips: &Vec<Hex<64>>| !facts.chip_masked && chips.contains(&chip);
    card.record(
        CheckName::Platform,
        product && policy.chip_ids.as_ref().is_none_or(listed),
        match &policy.chip_ids {
            Some(chips) => format!("one of {:?}, chip one of {chips:?}", policy.products),
            None => format!("one of {:?}", policy.products),
        },
        format!("{:?}, chip {chip}", facts.product),
    );
}

fn listed<const N: usize>(
    check: CheckName,
    allowed: Option<&[Hex<N>]>,
    got: [u8; N],
    card: &mut Scorecard,
) {
    let got = Hex(got);
    match allowed {
        Some(allowed) => card.record(
            check,
            allowed.contains(&got),
            format!("one of {allowed:?}"),
            got.to_string(),
        ),
        None => card.note(check, Status::Unchecked, got.to_string()),
    }
}
