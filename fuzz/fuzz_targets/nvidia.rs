//! Reports of GPUs, or their chain: no byte of a report can change.
#![no_main]

use std::sync::LazyLock;

use attestation::Scorecard;
use attestation::testing::genuine::GenuineGpu;
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{genuine_gpus, pick, plant, seed};

static ALL: LazyLock<Vec<GenuineGpu>> = LazyLock::new(genuine_gpus);

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    ALL.iter().enumerate().flat_map(|(index, it)| {
        [
            seed(&[index, 0], &it.report),
            seed(&[index, 1], &it.chain_pem),
        ]
    })
}

fuzz_target!(init: plant(seeds()), |bytes: &[u8]| {
    let Some((genuine, rest)) = pick(&ALL, bytes) else {
        return;
    };
    let Some((is_chain, bytes)) = pick(&[false, true], rest) else {
        return;
    };
    let (report, chain) = if *is_chain {
        (&genuine.report[..], bytes)
    } else {
        (bytes, &genuine.chain_pem[..])
    };
    let mut card = Scorecard::new(&[]);
    let said = genuine.verifier.examine(report, chain, None, genuine.now, &mut card);
    assert_eq!(said.is_ok(), card.first_failure().is_none());
    if let Ok(said) = said {
        assert_eq!(said, genuine.said);
        assert_eq!(report, genuine.report);
    }
});
