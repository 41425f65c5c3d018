//! Seals the daemon's management key for its next start, and takes the sealed one away.
//!
//! The key goes from the daemon through a pipe into `systemd-creds encrypt`, and through no other program: neither
//! this one nor a file. `LoadCredentialEncrypted=` of the unit finds the result. Imports its siblings alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat, mkfifo};
use thiserror::Error;

use crate::client::{AdminClient, ClientError};

/// State directory of the system's daemon (`StateDirectory=`), and the pipe in it.
const STATE: &str = "/var/lib/ravi-broker";
const PIPE: &str = "sealing";
/// Where systemd looks for sealed credentials, and ours there.
const STORE: &str = "/etc/credstore.encrypted";
const SEALED: &str = "ravi-broker.management-key";
/// What the key is called inside; systemd compares it with the unit's.
const NAME: &str = "management-key";
const RUNTIME: &str = "/run/ravi-broker";

/// Why the key was not sealed.
#[derive(Debug, Error)]
pub(crate) enum SealError {
    #[error("{}: {}\nsee that root may write there", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
    #[error(
        "systemd-creds could not seal the key\nwhat it said stands above; try `systemd-creds setup`, or keep the key in a file (upstream.management_key_file)"
    )]
    Refused,
}

/// The way to seal a key on this host.
pub(super) struct Sealer {
    program: PathBuf,
    state: PathBuf,
    store: PathBuf,
}

impl Sealer {
    /// `None`: not root, no systemd-creds, or not the daemon of the system.
    pub(super) fn of(admin: &AdminClient) -> Option<Self> {
        let program = ["/usr/bin/systemd-creds", "/bin/systemd-creds"].map(PathBuf::from);
        let program = program.into_iter().find(|path| path.exists())?;
        let of_system = admin.socket().starts_with(RUNTIME) && Path::new(STATE).is_dir();
        let may = Uid::effective().is_root() && of_system;
        may.then(|| Self { program, state: STATE.into(), store: STORE.into() })
    }

    /// Seals the key that the daemon holds, in place of an earlier one. Returns where it lies.
    pub(super) async fn seal(&self, admin: &AdminClient) -> Result<Result<PathBuf, SealError>, ClientError> {
        let pipe = match Pipe::make(&self.state) {
            Ok(pipe) => pipe,
            Err(error) => return Ok(Err(error)),
        };
        // Into the pipe's own buffer, and read only then: a reader that came before the key would see the end.
        admin.seal_key().await?;
        Ok(self.encrypt(pipe))
    }

    fn encrypt(&self, pipe: Pipe) -> Result<PathBuf, SealError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| SealError::Io(path, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.store).map_err(failed(&self.store))?;
        let (sealed, fresh) = (self.store.join(SEALED), self.store.join(format!(".{SEALED}.new")));
        let _ = fs::remove_file(&fresh);
        let mut command = Command::new(&self.program);
        command.arg("encrypt").arg(format!("--name={NAME}")).arg("-").arg(&fresh);
        let done = command.stdin(Stdio::from(pipe.reader())).stdout(Stdio::null()).status();
        let done = done.map_err(failed(&self.program))?;
        let kept = fs::metadata(&fresh).is_ok_and(|found| found.is_file() && found.len() > 0);
        if !done.success() || !kept {
            let _ = fs::remove_file(&fresh);
            return Err(SealError::Refused);
        }
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed(&fresh))?;
        fs::rename(&fresh, &sealed).map_err(failed(&sealed))?;
        Ok(sealed)
    }
}

/// Removes the sealed key, if there is one and we may. Returns where it lay.
pub(super) fn remove() -> Result<Option<PathBuf>, SealError> {
    let sealed = Path::new(STORE).join(SEALED);
    match fs::remove_file(&sealed) {
        Ok(()) => Ok(Some(sealed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Nobody else may look into the store.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(SealError::Io(sealed, error)),
    }
}

/// A pipe by name, for the daemon alone to write to. The name goes with it.
struct Pipe {
    path: PathBuf,
    reader: Option<OwnedFd>,
}

impl Pipe {
    fn make(directory: &Path) -> Result<Self, SealError> {
        let path = directory.join(PIPE);
        Self::make_at(&path).map_err(|error| SealError::Io(path, error))
    }

    fn make_at(path: &Path) -> io::Result<Self> {
        // Left by one that was killed. Whoever else put something there is told.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            fs::remove_file(path)?;
        }
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut pipe = Self { path: path.to_owned(), reader: None };
        let owner = fs::metadata(path.parent().unwrap_or(path))?;
        let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        fchownat(AT_FDCWD, path, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let reader = File::options().read(true).custom_flags(flags).open(path)?;
        if !reader.metadata()?.file_type().is_fifo() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Whoever reads next waits for nothing: the key is there, and its writer gone.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
        pipe.reader = Some(reader.into());
        Ok(pipe)
    }

    fn reader(mut self) -> OwnedFd {
        self.reader.take().expect("it was opened when the pipe was made")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A stand-in for systemd-creds that answers with what it was given.
    fn sealer(room: &Path, script: &str) -> Sealer {
        let (text, program) = (room.join("script"), room.join("systemd-creds"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // Not written here: a child that another test forks meanwhile would have it open, and it could not be run.
        assert!(Command::new("cp").arg(&text).arg(&program).status().unwrap().success());
        let state = room.join("state");
        fs::create_dir(&state).unwrap();
        Sealer { program, state, store: room.join("store") }
    }

    fn written(sealer: &Sealer) -> Pipe {
        let pipe = Pipe::make(&sealer.state).unwrap();
        let mut daemon = File::options().write(true).open(&pipe.path).unwrap();
        daemon.write_all(b"ravi_mgmt_sealed").unwrap();
        pipe
    }

    #[test]
    fn the_key_goes_from_the_pipe_to_what_seals_it_and_lies_nowhere_else() {
        let room = tempfile::tempdir().unwrap();
        let script = r#"printf '%s ' "$1" "$2" "$3" > "$4"; cat >> "$4""#;
        let sealer = sealer(room.path(), script);
        let sealed = sealer.encrypt(written(&sealer)).unwrap();
        let text = fs::read_to_string(&sealed).unwrap();
        assert_eq!(text, "encrypt --name=management-key - ravi_mgmt_sealed");
        assert_eq!(fs::metadata(&sealed).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&sealer.state).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&sealer.store).unwrap().count(), 1);
    }

    #[test]
    fn what_could_not_be_sealed_leaves_the_earlier_key() {
        let room = tempfile::tempdir().unwrap();
        let sealer = sealer(room.path(), "cat > /dev/null; exit 1");
        fs::create_dir(&sealer.store).unwrap();
        let sealed = sealer.store.join(SEALED);
        fs::write(&sealed, "earlier").unwrap();
        assert!(sealer.encrypt(written(&sealer)).is_err());
        assert_eq!(fs::read_to_string(sealed).unwrap(), "earlier");
        assert_eq!(fs::read_dir(&sealer.store).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_that_was_left_is_replaced_and_a_file_is_not() {
        let room = tempfile::tempdir().unwrap();
        std::mem::forget(Pipe::make(room.path()).unwrap());
        drop(Pipe::make(room.path()).unwrap());
        fs::write(room.path().join(PIPE), "").unwrap();
        assert!(Pipe::make(room.path()).is_err());
        assert!(room.path().join(PIPE).exists());
    }
}
