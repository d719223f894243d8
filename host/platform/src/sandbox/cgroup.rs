//! Limits by cgroup v2, where the operator gives us a folder: memory, processes, no swap.
//!
//! Source: Linux, Documentation/admin-guide/cgroup-v2.rst.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Most processes and threads in one sandbox, as OpenWhisk gives its containers.
const PIDS_MAX: u64 = 1024;

/// Why a group could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{} is not a cgroup v2 folder", path.display())]
    NotV2 { path: PathBuf },
    #[error("{what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// The folder that the operator delegated to us.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    root: PathBuf,
}

/// The group of one sandbox; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Checks the folder and turns the controllers on for groups below it.
    pub(crate) fn open(root: &Path) -> Result<Self, CgroupError> {
        if !root.join("cgroup.controllers").is_file() {
            return Err(CgroupError::NotV2 {
                path: root.to_owned(),
            });
        }
        write(&root.join("cgroup.subtree_control"), "+memory +pids")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Makes a group of at most `memory_mb`. An old group of that name (of a platform that was
    /// killed) is used again.
    pub(crate) fn create(&self, label: &str, memory_mb: u64) -> Result<Cgroup, CgroupError> {
        let path = self.root.join(label);
        if let Err(source) = std::fs::create_dir(&path)
            && source.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(CgroupError::Io {
                what: "make the group",
                path,
                source,
            });
        }
        let group = Cgroup { path };
        let bytes = memory_mb.saturating_mul(1 << 20);
        write(&group.path.join("memory.max"), &bytes.to_string())?;
        // A kernel without swap accounting has no such file, and nothing to limit.
        if group.path.join("memory.swap.max").exists() {
            write(&group.path.join("memory.swap.max"), "0")?;
        }
        write(&group.path.join("memory.oom.group"), "1")?;
        write(&group.path.join("pids.max"), &PIDS_MAX.to_string())?;
        Ok(group)
    }
}

impl Cgroup {
    /// A process that writes "0" to this enters the group.
    pub(crate) fn entrance(&self) -> Result<OwnedFd, CgroupError> {
        let path = self.path.join("cgroup.procs");
        let file = File::options().write(true).open(&path);
        file.map(Into::into).map_err(|source| CgroupError::Io {
            what: "open",
            path,
            source,
        })
    }

    /// Whether the kernel killed something in it for memory.
    #[must_use]
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        oom_kills(&text) > 0
    }

    /// Kills all that is in the group, also what left the process group.
    pub(crate) fn kill(&self) {
        // Kernels before 5.14 have no such file; the process group is killed in any case.
        if let Err(error) = std::fs::write(self.path.join("cgroup.kill"), "1") {
            tracing::debug!(%error, "cannot kill by cgroup");
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove a cgroup");
        }
    }
}

fn oom_kills(events: &str) -> u64 {
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    std::fs::write(path, text).map_err(|source| CgroupError::Io {
        what: "write to",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Cgroups::open(folder.path()).unwrap_err();
        assert!(matches!(refused, CgroupError::NotV2 { .. }), "{refused}");
    }

    #[test]
    fn a_group_gets_its_limits_before_anything_enters() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let groups = Cgroups::open(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids");
        let group = groups.create("one", 256).unwrap();
        assert_eq!(read("one/memory.max"), "268435456");
        assert_eq!(read("one/pids.max"), "1024");
        assert!(group.entrance().is_err());
        assert!(!group.ran_out_of_memory());
        std::fs::write(
            folder.path().join("one/memory.events"),
            "low 0\noom 3\noom_kill 1\n",
        )
        .unwrap();
        assert!(group.ran_out_of_memory());
    }

    #[test]
    fn kills_are_counted_exactly() {
        assert_eq!(oom_kills("oom 5\noom_kill 0\noom_group_kill 1"), 0);
        assert_eq!(oom_kills(""), 0);
        assert_eq!(oom_kills("oom_kill 2"), 2);
    }
}
