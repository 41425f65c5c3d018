//! Finds the configuration file and reads it once, if it is one that may be trusted.
//!
//! Never looks into the working directory. The file is judged by the descriptor it is read from, so
//! nothing can be put in its place in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::paths::config_candidates;
use super::{ConfigError, Environment, FileFault, Variable};

/// Size of the largest file that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// A configuration file that was read and not judged yet.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Source {
    /// Reads the file that applies: `flag` (`--config`), else `RAVI_BROKER_CONFIG`, else the user's own
    /// file if there is one, else the system's. What was named has no stand-in.
    ///
    /// # Errors
    /// [`ConfigError::NotFound`] names every path that was tried; see there for the others.
    pub fn find(flag: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let candidates = match (flag, environment.raw(Variable::RaviBrokerConfig)) {
            (Some(flag), _) => vec![std::path::absolute(flag).unwrap_or_else(|_| flag.to_owned())],
            (None, Some(_)) => {
                let named = environment.path(Variable::RaviBrokerConfig);
                vec![named.ok_or(ConfigError::RelativePath)?]
            }
            (None, None) => config_candidates(environment),
        };
        for path in &candidates {
            if let Some(bytes) = read_trusted(path, environment.uid())? {
                return Ok(Self { path: path.clone(), bytes });
            }
        }
        Err(ConfigError::NotFound { looked_for: candidates })
    }

    /// A text that is already at hand, for the demo and for tests. `path` is what messages call it.
    pub fn of(path: impl Into<PathBuf>, text: &str) -> Self {
        Self { path: path.into(), bytes: text.as_bytes().to_vec() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The content of the file; `None` if there is no such file.
fn read_trusted(path: &Path, uid: u32) -> Result<Option<Vec<u8>>, ConfigError> {
    let unreadable = |error: io::Error| ConfigError::Unreadable { path: path.to_owned(), kind: error.kind() };
    // Without O_NONBLOCK a pipe at this path would hold the start for ever.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    if let Some(fault) = fault_of(&file, uid).map_err(unreadable)? {
        return Err(ConfigError::Untrusted { path: path.to_owned(), fault });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(ConfigError::Untrusted { path: path.to_owned(), fault: FileFault::TooLarge });
    }
    Ok(Some(bytes))
}

fn fault_of(file: &File, uid: u32) -> io::Result<Option<FileFault>> {
    let status = file.metadata()?;
    Ok(if !status.is_file() {
        Some(FileFault::NotRegular)
    } else if status.uid() != 0 && status.uid() != uid {
        Some(FileFault::Owner)
    } else if status.mode() & 0o022 != 0 {
        Some(FileFault::Writable)
    } else if status.len() > MAX_BYTES as u64 {
        Some(FileFault::TooLarge)
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::Mode;
    use nix::unistd::{geteuid, mkfifo};
    use tempfile::TempDir;

    use super::*;

    fn environment(variables: &[(Variable, &Path)]) -> Environment {
        // Not root's, so that a user's own file applies; files of this process are then "root or us".
        let uid = if geteuid().is_root() { 4242 } else { geteuid().as_raw() };
        Environment::of(uid, variables.iter().map(|(variable, path)| (*variable, path.as_os_str())))
    }

    fn write(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, path.to_str().unwrap()).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn fault(path: &Path) -> FileFault {
        match Source::find(Some(path), &environment(&[])) {
            Err(ConfigError::Untrusted { fault, .. }) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_users_file() {
        let dir = TempDir::new().unwrap();
        let [flag, named, own] =
            ["flag.toml", "named.toml", "ravi-broker/config.toml"].map(|name| dir.path().join(name));
        [&flag, &named, &own].into_iter().for_each(|path| write(path, 0o600));
        let all = environment(&[(Variable::RaviBrokerConfig, &named), (Variable::XdgConfigHome, dir.path())]);
        let home = environment(&[(Variable::XdgConfigHome, dir.path())]);
        assert_eq!(Source::find(Some(&flag), &all).unwrap().path(), flag);
        assert_eq!(Source::find(None, &all).unwrap().path(), named);
        assert_eq!(Source::find(None, &home).unwrap().path(), own);
    }

    #[test]
    fn what_was_named_and_is_absent_has_no_stand_in() {
        let dir = TempDir::new().unwrap();
        let own = dir.path().join("ravi-broker/config.toml");
        write(&own, 0o600);
        let absent = dir.path().join("absent.toml");
        let all =
            environment(&[(Variable::RaviBrokerConfig, &absent), (Variable::XdgConfigHome, dir.path())]);
        match Source::find(None, &all) {
            Err(ConfigError::NotFound { looked_for }) => assert_eq!(looked_for, [absent]),
            other => panic!("{other:?}"),
        }
        let relative = environment(&[(Variable::RaviBrokerConfig, Path::new("config.toml"))]);
        assert!(matches!(Source::find(None, &relative), Err(ConfigError::RelativePath)));
    }

    #[test]
    fn the_error_lists_every_path_that_was_tried() {
        let dir = TempDir::new().unwrap();
        let error = match Source::find(None, &environment(&[(Variable::XdgConfigHome, dir.path())])) {
            Err(error @ ConfigError::NotFound { .. }) => error.to_string(),
            // This machine has a system-wide file: nothing to see here.
            other => return drop(other),
        };
        assert!(error.contains(dir.path().join("ravi-broker/config.toml").to_str().unwrap()), "{error}");
        assert!(error.contains("/etc/ravi-broker/config.toml"), "{error}");
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.toml");
        for mode in [0o620, 0o602, 0o666] {
            write(&path, mode);
            assert_eq!(fault(&path), FileFault::Writable, "{mode:o}");
        }
        write(&path, 0o644);
        assert!(Source::find(Some(&path), &environment(&[])).is_ok());
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let dir = TempDir::new().unwrap();
        let (path, link) = (dir.path().join("config.toml"), dir.path().join("link.toml"));
        write(&path, 0o666);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(fault(&link), FileFault::Writable);
        write(&path, 0o600);
        assert!(Source::find(Some(&link), &environment(&[])).is_ok());
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.toml");
        write(&path, 0o600);
        std::os::unix::fs::chown(&path, Some(4243), None).unwrap();
        assert_eq!(fault(&path), FileFault::Owner);
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let dir = TempDir::new().unwrap();
        assert_eq!(fault(dir.path()), FileFault::NotRegular);
        let pipe = dir.path().join("pipe");
        mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(fault(&pipe), FileFault::NotRegular);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.toml");
        write(&path, 0o600);
        fs::write(&path, vec![b'#'; MAX_BYTES + 1]).unwrap();
        assert_eq!(fault(&path), FileFault::TooLarge);
    }
}
