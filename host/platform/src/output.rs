//! What an instance writes, on its way to the records of its activations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service::SharedClock;

use crate::activations::Activations;
use crate::logs::{Finished, LogCollector};
use crate::pool::InstanceLog;
use crate::record::{Place, Recorder};
use crate::sandbox::{OutputSink, Stream};

/// Attributes lines to activations and adds them to their records.
#[derive(Debug)]
pub(crate) struct InstanceOutput {
    pub(crate) function: String,
    pub(crate) collector: Mutex<LogCollector>,
    pub(crate) activations: Arc<Activations>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) clock: SharedClock,
}

impl InstanceOutput {
    fn collector(&self) -> MutexGuard<'_, LogCollector> {
        self.collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, finished: impl IntoIterator<Item = Finished>) {
        for Finished { activation, lines } in finished {
            if !lines.is_empty() {
                self.activations.add_logs(&activation, lines);
            }
        }
    }
}

impl OutputSink for InstanceOutput {
    fn line(&self, stream: Stream, line: &[u8]) {
        self.recorder.append(Place::SandboxOutput, line);
        tracing::trace!(
            function = self.function,
            stream = stream.name(),
            line = %String::from_utf8_lossy(line),
            "sandbox wrote"
        );
        let finished = self.collector().line(self.clock.now(), stream, line);
        self.keep(finished);
    }
}

impl InstanceLog for InstanceOutput {
    fn begin(&self, activation: &str) {
        let given_up = self.collector().begin(activation);
        self.keep(given_up);
    }

    fn needs_drain(&self) -> bool {
        self.collector().needs_drain()
    }

    fn recorded(&self, activation: &str, failed: bool) {
        let finished = self.collector().recorded(activation, failed);
        self.keep(finished);
    }

    fn ended(&self) {
        let finished = self.collector().ended();
        self.keep(finished);
    }

    fn sink(self: Arc<Self>) -> Arc<dyn OutputSink> {
        self
    }
}
