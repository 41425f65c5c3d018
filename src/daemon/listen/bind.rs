//! Binds a socket, so that exactly one of many daemons wins and no foreign object is touched.
//!
//! Order matters: directory, lock, stale socket, bind with 0600, group, and only then `listen(2)`.
//! Everything but the bind itself goes through the descriptor of the directory that was checked.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::socket as kernel;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FileStat, Mode as Bits, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use thiserror::Error;

use crate::sys;
use crate::sys::peer::{same_file, self_fd};

/// Connections that wait to be accepted; beyond it, a connect waits or fails with `EAGAIN`.
const BACKLOG: i32 = 1024;
/// `sun_path` holds 108 bytes, the last of them zero.
const PATH_LIMIT: usize = 107;

/// Who may connect, by the socket's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0600: our own user. A directory that has to be made gets 0700.
    Owner,
    /// 0660 and this group id. A directory that has to be made belongs to the group and gets 0750: its
    /// members may pass through and list it, nobody but us may put anything there. A directory that
    /// exists is left as it is: whoever made it (systemd's `RuntimeDirectoryMode=`) decides who passes.
    Group(u32),
}

/// A socket that listens. Dropping it removes the socket that was bound, and no other.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: UnixListener,
    pub(super) file: Option<SocketFile>,
    pub(super) lock: Option<Lock>,
}

/// Makes one process the owner of a path, from before the bind until after the last connection. The
/// file stays when the lock is given up: removing it would let two processes hold "the" lock.
pub(super) type Lock = Flock<OwnedFd>;

/// Binds and listens. The directory is made if only its last part is missing.
pub fn bind(path: &Path, mode: Mode) -> Result<Bound, BindError> {
    let place = Place::open(path, mode)?;
    let lock = place.lock()?;
    place.remove_stale_socket()?;
    let (listener, file) = place.create_socket(mode)?;
    Ok(Bound { listener, file: Some(file), lock: Some(lock) })
}

/// Makes the directory of a socket, if only its last part is missing. [`bind`] does so as well; this is
/// for a process that will not be able to by then.
pub fn prepare(path: &Path, mode: Mode) -> Result<(), BindError> {
    let (parent, _) = parts(path)?;
    if let (true, Mode::Group(group)) = (make_directory(parent)?, mode) {
        let directory = open_directory(parent)?;
        give_to_group(&directory, group, 0o750).map_err(|_| BindError::Group { group })?;
    }
    Ok(())
}

/// A name in a directory that was found safe.
struct Place<'a> {
    path: &'a Path,
    directory: OwnedFd,
    name: OsString,
}

impl<'a> Place<'a> {
    fn open(path: &'a Path, mode: Mode) -> Result<Self, BindError> {
        prepare(path, mode)?;
        let (parent, name) = parts(path)?;
        Ok(Self { path, directory: open_directory(parent)?, name: name.into() })
    }

    fn lock(&self) -> Result<Lock, BindError> {
        let mut name = self.name.clone();
        name.push(".lock");
        let path = self.path.with_file_name(&name);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name.as_os_str(), flags, Bits::S_IRUSR | Bits::S_IWUSR)
            .and_then(|file| fstat(&file).map(|stat| (file, stat)));
        let file = match file {
            Ok((file, stat)) if is(&stat, SFlag::S_IFREG) && is_ours(&stat) => file,
            Ok(_) | Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => {
                return Err(BindError::Lock { path });
            }
            Err(errno) => return Err(BindError::system("open the lock file", &path, errno)),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) => Err(BindError::Running { path: self.path.into() }),
            Err((_, errno)) => Err(BindError::system("lock", &path, errno)),
        }
    }

    /// Under the lock, a socket of ours that nobody answers on was left by a daemon that was killed.
    fn remove_stale_socket(&self) -> Result<(), BindError> {
        let found = match self.handle() {
            Err(Errno::ENOENT) => return Ok(()),
            other => other.and_then(|handle| fstat(&handle).map(|stat| (handle, stat))),
        };
        let (handle, stat) = found.map_err(|errno| BindError::system("look at", self.path, errno))?;
        if let Some(occupant) = occupant(&handle, &stat) {
            return Err(BindError::Occupied { path: self.path.into(), occupant });
        }
        self.unlink(&stat).map_err(|errno| BindError::system("remove the dead socket", self.path, errno))
    }

    fn create_socket(&self, mode: Mode) -> Result<(UnixListener, SocketFile), BindError> {
        let failed = |step| move |errno| BindError::system(step, self.path, errno);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = kernel::socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(failed("make a socket for"))?;
        // The file that bind makes gets the mode of the socket's own inode, less the umask. So it is
        // never wider than this, whatever the umask, which all threads share.
        fchmod(&socket, Bits::S_IRUSR | Bits::S_IWUSR).map_err(failed("set the mode of"))?;
        let address = UnixAddr::new(self.path).map_err(failed("name"))?;
        kernel::bind(socket.as_raw_fd(), &address).map_err(failed("bind"))?;

        let (handle, file) = self.bound_file().map_err(failed("find the socket just bound at"))?;
        if let Mode::Group(group) = mode {
            give_to_group(&handle, group, 0o660).map_err(|_| BindError::Group { group })?;
        }
        // Before anybody can connect: what connects earlier does not inherit it.
        sys::socket::name_senders(&socket).map_err(failed("name the senders of"))?;
        let backlog = Backlog::new(BACKLOG).map_err(failed("listen on"))?;
        kernel::listen(&socket, backlog).map_err(failed("listen on"))?;
        Ok((UnixListener::from(socket), file))
    }

    /// What the bind has made, seen through the directory that was checked, so that a directory swapped
    /// in between is noticed.
    fn bound_file(&self) -> nix::Result<(OwnedFd, SocketFile)> {
        let handle = self.handle()?;
        let stat = fstat(&handle)?;
        if !is(&stat, SFlag::S_IFSOCK) || !is_ours(&stat) || stat.st_mode & 0o177 != 0 {
            return Err(Errno::ESTALE);
        }
        let directory = self.directory.try_clone().map_err(|_| Errno::EMFILE)?;
        Ok((handle, SocketFile { directory, name: self.name.clone(), stat }))
    }

    /// The object at the path itself, opened for nothing but asking.
    fn handle(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, self.name.as_os_str(), flags, Bits::empty())
    }

    fn unlink(&self, expected: &FileStat) -> nix::Result<()> {
        unlink_if_same(&self.directory, &self.name, expected)
    }
}

/// The name of a bound socket; removed when dropped, if it still leads to that socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    stat: FileStat,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = unlink_if_same(&self.directory, &self.name, &self.stat);
    }
}

fn unlink_if_same(directory: &OwnedFd, name: &OsString, expected: &FileStat) -> nix::Result<()> {
    let found = fstatat(directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !same_file(&found, expected) {
        return Err(Errno::ESTALE);
    }
    unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir)
}

/// The directory and the name of a socket.
fn parts(path: &Path) -> Result<(&Path, &OsStr), BindError> {
    let usable = path.is_absolute() && path.as_os_str().len() <= PATH_LIMIT;
    match (path.parent(), path.file_name(), usable) {
        (Some(parent), Some(name), true) => Ok((parent, name)),
        _ => Err(BindError::Path { path: path.into() }),
    }
}

/// True if the directory was made now.
fn make_directory(path: &Path) -> Result<bool, BindError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(BindError::System { step: "make the directory", path: path.into(), error }),
    }
}

/// Whoever can write to the directory can put another socket in place of ours.
fn open_directory(path: &Path) -> Result<OwnedFd, BindError> {
    let unsafe_because = |why| BindError::Directory { path: path.into(), why };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = nix::fcntl::open(path, flags, Bits::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => unsafe_because("is a symbolic link or not a directory"),
        errno => BindError::system("open the directory", path, errno),
    })?;
    let stat = fstat(&directory).map_err(|errno| BindError::system("look at", path, errno))?;
    if !is_ours(&stat) && stat.st_uid != 0 {
        return Err(unsafe_because("belongs to another user"));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(unsafe_because("can be written to by other users"));
    }
    Ok(directory)
}

/// The group first, then the mode: never does a wrong group have the rights of the right one.
fn give_to_group(handle: &OwnedFd, group: u32, mode: u32) -> io::Result<()> {
    fchownat(handle, c"", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    set_permissions(self_fd(handle), Permissions::from_mode(mode))
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn is_ours(stat: &FileStat) -> bool {
    Uid::from_raw(stat.st_uid) == Uid::effective()
}

/// `None`: a socket of ours that nobody answers on.
fn occupant(handle: &OwnedFd, stat: &FileStat) -> Option<Occupant> {
    Some(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK if !is_ours(stat) => Occupant::ForeignSocket,
        SFlag::S_IFSOCK if is_dead(handle) => return None,
        SFlag::S_IFSOCK => Occupant::LiveSocket,
        SFlag::S_IFREG => Occupant::File,
        SFlag::S_IFDIR => Occupant::Directory,
        SFlag::S_IFLNK => Occupant::Symlink,
        SFlag::S_IFIFO => Occupant::Fifo,
        _ => Occupant::Device,
    })
}

/// Only a plain refusal says so. A full backlog (`EAGAIN`) or a datagram socket (`EPROTOTYPE`) is alive.
fn is_dead(handle: &OwnedFd) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let refused = || {
        let address = UnixAddr::new(self_fd(handle).as_bytes())?;
        let socket = kernel::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        kernel::connect(socket.as_raw_fd(), &address)
    };
    refused() == Err(Errno::ECONNREFUSED)
}

/// What lies at the path of the socket and is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Occupant {
    /// A regular file.
    #[error("a file")]
    File,
    /// A directory.
    #[error("a directory")]
    Directory,
    /// A symbolic link, wherever it leads.
    #[error("a symbolic link")]
    Symlink,
    /// A named pipe.
    #[error("a named pipe")]
    Fifo,
    /// A device node.
    #[error("a device")]
    Device,
    /// A socket that belongs to another user.
    #[error("a socket of another user")]
    ForeignSocket,
    /// A socket of ours that a program without our lock listens on.
    #[error("a socket that another program listens on")]
    LiveSocket,
}

/// Why the socket was not bound: what happened, then what to do.
#[derive(Debug, Error)]
pub enum BindError {
    /// Not absolute, without a last part, or longer than 107 bytes.
    #[error(
        "the socket path {path:?} cannot be used\nset an absolute path of at most 107 bytes that ends in a name"
    )]
    Path {
        /// As configured.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the directory {path:?} {why}\ngive the socket a directory of its own, owned by the user of the daemon, mode 0700"
    )]
    Directory {
        /// The socket's parent.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another daemon holds the lock.
    #[error("another ravi-brokerd owns {path:?}\nstop it first, or set another socket path")]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies where the lock file should be.
    #[error("{path:?} is not a lock file of this user\nmove it away, or set another socket path")]
    Lock {
        /// The lock file.
        path: PathBuf,
    },
    /// Something that is not ours to remove lies at the path.
    #[error(
        "{path:?} is taken by {occupant}\nmove it away, or set another socket path; it was left as it is"
    )]
    Occupied {
        /// The socket.
        path: PathBuf,
        /// What lies there.
        occupant: Occupant,
    },
    /// The group cannot be given the socket.
    #[error(
        "the socket cannot be given to group {group}\nmake the daemon's user a member of that group, or set another group"
    )]
    Group {
        /// Group id.
        group: u32,
    },
    /// A system call failed.
    #[error(
        "cannot {step} {path:?}: {error}\ncheck that the directory exists and that the daemon's user may write there"
    )]
    System {
        /// What was tried.
        step: &'static str,
        /// With which object.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

impl BindError {
    fn system(step: &'static str, path: &Path, errno: Errno) -> Self {
        Self::System { step, path: path.into(), error: errno.into() }
    }
}
