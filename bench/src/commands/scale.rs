//! `bench scale`: how large a platform the simulator can play, and how fast.

use std::time::Instant;

use anyhow::Context as _;
use bench::policy::PolicySpec;
use bench::simulation::Simulation;
use bench::workload::Source;
use clap::Args;

use super::platform::Platform;

#[derive(Debug, Args)]
pub(crate) struct Scale {
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    requests: u32,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    models: u32,
    /// Instances that the platform's memory holds; requests come so that most are busy.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    instances: u32,
    /// Without endpoints=N, as many as there are instances.
    #[arg(long, default_value = "one-to-one")]
    policy: PolicySpec,
    #[command(flatten)]
    platform: Platform,
}

/// Share of the instances that is busy when every request is hot.
const LOAD: f64 = 0.85;

impl Scale {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long it takes is the result; nothing is decided by it"
    )]
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let costs = self.platform.costs()?;
        let exec = costs.usual_exec().as_secs_f64();
        let rate = f64::from(self.instances) * LOAD / exec;
        let text = format!(
            "poisson:rate={rate},models={},requests={},seconds=100000000",
            self.models, self.requests
        );
        let Source::Poisson(source) = text.parse()? else {
            anyhow::bail!("{text} is no Poisson process");
        };
        let mut spec = self.policy.clone();
        spec.instances = usize::try_from(self.instances)?;
        if !spec.text.contains("endpoints=") {
            spec.endpoints = spec.instances;
        }
        let began = Instant::now();
        let (models, arrivals) = source.stream();
        let machine = self.platform.machine(&costs);
        let tally = Simulation::stream(&models, arrivals, &costs, &spec, &machine, 1);
        let events = tally.events;
        let figures = tally.figures();
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let each_second = events as f64 / seconds;
        Ok(format!(
            "{}: {:.0} requests for {} models at {rate:.0} per second, up to {:.0} instances\n\
             {seconds:.1} s, {each_second:.0} events/s, {} MiB at most\n\
             mean {:.1} ms, p99 {:.1} ms, {:.2} % cold, {:.0} GB·s",
            spec.text,
            figures.requests,
            self.models,
            figures.peak_instances,
            peak_mib()?,
            figures.mean_ms,
            figures.p99_ms,
            figures.cold * 100.0,
            figures.gb_seconds,
        ))
    }
}

/// The most memory that this process ever had.
fn peak_mib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.parse::<u64>()? / 1024)
}
