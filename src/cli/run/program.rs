//! Which file is run, as a shell would find it: 127 if there is none, 126 if it cannot be run (POSIX
//! "Command Search and Execution").

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::cli::error::CliError;

/// Where programs are looked for if `PATH` is not set, as `execvp(3)` does.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// A file that may be executed.
pub(super) struct ProgramFile {
    pub(super) path: CString,
}

impl ProgramFile {
    /// Looks a name without a slash up in `PATH`.
    pub(super) fn find(name: &OsStr) -> Result<Self, CliError> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
        let candidates = candidates(name, &path);
        let Some(found) = candidates.iter().find(|path| is_executable(path)) else {
            let there = candidates.iter().any(|path| path.exists());
            return Err(if there && !name.is_empty() { CliError::NotExecutable } else { CliError::NotFound });
        };
        let path = CString::new(found.clone().into_os_string().into_vec()).map_err(|_| CliError::NotFound)?;
        Ok(Self { path })
    }
}

fn candidates(name: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return vec![name.into()];
    }
    // An empty directory in it means the current one.
    std::env::split_paths(path).map(|directory| Path::new(".").join(directory).join(name)).collect()
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// The arguments as the exec takes them.
pub(super) fn arguments(command: &[OsString]) -> Result<Vec<CString>, CliError> {
    // The kernel cannot have handed over one with a zero byte.
    command.iter().map(|text| CString::new(text.as_bytes()).map_err(|_| CliError::NotFound)).collect()
}

/// What it means that the program was not started.
pub(super) fn not_run(error: &io::Error) -> CliError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => CliError::NotFound,
        Some(libc::EACCES | libc::EPERM | libc::ENOEXEC | libc::ETXTBSY | libc::EISDIR) => {
            CliError::NotExecutable
        }
        Some(number) => CliError::Start(io::Error::from_raw_os_error(number)),
        None => CliError::Start(error.kind().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_as_a_shell_does() {
        assert_eq!(candidates("a/b".as_ref(), "/x".as_ref()), [Path::new("a/b")]);
        assert_eq!(candidates("a".as_ref(), "/x::/y".as_ref()), ["/x/a", "./a", "/y/a"].map(Path::new));
        assert!(ProgramFile::find("sh".as_ref()).is_ok());
        assert!(matches!(ProgramFile::find("/etc/passwd".as_ref()), Err(CliError::NotExecutable)));
        assert!(matches!(ProgramFile::find("/".as_ref()), Err(CliError::NotExecutable)));
        for name in ["", "no-such-program-anywhere", "/nonexistent/sh"] {
            assert!(matches!(ProgramFile::find(name.as_ref()), Err(CliError::NotFound)), "{name}");
        }
    }
}
