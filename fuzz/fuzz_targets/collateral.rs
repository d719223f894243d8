//! Intel's collateral: whatever it says, a quote proves what it proved, or nothing.
#![no_main]

use std::sync::LazyLock;

use attestation::testing::genuine::Genuine;
use attestation::{Endorsements, Tee};
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{genuine, holds, pick, plant, seed};

static ALL: LazyLock<Vec<Genuine>> = LazyLock::new(|| genuine(&[Tee::Sgx, Tee::Tdx]));

fn collateral(genuine: &Genuine) -> &[u8] {
    match &genuine.endorsements {
        Endorsements::Dcap { collateral } => collateral,
        other => panic!("{other:?}"),
    }
}

fuzz_target!(
    init: plant(ALL.iter().enumerate().map(|(index, it)| seed(&[index], collateral(it)))),
    |bytes: &[u8]| {
        if let Some((genuine, collateral)) = pick(&ALL, bytes) {
            let endorsements = Endorsements::Dcap {
                collateral: collateral.to_vec(),
            };
            holds(genuine, &genuine.evidence, &endorsements);
        }
    }
);
