//! Child processes of the developer system: this executable again, in one role each.
//!
//! A role prints one line, `ready ADDRESS`, on stdout once it listens, and nothing after. It asks
//! the kernel to be killed when its parent dies, so that nothing outlives even a `kill -9`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A part that does not listen after this long has failed.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a part may take to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why a part of the system did not come up; names the log that has the reason.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("start {role}")]
    Start {
        role: String,
        source: std::io::Error,
    },
    #[error("{role} ended before it listened ({status}): {said} (its log: {})", log.display())]
    Ended {
        role: String,
        status: ExitStatus,
        /// The last thing that it said.
        said: String,
        log: PathBuf,
    },
    #[error("{role} did not listen within {}s; its log is {}", READY_WITHIN.as_secs(), log.display())]
    Late { role: String, log: PathBuf },
}

/// One running part. Dropping it kills its process group.
#[derive(Debug)]
pub struct Part {
    role: String,
    child: Child,
    addr: SocketAddr,
}

impl Part {
    /// Starts `exe` with `args` and waits until it says where it listens.
    pub async fn start(
        role: &str,
        exe: &Path,
        args: &[&str],
        logs: &Path,
    ) -> Result<Self, SpawnError> {
        let log = logs.join(format!("{role}.log"));
        let start = |source| SpawnError::Start {
            role: role.into(),
            source,
        };
        let stderr = File::create(&log).map_err(start)?;
        let mut child = Command::new(exe)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| start(std::io::ErrorKind::BrokenPipe.into()))?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            loop {
                match lines.next_line().await {
                    Ok(Some(line)) => {
                        let addr = line.strip_prefix("ready ").and_then(|a| a.parse().ok());
                        if let Some(addr) = addr {
                            return Ok(addr);
                        }
                    }
                    _ => return Err(child.wait().await),
                }
            }
        };
        match tokio::time::timeout(READY_WITHIN, ready).await {
            Ok(Ok(addr)) => Ok(Self {
                role: role.into(),
                child,
                addr,
            }),
            Ok(Err(Ok(status))) => Err(SpawnError::Ended {
                role: role.into(),
                status,
                said: last_line(&log),
                log,
            }),
            Ok(Err(Err(source))) => Err(start(source)),
            Err(_) => Err(SpawnError::Late {
                role: role.into(),
                log,
            }),
        }
    }

    /// Waits until it ends by itself, which no part should; says which one and how.
    pub async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("{} ended ({status})", self.role)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
            tracing::debug!(role = self.role, %error, "signal not delivered");
        }
    }

    /// Kills it without warning, as a crash would, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Err(error) = self.child.wait().await {
            tracing::warn!(role = self.role, %error, "could not be awaited");
        }
    }

    /// Asks it to end, waits, and kills it if it does not.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(role = self.role, "did not end in time, killed");
            self.kill().await;
        }
    }
}

/// The last line of a log that is not empty.
fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing").to_owned()
}

impl Drop for Part {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Called first in a child: die when the parent does.
pub fn die_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Called in a child once it listens.
#[expect(
    clippy::print_stdout,
    reason = "the ready line is this function's purpose"
)]
pub fn say_ready(addr: SocketAddr) {
    println!("ready {addr}");
}
