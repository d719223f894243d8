//! A port for a sandbox, and whose socket listens there: no request may go to a stranger.
//!
//! A sandbox is told its port in `PORT` and binds it itself, as an action server does in a
//! container. The platform keeps the port reserved meanwhile, and as long as the sandbox lives: a
//! socket that is bound but does not listen. The kernel then gives the port to nobody who asks for
//! any, and lets those bind it who ask for exactly this one with `SO_REUSEADDR`, as servers do. So
//! only a process that wants this very port can take it; and the platform believes a port only
//! when the listening socket belongs to the sandbox's process group.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// A port that is ours to give away, until this is dropped.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    pub(crate) port: u16,
    _bound: OwnedFd,
}

impl ReservedPort {
    /// Takes a port that nothing uses on any address: the sandbox may bind all of them.
    pub(crate) fn take() -> std::io::Result<Self> {
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        Ok(Self {
            port: bound.port(),
            _bound: socket,
        })
    }
}

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Group,
    Stranger,
    /// The kernel does not let us look (a sandbox that forbids inspection), or nobody listens.
    Unknown,
}

/// Socket inodes that listen at `port`, from the text of `/proc/net/tcp` or `tcp6`.
///
/// Source: Linux, Documentation/networking/proc_net_tcp.rst: local address in hexadecimal,
/// state `0A` is LISTEN, the inode is the tenth field.
pub(crate) fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter_map(|row| {
        let fields: Vec<_> = row.split_ascii_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        let matches = local.ends_with(&wanted) && *state == "0A";
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    });
    rows.collect()
}

/// The process group in the text of `/proc/PID/stat`. The command in parentheses may hold
/// anything, so fields count from the last one.
pub(crate) fn process_group(stat: &str) -> Option<u32> {
    let after = &stat.get(stat.rfind(')')? + 1..)?;
    after.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Looks whether a socket that listens at `port` belongs to process group `group`.
pub(crate) fn owner(port: u16, group: u32) -> Owner {
    let mut inodes = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        inodes.extend(listening_inodes(&text, port));
    }
    if inodes.is_empty() {
        return Owner::Unknown;
    }
    // The leader is nearly always the server: look there first.
    let mut all_seen = match holds(group, &inodes) {
        Some(true) => return Owner::Group,
        seen => seen.is_some(),
    };
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Owner::Unknown;
    };
    for entry in processes.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != group) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if process_group(&stat) == Some(group) {
            match holds(pid, &inodes) {
                Some(true) => return Owner::Group,
                seen => all_seen &= seen.is_some(),
            }
        }
    }
    if all_seen {
        Owner::Stranger
    } else {
        Owner::Unknown
    }
}

/// Whether the process has one of the sockets open; `None` if we may not look.
fn holds(pid: u32, inodes: &[u64]) -> Option<bool> {
    let folder = Path::new("/proc").join(pid.to_string()).join("fd");
    let open = std::fs::read_dir(folder).ok()?;
    for entry in open.flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|text| {
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse::<u64>()
                .ok()
        });
        if inode.is_some_and(|inode| inodes.contains(&inode)) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1
   1: 0100007F:0CA1 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4243 1
   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1
";

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        assert_eq!(listening_inodes(TABLE, 0x0CA1), [4242]);
        assert_eq!(listening_inodes(TABLE, 8080), [4244]);
        assert!(listening_inodes(TABLE, 1).is_empty());
        assert!(listening_inodes("", 8080).is_empty());
        assert!(listening_inodes("head\n garbage\n", 8080).is_empty());
    }

    #[test]
    fn a_hostile_command_name_does_not_move_the_fields() {
        assert_eq!(process_group("7 (a) S 1) R 3 99 4 5"), Some(99));
        assert_eq!(process_group("7 (cat) R 3 99 4 5"), Some(99));
        assert_eq!(process_group("no parenthesis"), None);
    }

    /// A child in a group of its own, which listens nowhere.
    fn child() -> std::process::Child {
        let mut command = std::process::Command::new("/bin/sleep");
        command.arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_strangers_socket_is_not_the_groups_and_a_members_is() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut stranger = child();
        assert_eq!(owner(port, stranger.id()), Owner::Stranger);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        let me = std::process::id();
        let stat = std::fs::read_to_string(format!("/proc/{me}/stat")).unwrap();
        assert_eq!(owner(port, process_group(&stat).unwrap()), Owner::Group);
        drop(socket);
        assert_eq!(owner(port, me), Owner::Unknown);
    }

    #[test]
    fn a_reserved_port_is_given_to_nobody_but_who_asks_for_it() {
        let reserved = ReservedPort::take().unwrap();
        for _ in 0..200 {
            let other = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
            assert_ne!(other.local_addr().unwrap().port(), reserved.port);
        }
        let address = ("0.0.0.0", reserved.port);
        let server = std::net::TcpListener::bind(address).unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.1", reserved.port)).unwrap();
        assert_eq!(client.peer_addr().unwrap().port(), reserved.port);
        assert!(
            std::net::TcpListener::bind(address).is_err(),
            "one server at a time"
        );
        drop(server);
    }
}
