//! Marks the end of each activation's log lines, on both streams, as OpenWhisk's invoker wants it.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;

use protocol::action::LOG_SENTINEL;

use crate::lock::lock;

type Stream = Mutex<Box<dyn Write + Send>>;

/// Where the marks go.
pub(crate) struct ActivationLog {
    out: Stream,
    err: Stream,
}

impl fmt::Debug for ActivationLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActivationLog")
    }
}

/// Writes the marks when dropped: also when the caller has gone away, since the invoker counts.
#[derive(Debug)]
pub(crate) struct Activation<'a>(&'a ActivationLog);

impl ActivationLog {
    /// The process's stdout and stderr.
    pub(crate) fn standard() -> Self {
        Self::new(Box::new(io::stdout()), Box::new(io::stderr()))
    }

    pub(crate) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self {
            out: Mutex::new(out),
            err: Mutex::new(err),
        }
    }

    /// One activation begins.
    pub(crate) fn activation(&self) -> Activation<'_> {
        Activation(self)
    }
}

impl Drop for Activation<'_> {
    fn drop(&mut self) {
        for stream in [&self.0.out, &self.0.err] {
            let mut stream = lock(stream);
            // One write, so that lines of other threads do not split it.
            let line = format!("{LOG_SENTINEL}\n");
            if let Err(error) = stream
                .write_all(line.as_bytes())
                .and_then(|()| stream.flush())
            {
                tracing::debug!(%error, "end of an activation could not be marked");
            }
        }
    }
}
