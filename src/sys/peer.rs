//! Raw facts of the process at the other end of a Unix socket. What they mean is `peer`'s
//! business.
//!
//! Sources: `SO_PEERCRED`, `SO_PEERPIDFD` (Linux 6.5), `pidfd_open(2)` (5.3), pidfs inode numbers
//! (6.9), `/proc/<pid>/stat` and `/proc/<pid>/exe`. Every read is bounded. Nothing that a process may
//! write about itself (comm, command line, environment) is looked at.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{FileStat, Mode, fstat, lstat};
use nix::sys::statfs::fstatfs;

/// A stat line has 52 short fields and a command name of at most 64 bytes.
const STAT_LIMIT: usize = 4096;
/// Magic number of pidfs (`PIDFS_MAGIC`, `linux/magic.h`).
const PIDFS: i64 = 0x5049_4446;
/// What the kernel appends to the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";
/// Where the kernel says which user id stands for all those that have none here.
const OVERFLOW_UID: &str = "/proc/sys/kernel/overflowuid";
const OVERFLOW_UID_DEFAULT: u32 = 65534;

/// Credentials of the process that connected, at the time it did (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id; 0 if the process is not in our pid namespace.
    pub pid: u32,
}

/// Reads the credentials of the connected process.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let ucred = getsockopt(&socket, sockopt::PeerCredentials)?;
    let pid = u32::try_from(ucred.pid()).unwrap_or(0);
    Ok(Credentials { uid: ucred.uid(), gid: ucred.gid(), pid })
}

/// The process that connected, pinned by the kernel. `None`: the kernel is older than 6.5. An error
/// says that this process is gone or that we are out of descriptors, not that the kernel is old.
pub fn pidfd_at_connect(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Pins the process that has this id now.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the call takes two integers and touches no memory of ours. Neither libc nor nix wraps it.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// True if every thread of the process has ended, reaped by its parent or not.
pub fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// A number that no other process has had since boot: the pidfs inode. `None` before Linux 6.9.
pub fn serial(pidfd: impl AsFd) -> Option<u64> {
    let filesystem = fstatfs(&pidfd).ok()?.filesystem_type();
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the width differs by target")]
    let on_pidfs = filesystem.0 as i64 == PIDFS;
    on_pidfs.then(|| fstat(&pidfd).map(|stat| stat.st_ino).ok()).flatten()
}

/// What is used of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 4: id of the parent; 0 if it is outside of our pid namespace.
    pub parent: u32,
    /// Field 22: clock ticks from boot to the start of the process.
    pub start_time: u64,
}

/// Reads the parent and the start time of the process that has this id now.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let mut line = [0; STAT_LIMIT];
    let mut file = File::open(format!("/proc/{pid}/stat"))?;
    let mut length = 0;
    while length < line.len() {
        match file.read(&mut line[length..])? {
            0 => return parse_stat(&line[..length]).ok_or_else(|| Errno::EBADMSG.into()),
            read => length += read,
        }
    }
    Err(Errno::EFBIG.into())
}

/// The command name, in brackets, may hold anything, closing brackets and line breaks included: the
/// fields are counted from the last closing bracket.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let command_end = line.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&line[command_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time })
}

/// The file that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// `st_dev` of the file.
    pub device: u64,
    /// `st_ino` of the file.
    pub inode: u64,
    /// Where that file lies, in our own mount namespace.
    pub path: PathBuf,
}

/// The file that the process with this id runs now.
///
/// The kernel gives the path as that process sees it, and a mount namespace of its own lets any user
/// put any file at any path. So the path counts only if the same file lies there for us as well;
/// `ENOENT` otherwise, which also covers a file that was replaced or removed. Reading it takes the
/// right to trace the process: same user and dumpable, or `CAP_SYS_PTRACE`.
pub fn executable(pid: u32) -> io::Result<Executable> {
    let link = format!("/proc/{pid}/exe");
    let file = open(link.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&file)?;
    let path = PathBuf::from(readlink(self_fd(&file).as_str())?);
    if path.as_os_str().as_bytes().ends_with(DELETED) || !same_file(&lstat(&path)?, &stat) {
        return Err(Errno::ENOENT.into());
    }
    Ok(Executable { device: stat.st_dev, inode: stat.st_ino, path })
}

/// The name under which an open descriptor of ours can be reached.
pub(crate) fn self_fd(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// True if both describe one and the same file.
pub(crate) fn same_file(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// The user id that stands for every user without one in our user namespace.
pub fn overflow_uid() -> u32 {
    let mut text = String::new();
    let read = File::open(OVERFLOW_UID).and_then(|file| file.take(16).read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_line_is_counted_from_the_last_bracket() {
        let tail = "S 7 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3\n";
        for command in ["(sh)", "(a) S 1 (b)", "())))", "(\n1 2 3)", "()"] {
            let line = format!("42 {command} {tail}");
            assert_eq!(
                parse_stat(line.as_bytes()),
                Some(Stat { parent: 7, start_time: 987_654 }),
                "{command}"
            );
        }
    }

    #[test]
    fn a_broken_stat_line_is_refused() {
        for line in ["", "42 (sh", "42 (sh)", "42 (sh) S", "42 (sh) S 7 8 9", "42 (sh) S x 7 7"] {
            assert_eq!(parse_stat(line.as_bytes()), None, "{line}");
        }
        let negative = "42 (sh) S 7 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -5 1\n";
        assert_eq!(parse_stat(negative.as_bytes()), None);
    }

    #[test]
    fn we_can_read_ourselves() {
        let own = std::process::id();
        assert!(stat(own).unwrap().start_time > 0);
        let pidfd = pidfd_open(own).unwrap();
        assert!(!has_ended(&pidfd).unwrap());
        assert_eq!(executable(own).unwrap().path, std::env::current_exe().unwrap());
    }

    #[test]
    fn a_pid_that_cannot_be_is_an_error() {
        assert!(pidfd_open(u32::MAX).is_err());
        assert!(stat(u32::MAX).is_err());
        assert!(executable(u32::MAX).is_err());
    }
}
