//! `bench router`: what FnPacker and the embedded platform add to a request, and how many they
//! carry, beside the shorter ways to the same instance.
//!
//! All ways are measured in turns within one run, so that a machine that gets slower does so for
//! all. The requests are sealed by the client's own code; answers are opened where throughput is
//! measured, so that a wrong one would be noticed.

pub mod connection;
pub mod decisions;
mod load;
mod processor;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::{ModelId, WireError};
use serde::Serialize;

use self::connection::{Connection, PostError, Target};
use self::decisions::Decisions;
use self::load::Latencies;
pub use self::ways::Hops;
use self::ways::Way;
use crate::random::Random;
use crate::real::{Source, System, SystemError, Wishes};

/// What router and platform may add to a hot request at half load, in milliseconds.
pub const ADDED_P50_MS: f64 = 0.25;
pub const ADDED_P99_MS: f64 = 1.0;
/// Small encrypted requests per second, from sealing to the opened answer.
pub const THROUGHPUT: f64 = 5000.0;
/// What one decision may cost, in microseconds.
pub const DECISION_US: f64 = 20.0;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    #[error("start the system")]
    System(#[from] SystemError),
    #[error("ask")]
    Post(#[from] PostError),
    #[error("an address of the system is not one")]
    Address,
    #[error("an answer or a request has not its form")]
    Form(#[source] serde_json::Error),
    #[error("the instance refused")]
    Refused(#[source] WireError),
    #[error("the answer is not the answer to the request")]
    Open(#[from] sdk::InferError),
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    #[error("a part of the bench ended early")]
    Lost,
    #[error("keep a latency")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("keep a latency")]
    Record(#[from] hdrhistogram::RecordError),
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `sesemi-dev` executable.
    pub dev: PathBuf,
    /// A folder with the model.
    pub model: PathBuf,
    /// Requests in flight where throughput is measured; also the instances' concurrency.
    pub at_once: u16,
    /// How often each way has its turn.
    pub rounds: u32,
    /// How long a turn takes.
    pub turn: Duration,
    /// Arrivals for each policy's decisions.
    pub decisions: usize,
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub cores: usize,
    pub at_once: u16,
    pub rounds: u32,
    /// Requests per second of the open loops: half of what the whole way carried just before; median.
    pub rate: f64,
    pub ways: Vec<WayReport>,
    /// Processor time of each part for one request on the whole way, with `at_once` in flight, in
    /// microseconds: the median over the rounds.
    pub processor_us: BTreeMap<&'static str, f64>,
    pub decisions: Vec<Decisions>,
    pub goals: Vec<Goal>,
}

/// One way.
#[derive(Debug, Clone, Serialize)]
pub struct WayReport {
    pub way: Hops,
    /// Medians over the rounds of each round's figure, in milliseconds, at `rate`.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub requests: u64,
    /// Of the requests at `rate`, those without an answer.
    pub failed: u64,
    /// Requests per second with `at_once` in flight: the median over the rounds, and the best.
    pub per_second: f64,
    pub per_second_best: f64,
}

/// One of the numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    pub name: String,
    pub unit: &'static str,
    pub goal: f64,
    pub got: f64,
    pub reached: bool,
    /// What no code of ours could go below, or above.
    pub floor: Option<f64>,
}

/// Starts a system, measures, and stops it.
pub fn measure(plan: &Plan) -> Result<Report, RouterError> {
    let decisions = decisions::measure(plan.decisions)?;
    let wishes = Wishes {
        dev: plan.dev.clone(),
        endpoints: 1,
        packing: None,
        concurrency: plan.at_once,
    };
    let system = System::start(wishes)?;
    let model: ModelId = "small".parse().map_err(|_| RouterError::Address)?;
    let source = Source::folder(&plan.model);
    system.publish(&model, &source)?;
    let direct = system.direct()?;
    let key = system.platform_key()?;
    let address = |url: &str| -> Result<SocketAddr, RouterError> {
        let plain = url.trim_start_matches("http://").trim_end_matches('/');
        plain.parse().map_err(|_| RouterError::Address)
    };
    let (router, platform) = (
        address(system.fnpacker_url())?,
        address(system.platform_url())?,
    );
    let echo = connection::echo().map_err(RouterError::Thread)?;
    let way = |hops, address| {
        let sealer = system.sealer(&model, &source)?;
        Way::new(hops, address, FUNCTION, &key, sealer).map(Arc::new)
    };
    let ways = [
        way(Hops::Echo, echo)?,
        way(Hops::Instance, direct.address)?,
        way(Hops::Platform, platform)?,
        way(Hops::Router, router)?,
    ];
    // One thread: the client is to leave the cores to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RouterError::Thread)?;
    let turns = runtime.block_on(async {
        let mut init = Connection::open(&Target::new(direct.address, "/init")).await?;
        init.post(direct.init.clone().into()).await?;
        take_turns(&ways, plan, system.process()).await
    })?;
    let Turns {
        rate,
        ways,
        processor_us,
    } = turns;
    let goals = goals(&ways, &decisions);
    Ok(Report {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        at_once: plan.at_once,
        rounds: plan.rounds,
        rate,
        ways,
        processor_us,
        decisions,
        goals,
    })
}

struct Turns {
    rate: f64,
    ways: Vec<WayReport>,
    processor_us: BTreeMap<&'static str, f64>,
}

/// The only function of the genuine pool.
const FUNCTION: &str = "sesemi-semirt-0";

async fn take_turns(ways: &[Arc<Way>], plan: &Plan, system: u32) -> Result<Turns, RouterError> {
    let at_once = usize::from(plan.at_once);
    // The whole way first: it deploys the function.
    for way in ways.iter().rev() {
        load::closed(way, at_once, plan.turn).await?;
    }
    let mut random = Random::new(11);
    let mut speeds = vec![Vec::new(); ways.len()];
    let mut latencies: Vec<Vec<Latencies>> = vec![Vec::new(); ways.len()];
    let mut rates = Vec::new();
    let mut processor: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..plan.rounds {
        let mut whole = 0.0;
        for (way, speeds) in ways.iter().zip(&mut speeds) {
            let before = processor::spent(system);
            let speed = load::closed(way, at_once, plan.turn).await?;
            whole = speed.per_second;
            speeds.push(whole);
            if way.hops == Hops::Router {
                for (part, after) in processor::spent(system) {
                    let spent = after.saturating_sub(before.get(part).copied().unwrap_or(after));
                    let each = spent.as_secs_f64() * 1e6 / f64::from(speed.done.max(1));
                    processor.entry(part).or_default().push(each);
                }
            }
        }
        // The last is the whole way.
        let rate = whole / 2.0;
        rates.push(rate);
        for (way, latencies) in ways.iter().zip(&mut latencies) {
            latencies.push(load::open(way, rate, at_once, plan.turn, &mut random).await?);
        }
    }
    let reports = ways.iter().zip(speeds).zip(latencies);
    let reports = reports.map(|((way, mut speeds), latencies)| WayReport {
        way: way.hops,
        p50_ms: quantile(&latencies, 0.5),
        p99_ms: quantile(&latencies, 0.99),
        requests: latencies.iter().map(|round| round.answered.len()).sum(),
        failed: latencies.iter().map(|round| round.failed).sum(),
        per_second: median(&mut speeds),
        per_second_best: speeds.iter().copied().fold(0.0, f64::max),
    });
    let processor = processor.into_iter();
    Ok(Turns {
        rate: median(&mut rates),
        ways: reports.collect(),
        processor_us: processor
            .map(|(part, mut each)| (part, median(&mut each)))
            .collect(),
    })
}

/// The median over the rounds, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "below 2^53 ns")]
fn quantile(rounds: &[Latencies], at: f64) -> f64 {
    let each = rounds
        .iter()
        .map(|round| round.answered.value_at_quantile(at) as f64 / 1e6);
    median(&mut each.collect::<Vec<_>>())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn goals(ways: &[WayReport], decisions: &[Decisions]) -> Vec<Goal> {
    let of = |hops| ways.iter().find(|way| way.way == hops);
    let mut goals = Vec::new();
    if let (Some(echo), Some(instance), Some(router)) =
        (of(Hops::Echo), of(Hops::Instance), of(Hops::Router))
    {
        let mut added = |name: &str, goal, figure: fn(&WayReport) -> f64| {
            let got = figure(router) - figure(instance);
            goals.push(Goal {
                name: name.to_owned(),
                unit: "ms",
                goal,
                got,
                reached: got <= goal,
                // Two more hops.
                floor: Some(2.0 * figure(echo)),
            });
        };
        added("added at p50", ADDED_P50_MS, |way| way.p50_ms);
        added("added at p99", ADDED_P99_MS, |way| way.p99_ms);
        goals.push(Goal {
            name: "encrypted requests, end to end".to_owned(),
            unit: "1/s",
            goal: THROUGHPUT,
            got: router.per_second,
            reached: router.per_second >= THROUGHPUT,
            floor: Some(instance.per_second),
        });
    }
    goals.extend(decisions.iter().map(|policy| {
        let got = policy.arrive.p99_us.max(policy.finish.p99_us);
        Goal {
            name: format!("a decision of {} at p99", policy.policy),
            unit: "us",
            goal: DECISION_US,
            got,
            reached: got <= DECISION_US,
            floor: None,
        }
    }));
    goals
}
