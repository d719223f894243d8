//! Processor time that each part of a system took: what a request costs on a machine that others
//! use as well, where latencies tell more about them than about us.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The parts that are looked at, as `sesemi-dev` calls their roles.
const PARTS: [&str; 3] = ["fnpacker", "platform", "semirt"];

/// Processor time since its start of every process below `root`, by role.
pub(super) fn spent(root: u32) -> BTreeMap<&'static str, Duration> {
    let parents: BTreeMap<u32, u32> = processes().collect();
    let below = |pid: &u32| {
        let mut at = *pid;
        while let Some(parent) = parents.get(&at) {
            if at == root {
                return true;
            }
            at = *parent;
        }
        false
    };
    let mut spent = BTreeMap::new();
    for pid in parents.keys().filter(|pid| below(pid)) {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        let role = arguments.find(|it| *it == b"role").and(arguments.next());
        let part = PARTS.into_iter().find(|part| role == Some(part.as_bytes()));
        if let Some(part) = part {
            *spent.entry(part).or_insert(Duration::ZERO) += of_process(*pid);
        }
    }
    spent
}

/// Every process and its parent.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The command in parentheses may hold anything: fields count from its end.
        let (_, after) = stat.rsplit_once(')')?;
        Some((pid, after.split_ascii_whitespace().nth(1)?.parse().ok()?))
    })
}

/// The first field of each thread's `schedstat`, in nanoseconds (Linux,
/// Documentation/scheduler/sched-stats.rst). Threads that ended are not in it; a part's stay.
fn of_process(pid: u32) -> Duration {
    let threads = Path::new("/proc").join(pid.to_string()).join("task");
    let threads = std::fs::read_dir(threads).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_parent_and_takes_time() {
        let me = std::process::id();
        assert!(processes().any(|(pid, parent)| pid == me && parent > 0));
        let before = of_process(me);
        assert!(before > Duration::ZERO);
        assert!(spent(me).is_empty(), "it plays no role");
    }
}
