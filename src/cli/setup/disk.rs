//! Reads and replaces the files of a user: whole or not at all, with the mode they had.
//!
//! A link is followed where the user made it and owns what it leads to; in a project, which may come from anywhere,
//! not at all. Bounded. Imports the errors beside it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::error::SetupError;

/// Size of the largest file that is read or written, in bytes. A host that keeps its history in the same file
/// as its settings has been seen with some MB.
const MAX_BYTES: u64 = 32 << 20;

/// Where a file really is, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// With no link at its end.
    pub(super) path: PathBuf,
    /// `None`: there is none.
    pub(super) text: Option<String>,
    /// Whether its directory is there.
    pub(super) directory: bool,
    mode: Option<u32>,
}

/// Looks for a file that may be changed.
pub(super) fn find(path: &Path, in_project: bool) -> Result<Found, SetupError> {
    let failed = |error: io::Error| SetupError::Io(path.to_owned(), error);
    let refuse = || SetupError::NotOurs(path.to_owned());
    let own = geteuid().as_raw();
    let at = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            guard_directory(path, in_project)?;
            let directory = path.parent().is_some_and(Path::is_dir);
            return Ok(Found { path: path.to_owned(), text: None, directory, mode: None });
        }
        Err(error) => return Err(failed(error)),
        Ok(status) if status.is_symlink() && (in_project || status.uid() != own) => return Err(refuse()),
        Ok(_) => fs::canonicalize(path).map_err(failed)?,
    };
    guard_directory(path, in_project)?;
    guard_directory(&at, in_project)?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    let file = options.open(&at).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    if !status.is_file() || status.uid() != own {
        return Err(refuse());
    }
    let text = read(file, &at)?;
    Ok(Found { path: at, text: Some(text), directory: true, mode: Some(status.mode() & 0o7777) })
}

/// The directory, or the nearest one above it that is there, is not for everybody to write; in a project, no link
/// on the way leads out of it.
fn guard_directory(path: &Path, in_project: bool) -> Result<(), SetupError> {
    let there = path.ancestors().skip(1).find(|directory| directory.exists());
    let there = there.filter(|there| !there.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: io::Error| SetupError::Io(there.to_owned(), error);
    let status = fs::metadata(there).map_err(failed)?;
    let open_to_all = status.mode() & 0o002 != 0;
    let leads_away = in_project && fs::canonicalize(there).map_err(failed)? != there;
    if !status.is_dir() || open_to_all || leads_away {
        return Err(SetupError::NotOurs(path.to_owned()));
    }
    Ok(())
}

fn read(file: File, path: &Path) -> Result<String, SetupError> {
    let mut bytes = Vec::new();
    let failed = |error: io::Error| SetupError::Io(path.to_owned(), error);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    String::from_utf8(bytes).map_err(|_| SetupError::Syntax(path.to_owned()))
}

impl Found {
    /// Puts a text in the file's place, or removes the file; refuses if it was changed since it was read.
    pub(super) fn replace(&self, text: Option<&str>, mode: u32) -> Result<(), SetupError> {
        let failed = |error: io::Error| SetupError::Io(self.path.clone(), error);
        let now = match File::open(&self.path) {
            Ok(file) => Some(read(file, &self.path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if now != self.text {
            return Err(SetupError::Meanwhile(self.path.clone()));
        }
        match text {
            Some(text) => write(&self.path, text, self.mode.unwrap_or(mode)).map_err(failed),
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            },
        }
    }
}

/// Writes beside the file and puts it in its place.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".ravi-{}", std::process::id()));
    let fresh = directory.join(name);
    // Left by one that was killed.
    let _ = fs::remove_file(&fresh);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&fresh)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn directory() -> TempDir {
        TempDir::new().unwrap()
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_link_stays_one() {
        let dir = directory();
        let real = dir.path().join("dotfiles.json");
        let link = dir.path().join("claude.json");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        find(&link, false).unwrap().replace(Some("new"), 0o600).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert!(matches!(find(&link, true), Err(SetupError::NotOurs(_))), "not in a project");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn in_a_project_no_directory_on_the_way_is_a_link() {
        let (dir, elsewhere) = (directory(), directory());
        let root = fs::canonicalize(dir.path()).unwrap();
        symlink(elsewhere.path(), root.join(".cursor")).unwrap();
        for name in [".cursor/mcp.json", ".cursor/deeper/mcp.json"] {
            assert!(matches!(find(&root.join(name), true), Err(SetupError::NotOurs(_))), "{name}");
        }
        fs::write(elsewhere.path().join("mcp.json"), "{}").unwrap();
        assert!(matches!(find(&root.join(".cursor/mcp.json"), true), Err(SetupError::NotOurs(_))));
        assert!(find(&root.join(".mcp.json"), true).unwrap().text.is_none());
    }

    #[test]
    fn what_others_own_or_may_write_is_refused() {
        let dir = directory();
        let path = dir.path().join("f.json");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(find(&path, false), Err(SetupError::NotOurs(_))));
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        if geteuid().is_root() {
            fs::write(&path, "{}").unwrap();
            std::os::unix::fs::chown(&path, Some(4243), None).unwrap();
            assert!(matches!(find(&path, false), Err(SetupError::NotOurs(_))));
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(find(&dir.path().join("d"), false).is_err());
    }

    #[test]
    fn what_changed_in_between_is_not_overwritten() {
        let dir = directory();
        let path = dir.path().join("f");
        let found = find(&path, false).unwrap();
        fs::write(&path, "of another").unwrap();
        assert!(matches!(found.replace(Some("ours"), 0o600), Err(SetupError::Meanwhile(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "of another");
        let found = find(&path, false).unwrap();
        fs::write(&path, "again").unwrap();
        assert!(matches!(found.replace(None, 0o600), Err(SetupError::Meanwhile(_))));
    }
}
