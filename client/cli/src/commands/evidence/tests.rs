//! Texts and forms of `sesemi evidence`, on hand-made outcomes.

use attestation::CheckName;

use super::*;

#[test]
fn times_are_written_for_people_and_for_the_command_line() {
    assert_eq!(time(1_751_000_000), "2025-06-27 04:53:20 UTC (1751000000)");
}

#[test]
fn every_check_is_explained_in_words_of_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    for name in CheckName::ALL {
        let reason = reason(*name);
        for text in [reason.why, reason.change] {
            assert!(text.len() > 10, "{name:?}: {text}");
            assert!(
                !text.ends_with('.') && !text.contains("  "),
                "{name:?}: {text}"
            );
        }
        seen.insert((reason.why, reason.change));
    }
    assert_eq!(seen.len(), CheckName::ALL.len());
}

#[test]
fn long_values_are_cut_for_people() {
    assert_eq!(shown("short"), "short");
    assert_eq!(shown(&"é".repeat(100)), "é".repeat(SHOWN_MAX) + "..");
}
