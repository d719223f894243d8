//! What every command with a real system has in common: arguments, Ctrl-C, progress on stderr.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bench::policy::PolicySpec;
use bench::real::System;
use bench::real::models::ModelSize;
use bench::real::outcome::Outcome;
use bench::real::schedule::Cut;
use bench::real::stage::{Scene, Stage};
use bench::workload::Workload;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::ModelId;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// What is played, on which models.
#[derive(Debug, Args)]
pub(crate) struct Live {
    /// A file of `t_ms,model` lines; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) workload: Vec<PathBuf>,
    /// NAME or NAME:endpoints=N,models=N,ttl=SECONDS,instances=N; may be given several times.
    #[arg(long, value_name = "POLICY", required = true)]
    pub(crate) policy: Vec<PolicySpec>,
    /// At most so many models: others become one of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    models: Option<u32>,
    /// Sizes of the models, in turn: tiny, or 1MB to 512MB.
    #[arg(long, value_delimiter = ',', default_value = "18MB")]
    sizes: Vec<ModelSize>,
    /// Play only so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Play so many times faster. Keep-alive times are real time: divide them, too.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Seed of the models' weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The executable that is the whole system; by default the one beside this.
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
}

impl Live {
    /// The workloads, cut to size.
    pub(crate) fn workloads(&self) -> anyhow::Result<Vec<Workload>> {
        ensure!(
            self.speed.is_finite() && self.speed > 0.0,
            "the speed must be above 0"
        );
        let cut = Cut {
            speed: self.speed,
            duration: self.duration.map(Duration::from_secs),
            models: self.models,
        };
        self.workload
            .iter()
            .map(|path| {
                let left = cut.of(&Workload::read(path)?);
                ensure!(
                    !left.arrivals.is_empty(),
                    "nothing is left of workload {}",
                    left.name
                );
                Ok(left)
            })
            .collect()
    }

    /// The system for one policy.
    pub(crate) fn scene(&self, spec: &PolicySpec) -> anyhow::Result<Scene> {
        Ok(Scene {
            dev: dev(self.dev.as_ref())?,
            spec: spec.clone(),
            sizes: self.sizes.clone(),
            seed: self.seed,
        })
    }

    /// Plays one workload on a system of its own.
    pub(crate) fn play(
        &self,
        desk: &Desk,
        workload: &Workload,
        spec: &PolicySpec,
    ) -> anyhow::Result<Outcome> {
        let scene = self.scene(spec)?;
        let stage = desk.build(&scene, &workload.models)?;
        let bar = desk.bar(workload.arrivals.len() as u64);
        bar.set_message(format!("{} under {}", workload.name, spec.text));
        let (sent, metered) = desk.wait(stage.play(workload, |sent| {
            bar.inc(1);
            if let Err(why) = &sent.outcome {
                bar.set_message(why.clone());
            }
        }))?;
        bar.finish_and_clear();
        let sizes = scene.names(workload.models.len());
        Ok(Outcome::of(&sent, &sizes, metered)?)
    }
}

/// The executable that is the whole system.
pub(crate) fn dev(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.clone()),
        None => {
            let own = std::env::current_exe().context("find this executable")?;
            Ok(System::sibling(&own)?)
        }
    }
}

/// A runtime that Ctrl-C interrupts, and the way to the person at the terminal.
#[derive(Debug)]
pub(crate) struct Desk {
    runtime: Runtime,
    interrupted: Arc<AtomicBool>,
    interrupt: Arc<Notify>,
}

impl Desk {
    /// Catches Ctrl-C from here on: whatever was started is to be ended first.
    pub(crate) fn new() -> anyhow::Result<Self> {
        // One worker: the driver is to leave the machine to what it measures.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (interrupted, interrupt) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (flag, bell) = (Arc::clone(&interrupted), Arc::clone(&interrupt));
        runtime.spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Ordering::Relaxed);
                bell.notify_one();
            }
        });
        Ok(Self {
            runtime,
            interrupted,
            interrupt,
        })
    }

    /// Says what is done now; false when it is to stop.
    pub(crate) fn say(&self, text: &str) -> bool {
        use std::io::Write as _;
        // Who closed stderr does not want to know.
        writeln!(std::io::stderr(), "· {text}").ok();
        !self.interrupted.load(Ordering::Relaxed)
    }

    /// A system with these models.
    pub(crate) fn build(&self, scene: &Scene, models: &[ModelId]) -> anyhow::Result<Stage> {
        let bar = self.bar(models.len() as u64 + 1);
        let stage = Stage::build(scene, models, |text| {
            bar.set_message(text.to_owned());
            bar.inc(1);
            !self.interrupted.load(Ordering::Relaxed)
        })?;
        bar.finish_and_clear();
        Ok(stage)
    }

    /// Waits for it, or for Ctrl-C.
    pub(crate) fn wait<T, E: Into<anyhow::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done.map_err(Into::into),
                () = self.interrupt.notified() => bail!("interrupted"),
            }
        })
    }

    /// A bar on stderr, where that is a terminal.
    pub(crate) fn bar(&self, length: u64) -> ProgressBar {
        let bar = ProgressBar::new(length);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed} < {eta}] {wide_msg}")
        {
            bar.set_style(style);
        }
        bar
    }
}
