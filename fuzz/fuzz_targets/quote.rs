//! Quotes of SGX and TDX, against their collateral.
#![no_main]

use std::sync::LazyLock;

use attestation::Tee;
use attestation::testing::genuine::Genuine;
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{evidence_holds, genuine, pick, plant, seed};

static ALL: LazyLock<Vec<Genuine>> = LazyLock::new(|| genuine(&[Tee::Sgx, Tee::Tdx]));

fuzz_target!(
    init: plant(ALL.iter().enumerate().map(|(index, it)| seed(&[index], &it.evidence.body))),
    |bytes: &[u8]| {
        if let Some((genuine, body)) = pick(&ALL, bytes) {
            evidence_holds(genuine, body);
        }
    }
);
