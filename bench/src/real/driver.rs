//! An open loop: every request is sent at its time, whether or not earlier ones were answered, and
//! its latency counts from the time at which it was to be sent. So a stall, of the system or of
//! this driver, shows in the latency of every request that was meant for it, as its user would
//! have felt it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::invoke::StartKind;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::workload::Arrival;

/// Who is asked. A fake in tests, the whole system otherwise.
pub trait Service: Send + Sync + 'static {
    /// Asks a model, by its number in the workload, and checks the answer.
    fn ask(&self, model: u32) -> impl Future<Output = Result<Served, String>> + Send;
}

/// How a request was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub start: StartKind,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Time inside the instance: opening, running, sealing.
    pub inside: Duration,
    /// Time in FnPacker's queue.
    pub queued: Duration,
}

/// One request. Times count from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub model: u32,
    pub intended: Duration,
    /// When it really was sent.
    pub sent: Duration,
    pub ended: Duration,
    /// Or why it has no right answer.
    pub outcome: Result<Served, String>,
}

impl Sent {
    /// From the time at which it was to be sent until its answer was checked.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.intended)
    }

    /// How late the driver was.
    #[must_use]
    pub fn lateness(&self) -> Duration {
        self.sent.saturating_sub(self.intended)
    }
}

/// Says when the next request is due: one message for each.
#[derive(Debug)]
pub struct Pace(UnboundedReceiver<()>);

/// There is no thread to keep the time.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that keeps the time")]
pub struct NoPace(#[source] std::io::Error);

impl Pace {
    /// By a thread of its own, since a runtime's timer is a millisecond coarse.
    pub fn by_thread(began: Instant, arrivals: &[Arrival]) -> Result<Self, NoPace> {
        let (tick, ticks) = mpsc::unbounded_channel();
        let times: Vec<_> = arrivals.iter().map(due).collect();
        let keep = move || {
            for time in times {
                let left = (began + time).saturating_duration_since(Instant::now());
                #[expect(clippy::disallowed_methods, reason = "it is the clock of the load")]
                std::thread::sleep(left);
                if tick.send(()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pace".to_owned());
        // It ends with its list, or when nobody listens any more.
        thread.spawn(keep).map_err(NoPace)?;
        Ok(Self(ticks))
    }
}

const fn due(arrival: &Arrival) -> Duration {
    Duration::from_micros(arrival.at)
}

/// Sends every request at its time and waits for all answers. `progress` hears of each that ended.
/// Dropping the future abandons what is under way.
pub async fn drive<S: Service>(
    service: &Arc<S>,
    arrivals: &[Arrival],
    began: Instant,
    mut pace: Pace,
    mut progress: impl FnMut(&Sent),
) -> Vec<Sent> {
    let mut under_way = JoinSet::new();
    let mut done = Vec::with_capacity(arrivals.len());
    let mut next = arrivals.iter();
    loop {
        let ended = tokio::select! {
            biased;
            Some(()) = pace.0.recv() => {
                if let Some(arrival) = next.next() {
                    let request = request(Arc::clone(service), *arrival, began);
                    under_way.spawn(request);
                }
                continue;
            }
            Some(ended) = under_way.join_next() => ended,
            else => break,
        };
        if let Ok(sent) = ended {
            progress(&sent);
            done.push(sent);
        }
    }
    done
}

async fn request<S: Service>(service: Arc<S>, arrival: Arrival, began: Instant) -> Sent {
    let sent = began.elapsed();
    let outcome = service.ask(arrival.model).await;
    Sent {
        model: arrival.model,
        intended: due(&arrival),
        sent,
        ended: began.elapsed(),
        outcome,
    }
}

#[cfg(test)]
mod tests;
