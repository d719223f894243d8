//! RA-TLS certificates of others.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = attestation::fuzzing::foreign_certificate(bytes);
});
