//! The directory of the trail and the files in it, opened so that nobody else can steer where the
//! daemon writes: relative to one descriptor of the directory, never through a link, never into a
//! file that is not the daemon's alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::{AuditError, FileFault};

pub(super) struct Folder {
    dir: File,
    dir_path: PathBuf,
    names: Names,
}

/// What the files of one trail are called.
pub(super) struct Names {
    /// `audit.jsonl`.
    pub(super) log: String,
    /// `audit.jsonl.head`.
    pub(super) head: String,
    /// `audit.jsonl.next`.
    next: String,
    stem: String,
    /// `.jsonl`, or empty.
    extension: String,
}

impl Names {
    /// `None` if the path has no file name in UTF-8.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let log = path.file_name()?.to_str()?.to_owned();
        let extension =
            path.extension().map_or_else(String::new, |ext| format!(".{}", ext.to_string_lossy()));
        let stem = log.strip_suffix(&extension)?.to_owned();
        Some(Self { head: format!("{log}.head"), next: format!("{log}.next"), log, stem, extension })
    }

    /// `audit.<first>.jsonl`.
    pub(super) fn aside(&self, first: u64) -> String {
        format!("{}.{first}{}", self.stem, self.extension)
    }

    /// The number in the name of a file that was set aside.
    fn aside_first(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix(&self.stem)?.strip_prefix('.')?;
        let first = rest.strip_suffix(&self.extension)?.parse().ok()?;
        (self.aside(first) == name).then_some(first)
    }

    /// The files that were set aside in `dir`, oldest first.
    pub(super) fn asides(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Some(first) = entry.file_name().to_str().and_then(|name| self.aside_first(name)) {
                found.push((first, entry.path()));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        let unopened = |kind| AuditError::Unopened { path: path.to_owned(), kind };
        let names = Names::of(path).ok_or_else(|| unopened(io::ErrorKind::InvalidInput))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let dir_path = fs::canonicalize(parent).map_err(|error| unopened(error.kind()))?;
        let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = OpenOptions::new().read(true).custom_flags(directory.bits()).open(&dir_path);
        let dir = dir.map_err(|error| unopened(error.kind()))?;
        let status = dir.metadata().map_err(|error| unopened(error.kind()))?;
        let fault = match status.uid() == geteuid().as_raw() || status.uid() == 0 {
            false => Some(FileFault::Owner),
            true => (status.mode() & 0o022 != 0).then_some(FileFault::Mode),
        };
        match fault {
            Some(fault) => Err(AuditError::Untrusted { path: dir_path, fault }),
            None => Ok(Self { dir, dir_path, names }),
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir_path.join(&self.names.log)
    }

    pub(super) fn head_path(&self) -> PathBuf {
        self.dir_path.join(&self.names.head)
    }

    pub(super) fn asides(&self) -> Result<Vec<PathBuf>, AuditError> {
        self.names.asides(&self.dir_path).map_err(|error| self.unopened(&self.names.log, error.kind()))
    }

    /// The file that is written to, made if it is absent.
    pub(super) fn log(&self) -> Result<File, AuditError> {
        self.file(&self.names.log, OFlag::O_CREAT | OFlag::O_APPEND)
    }

    /// The head file, made if it is absent.
    pub(super) fn head(&self) -> Result<File, AuditError> {
        self.file(&self.names.head, OFlag::O_CREAT)
    }

    /// A new file that will take the place of the full one.
    pub(super) fn next(&self) -> Result<File, AuditError> {
        self.discard_next();
        self.file(&self.names.next, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_APPEND)
    }

    /// Removes what a crash or an error left of a change of files. Absent is well.
    pub(super) fn discard_next(&self) {
        let _ = unlinkat(&self.dir, self.names.next.as_str(), UnlinkatFlags::NoRemoveDir);
    }

    /// Sets the full file aside as `aside` and puts the new one in its place. Replaces nothing.
    pub(super) fn change_files(&self, aside: &str) -> Result<(), AuditError> {
        let Names { log, next, .. } = &self.names;
        self.rename(log, aside)?;
        self.rename(next, log).inspect_err(|_| {
            let _ = self.rename(aside, log);
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), AuditError> {
        renameat2(&self.dir, from, &self.dir, to, RenameFlags::RENAME_NOREPLACE)
            .map_err(|errno| AuditError::Unwritten { path: self.dir_path.join(to), kind: kind(errno) })
    }

    fn file(&self, name: &str, flags: OFlag) -> Result<File, AuditError> {
        // Without O_NONBLOCK a pipe at this path would hold the start for ever.
        let fixed =
            OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let untrusted = |fault| AuditError::Untrusted { path: self.dir_path.join(name), fault };
        let opened = openat(&self.dir, name, fixed | flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = opened.map(File::from).map_err(|errno| match errno {
            Errno::ELOOP | Errno::EISDIR | Errno::ENXIO => untrusted(FileFault::NotRegular),
            errno => self.unopened(name, kind(errno)),
        })?;
        match fault_of(&file).map_err(|error| self.unopened(name, error.kind()))? {
            Some(fault) => Err(untrusted(fault)),
            None => Ok(file),
        }
    }

    fn unopened(&self, name: &str, kind: io::ErrorKind) -> AuditError {
        AuditError::Unopened { path: self.dir_path.join(name), kind }
    }
}

fn kind(errno: Errno) -> io::ErrorKind {
    io::Error::from(errno).kind()
}

fn fault_of(file: &File) -> io::Result<Option<FileFault>> {
    let status = file.metadata()?;
    Ok(if !status.is_file() {
        Some(FileFault::NotRegular)
    } else if status.uid() != geteuid().as_raw() {
        Some(FileFault::Owner)
    } else if status.nlink() != 1 {
        Some(FileFault::Linked)
    } else if status.mode() & 0o077 != 0 {
        Some(FileFault::Mode)
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_were_set_aside_count_as_such() {
        let names = Names::of(Path::new("/x/audit.jsonl")).unwrap();
        assert_eq!(names.aside(12), "audit.12.jsonl");
        assert_eq!(names.aside_first("audit.12.jsonl"), Some(12));
        for other in
            ["audit.jsonl", "audit.jsonl.head", "audit.012.jsonl", "audit.+1.jsonl", "audit.1.jsonl.bak"]
        {
            assert_eq!(names.aside_first(other), None, "{other}");
        }
        let names = Names::of(Path::new("/x/trail")).unwrap();
        assert_eq!(names.aside_first(&names.aside(3)), Some(3));
    }
}
