//! More raw facts of a process: its cgroup, its namespaces, the state of the file that it runs. Each is one
//! function of a pid, and [`look`] is all that is asked of every peer; the caller pins the process. What they
//! mean is `peer`'s business.
//!
//! Sources: `/proc/<pid>/cgroup` (`cgroups(7)`), `NSpid` of `/proc/<pid>/status` (Linux 4.1), `uid_map` and
//! `gid_map` (`user_namespaces(7)`), `/proc/<pid>/ns/*` (`namespaces(7)`), `/proc/<pid>/exe`. The last two
//! take the right to trace the process (`ptrace(2)`), the others do not. Every read is bounded. Imports its
//! neighbours in `sys`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, stat};

use super::peer::{Executable, Stat, executable, self_fd};

/// One path of at most 4,096 bytes for each hierarchy.
const CGROUP_LIMIT: usize = 64 << 10;
/// Some short lines, and one with every supplementary group.
const STATUS_LIMIT: usize = 64 << 10;
/// 340 lines of three numbers (`user_namespaces(7)`).
const MAP_LIMIT: usize = 16 << 10;
/// Hosts with many containers have thousands of mounts.
const MOUNTS_LIMIT: usize = 4 << 20;
/// What the kernel appends to the path of a group that was removed.
const DELETED: &[u8] = b" (deleted)";

/// The path of the process in the unified hierarchy, as the kernel prints it: it counts from the root of our
/// cgroup namespace and leads up (`/..`) to what lies outside. `ENOENT`: it is in no such group, or the group
/// was removed.
pub fn cgroup(pid: u32) -> io::Result<Vec<u8>> {
    let text = read(&format!("/proc/{pid}/cgroup"), CGROUP_LIMIT)?;
    unified(&text).map(<[u8]>::to_vec).ok_or_else(|| Errno::ENOENT.into())
}

/// The inode of the directory of a group, given by its path in our cgroup namespace. `None`: there is no such
/// group, or the unified hierarchy is not mounted here.
pub fn cgroup_inode(path: &str) -> Option<u64> {
    let root = cgroup_root()?;
    Some(stat(&root.join(path.trim_start_matches('/'))).ok()?.st_ino)
}

/// Where the unified hierarchy is mounted. Looked up once: it is made at boot.
fn cgroup_root() -> Option<&'static Path> {
    static ROOT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let mounts = read("/proc/self/mountinfo", MOUNTS_LIMIT).ok()?;
        let mounts = String::from_utf8(mounts).ok()?;
        mounts.lines().find_map(unified_mount).map(PathBuf::from)
    });
    ROOT.as_deref()
}

/// `36 35 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw`: the whole hierarchy, at field 5.
fn unified_mount(line: &str) -> Option<&str> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    (after.starts_with("cgroup2 ") && root == "/").then_some(place)
}

/// The kernel lets no group have a line break in its name, so a line is a hierarchy.
fn unified(text: &[u8]) -> Option<&[u8]> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    (!path.ends_with(DELETED)).then_some(path)
}

/// In how many nested PID namespaces the process has a number, ours included: 1 if it is in ours.
pub fn pid_namespaces(pid: u32) -> io::Result<u32> {
    let text = read(&format!("/proc/{pid}/status"), STATUS_LIMIT)?;
    count_numbers(&text).ok_or_else(|| Errno::EBADMSG.into())
}

/// The process's own name comes first in the file, and the kernel escapes its line breaks.
fn count_numbers(status: &[u8]) -> Option<u32> {
    let numbers = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    let numbers = std::str::from_utf8(numbers).ok()?.split_ascii_whitespace();
    let mut counted = 0;
    for number in numbers {
        number.parse::<u32>().ok()?;
        counted += 1;
    }
    (counted > 0).then_some(counted)
}

/// How the ids of a process's user namespace stand for ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<u8>,
    gids: Vec<u8>,
}

/// The maps of the user namespace that the process is in.
pub fn id_maps(pid: u32) -> io::Result<IdMaps> {
    let uids = read(&format!("/proc/{pid}/uid_map"), MAP_LIMIT)?;
    let gids = read(&format!("/proc/{pid}/gid_map"), MAP_LIMIT)?;
    Ok(IdMaps { uids, gids })
}

/// Which namespaces a process is in: device and inode of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    pub(super) user: (u64, u64),
    pub(super) pid: (u64, u64),
}

/// The user and PID namespace of the process. Takes the right to trace it.
pub fn namespaces(pid: u32) -> io::Result<Namespaces> {
    let of = |kind: &str| -> io::Result<(u64, u64)> {
        let stat = stat(format!("/proc/{pid}/ns/{kind}").as_str())?;
        Ok((stat.st_dev, stat.st_ino))
    };
    Ok(Namespaces { user: of("user")?, pid: of("pid")? })
}

/// What is asked of every peer. `None`: it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// See [`super::peer::stat`].
    pub stat: Option<Stat>,
    /// See [`cgroup`].
    pub cgroup: Option<Vec<u8>>,
    /// See [`pid_namespaces`].
    pub nested: Option<u32>,
    /// Whether it has the [`IdMaps`] of whoever asks. Not looked at where [`Facts::namespaces`] are known.
    pub same_ids: Option<bool>,
    /// See [`namespaces`]. Takes the right to trace it.
    pub namespaces: Option<Namespaces>,
    /// See [`executable`]. Takes the right to trace it.
    pub executable: Option<Executable>,
}

/// All of them at once, for a process with the id `asking`.
pub fn look(pid: u32, asking: u32) -> Facts {
    let namespaces = namespaces(pid).ok();
    Facts { namespaces, executable: executable(pid).ok(), ..untraced(pid, asking, namespaces.is_none()) }
}

/// Those that take no right.
pub fn look_from_afar(pid: u32, asking: u32) -> Facts {
    untraced(pid, asking, true)
}

fn untraced(pid: u32, asking: u32, compare: bool) -> Facts {
    let same_ids = || Some(id_maps(pid).ok()? == id_maps(asking).ok()?);
    Facts {
        stat: super::peer::stat(pid).ok(),
        cgroup: cgroup(pid).ok(),
        nested: pid_namespaces(pid).ok(),
        same_ids: if compare { same_ids() } else { None },
        ..Facts::default()
    }
}

/// One state of one file. A change of its content changes the time of its last change, which no user can
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// In bytes.
    pub size: i64,
    /// Seconds and nanoseconds of the last change of its content.
    pub modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of its content or its inode.
    pub changed: (i64, i64),
}

impl From<FileStat> for FileVersion {
    fn from(stat: FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// The state of the file that the process runs now. Takes the right to trace it.
pub fn executable_version(pid: u32) -> io::Result<FileVersion> {
    Ok(stat(format!("/proc/{pid}/exe").as_str())?.into())
}

/// The file that the process runs now, to be read. Takes the right to trace it and to read the file.
pub fn open_executable(pid: u32) -> io::Result<File> {
    open_regular(&format!("/proc/{pid}/exe"))
}

/// Opened only once it is known to be a regular file: to open another kind may wait or act. Nor does it wait
/// for whoever holds a lease on the file (`EWOULDBLOCK`; `fcntl(2)`, `F_SETLEASE`).
fn open_regular(path: &str) -> io::Result<File> {
    let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstat(&file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL.into());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(open(self_fd(&file).as_str(), flags, Mode::empty())?.into())
}

/// A whole file of at most `limit` bytes; `EFBIG` if it is longer.
fn read(path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(bound).read_to_end(&mut content)?;
    if content.len() > limit { Err(Errno::EFBIG.into()) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_told_from_the_others() {
        let mixed = b"9:name=systemd:/a\n4:memory:/b\n0::/system.slice/c.service\n";
        assert_eq!(unified(mixed), Some(&b"/system.slice/c.service"[..]));
        assert_eq!(unified(b"0::/\n"), Some(&b"/"[..]));
        assert_eq!(unified(b"0::/../other\n"), Some(&b"/../other"[..]));
        for text in [&b""[..], b"9:name=systemd:/a\n", b"10::/a\n", b"4:memory:0::/a\n", b"0::/a (deleted)\n"]
        {
            assert_eq!(unified(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_mount_of_the_unified_hierarchy_is_found_among_others() {
        let line = "36 35 0:31 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(unified_mount(line), Some("/sys/fs/cgroup"));
        for other in ["36 35 0:31 /a /b rw - cgroup2 cgroup2 rw", "36 35 0:31 / /c rw - cgroup cgroup rw", ""]
        {
            assert_eq!(unified_mount(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_kernels_own_line_counts_the_namespaces() {
        assert_eq!(count_numbers(b"Name:\ta\nNSpid:\t42\n"), Some(1));
        assert_eq!(count_numbers(b"Name:\ta\\nNSpid:\\t1\nNSpid:\t42\t7\t1\n"), Some(3));
        for text in [&b""[..], b"Name:\tNSpid:\t1\n", b"NSpid:\n", b"NSpid:\tx\n", b"NSpid:\t-1\n"] {
            assert_eq!(count_numbers(text), None, "{text:?}");
        }
    }

    #[test]
    fn we_are_in_our_own_namespaces() {
        let own = std::process::id();
        assert_eq!(namespaces(own).unwrap(), namespaces(own).unwrap());
        assert_eq!(id_maps(own).unwrap(), id_maps(own).unwrap());
        assert_eq!(pid_namespaces(own).unwrap(), 1);
        assert!(executable_version(own).unwrap().size > 0);
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let room = tempfile::tempdir().unwrap();
        let fifo = room.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for path in [fifo.to_str().unwrap(), "/dev/zero", "/"] {
            assert_eq!(open_regular(path).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{path}");
        }
        let file = open_executable(std::process::id()).unwrap();
        assert_eq!(FileVersion::from(fstat(&file).unwrap()), executable_version(std::process::id()).unwrap());
        let set = |command| nix::fcntl::fcntl(&file, command).unwrap();
        assert_ne!(set(nix::fcntl::FcntlArg::F_GETFD) & libc::FD_CLOEXEC, 0);
        assert_eq!(set(nix::fcntl::FcntlArg::F_GETFL) & libc::O_ACCMODE, libc::O_RDONLY);
    }

    #[test]
    fn a_pid_that_cannot_be_is_an_error_and_a_long_file_too() {
        assert!(cgroup(u32::MAX).is_err() && pid_namespaces(u32::MAX).is_err());
        assert!(id_maps(u32::MAX).is_err() && namespaces(u32::MAX).is_err());
        assert!(executable_version(u32::MAX).is_err() && open_executable(u32::MAX).is_err());
        assert_eq!(read("/dev/zero", 10).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }
}
