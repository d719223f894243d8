//! Records at rest: nothing that nobody sealed opens.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(!crypto::fuzzing::record(bytes));
});
