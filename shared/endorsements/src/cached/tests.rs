//! Time passes, and the other side gives newer, older, ended or no answers.

use std::sync::{Arc, Mutex as StdMutex};

use attestation::Tee;
use attestation::testing::dcap::{FakeCollateral, FakeIntel};
use service::ManualClock;

use super::*;
use crate::tests::{NOW, quote, wanted};

#[derive(Debug, Clone, Default)]
struct Scripted(Arc<StdMutex<(Option<Endorsements>, usize)>>);

impl Scripted {
    fn answer(&self, endorsements: Option<Endorsements>) {
        self.0.lock().unwrap().0 = endorsements;
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Provider for Scripted {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        let mut script = self.0.lock().unwrap();
        script.1 += 1;
        let answer = script.0.clone().ok_or_else(|| wanted.not_here());
        Box::pin(std::future::ready(answer))
    }
}

struct World {
    intel: FakeIntel,
    scripted: Scripted,
    clock: Arc<ManualClock>,
    cached: Cached<Scripted>,
    wanted: Wanted,
}

impl World {
    fn new() -> Self {
        let intel = FakeIntel::new();
        let scripted = Scripted::default();
        let clock = Arc::new(ManualClock::new(Duration::from_secs(NOW)));
        let cached = Cached::new(scripted.clone(), Arc::clone(&clock) as _);
        let wanted = wanted(&quote(&intel));
        Self {
            intel,
            scripted,
            clock,
            cached,
            wanted,
        }
    }

    /// Issued that many seconds after `NOW`, for 30 days.
    fn issued(&self, after: u64) -> Endorsements {
        const DAY_S: u64 = 24 * 60 * 60;
        let mut fake = FakeCollateral::new(Tee::Tdx, NOW);
        let window = (NOW + after, NOW + after + 30 * DAY_S);
        fake.tcb_info = window;
        fake.qe_identity = window;
        fake.root_crl = window;
        fake.pck_crl = window;
        Endorsements::Dcap {
            collateral: self.intel.collateral(&fake),
        }
    }

    async fn ask(&self) -> Result<Endorsements, ProvideError> {
        self.cached.provide(&self.wanted).await
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let world = World::new();
    let first = world.issued(0);
    world.scripted.answer(Some(first.clone()));
    for _ in 0..3 {
        assert_eq!(world.ask().await.unwrap(), first);
    }
    assert_eq!(world.scripted.asked(), 1);
    world.clock.advance(REFRESH_AFTER);
    let second = world.issued(100);
    world.scripted.answer(Some(second.clone()));
    assert_eq!(world.ask().await.unwrap(), second);
    assert_eq!(world.scripted.asked(), 2);
}

#[tokio::test]
async fn without_an_answer_the_kept_one_serves_until_it_ends() {
    let world = World::new();
    let first = world.issued(0);
    world.scripted.answer(Some(first.clone()));
    world.ask().await.unwrap();
    world.scripted.answer(None);
    world.clock.advance(REFRESH_AFTER);
    assert_eq!(world.ask().await.unwrap(), first);
    assert_eq!(world.scripted.asked(), 2);
    world.ask().await.unwrap();
    assert_eq!(world.scripted.asked(), 2, "not at every call");
    world.clock.advance(RETRY_AFTER);
    world.ask().await.unwrap();
    assert_eq!(world.scripted.asked(), 3);
    world.clock.advance(DAY * 30);
    assert!(world.ask().await.is_err(), "ended");
}

#[tokio::test]
async fn older_and_ended_answers_do_not_replace_newer_ones() {
    let world = World::new();
    let newer = world.issued(1000);
    world.scripted.answer(Some(newer.clone()));
    world.ask().await.unwrap();
    world.clock.advance(REFRESH_AFTER);
    world.scripted.answer(Some(world.issued(0)));
    assert_eq!(world.ask().await.unwrap(), newer);

    let fresh = World::new();
    fresh.scripted.answer(Some(fresh.issued(0)));
    fresh.clock.advance(DAY * 30);
    let error = fresh.ask().await.unwrap_err();
    assert!(matches!(error, ProvideError::Expired), "{error}");
}

#[tokio::test]
async fn close_to_its_end_an_answer_is_renewed_earlier() {
    let world = World::new();
    world.scripted.answer(Some(world.issued(0)));
    // Half a day is left.
    world.clock.advance(DAY * 29 + HOUR * 12);
    world.ask().await.unwrap();
    world.ask().await.unwrap();
    assert_eq!(world.scripted.asked(), 1);
    world.clock.advance(HOUR);
    let second = world.issued(1000);
    world.scripted.answer(Some(second.clone()));
    assert_eq!(world.ask().await.unwrap(), second);
}

#[tokio::test]
async fn answers_of_another_kind_are_refused() {
    let world = World::new();
    world.scripted.answer(Some(Endorsements::None));
    let error = world.ask().await.unwrap_err();
    assert!(matches!(error, ProvideError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn only_so_many_platforms_are_kept() {
    let world = World::new();
    world.scripted.answer(Some(Endorsements::Snp {
        vek: vec![1],
        chain: vec![vec![2], vec![3]],
    }));
    for n in 0..PLATFORMS_MAX + 10 {
        let mut chip_id = [0; 64];
        chip_id[..8].copy_from_slice(&n.to_le_bytes());
        let wanted = Wanted {
            platform: attestation::platform::Platform::Amd {
                product: None,
                key: attestation::facts::SnpSigningKey::Vcek,
                chip_id,
                tcb: attestation::facts::SnpTcb::default(),
            },
            host: Endorsements::None,
        };
        world.cached.provide(&wanted).await.unwrap();
    }
    assert_eq!(world.cached.kept.lock().await.len(), PLATFORMS_MAX);
}
