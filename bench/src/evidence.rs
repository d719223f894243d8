//! `bench evidence`: what it costs to verify one piece of evidence, beside what its signatures
//! alone cost, and beside another verifier where there is one.
//!
//! Everything is measured in turns, so that a machine that gets slower does so for all.

mod peer;
mod signatures;

use std::path::Path;
use std::time::{Duration, Instant};

use attestation::testing::genuine::{Genuine, GenuineGpu, captured, captured_gpus, made, made_gpu};
use attestation::{Scorecard, Tee};
use serde::Serialize;

use self::peer::Peer;
use self::signatures::{Signatures, Singles};

/// What one verification may cost, in milliseconds.
pub const GOAL_MS: f64 = 2.0;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub rounds: usize,
    pub goal_ms: f64,
    pub signatures: Vec<Single>,
    pub cases: Vec<Case>,
}

/// One verification of a signature.
#[derive(Debug, Serialize)]
pub struct Single {
    pub name: &'static str,
    pub cost: Cost,
}

/// One kind of evidence, or one captured piece.
#[derive(Debug, Serialize)]
pub struct Case {
    pub name: String,
    pub tee: String,
    /// Captured from hardware, rather than made here.
    pub captured: bool,
    pub cost: Cost,
    /// Signatures that have to be verified at the least.
    pub signatures: Signatures,
    /// Their costs together, in milliseconds.
    pub floor_ms: f64,
    /// The median over the floor.
    pub ratio: f64,
    /// `dcap-qvl` as it is shipped, on ring. Only in builds with the feature `peers`.
    pub peer: Option<Cost>,
}

/// Of many runs, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    pub median_ms: f64,
    pub p99_ms: f64,
}

/// Something that is measured, and how long each run of it took.
struct Subject {
    name: String,
    tee: String,
    captured: bool,
    signatures: Signatures,
    run: Box<dyn Fn() -> bool>,
    peer: Option<Peer>,
    took: Vec<Duration>,
    peer_took: Vec<Duration>,
}

/// Measures everything `rounds` times; also what was captured, if its folder is given.
///
/// # Panics
/// If genuine evidence is refused.
#[must_use]
pub fn measure(rounds: usize, shared: Option<&Path>) -> Report {
    let mut subjects: Vec<_> = made().into_iter().map(|it| subject(it, false)).collect();
    subjects.push(gpu(made_gpu(), false));
    if let Some(folder) = shared {
        let folder = folder.join("evidence");
        subjects.extend(captured(&folder).into_iter().map(|it| subject(it, true)));
        subjects.extend(captured_gpus(&folder).into_iter().map(|it| gpu(it, true)));
    }
    let mut singles = Singles::new();
    for _ in 0..rounds {
        singles.run(time);
        for subject in &mut subjects {
            subject.took.push(time(&subject.run));
            if let Some(peer) = &subject.peer {
                subject.peer_took.push(time(&|| peer.verify()));
            }
        }
    }
    let signatures = singles.costs();
    let single = |name| {
        let found = signatures.iter().find(|single| single.name == name);
        found.map_or(0.0, |single| single.cost.median_ms)
    };
    let case = |subject: Subject| {
        let floor_ms = subject.signatures.floor(single);
        let cost = cost(subject.took);
        Case {
            name: subject.name,
            tee: subject.tee,
            captured: subject.captured,
            cost,
            signatures: subject.signatures,
            floor_ms,
            ratio: cost.median_ms / floor_ms,
            peer: subject.peer.map(|_| self::cost(subject.peer_took)),
        }
    };
    Report {
        rounds,
        goal_ms: GOAL_MS,
        cases: subjects.into_iter().map(case).collect(),
        signatures,
    }
}

fn subject(genuine: Genuine, captured: bool) -> Subject {
    let tee = genuine.evidence.tee;
    Subject {
        name: genuine.name.clone(),
        tee: tee.name().to_owned(),
        captured,
        signatures: Signatures::of(tee),
        peer: match tee {
            Tee::Sgx | Tee::Tdx => Peer::new(&genuine, captured),
            _ => None,
        },
        run: Box::new(move || {
            let card = &mut Scorecard::new(&[]);
            genuine
                .verify(&genuine.evidence, &genuine.endorsements, card)
                .is_ok()
        }),
        took: Vec::new(),
        peer_took: Vec::new(),
    }
}

fn gpu(genuine: GenuineGpu, captured: bool) -> Subject {
    Subject {
        name: genuine.name.clone(),
        tee: "nvidia".to_owned(),
        captured,
        signatures: Signatures::OF_GPU,
        run: Box::new(move || {
            let card = &mut Scorecard::new(&[]);
            let (report, chain) = (&genuine.report, &genuine.chain_pem);
            let said = genuine
                .verifier
                .examine(report, chain, None, genuine.now, card);
            said.is_ok()
        }),
        peer: None,
        took: Vec::new(),
        peer_took: Vec::new(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the wall clock is what is measured with"
)]
fn time(run: &dyn Fn() -> bool) -> Duration {
    let start = Instant::now();
    let ok = run();
    let took = start.elapsed();
    assert!(ok, "genuine evidence was refused");
    took
}

fn cost(mut took: Vec<Duration>) -> Cost {
    took.sort_unstable();
    let at = |percent: usize| {
        let rank = (took.len() * percent).div_ceil(100).max(1);
        let took = took.get(rank - 1).copied().unwrap_or_default();
        took.as_secs_f64() * 1000.0
    };
    Cost {
        median_ms: at(50),
        p99_ms: at(99),
    }
}
