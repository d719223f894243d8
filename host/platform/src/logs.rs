//! Which log line belongs to which activation.
//!
//! With one run at a time, lines belong to the run that is under way. An image that writes the
//! sentinel to both streams after each run ends its own logs; otherwise they end when the run does.
//! With several runs at once lines cannot be told apart: then only a run that failed gets the last
//! lines of its instance.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::action::LOG_SENTINEL;

use crate::sandbox::Stream;

/// Lines kept of an instance whose runs cannot be told apart.
const TAIL_MAX: usize = 50;
/// Runs whose sentinel is awaited at once; an image that promises one and writes none gets no more.
const OVERDUE_MAX: usize = 8;

/// The logs of one activation, when they are complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) activation: String,
    pub(crate) lines: Vec<String>,
}

/// The logs of one instance.
#[derive(Debug)]
pub(crate) struct LogCollector {
    sentinel: bool,
    /// Runs at once; lines are attributed only if it is 1.
    alone: bool,
    limit_bytes: u64,
    runs: VecDeque<Run>,
    tail: VecDeque<String>,
    /// The instance ended: nothing is awaited any more.
    over: bool,
}

#[derive(Debug)]
struct Run {
    activation: String,
    lines: Vec<String>,
    bytes: u64,
    truncated: bool,
    /// Streams that wrote their sentinel.
    stdout_done: bool,
    stderr_done: bool,
    /// Its record exists: complete logs may be handed out.
    recorded: bool,
}

impl LogCollector {
    #[must_use]
    pub(crate) fn new(sentinel: bool, concurrency: u32, limit_bytes: u64) -> Self {
        let (runs, tail) = (VecDeque::new(), VecDeque::new());
        Self {
            sentinel,
            alone: concurrency == 1,
            limit_bytes,
            runs,
            tail,
            over: false,
        }
    }

    /// Whether the instance must be drained when a run ends, so that no line comes too late.
    #[must_use]
    pub(crate) fn needs_drain(&self) -> bool {
        self.alone && !self.sentinel && self.limit_bytes > 0
    }

    /// From now on lines belong to this activation. Returns logs whose sentinel never came.
    pub(crate) fn begin(&mut self, activation: &str) -> Option<Finished> {
        let overdue = self.runs.len() >= OVERDUE_MAX;
        let given_up = overdue
            .then(|| self.runs.pop_front())
            .flatten()
            .map(Run::finish);
        if self.alone && self.limit_bytes > 0 {
            self.runs.push_back(Run {
                activation: activation.to_owned(),
                lines: Vec::new(),
                bytes: 0,
                truncated: false,
                stdout_done: false,
                stderr_done: false,
                recorded: false,
            });
        }
        given_up
    }

    /// A line came, at a wall time since 1970. Returns logs that it completes.
    pub(crate) fn line(&mut self, now: Duration, stream: Stream, line: &[u8]) -> Option<Finished> {
        if self.sentinel && line == LOG_SENTINEL.as_bytes() {
            return self.sentinel_seen(stream);
        }
        let text = String::from_utf8_lossy(line);
        let text = format!("{} {}: {text}", rfc3339(now), stream.name());
        // One bound for all runs that are awaited: an image that promises sentinels and writes none
        // is not to hold a log for each.
        let held: u64 = self.runs.iter().map(|run| run.bytes).sum();
        let limit = self.limit_bytes;
        let open = |run: &&mut Run| match stream {
            Stream::Stdout => !run.stdout_done,
            Stream::Stderr => !run.stderr_done,
        };
        if let Some(run) = self.runs.iter_mut().find(open) {
            run.push(text, held, limit);
        } else if !self.alone && limit > 0 {
            if self.tail.len() == TAIL_MAX {
                self.tail.pop_front();
            }
            self.tail.push_back(text);
        }
        None
    }

    /// The run's record was written. Returns its logs if they are complete; otherwise
    /// [`Self::line`] or [`Self::ended`] will.
    pub(crate) fn recorded(&mut self, activation: &str, failed: bool) -> Option<Finished> {
        if !self.alone {
            let lines = if failed {
                self.tail.iter().cloned().collect()
            } else {
                Vec::new()
            };
            return Some(Finished {
                activation: activation.to_owned(),
                lines,
            });
        }
        let at = self
            .runs
            .iter()
            .position(|run| run.activation == activation)?;
        // A failed run may have died before its sentinel: nothing is awaited.
        let complete = !self.sentinel || failed || self.over || self.runs.get(at)?.complete();
        if complete {
            return self.runs.remove(at).map(Run::finish);
        }
        self.runs.get_mut(at)?.recorded = true;
        None
    }

    /// The instance ended: nothing more will come.
    pub(crate) fn ended(&mut self) -> Vec<Finished> {
        self.over = true;
        let runs = std::mem::take(&mut self.runs);
        let (recorded, open): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.recorded);
        self.runs = open.into();
        recorded.into_iter().map(Run::finish).collect()
    }

    fn sentinel_seen(&mut self, stream: Stream) -> Option<Finished> {
        let open = |run: &Run| match stream {
            Stream::Stdout => !run.stdout_done,
            Stream::Stderr => !run.stderr_done,
        };
        let at = self.runs.iter().position(open)?;
        let run = self.runs.get_mut(at)?;
        match stream {
            Stream::Stdout => run.stdout_done = true,
            Stream::Stderr => run.stderr_done = true,
        }
        if run.complete() && run.recorded {
            return self.runs.remove(at).map(Run::finish);
        }
        None
    }
}

impl Run {
    fn complete(&self) -> bool {
        self.stdout_done && self.stderr_done
    }

    /// Takes a line, unless with what is `held` already it would be more than the limit.
    fn push(&mut self, text: String, held: u64, limit: u64) {
        if self.truncated {
            return;
        }
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX / 2);
        if held + length > limit {
            self.truncated = true;
            self.lines.push(format!(
                "Logs were truncated because the total bytes size exceeds the limit of {limit} \
                 bytes."
            ));
        } else {
            self.bytes += length;
            self.lines.push(text);
        }
    }

    fn finish(self) -> Finished {
        Finished {
            activation: self.activation,
            lines: self.lines,
        }
    }
}

/// RFC 3339 with nanoseconds, in UTC: `2026-11-23T18:12:49.000000001Z`.
///
/// Days to date: Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
#[must_use]
pub(crate) fn rfc3339(since_1970: Duration) -> String {
    let (seconds, nanos) = (since_1970.as_secs(), since_1970.subsec_nanos());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;
    const NOW: Duration = Duration::from_secs(0);

    fn texts(finished: &Finished) -> Vec<&str> {
        finished
            .lines
            .iter()
            .map(|l| l.split_once(' ').map_or("", |(_, text)| text))
            .collect()
    }

    #[test]
    fn times_are_the_calendars() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_457_569, "2026-11-23T18:12:49.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn without_sentinel_the_end_of_the_run_ends_its_logs() {
        let mut logs = LogCollector::new(false, 1, MB);
        assert!(logs.needs_drain());
        assert_eq!(logs.line(NOW, Stream::Stdout, b"before"), None);
        logs.begin("a");
        logs.line(NOW, Stream::Stdout, b"one");
        logs.line(NOW, Stream::Stderr, b"two");
        let done = logs.recorded("a", false).unwrap();
        assert_eq!(texts(&done), ["stdout: one", "stderr: two"]);
        logs.begin("b");
        assert_eq!(
            logs.recorded("b", false).unwrap().lines,
            Vec::<String>::new()
        );
        assert_eq!(logs.recorded("never", false), None);
    }

    #[test]
    fn with_sentinel_each_stream_ends_by_itself() {
        let mark = LOG_SENTINEL.as_bytes();
        let mut logs = LogCollector::new(true, 1, MB);
        logs.begin("a");
        logs.line(NOW, Stream::Stdout, b"a1");
        assert_eq!(logs.line(NOW, Stream::Stdout, mark), None);
        assert_eq!(logs.recorded("a", false), None);
        logs.begin("b");
        logs.line(NOW, Stream::Stdout, b"b1");
        logs.line(NOW, Stream::Stderr, b"a2");
        let done = logs.line(NOW, Stream::Stderr, mark).unwrap();
        assert_eq!(
            (done.activation.as_str(), texts(&done)),
            ("a", vec!["stdout: a1", "stderr: a2"])
        );
        assert_eq!(logs.line(NOW, Stream::Stdout, mark), None);
        assert_eq!(logs.line(NOW, Stream::Stderr, mark), None);
        assert_eq!(texts(&logs.recorded("b", false).unwrap()), ["stdout: b1"]);
        // A sentinel that nobody waits for changes nothing.
        assert_eq!(logs.line(NOW, Stream::Stderr, mark), None);
    }

    #[test]
    fn a_run_without_its_sentinel_gets_its_lines_when_the_instance_ends() {
        let mut logs = LogCollector::new(true, 1, MB);
        logs.begin("a");
        logs.line(NOW, Stream::Stdout, b"last words");
        assert_eq!(logs.recorded("a", false), None);
        let done = logs.ended();
        assert_eq!(texts(&done[0]), ["stdout: last words"]);
        assert!(logs.ended().is_empty());
    }

    #[test]
    fn a_sentinel_that_never_comes_is_not_awaited_for_ever() {
        let mut logs = LogCollector::new(true, 1, MB);
        for run in 0..OVERDUE_MAX {
            assert_eq!(logs.begin(&run.to_string()), None);
            logs.line(NOW, Stream::Stdout, b"said");
            assert_eq!(logs.recorded(&run.to_string(), false), None);
        }
        let given_up = logs.begin("next").unwrap();
        assert_eq!(
            (given_up.activation.as_str(), given_up.lines.len()),
            ("0", OVERDUE_MAX)
        );
        assert_eq!(logs.runs.len(), OVERDUE_MAX);
    }

    #[test]
    fn all_that_is_awaited_together_stays_within_the_limit() {
        let mut logs = LogCollector::new(true, 1, 1000);
        for run in 0..OVERDUE_MAX {
            logs.begin(&run.to_string());
            // Only stdout is ever marked, so each next run writes to its own log.
            for _ in 0..9 {
                logs.line(NOW, Stream::Stdout, &[b'x'; 60]);
            }
            logs.line(NOW, Stream::Stdout, LOG_SENTINEL.as_bytes());
            assert_eq!(logs.recorded(&run.to_string(), false), None);
        }
        let held: u64 = logs.runs.iter().map(|run| run.bytes).sum();
        assert!(held <= 1000, "{held}");
    }

    #[test]
    fn too_long_logs_end_with_a_line_that_says_so() {
        let mut logs = LogCollector::new(false, 1, 100);
        logs.begin("a");
        for _ in 0..9 {
            logs.line(NOW, Stream::Stdout, b"0123456789");
        }
        let done = logs.recorded("a", false).unwrap();
        assert_eq!(done.lines.len(), 3);
        assert!(done.lines[2].ends_with("exceeds the limit of 100 bytes."));
    }

    #[test]
    fn lines_of_many_runs_at_once_are_shown_only_to_one_that_failed() {
        let mut logs = LogCollector::new(true, 4, MB);
        logs.begin("a");
        for i in 0..60 {
            logs.line(NOW, Stream::Stderr, format!("{i}").as_bytes());
        }
        assert!(logs.recorded("a", false).unwrap().lines.is_empty());
        let failed = logs.recorded("b", true).unwrap();
        assert_eq!(failed.lines.len(), TAIL_MAX);
        assert!(failed.lines[TAIL_MAX - 1].ends_with("stderr: 59"));
    }
}
