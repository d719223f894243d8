//! No memory image of a process that holds keys: a crash must not write them to a disk of the host's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the kernel takes for "none at all". Zero means no file, but is not looked at where
/// `core_pattern` pipes to a program; one byte is too short for a file, and is the kernel's own
/// mark for "not to a program either" (`fs/coredump.c`).
const NONE: u64 = 1;

/// Keeps the kernel from writing this process's memory anywhere when it crashes. Children inherit it.
///
/// # Errors
/// The system's, where limits cannot be set.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    // Below a hard limit of zero there is nothing to choose.
    let limit = match getrlimit(Resource::Core).maximum {
        Some(maximum) => NONE.min(maximum),
        None => NONE,
    };
    let none = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(Resource::Core, none)?)
}
