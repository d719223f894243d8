//! SEV-SNP: the report, or a certificate of its chain; no byte of a report can change.
#![no_main]

use std::sync::LazyLock;

use attestation::testing::genuine::Genuine;
use attestation::{Endorsements, Evidence, Scorecard, Tee};
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::{evidence_holds, genuine, holds, pick, plant, seed};

static ALL: LazyLock<Vec<Genuine>> = LazyLock::new(|| genuine(&[Tee::Snp]));

/// Which part of the whole the rest of an input is.
const PARTS: [usize; 4] = [0, 1, 2, 3];

fn part(genuine: &Genuine, part: usize) -> &[u8] {
    let Endorsements::Snp { vek, chain } = &genuine.endorsements else {
        panic!("endorsements of another vendor");
    };
    match part {
        0 => &genuine.evidence.body,
        1 => vek,
        other => &chain[other - 2],
    }
}

fn with_part(genuine: &Genuine, part: usize, bytes: &[u8]) -> Endorsements {
    let mut changed = genuine.endorsements.clone();
    let Endorsements::Snp { vek, chain } = &mut changed else {
        panic!("endorsements of another vendor");
    };
    match part {
        1 => *vek = bytes.to_vec(),
        other => chain[other - 2] = bytes.to_vec(),
    }
    changed
}

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    ALL.iter()
        .enumerate()
        .flat_map(|(index, it)| PARTS.map(|at| seed(&[index, at], part(it, at))))
}

fuzz_target!(init: plant(seeds()), |bytes: &[u8]| {
    let Some((genuine, rest)) = pick(&ALL, bytes) else {
        return;
    };
    let Some((at, bytes)) = pick(&PARTS, rest) else {
        return;
    };
    if *at > 0 {
        holds(genuine, &genuine.evidence, &with_part(genuine, *at, bytes));
        return;
    }
    evidence_holds(genuine, bytes);
    let evidence = Evidence {
        tee: Tee::Snp,
        body: bytes.to_vec(),
    };
    let card = &mut Scorecard::new(&[]);
    if genuine.verify(&evidence, &genuine.endorsements, card).is_ok() {
        assert_eq!(bytes, genuine.evidence.body);
    }
});
