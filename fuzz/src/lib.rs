//! What the targets for evidence share: genuine evidence to start from, and what must hold of
//! everything that comes of it.

use std::fs;
use std::path::{Path, PathBuf};

use attestation::testing::genuine::{Genuine, GenuineGpu, captured, captured_gpus, made, made_gpu};
use attestation::{Endorsements, Evidence, Scorecard, Status, Tee};

/// Genuine evidence of these kinds: made in this process, and captured if `SESEMI_SHARED` names
/// the folder that has it.
pub fn genuine(tees: &[Tee]) -> Vec<Genuine> {
    let mut all = made();
    all.extend(shared().iter().flat_map(|folder| captured(folder)));
    all.retain(|genuine| tees.contains(&genuine.evidence.tee));
    all
}

/// The same of GPUs.
pub fn genuine_gpus() -> Vec<GenuineGpu> {
    let mut all = vec![made_gpu()];
    all.extend(shared().iter().flat_map(|folder| captured_gpus(folder)));
    all
}

fn shared() -> Option<PathBuf> {
    Some(Path::new(&std::env::var_os("SESEMI_SHARED")?).join("evidence"))
}

/// Files below `SESEMI_SHARED`, if it is set and they are there.
pub fn shared_files(names: &[&str]) -> Vec<Vec<u8>> {
    let paths = shared()
        .into_iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    paths.filter_map(|path| fs::read(path).ok()).collect()
}

/// Writes seeds into the corpus that this process was started with: the folder among its
/// arguments. Genuine evidence is signed by keys of this process, so that it cannot be kept.
pub fn plant(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let corpus = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .find(|argument| argument.is_dir());
    let Some(corpus) = corpus else {
        return;
    };
    for (index, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed).expect("a corpus to write to");
    }
}

/// Inputs name the piece of evidence that they are a change of, in their first bytes.
pub fn seed(of: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut seed: Vec<u8> = of.iter().map(|index| *index as u8).collect();
    seed.extend(bytes);
    seed
}

/// Splits what [`seed`] joined.
pub fn pick<'a, 'b, T>(all: &'a [T], bytes: &'b [u8]) -> Option<(&'a T, &'b [u8])> {
    let (index, rest) = bytes.split_first()?;
    Some((all.get(usize::from(*index))?, rest))
}

/// Nothing but what was signed is accepted, under whatever encoding, and the card says so.
pub fn holds(genuine: &Genuine, evidence: &Evidence, endorsements: &Endorsements) {
    let mut card = Scorecard::new(&[]);
    let read = genuine.verifier.read(evidence);
    match genuine.verify(evidence, endorsements, &mut card) {
        Ok(claims) => {
            assert_eq!(card.first_failure(), None);
            assert_eq!(read.as_ref(), Ok(&claims.said));
            assert_eq!(claims, genuine.claims);
        }
        Err(failed) => {
            let check = card.check(failed.check()).expect("a line for the failure");
            assert_eq!(check.status, Status::Fail);
        }
    }
    assert!(!card.to_string().is_empty());
}

/// Changes the evidence of `genuine`.
pub fn evidence_holds(genuine: &Genuine, body: &[u8]) {
    let evidence = Evidence {
        tee: genuine.evidence.tee,
        body: body.to_vec(),
    };
    holds(genuine, &evidence, &genuine.endorsements);
}
