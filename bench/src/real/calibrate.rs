//! Learns from the real system what the simulator needs to know: what a hot request, a switch of
//! models and a start of an instance take, and what an instance weighs.

use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::StartKind;
use tokio::time::Instant;

use super::models::ModelSize;
use super::stage::{Stage, StageError};
use crate::costs::Quantiles;

/// Between two requests: as under load, the last one's weights have left the caches by then.
/// Without it a hot request of 18 MB takes 10 ms in place of 12.
const PAUSE: Duration = Duration::from_millis(50);

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error("the system failed")]
    Stage(#[from] StageError),
    #[error("of {size} there are no samples of {what}")]
    NoSamples { size: String, what: &'static str },
}

/// What was seen of models of one size.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    hot: Vec<Duration>,
    warm: Vec<Duration>,
    cold: Vec<Duration>,
    /// Time on a core that an instance's process had after its first answer.
    cold_work: Vec<Duration>,
    /// Of a hot request, what is spent outside of the instance.
    around: Vec<Duration>,
    /// Two hot requests at once, each in an instance of its own.
    pair: Vec<Duration>,
    /// Of the instance's process with one model, in MB: in memory now, and at most ever.
    resident_mb: Vec<f64>,
    peak_mb: Vec<f64>,
}

/// What models of one size cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    pub size: ModelSize,
    pub exec: Quantiles,
    pub switch: Quantiles,
    pub start: Quantiles,
    pub around: Quantiles,
    /// Share of a start that is work for a core.
    pub start_work: f64,
    /// How much longer each takes when there are two at once.
    pub slowdown: f64,
    /// With one model, in MB.
    pub resident_mb: f64,
    pub peak_mb: f64,
    /// Samples of hot, warm and cold requests.
    pub counts: [usize; 3],
}

impl Samples {
    /// One cold start, two switches and six hot requests, of two models that share one instance.
    /// There must be no instance, and room for one model in it.
    pub async fn one_instance(&mut self, stage: &Stage) -> Result<(), StageError> {
        stage.no_instances().await?;
        for model in [0, 0, 0, 0, 1, 1, 1, 0, 0] {
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            let asked = stage.ask(model).await?;
            let took = began.elapsed();
            match asked.telemetry.path {
                _ if asked.routing.platform_cold => {
                    self.cold.push(took);
                    self.cold_work.extend(worked(&asked.telemetry.instance));
                }
                StartKind::Hot => {
                    let phases = asked.telemetry.phases_us;
                    let inside = phases.open + phases.run + phases.seal;
                    self.around
                        .push(took.saturating_sub(Duration::from_micros(inside)));
                    self.hot.push(took);
                    self.weigh(&asked.telemetry.instance);
                }
                StartKind::Warm | StartKind::Cold => self.warm.push(took),
            }
        }
        Ok(())
    }

    /// Two models in two instances, asked at the same time once both are hot.
    pub async fn two_instances(&mut self, stage: &Stage) -> Result<(), StageError> {
        for _ in 0..4 {
            tokio::time::sleep(PAUSE).await;
            let one = async |model| {
                let began = Instant::now();
                let asked = stage.ask(model).await?;
                Ok::<_, StageError>((asked.telemetry.path, began.elapsed()))
            };
            let (a, b) = tokio::try_join!(one(0), one(1))?;
            if (a.0, b.0) == (StartKind::Hot, StartKind::Hot) {
                self.pair.extend([a.1, b.1]);
            }
        }
        Ok(())
    }

    fn weigh(&mut self, instance: &InstanceId) {
        let status = kernel_on(instance, "status").unwrap_or_default();
        self.resident_mb.extend(megabytes(&status, "VmRSS:"));
        self.peak_mb.extend(megabytes(&status, "VmHWM:"));
    }

    /// What it comes to.
    pub fn learn(mut self, size: ModelSize) -> Result<Learnt, CalibrateError> {
        let none = |what| CalibrateError::NoSamples {
            size: size.to_string(),
            what,
        };
        let exec = Quantiles::of(&mut self.hot).ok_or_else(|| none("hot requests"))?;
        let warm = Quantiles::of(&mut self.warm).ok_or_else(|| none("switches"))?;
        // What a switch adds, and then what a start adds: medians are taken off, so that what
        // varies is not counted twice.
        let less = |samples: &[Duration], base: Duration| -> Vec<_> {
            samples.iter().map(|s| s.saturating_sub(base)).collect()
        };
        let switch = Quantiles::of(&mut less(&self.warm, exec.median()));
        let start = Quantiles::of(&mut less(&self.cold, warm.median()));
        let start = start.ok_or_else(|| none("cold starts"))?;
        let work = Quantiles::of(&mut self.cold_work).ok_or_else(|| none("work"))?;
        let work = work.median().saturating_sub(warm.median());
        let pair = Quantiles::of(&mut self.pair).ok_or_else(|| none("pairs"))?;
        Ok(Learnt {
            size,
            exec,
            switch: switch.ok_or_else(|| none("switches"))?,
            start,
            start_work: (work.as_secs_f64() / start.median().as_secs_f64()).min(1.0),
            around: Quantiles::of(&mut self.around).ok_or_else(|| none("hot requests"))?,
            slowdown: pair.median().as_secs_f64() / exec.median().as_secs_f64(),
            resident_mb: middle(&mut self.resident_mb).ok_or_else(|| none("memory"))?,
            peak_mb: middle(&mut self.peak_mb).ok_or_else(|| none("memory"))?,
            counts: [self.hot.len(), self.warm.len(), self.cold.len()],
        })
    }
}

/// What the kernel says of an instance: the developer system names it after its process.
fn kernel_on(instance: &InstanceId, file: &str) -> Option<String> {
    let process = instance.as_str().rsplit('-').next()?;
    std::fs::read_to_string(format!("/proc/{process}/{file}")).ok()
}

/// Time on a core, of all threads, in steps of 10 ms: see proc_pid_stat(5).
fn worked(instance: &InstanceId) -> Option<Duration> {
    ticks(&kernel_on(instance, "stat")?)
}

fn ticks(stat: &str) -> Option<Duration> {
    // The name, in parentheses, may have spaces in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

fn megabytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

fn middle(samples: &mut [f64]) -> Option<f64> {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// How many requests the machine does at once without slowing any down: two at once that take
/// `slowdown` times as long. At least one, at most `cores`.
#[must_use]
pub fn parallelism(slowdown: f64, cores: f64) -> f64 {
    (2.0 / slowdown.max(f64::MIN_POSITIVE)).clamp(1.0, cores.max(1.0))
}

/// The costs file. `note` says when and where; the first size is the default.
#[must_use]
pub fn file(learnt: &[Learnt], cores: f64, note: &str) -> String {
    let mut text = String::new();
    for line in note.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    text.push_str(
        "# Seven numbers are quantiles in milliseconds: minimum, 5, 25, 50, 75, 95 and 99 %.\n\
         # exec: a hot request from client to client. switch: what it takes longer in an instance\n\
         # with another model. start: what it takes yet longer without an instance.\n\n",
    );
    let middle = learnt.get(learnt.len() / 2);
    let lightest = learnt.iter().map(|l| l.resident_mb).min_by(f64::total_cmp);
    let base = lightest.unwrap_or_default();
    if let Some(middle) = middle {
        text.push_str(&format!(
            "start = {}\nspread = 0.1\ncores = {:.2}\nstart_work = {:.2}\ninstance_mb = {base:.0}\n\n[default]\n{}",
            list(&middle.start),
            parallelism(middle.slowdown, cores),
            middle.start_work,
            body(middle, base)
        ));
    }
    for one in learnt {
        let [hot, warm, cold] = one.counts;
        let around = one.around.millis();
        text.push_str(&format!(
            "\n# {hot} hot, {warm} warm, {cold} cold; outside of the instance a hot request spends \
             {:.2} ms (median; 99 %: {:.2});\n# two at once take {:.2} times as long; the process \
             has {:.0} MB, at most {:.0} MB.\n[model.{}]\n{}start = {}\n",
            around[3],
            around[6],
            one.slowdown,
            one.resident_mb,
            one.peak_mb,
            one.size,
            body(one, base),
            list(&one.start),
        ));
    }
    text
}

fn body(one: &Learnt, base: f64) -> String {
    format!(
        "exec = {}\nswitch = {}\nmemory_mb = {:.0}\n",
        list(&one.exec),
        list(&one.switch),
        one.resident_mb - base
    )
}

fn list(quantiles: &Quantiles) -> String {
    let numbers = quantiles.millis().map(|ms| format!("{ms:.3}"));
    format!("[{}]", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::CostModel;

    fn samples() -> Samples {
        let ms = |n: u64| vec![Duration::from_millis(n); 10];
        Samples {
            hot: ms(10),
            warm: ms(60),
            cold: ms(200),
            cold_work: ms(130),
            around: ms(1),
            pair: ms(15),
            resident_mb: vec![80.0; 3],
            peak_mb: vec![120.0; 3],
        }
    }

    #[test]
    fn without_samples_nothing_is_learnt() {
        let error = Samples::default().learn(ModelSize::Tiny).unwrap_err();
        assert!(error.to_string().contains("hot requests"), "{error}");
        let cold = Samples {
            cold: Vec::new(),
            ..samples()
        };
        assert!(cold.learn(ModelSize::Tiny).is_err());
    }

    #[test]
    fn a_cold_request_is_start_switch_and_execution() {
        let size = ModelSize::Megabytes(18);
        let learnt = samples().learn(size).unwrap();
        let parts = [learnt.exec, learnt.switch, learnt.start].map(|q| q.median().as_millis());
        assert_eq!(parts, [10, 50, 140]);
        assert!((learnt.slowdown - 1.5).abs() < 1e-9);
        assert!((learnt.start_work - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_file_is_one_that_the_simulator_reads() {
        let size = ModelSize::Megabytes(18);
        let learnt = samples().learn(size).unwrap();
        let text = file(&[learnt], 2.0, "a machine\na day");
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(place.path(), &text).unwrap();
        let costs = CostModel::read(place.path()).unwrap();
        assert!((costs.cores.unwrap() - 4.0 / 3.0).abs() < 0.01, "{text}");
        let model = "m0-x".parse().unwrap();
        let sized = costs.sized(std::slice::from_ref(&model), &[size.to_string()]);
        assert_eq!(
            sized.unwrap().of(&model).exec.median(),
            Duration::from_millis(10)
        );
    }

    #[test]
    fn two_at_once_say_how_much_there_is() {
        assert!((parallelism(1.0, 2.0) - 2.0).abs() < 1e-9);
        assert!((parallelism(0.8, 2.0) - 2.0).abs() < 1e-9);
        assert!((parallelism(1.6, 2.0) - 1.25).abs() < 1e-9);
        assert!((parallelism(9.0, 2.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_kernel_says_what_a_process_has() {
        let status = "Name:\tsemirt\nVmHWM:\t  20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(megabytes(status, "VmRSS:"), Some(10.0));
        assert_eq!(megabytes(status, "VmHWM:"), Some(20.0));
        assert_eq!(megabytes(status, "VmSwap:"), None);
        let stat = "42 (a b) S 1 42 42 0 -1 4 5 0 0 0 7 3 0 0 20";
        assert_eq!(ticks(stat), Some(Duration::from_millis(100)));
        assert_eq!(ticks("42 (a b"), None);
    }
}
