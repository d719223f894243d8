//! Sandboxes as local processes: own process group, cleared environment, limits, and no way to
//! outlive the platform.
//!
//! The child is told its port in `PORT` and binds it itself; see [`super::listener`]. Children are started from one thread that lives as
//! long as the factory: the kernel's parent-death signal follows the thread, not the process, so
//! it fires exactly when the platform is gone, however it ended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use super::cgroup::{Cgroup, Cgroups};
use super::listener::{self, Owner, ReservedPort};
use super::output::Pump;
use super::{
    BoxFuture, Exit, Listening, OutputSink, Sandbox, SandboxFactory, SandboxSpec, StartError,
    Stream,
};

/// Open files of a sandbox, as OpenWhisk gives its containers.
const FILES_MAX: u64 = 1024;
/// How often a sandbox's memory is looked at where no cgroup bounds it.
const MEMORY_WATCH: Duration = Duration::from_millis(250);
/// First and longest pause between two attempts to connect.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

type SpawnJob = Box<dyn FnOnce() + Send>;

/// Starts processes.
#[derive(Debug)]
pub(crate) struct ProcessFactory {
    spawner: mpsc::Sender<SpawnJob>,
    cgroups: Option<Cgroups>,
    tracker: TaskTracker,
}

impl ProcessFactory {
    /// Tasks that watch the processes run in `tracker`.
    pub(crate) fn new(cgroups: Option<Cgroups>, tracker: TaskTracker) -> std::io::Result<Self> {
        let (spawner, jobs) = mpsc::channel::<SpawnJob>();
        std::thread::Builder::new()
            .name("sandbox-spawner".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job()))?;
        Ok(Self {
            spawner,
            cgroups,
            tracker,
        })
    }

    async fn start_process(
        &self,
        spec: &SandboxSpec,
        sink: Arc<dyn OutputSink>,
    ) -> Result<Arc<dyn Sandbox>, StartError> {
        let reserved = ReservedPort::take().map_err(StartError::Port)?;
        let cgroup = self.cgroups.as_ref().and_then(|groups| {
            let made = groups.create(&spec.label, spec.memory_mb);
            made.map_err(|error| tracing::warn!(%error, "no cgroup for a sandbox"))
                .ok()
        });
        let (out, out_child) = pipe().map_err(StartError::Output)?;
        let (err, err_child) = pipe().map_err(StartError::Output)?;
        let command = command(spec, reserved.port, out_child, err_child, cgroup.as_ref());
        let child = self.spawn(command, spec).await?;
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or(StartError::Stopping)?;
        let pump = |stream, pipe| Pump::new(stream, pipe, sink.clone()).map(Arc::new);
        let pumps = [
            pump(Stream::Stdout, out).map_err(StartError::Output)?,
            pump(Stream::Stderr, err).map_err(StartError::Output)?,
        ];
        let (exit, _) = watch::channel(None);
        let shared = Arc::new(Shared {
            pid,
            exit,
            out_of_memory: AtomicBool::new(false),
            cgroup,
        });
        for pump in &pumps {
            let (pump, shared) = (pump.clone(), shared.clone());
            self.tracker.spawn(async move {
                // A process that left the group may hold the pipe for ever: nobody waits for it.
                tokio::select! {
                    () = pump.run() => {}
                    _ = shared.ended() => {}
                }
            });
        }
        let allowed = shared
            .cgroup
            .is_none()
            .then(|| spec.memory_mb.saturating_mul(1 << 20));
        self.tracker
            .spawn(watch_over(child, shared.clone(), allowed, pumps.clone()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port));
        Ok(Arc::new(Process {
            shared,
            address,
            pumps,
            _reserved: reserved,
        }))
    }

    /// Runs the fork on the thread that the parent-death signal is bound to.
    async fn spawn(&self, mut command: Command, spec: &SandboxSpec) -> Result<Child, StartError> {
        let (done, child) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let job: SpawnJob = Box::new(move || {
            let _entered = runtime.enter();
            // If nobody waits any more, the child is dropped here and dies with it.
            drop(done.send(command.spawn()));
        });
        self.spawner.send(job).map_err(|_| StartError::Stopping)?;
        let spawned = child.await.map_err(|_| StartError::Stopping)?;
        spawned.map_err(|source| StartError::Spawn {
            program: spec.command.first().cloned().unwrap_or_default(),
            source,
        })
    }
}

impl SandboxFactory for ProcessFactory {
    fn start<'a>(
        &'a self,
        spec: &'a SandboxSpec,
        sink: Arc<dyn OutputSink>,
    ) -> BoxFuture<'a, Result<Arc<dyn Sandbox>, StartError>> {
        Box::pin(self.start_process(spec, sink))
    }
}

/// One process and what it started.
#[derive(Debug)]
struct Process {
    shared: Arc<Shared>,
    address: SocketAddr,
    pumps: [Arc<Pump>; 2],
    /// Until the sandbox is gone: a call to a dead one must not reach who came after it.
    _reserved: ReservedPort,
}

#[derive(Debug)]
struct Shared {
    /// Also the process group.
    pid: Pid,
    exit: watch::Sender<Option<Exit>>,
    out_of_memory: AtomicBool,
    cgroup: Option<Cgroup>,
}

impl Shared {
    fn kill(&self) {
        // Once the leader is reaped its number may be somebody else's.
        if self.exit.borrow().is_some() {
            return;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        kill_group(self.pid);
    }

    async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(how) = *exit.borrow_and_update() {
                return how;
            }
            if exit.changed().await.is_err() {
                return Exit::Ended;
            }
        }
    }

    async fn wait_for_listener(&self, address: SocketAddr) -> Listening {
        let group = u32::try_from(self.pid.as_raw_nonzero().get()).unwrap_or(0);
        let mut pause = CONNECT_PAUSE.0;
        loop {
            if connects(address).await {
                match listener::owner(address.port(), group) {
                    Owner::Group => return Listening::At(address),
                    Owner::Stranger => return Listening::PortTaken,
                    Owner::Unknown if self.exit.borrow().is_none() => {
                        return Listening::At(address);
                    }
                    Owner::Unknown => {}
                }
            }
            if self.exit.borrow().is_some() {
                // Did it end because it could not bind? Then its port is not free.
                let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()));
                return if bound.is_ok() {
                    Listening::Ended
                } else {
                    Listening::PortTaken
                };
            }
            // Looks again after the pause, or as soon as the process ends.
            drop(tokio::time::timeout(pause, self.ended()).await);
            pause = (pause * 2).min(CONNECT_PAUSE.1);
        }
    }
}

/// Whether a server accepts there. A connection to itself, which the kernel may make when nobody
/// listens at a port that it also gives to clients, does not count.
async fn connects(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(stream) => stream.local_addr().is_ok_and(|local| local != address),
        Err(_) => false,
    }
}

impl Sandbox for Process {
    fn listening(&self) -> BoxFuture<'_, Listening> {
        Box::pin(self.shared.wait_for_listener(self.address))
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.shared.ended())
    }

    fn kill(&self) {
        self.shared.kill();
    }

    fn drain_output(&self) {
        for pump in &self.pumps {
            pump.drain();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.kill();
    }
}

/// Waits for the process, bounds its memory if nobody else does, and tells how it ended.
async fn watch_over(
    mut child: Child,
    shared: Arc<Shared>,
    memory_max: Option<u64>,
    pumps: [Arc<Pump>; 2],
) {
    let status = loop {
        let waited = tokio::time::timeout(MEMORY_WATCH, child.wait()).await;
        match waited {
            Ok(status) => break status,
            Err(_) => {
                let held = resident(shared.pid);
                if memory_max.is_some_and(|max| held.is_some_and(|held| held > max)) {
                    shared.out_of_memory.store(true, Ordering::Relaxed);
                    shared.kill();
                }
            }
        }
    };
    // What the leader started goes with it, and frees its memory and its sockets. While one of
    // the group lives its number cannot be given to another.
    kill_group(shared.pid);
    let by_kernel = shared
        .cgroup
        .as_ref()
        .is_some_and(Cgroup::ran_out_of_memory);
    let exhausted = by_kernel || shared.out_of_memory.load(Ordering::Relaxed);
    let how = if exhausted {
        Exit::MemoryExhausted
    } else {
        Exit::Ended
    };
    if let Ok(status) = &status {
        let pid = shared.pid.as_raw_nonzero();
        tracing::debug!(%pid, code = status.code(), signal = status.signal(), ?how, "sandbox ended");
    }
    for pump in &pumps {
        pump.drain();
    }
    shared.exit.send_replace(Some(how));
}

fn kill_group(pid: Pid) {
    match rustix::process::kill_process_group(pid, Signal::KILL) {
        // Nobody is left in it.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::warn!(%error, "cannot kill a sandbox"),
    }
}

/// Resident memory of a process in bytes: second field of `/proc/PID/statm`, in pages.
fn resident(pid: Pid) -> Option<u64> {
    let path = format!("/proc/{}/statm", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page)
}

/// Our end and the child's.
fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

fn command(
    spec: &SandboxSpec,
    port: u16,
    stdout: OwnedFd,
    stderr: OwnedFd,
    cgroup: Option<&Cgroup>,
) -> Command {
    let program = spec.command.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command
        .args(spec.command.iter().skip(1))
        .env_clear()
        .envs(&spec.env)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .process_group(0)
        .kill_on_drop(true);
    let parent = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0));
    let entrance = cgroup.and_then(|group| {
        group
            .entrance()
            .map_err(|error| tracing::warn!(%error, "cannot enter a cgroup"))
            .ok()
    });
    let files = files_limit();
    let before_exec = move || {
        if let Some(entrance) = &entrance {
            rustix::io::write(entrance, b"0")?;
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != parent {
            // The platform died between the fork and the line above.
            return Err(rustix::io::Errno::SRCH.into());
        }
        rustix::process::setrlimit(Resource::Nofile, files)?;
        // What an instance holds must not land on the host's disk when it crashes. One byte, not
        // zero: that is no file either, and no pipe to a program that collects dumps.
        let none = Rlimit {
            current: Some(1),
            maximum: Some(1),
        };
        rustix::process::setrlimit(Resource::Core, none)?;
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "the death signal and the limits must be set in the child, between fork and exec"
    )]
    // SAFETY: the closure makes system calls on captured values only: it does not allocate, lock
    // or touch another thread's state, which is what the child of a fork may do.
    unsafe {
        command.pre_exec(before_exec);
    }
    command
}

/// [`FILES_MAX`], or less if we ourselves may have only that.
fn files_limit() -> Rlimit {
    let ours = rustix::process::getrlimit(Resource::Nofile).maximum;
    let files = Some(ours.map_or(FILES_MAX, |ours| ours.min(FILES_MAX)));
    Rlimit {
        current: files,
        maximum: files,
    }
}
