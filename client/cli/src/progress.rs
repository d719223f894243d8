//! Progress on stderr: a bar where it is a terminal, plain lines where it is not, nothing with
//! `--json`.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::bytes;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A moving bar.
    Bar,
    /// One line when a step ends.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// What suits this process's stderr.
    #[must_use]
    pub fn for_stderr(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Silent,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }

    /// Begins a step; `total` is its size in bytes, if it is known.
    #[must_use]
    pub fn step(self, name: &'static str, total: Option<u64>) -> Step {
        let bar = match self {
            Self::Bar => {
                let target = ProgressDrawTarget::stderr();
                let template = if total.is_some() {
                    "{msg:9} [{bar:30}] {binary_bytes}/{binary_total_bytes} {eta}"
                } else {
                    "{msg:9} {spinner} {elapsed}"
                };
                let style = ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = ProgressBar::with_draw_target(total, target)
                    .with_style(style)
                    .with_message(name);
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            }
            Self::Lines | Self::Silent => ProgressBar::hidden(),
        };
        Step {
            how: self,
            name,
            bar,
        }
    }
}

/// One step under way; it disappears when dropped.
#[derive(Debug)]
pub struct Step {
    how: Progress,
    name: &'static str,
    bar: ProgressBar,
}

impl Step {
    /// So many bytes are done.
    pub fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Ends the step and says what came of it.
    pub fn done(self, size: Option<u64>) {
        self.bar.finish_and_clear();
        if self.how == Progress::Silent {
            return;
        }
        let size = size.map(|n| format!(" ({})", bytes(n))).unwrap_or_default();
        let mut stderr = std::io::stderr().lock();
        // A closed stderr is no reason to fail the work.
        let _shown = writeln!(stderr, "{} done{size}", self.name);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
