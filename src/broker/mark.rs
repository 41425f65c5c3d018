//! The mark that a locked broker leaves beside the audit trail, so that a restart does not unlock it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the mark.
const NAME: &str = "broker.locked";

/// An empty file; it holds nothing and only its presence counts.
pub(super) struct Mark(PathBuf);

impl Mark {
    /// In the directory of the audit trail, which belongs to the daemon alone.
    pub(super) fn beside(audit_file: &Path) -> Self {
        Self(audit_file.with_file_name(NAME))
    }

    pub(super) fn make(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(&self.0).map(drop)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// What cannot be looked at counts as there: fail closed.
    pub(super) fn is_there(&self) -> bool {
        !matches!(fs::symlink_metadata(&self.0), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }
}
