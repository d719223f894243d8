//! RA-TLS certificates of others: what is read is what the key's holder signed.
#![no_main]

use std::sync::LazyLock;

use attestation::tee::ccc::ForeignCertificate;
use attestation::testing::ccc::foreign_certificate;
use attestation::testing::dcap::{FakeIntel, FakePck, FakeReport};
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{pick, plant, seed, shared_files};

static ALL: LazyLock<Vec<(Vec<u8>, ForeignCertificate)>> = LazyLock::new(|| {
    let platform = FakeIntel::new().platform(&FakePck::default());
    let mut all = vec![
        foreign_certificate(&platform, &FakeReport::sgx(0x11)),
        foreign_certificate(&platform, &FakeReport::td(0x22)),
    ];
    all.extend(shared_files(&[
        "ratls/gramine-cert/cert.der",
        "ratls/gramine-cert/cert.pem",
        "ratls/intel-sgxsdk-cert/cert.der",
    ]));
    let parsed = |bytes: Vec<u8>| {
        let read = ForeignCertificate::parse(&bytes).expect("a certificate of the format");
        (bytes, read)
    };
    all.into_iter().map(parsed).collect()
});

fuzz_target!(
    init: plant(ALL.iter().enumerate().map(|(index, (bytes, _))| seed(&[index], bytes))),
    |bytes: &[u8]| {
        let Some(((_, original), bytes)) = pick(&ALL, bytes) else {
            return;
        };
        if let Ok(read) = ForeignCertificate::parse(bytes) {
            // The self-signature covers all of it, and the index is free to name another one.
            assert!(&read == original || ALL.iter().any(|(_, other)| &read == other));
        }
    }
);
