//! What a policy says about a vTPM: its registers, and whether the machine booted securely.

use std::collections::BTreeMap;

use crate::policy::{AzurePolicy, Hex};
use crate::scorecard::{CheckName, Scorecard, Status};

/// Judges genuine evidence; every check goes on the card. The hardware is judged with its own
/// TEE's policy.
pub(crate) fn judge(
    pcrs: &BTreeMap<u8, [u8; 32]>,
    secure_boot: bool,
    policy: &AzurePolicy,
    card: &mut Scorecard,
) {
    let got = if secure_boot { "on" } else { "off" };
    if policy.require_secure_boot {
        card.record(CheckName::SecureBoot, secure_boot, "on", got);
    } else {
        card.note(CheckName::SecureBoot, Status::Unchecked, got);
    }
    if policy.pcrs.is_empty() {
        let quoted = format!("{} registers, compared with nothing", pcrs.len());
        card.note(CheckName::Pcrs, Status::Unchecked, quoted);
    }
    for wanted in &policy.pcrs {
        let index = wanted.index;
        // A register that the quote leaves out is no better than a wrong one.
        let got = pcrs.get(&index).map(|pcr| Hex(*pcr));
        card.record(
            CheckName::Pcrs,
            got.is_some_and(|got| wanted.values.contains(&got)),
            format!("PCR{index} in {:?}", wanted.values),
            match got {
                Some(got) => format!("PCR{index} {got}"),
                None => format!("PCR{index} not quoted"),
            },
        );
    }
}
