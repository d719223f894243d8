//! Measured configurations: one encoding each.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let accepted = attestation::MeasuredConfig::from_bytes(bytes);
    assert_eq!(accepted.is_ok(), attestation::fuzzing::measured(bytes));
});
