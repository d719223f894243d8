//! Nitro documents: what is accepted is what was signed, with or without the tag in front.
#![no_main]

use std::sync::LazyLock;

use attestation::testing::genuine::Genuine;
use attestation::{Evidence, Scorecard, Tee};
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{evidence_holds, genuine, pick, plant, seed};

static ALL: LazyLock<Vec<Genuine>> = LazyLock::new(|| genuine(&[Tee::Nitro]));

fuzz_target!(
    init: plant(ALL.iter().enumerate().map(|(index, it)| seed(&[index], &it.evidence.body))),
    |bytes: &[u8]| {
        let Some((genuine, body)) = pick(&ALL, bytes) else {
            return;
        };
        evidence_holds(genuine, body);
        let evidence = Evidence {
            tee: Tee::Nitro,
            body: body.to_vec(),
        };
        let card = &mut Scorecard::new(&[]);
        if genuine.verify(&evidence, &genuine.endorsements, card).is_ok() {
            let untagged = body.strip_prefix(&[0xd2]).unwrap_or(body);
            assert_eq!(untagged, genuine.evidence.body);
        }
    }
);
