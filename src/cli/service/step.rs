//! One step of an installation: what it says of itself, and what it does.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServiceError;

/// A change to this host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A file with this text, readable for all.
    Write(PathBuf, String),
    /// A file that we wrote.
    Remove(PathBuf),
    /// A program, by its full path, and its arguments.
    Run(PathBuf, Vec<String>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(path, _) => write!(f, "write   {}", path.display()),
            Self::Remove(path) => write!(f, "remove  {}", path.display()),
            Self::Run(..) => write!(f, "run     {}", self.line()),
        }
    }
}

impl Step {
    /// Takes the step; the last is not undone when it fails.
    pub(super) fn take(&self) -> Result<(), ServiceError> {
        match self {
            Self::Write(path, text) => {
                write(path, text).map_err(|error| ServiceError::Io(path.clone(), error))
            }
            Self::Remove(path) => {
                fs::remove_file(path).map_err(|error| ServiceError::Io(path.clone(), error))
            }
            Self::Run(program, arguments) => {
                let done = Command::new(program).args(arguments).stdin(Stdio::null()).status();
                let done = done.map_err(|error| ServiceError::Io(program.clone(), error))?;
                if done.success() { Ok(()) } else { Err(ServiceError::Command(self.line())) }
            }
        }
    }

    fn line(&self) -> String {
        let Self::Run(program, arguments) = self else { return String::new() };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {}", arguments.join(" "))
    }
}

/// Beside its place and renamed to it: a link there is replaced and not followed, and no reader sees a part.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let fresh = directory.join(format!(".{}.new", name.to_string_lossy()));
    // Left by one that was killed.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
    let written = file
        .write_all(text.as_bytes())
        // Whatever the umask: the manager and `systemctl cat` of others read it.
        .and_then(|()| file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_link_in_place_of_a_unit_is_replaced_and_not_followed() {
        let room = tempfile::tempdir().unwrap();
        let (unit, other) = (room.path().join("units/a.service"), room.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        fs::create_dir(unit.parent().unwrap()).unwrap();
        symlink(&other, &unit).unwrap();
        Step::Write(unit.clone(), "ours".into()).take().unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(&unit).unwrap(), "ours");
        assert_eq!(fs::symlink_metadata(&unit).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(unit.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_program_that_fails_is_named() {
        let failing = Step::Run("/bin/false".into(), vec!["--now".into()]);
        assert!(failing.take().unwrap_err().to_string().starts_with("`false --now` failed\n"));
        assert_eq!(failing.to_string(), "run     false --now");
    }
}
