//! `bench calibrate`: learns the simulator's costs from the real system.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bench::policy::PolicySpec;
use bench::real::calibrate::{Samples, file};
use bench::real::models::ModelSize;
use bench::real::stage::{Scene, Stage};
use clap::Args;
use protocol::ModelId;

use super::live::{Desk, dev};

/// Longer than any pause between two requests of a round, shorter than a round of another size.
const KEEP_ALIVE: Duration = Duration::from_millis(400);

#[derive(Debug, Args)]
pub(crate) struct Calibrate {
    /// Sizes of models: tiny, or 1MB to 512MB.
    #[arg(long, value_delimiter = ',', default_value = "tiny,18MB,44MB")]
    sizes: Vec<ModelSize>,
    /// Rounds through all sizes; each gives one cold start, two switches and six hot requests.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Where to write the costs.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "bench/costs/calibrated.toml"
    )]
    out: PathBuf,
    /// What the file says of when and where, in its first line.
    #[arg(long, default_value = "")]
    note: String,
    /// Seed of the models' weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The executable that is the whole system; by default the one beside this.
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
}

impl Calibrate {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let desk = Desk::new()?;
        let mut benches = Vec::new();
        for size in &self.sizes {
            desk.say(&format!("two systems with models of {size}"));
            // One instance with room for one model; and an instance for each of two.
            let shared = self.stage(&desk, "all-in-one:endpoints=1,models=1", *size, KEEP_ALIVE)?;
            let apart = "one-to-one:endpoints=2,models=1";
            let apart = self.stage(&desk, apart, *size, Duration::from_secs(600))?;
            benches.push((*size, shared, apart, Samples::default()));
        }
        let bar = desk.bar(u64::from(self.rounds) * self.sizes.len() as u64);
        for _ in 0..self.rounds {
            // In turn, so that a disturbance meets every size alike.
            for (size, shared, apart, samples) in &mut benches {
                bar.set_message(size.to_string());
                desk.wait(samples.one_instance(shared))?;
                desk.wait(samples.two_instances(apart))?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        let learnt = benches
            .into_iter()
            .map(|(size, _, _, samples)| samples.learn(size))
            .collect::<Result<Vec<_>, _>>()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let text = file(&learnt, f64::from(u32::try_from(cores)?), &self.note());
        if let Some(folder) = self.out.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&self.out, &text)
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        Ok(text)
    }

    fn stage(
        &self,
        desk: &Desk,
        policy: &str,
        size: ModelSize,
        keep_alive: Duration,
    ) -> anyhow::Result<Stage> {
        let mut spec: PolicySpec = policy.parse()?;
        spec.ttl = keep_alive;
        spec.instances = 2;
        let scene = Scene {
            dev: dev(self.dev.as_ref())?,
            spec,
            sizes: vec![size],
            seed: self.seed,
        };
        let models: Vec<ModelId> = vec!["m0-a".parse()?, "m1-b".parse()?];
        desk.build(&scene, &models)
    }

    fn note(&self) -> String {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("", |name| name.trim_start_matches([' ', '\t', ':']));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        format!(
            "Written by `bench calibrate --rounds {}`. {}\n{model}, {cores} cores; the simulated \
             TEE, the embedded platform; `bench` built {build} optimisation.",
            self.rounds,
            self.note,
            build = if cfg!(debug_assertions) {
                "with little"
            } else {
                "for release, with full"
            },
        )
    }
}
