//! Load on one way to an instance: as fast as it goes, or at a given rate from the intended times.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;

use super::RouterError;
use super::connection::Connection;
use super::ways::Way;
use crate::random::Random;

/// Three digits, up to a minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// An empty histogram of nanoseconds.
pub(super) fn histogram() -> Result<Histogram<u64>, RouterError> {
    Ok(Histogram::new_with_bounds(1, LONGEST_NS, 3)?)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos())
        .unwrap_or(LONGEST_NS)
        .clamp(1, LONGEST_NS)
}

/// What a closed loop saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub(super) done: u32,
    pub(super) per_second: f64,
}

/// As many requests as can be in `span` with `at_once` in flight: each sealed, sent, opened, and
/// then the next.
pub(super) async fn closed(
    way: &Way,
    at_once: usize,
    span: Duration,
) -> Result<Speed, RouterError> {
    let began = Instant::now();
    let end = began + span;
    let one = async || {
        let mut connection = way.connect().await?;
        let mut done = 0_u32;
        while Instant::now() < end {
            let ready = way.seal()?;
            let answer = connection.post(ready.body.clone()).await?;
            way.open(&ready, &answer)?;
            done += 1;
        }
        Ok::<_, RouterError>(done)
    };
    let done = try_join_all((0..at_once).map(|_| one())).await?;
    let done = done.iter().sum();
    let per_second = f64::from(done) / began.elapsed().as_secs_f64();
    Ok(Speed { done, per_second })
}

/// What an open loop saw.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    pub(super) answered: Histogram<u64>,
    /// Requests that were not answered: under other load, half may be too much for a while.
    pub(super) failed: u64,
}

/// Latencies at `rate` requests per second for `span`, as a Poisson process: from the time at
/// which each was to be sent to its whole answer. Sealing comes before, opening after. More than
/// `at_once` are not sent: the platform would start another instance for them.
pub(super) async fn open(
    way: &Arc<Way>,
    rate: f64,
    at_once: usize,
    span: Duration,
    random: &mut Random,
) -> Result<Latencies, RouterError> {
    let (mut at, mut due) = (0.0, Vec::new());
    while at < span.as_secs_f64() {
        at += -random.unit().ln() / rate;
        due.push(Duration::from_secs_f64(at));
    }
    let ready = due
        .iter()
        .map(|_| way.seal().map(|ready| ready.body))
        .collect::<Result<VecDeque<_>, _>>()?;
    let (clock, mut ticks) = mpsc::unbounded_channel();
    let connections = try_join_all((0..at_once).map(|_| way.connect())).await?;
    let idle = Arc::new(Idle {
        places: Semaphore::new(at_once),
        connections: Mutex::new(connections),
    });
    let pacer = pacer(due, clock)?;
    let mut sent = tokio::task::JoinSet::new();
    let mut bodies = ready;
    while let Some(intended) = ticks.recv().await {
        let Some(body) = bodies.pop_front() else {
            break;
        };
        let (way, idle) = (Arc::clone(way), Arc::clone(&idle));
        sent.spawn(exchange(way, idle, body, intended));
    }
    let (mut answered, mut failed) = (histogram()?, 0);
    while let Some(done) = sent.join_next().await {
        match done.map_err(|_| RouterError::Lost)? {
            Ok(latency) => answered.record(latency)?,
            Err(RouterError::Post(_)) => failed += 1,
            Err(error) => return Err(error),
        }
    }
    // It has sent its last tick, or the loop above would wait.
    pacer.join().map_err(|_| RouterError::Lost)?;
    Ok(Latencies { answered, failed })
}

/// Connections that no request is on.
#[derive(Debug)]
struct Idle {
    places: Semaphore,
    connections: Mutex<Vec<Connection>>,
}

async fn exchange(
    way: Arc<Way>,
    idle: Arc<Idle>,
    body: Bytes,
    intended: Instant,
) -> Result<u64, RouterError> {
    let place = idle.places.acquire().await;
    let place = place.map_err(|_| RouterError::Lost)?;
    let kept = idle.connections.lock().await.pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => way.connect().await?,
    };
    connection.post(body).await?;
    let latency = nanos(intended.elapsed());
    idle.connections.lock().await.push(connection);
    drop(place);
    Ok(latency)
}

/// Ticks at the given times from now: on a thread, since the runtime's timer is a millisecond coarse.
fn pacer(
    due: Vec<Duration>,
    clock: mpsc::UnboundedSender<Instant>,
) -> Result<std::thread::JoinHandle<()>, RouterError> {
    let pace = move || {
        let began = Instant::now();
        for due in due {
            let at = began + due;
            #[expect(clippy::disallowed_methods, reason = "it is the clock of the load")]
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if clock.send(at).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("pacer".to_owned());
    thread.spawn(pace).map_err(RouterError::Thread)
}
