//! The driver in virtual time, against services whose latencies are known.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn served() -> Served {
    Served {
        start: StartKind::Hot,
        retries: 0,
        inside: MS,
        queued: Duration::ZERO,
    }
}

/// One request every `every` ms.
fn steady(count: u64, every: u64) -> Vec<Arrival> {
    let arrival = |i: u64| Arrival {
        at: i * every * 1000,
        model: 0,
    };
    (0..count).map(arrival).collect()
}

/// Ticks by the runtime's own, virtual, clock; late as `late` says.
fn pace(arrivals: &[Arrival], late: impl Fn(Duration) -> Duration + Send + 'static) -> Pace {
    let (tick, ticks) = mpsc::unbounded_channel();
    let times: Vec<_> = arrivals.iter().map(due).collect();
    let began = Instant::now();
    let mut task = JoinSet::new();
    task.spawn(async move {
        for time in times {
            tokio::time::sleep_until(began + late(time)).await;
            tick.send(()).unwrap();
        }
    });
    task.detach_all();
    Pace(ticks)
}

/// Serves in 10 ms, but nothing from `stall.0` to `stall.1`.
struct Stalling {
    began: Instant,
    stall: (Duration, Duration),
    asked: AtomicU32,
}

impl Service for Stalling {
    async fn ask(&self, model: u32) -> Result<Served, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if model == 9 {
            return Err("it never answers".to_owned());
        }
        let now = self.began.elapsed();
        if now >= self.stall.0 && now < self.stall.1 {
            tokio::time::sleep_until(self.began + self.stall.1).await;
        }
        tokio::time::sleep(10 * MS).await;
        Ok(served())
    }
}

fn stalling(from: Duration, to: Duration) -> Arc<Stalling> {
    Arc::new(Stalling {
        began: Instant::now(),
        stall: (from, to),
        asked: AtomicU32::new(0),
    })
}

/// What everybody should feel who meant to ask at `intended`.
fn felt(intended: Duration, from: Duration, to: Duration) -> Duration {
    let stalled = intended >= from && intended < to;
    10 * MS
        + if stalled {
            to - intended
        } else {
            Duration::ZERO
        }
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_system_is_felt_by_all_who_came_in_it() {
    let (from, to) = (1000 * MS, 2000 * MS);
    let arrivals = steady(300, 10);
    let service = stalling(from, to);
    let pace = pace(&arrivals, |at| at);
    let done = drive(&service, &arrivals, Instant::now(), pace, |_| {}).await;
    assert_eq!(done.len(), 300);
    for sent in &done {
        assert_eq!(sent.lateness(), Duration::ZERO);
        assert_eq!(sent.latency(), felt(sent.intended, from, to), "{sent:?}");
    }
    // A closed loop would have seen one slow request; a hundred users felt it.
    assert_eq!(done.iter().filter(|s| s.latency() > 10 * MS).count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_driver_is_neither_hidden_nor_forgiven() {
    let (from, to) = (1000 * MS, 2000 * MS);
    let arrivals = steady(300, 10);
    let service = stalling(Duration::ZERO, Duration::ZERO);
    let late = move |at| if at >= from && at < to { to } else { at };
    let pace = pace(&arrivals, late);
    let done = drive(&service, &arrivals, Instant::now(), pace, |_| {}).await;
    for sent in &done {
        let lateness = late(sent.intended) - sent.intended;
        assert_eq!(sent.lateness(), lateness);
        assert_eq!(sent.latency(), lateness + 10 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_earlier_answer_and_every_request_is_counted_once() {
    // Each takes twenty times as long as the gap between two.
    let arrivals = steady(100, 1);
    let service = stalling(Duration::ZERO, 20 * MS);
    let mut heard = 0;
    let ticks = pace(&arrivals, |at| at);
    let done = drive(&service, &arrivals, Instant::now(), ticks, |_| heard += 1).await;
    assert_eq!((done.len(), heard), (100, 100));
    assert_eq!(service.asked.load(Ordering::Relaxed), 100);
    let last = done.iter().map(|sent| sent.ended).max().unwrap();
    assert_eq!(last, 109 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_kept_as_one() {
    let mut arrivals = steady(10, 10);
    arrivals[3].model = 9;
    let service = stalling(Duration::ZERO, Duration::ZERO);
    let ticks = pace(&arrivals, |at| at);
    let done = drive(&service, &arrivals, Instant::now(), ticks, |_| {}).await;
    let failed: Vec<_> = done.iter().filter(|sent| sent.outcome.is_err()).collect();
    assert_eq!((done.len(), failed.len()), (10, 1));
    assert_eq!(failed[0].intended, 30 * MS);
}
