//! Keys against a KeyService that fails, refuses, and comes back.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use protocol::WireError;
use protocol::id::LeaseId;
use protocol::keyservice::{Lease, WireKey};
use service::{Clock as _, SystemClock};

use super::*;

/// Answers from a script, then grants.
#[derive(Debug, Default)]
struct Scripted {
    script: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Duration>>,
    clock: SystemClock,
    ttl_s: u64,
}

#[derive(Debug)]
enum Answer {
    Down,
    Refuse(ErrorCode),
    OtherModel,
    ShortKey,
}

impl KeySource for Scripted {
    fn release<'a>(
        &'a self,
        request: &'a ReleaseRequest,
    ) -> BoxFuture<'a, Result<Released, KeySourceError>> {
        async move {
            lock(&self.asked).push(self.clock.monotonic());
            tokio::time::sleep(Duration::from_millis(10)).await;
            let answer = lock(&self.script).pop_front();
            let mut release = Release {
                model: request.model.clone(),
                version: ModelVersion(1),
                owner: PrincipalId::new([9; 32]),
                digest: Digest::new([1; 32]),
                model_key: WireKey::new(&[1; 32]),
                request_key: WireKey::new(&[2; 32]),
                lease: Lease {
                    id: LeaseId::new([0; 16]),
                    ttl_s: self.ttl_s,
                    epoch: 1,
                },
            };
            match answer {
                None => {}
                Some(Answer::Down) => return Err(KeySourceError::Unreachable("refused".into())),
                Some(Answer::Refuse(code)) => {
                    return Err(KeySourceError::Refused(WireError::new(code, "no")));
                }
                Some(Answer::OtherModel) => release.model = "other".parse().unwrap(),
                Some(Answer::ShortKey) => release.model_key = WireKey::new(&[1; 31]),
            }
            let keys = Duration::from_millis(10);
            Ok(Released {
                release,
                attest: Duration::ZERO,
                keys,
            })
        }
        .boxed()
    }
}

fn keys(script: impl IntoIterator<Item = Answer>, ttl_s: u64) -> (Arc<Keys>, Arc<Scripted>) {
    let source = Arc::new(Scripted {
        script: Mutex::new(script.into_iter().collect()),
        ttl_s,
        ..Scripted::default()
    });
    let clock = Arc::new(SystemClock::default());
    let ttl = Duration::from_secs(60);
    let keys = Keys::new(
        Arc::clone(&source) as _,
        clock,
        TaskTracker::new(),
        ttl,
        Isolation::Shared,
    );
    (Arc::new(keys), source)
}

fn pair() -> Pair {
    (PrincipalId::new([1; 32]), "m".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_call() {
    let (keys, source) = keys([], 60);
    let pair = pair();
    let four = [&pair; 4].map(|p| keys.obtain(p));
    let obtained = futures::future::try_join_all(four).await.unwrap();
    assert_eq!(lock(&source.asked).len(), 1);
    let asked = obtained
        .iter()
        .filter(|o| matches!(o.how, How::Asked { .. }))
        .count();
    let waited = obtained
        .iter()
        .filter(|o| matches!(o.how, How::Waited(_)))
        .count();
    assert_eq!((asked, waited), (1, 3));
    assert_eq!(keys.obtain(&pair).await.unwrap().how, How::Kept);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_takes_nothing_from_the_others() {
    let (keys, source) = keys([], 60);
    let pair = pair();
    let mut first = Box::pin(keys.obtain(&pair));
    assert!((&mut first).now_or_never().is_none());
    drop(first);
    assert!(keys.obtain(&pair).await.is_ok());
    assert_eq!(lock(&source.asked).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn three_tries_with_growing_waits_then_an_error_then_again() {
    let (keys, source) = keys([Answer::Down, Answer::Down, Answer::Down], 60);
    let error = keys.obtain(&pair()).await.unwrap_err();
    assert!(
        matches!(error, KeyError::Unavailable { tries: 3, .. }),
        "{error:?}"
    );
    {
        let asked = lock(&source.asked);
        let waits: Vec<_> = asked.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(waits, BACKOFF.map(|b| b + Duration::from_millis(10)));
    }
    assert!(keys.obtain(&pair()).await.is_ok(), "back again");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_on_at_once_and_not_kept() {
    let (keys, source) = keys([Answer::Refuse(ErrorCode::NotGranted)], 60);
    let error = keys.obtain(&pair()).await.unwrap_err();
    let KeyError::Source(cause) = &error else {
        panic!("{error:?}")
    };
    assert!(matches!(
        **cause,
        KeySourceError::Refused(WireError {
            code: ErrorCode::NotGranted,
            ..
        })
    ));
    assert_eq!(lock(&source.asked).len(), 1);
    assert!(keys.obtain(&pair()).await.is_ok(), "granted meanwhile");
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_lease_and_measured_time_holds() {
    for (lease_s, holds_s) in [(5, 5), (3600, 60)] {
        let (keys, source) = keys([], lease_s);
        keys.obtain(&pair()).await.unwrap();
        // The lease counts from before the call, which took 10 ms.
        tokio::time::advance(Duration::from_secs(holds_s) - Duration::from_millis(11)).await;
        assert_eq!(keys.obtain(&pair()).await.unwrap().how, How::Kept);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_ne!(keys.obtain(&pair()).await.unwrap().how, How::Kept);
        assert_eq!(lock(&source.asked).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn expired_keys_leave_memory_without_being_asked_for() {
    let (keys, _) = keys([], 5);
    let weak = Arc::downgrade(&keys.obtain(&pair()).await.unwrap().keys);
    assert!(weak.upgrade().is_some());
    tokio::time::advance(Duration::from_secs(5)).await;
    keys.sweep();
    assert!(weak.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_the_question_is_refused() {
    let (keys, _) = keys([Answer::OtherModel, Answer::ShortKey], 60);
    let error = keys.obtain(&pair()).await.unwrap_err();
    assert!(matches!(error, KeyError::OtherModel(_)), "{error:?}");
    let error = keys.obtain(&pair()).await.unwrap_err();
    assert!(matches!(error, KeyError::KeyLength(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn sequential_asks_every_time_and_keeps_nothing() {
    let (keys, source) = keys([], 60);
    for _ in 0..3 {
        keys.ask(&pair()).await.unwrap();
    }
    assert_eq!(lock(&source.asked).len(), 3);
    assert!(
        lock(&keys.state)
            .kept
            .find(&pair(), Duration::ZERO)
            .is_none()
    );
}
