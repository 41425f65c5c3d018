//! A session that a shell hands to the commands it runs: one JSON object in a file of mode 0600.
//!
//! The token in it works only for the process tree it is bound to, but it is a secret all the same: the
//! file lies in memory (tmpfs or ramfs) or is not written. A file that others own or can read, a link
//! and anything but a regular file are refused. Replacing is atomic: a reader sees the old session or
//! the new one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::locate;
use super::model::Session;
use crate::secret::Secret;
use crate::types::SessionId;

/// A session file is a few hundred bytes.
const MAX_BYTES: usize = 16 * 1024;
/// `RAMFS_MAGIC` of the kernel's `include/uapi/linux/magic.h`, which libc leaves out.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const NOFOLLOW: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// What a session file holds. Has no `Debug` and no `Clone` (invariant I6).
pub struct SessionFile {
    /// The agent socket that the session was opened at.
    pub socket: PathBuf,
    /// Public handle.
    pub session_id: SessionId,
    /// The session's token.
    pub token: Secret,
    /// The session's role.
    pub role: String,
    /// Wall-clock end, for people.
    pub expires_at: Timestamp,
}

/// Why a session file was not read or written. Never quotes its content.
#[derive(Debug, Error)]
pub enum SessionFileError {
    /// There is none: open a session.
    #[error("there is no session file at {}", .0.display())]
    Absent(PathBuf),
    /// Not a regular file, or a symbolic link: name another path.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It belongs to another user: name another path.
    #[error("{} belongs to another user", .0.display())]
    Owner(PathBuf),
    /// Others have rights to it: remove it and open a new session.
    #[error("{} is open to other users; its mode has to be 0600", .0.display())]
    Mode(PathBuf),
    /// Not the form that this program writes: remove it and open a new session.
    #[error("{} is not a session file", .0.display())]
    Malformed(PathBuf),
    /// A token would reach a disk: put the file under $XDG_RUNTIME_DIR or /dev/shm.
    #[error("{} is not in memory; put the session file under $XDG_RUNTIME_DIR or /dev/shm", .0.display())]
    OnDisk(PathBuf),
    /// The host offers no place in memory: name a path under /dev/shm.
    #[error("there is no runtime directory; name a session file under /dev/shm")]
    NoDirectory,
    /// The kernel refused.
    #[error("{}: {}", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
}

type Result<T> = std::result::Result<T, SessionFileError>;

/// The file's form. Borrows on the way out, so that the token is not copied before it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<P, T> {
    socket: P,
    session_id: String,
    token: T,
    role: P,
    expires_at: String,
}

impl SessionFile {
    /// A session that was opened at `socket`.
    pub fn new(socket: &Path, session: &Session, token: Secret) -> Self {
        Self {
            socket: socket.to_owned(),
            session_id: session.session_id,
            token,
            role: session.role.clone(),
            expires_at: session.expires_at,
        }
    }

    /// Where a session is kept when no path is named: a file of its own in the session directory.
    pub fn default_path(session_id: SessionId) -> Result<PathBuf> {
        let directory = locate::session_directory().ok_or(SessionFileError::NoDirectory)?;
        Ok(directory.join(format!("{session_id}.json")))
    }

    /// Reads a file that nobody else can have written.
    pub fn read(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW | libc::O_NONBLOCK).open(path);
        let mut file = file.map_err(|error| open_error(path, error))?;
        let size = check(&file, path)?;
        let mut text = Zeroizing::new(vec![0; size]);
        file.read_exact(&mut text).map_err(|error| io_error(path, error))?;
        let malformed = || SessionFileError::Malformed(path.to_owned());
        // The parser's own error could quote the token.
        let stored: Stored<String, Secret> = serde_json::from_slice(&text).map_err(|_| malformed())?;
        let session_id = stored.session_id.parse().map_err(|_| malformed())?;
        let expires_at = stored.expires_at.parse().map_err(|_| malformed())?;
        let Stored { socket, token, role, .. } = stored;
        Ok(Self { socket: socket.into(), session_id, token, role, expires_at })
    }

    /// Writes the file, in place of one that is there, and makes its directory if need be (mode 0700).
    pub fn write(&self, path: &Path) -> Result<()> {
        refuse_foreign(path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| io_error(directory, error))?;
        let (mut file, fresh) = create_beside(path)?;
        let written = self
            .fill(&mut file, path)
            .and_then(|()| std::fs::rename(&fresh, path).map_err(|error| io_error(path, error)));
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written
    }

    /// Removes a session file; that there is none is fine.
    pub fn remove(path: &Path) -> Result<()> {
        refuse_foreign(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
            _ => Ok(()),
        }
    }

    fn fill(&self, file: &mut File, path: &Path) -> Result<()> {
        let system = fstatfs(&*file).map_err(|error| io_error(path, error.into()))?.filesystem_type();
        if !in_memory(system) {
            return Err(SessionFileError::OnDisk(path.to_owned()));
        }
        let socket = self.socket.to_str().ok_or_else(|| SessionFileError::Malformed(path.to_owned()))?;
        let stored = Stored {
            socket,
            session_id: self.session_id.to_string(),
            token: self.token.expose(),
            role: self.role.as_str(),
            expires_at: self.expires_at.to_string(),
        };
        // Room for all that is ever read back: what grows leaves a copy where it was.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
        serde_json::to_writer(&mut *text, &stored).map_err(|error| io_error(path, error.into()))?;
        file.write_all(&text).map_err(|error| io_error(path, error))
    }
}

fn in_memory(system: FsType) -> bool {
    system == TMPFS_MAGIC || system == RAMFS_MAGIC
}

/// What stands at the path already may be replaced only if it is a session file's like.
fn refuse_foreign(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(SessionFileError::NotAFile(path.to_owned())),
        Ok(found) if found.uid() != Uid::effective().as_raw() => {
            Err(SessionFileError::Owner(path.to_owned()))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

/// A new file in the directory of `path`, whose name no other process can be using.
fn create_beside(path: &Path) -> Result<(File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| SessionFileError::NotAFile(path.to_owned()))?;
    let mut fresh = std::ffi::OsString::from(".");
    fresh.push(name);
    fresh.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(fresh);
    let create =
        || OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(NOFOLLOW).open(&fresh);
    let file = match create() {
        // Left by a process that had this id before and was killed while it wrote.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&fresh).and_then(|()| create())
        }
        result => result,
    };
    file.map(|file| (file, fresh)).map_err(|error| io_error(path, error))
}

/// Judges the opened file and returns its size in bytes.
fn check(file: &File, path: &Path) -> Result<usize> {
    let found = file.metadata().map_err(|error| io_error(path, error))?;
    if !found.is_file() {
        return Err(SessionFileError::NotAFile(path.to_owned()));
    }
    if found.uid() != Uid::effective().as_raw() {
        return Err(SessionFileError::Owner(path.to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(SessionFileError::Mode(path.to_owned()));
    }
    let size = usize::try_from(found.len()).ok().filter(|size| *size <= MAX_BYTES);
    size.ok_or_else(|| SessionFileError::Malformed(path.to_owned()))
}

fn open_error(path: &Path, error: io::Error) -> SessionFileError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => SessionFileError::Absent(path.to_owned()),
        // A link (O_NOFOLLOW), or a socket.
        Some(libc::ELOOP | libc::ENXIO) => SessionFileError::NotAFile(path.to_owned()),
        _ => io_error(path, error),
    }
}

fn io_error(path: &Path, error: io::Error) -> SessionFileError {
    SessionFileError::Io(path.to_owned(), error)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC};
    use tempfile::TempDir;

    use super::*;

    const TOKEN: &str = "token-canary-\"quoted\"";

    fn memory() -> TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn file() -> SessionFile {
        SessionFile {
            socket: "/run/ravi-broker/broker.sock".into(),
            session_id: SessionId([3; 16]),
            token: Secret::copy_of(TOKEN),
            role: "notes-agent".into(),
            expires_at: "2026-11-23T12:00:00Z".parse().unwrap(),
        }
    }

    fn error(result: Result<SessionFile>) -> SessionFileError {
        result.err().expect("the file is refused")
    }

    #[test]
    fn a_session_reads_back_as_it_was_written_and_is_for_its_owner_alone() {
        let directory = memory();
        let path = directory.path().join("sessions").join("a.json");
        file().write(&path).unwrap();
        file().write(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        let read = SessionFile::read(&path).unwrap();
        assert_eq!(read.token.expose(), TOKEN);
        assert_eq!((read.session_id, read.role.as_str()), (SessionId([3; 16]), "notes-agent"));
        assert_eq!((read.socket, read.expires_at), (file().socket, file().expires_at));
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_token_is_not_written_to_a_disk() {
        for disk in [EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, NFS_SUPER_MAGIC] {
            assert!(!in_memory(disk));
        }
        let build = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(build.parent().unwrap()).unwrap();
        let on_disk = !in_memory(nix::sys::statfs::statfs(directory.path()).unwrap().filesystem_type());
        let written = file().write(&directory.path().join("a.json"));
        assert_eq!(matches!(written, Err(SessionFileError::OnDisk(_))), on_disk);
        assert_eq!(directory.path().read_dir().unwrap().count(), usize::from(!on_disk));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = memory();
        let path = directory.path().join("a.json");
        file().write(&path).unwrap();
        for mode in [0o640, 0o604, 0o622] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(error(SessionFile::read(&path)), SessionFileError::Mode(_)), "{mode:o}");
        }
    }

    #[test]
    fn links_and_other_objects_are_neither_read_nor_replaced() {
        let directory = memory();
        let [path, link, fifo] = ["a.json", "link", "fifo"].map(|name| directory.path().join(name));
        file().write(&path).unwrap();
        symlink(&path, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        for other in [&link, &fifo, &directory.path().to_owned()] {
            assert!(matches!(error(SessionFile::read(other)), SessionFileError::NotAFile(_)), "{other:?}");
            assert!(matches!(file().write(other), Err(SessionFileError::NotAFile(_))), "{other:?}");
            assert!(matches!(SessionFile::remove(other), Err(SessionFileError::NotAFile(_))), "{other:?}");
        }
        assert!(SessionFile::read(&path).is_ok());
    }

    #[test]
    fn what_a_killed_writer_left_is_no_obstacle() {
        let directory = memory();
        let path = directory.path().join("a.json");
        let left = directory.path().join(format!(".a.json.{}", std::process::id()));
        symlink("/nowhere", &left).unwrap();
        file().write(&path).unwrap();
        assert!(SessionFile::read(&path).is_ok());
        assert!(left.symlink_metadata().is_err());
    }

    #[test]
    fn a_malformed_file_is_refused_without_quoting_it() {
        let directory = memory();
        let path = directory.path().join("a.json");
        let long = format!("{{\"token\":\"{}\"}}", "x".repeat(20_000));
        for text in ["", "token-canary", "{\"token\":\"token-canary\"}", &long] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = error(SessionFile::read(&path));
            assert!(matches!(error, SessionFileError::Malformed(_)));
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_missing_file_is_told_from_a_bad_one_and_removed_twice() {
        let directory = memory();
        let path = directory.path().join("a.json");
        assert!(matches!(error(SessionFile::read(&path)), SessionFileError::Absent(_)));
        file().write(&path).unwrap();
        SessionFile::remove(&path).unwrap();
        SessionFile::remove(&path).unwrap();
        assert!(!path.exists());
    }
}
