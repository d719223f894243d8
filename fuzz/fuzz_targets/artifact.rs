//! Artifacts: nothing that nobody sealed opens, however it is cut into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(!crypto::fuzzing::artifact(bytes));
});
