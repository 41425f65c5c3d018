//! The file of Ravi's own command line (`docs/ravi-api.md` §2.4): read once, at `login --import`.
//!
//! Only the home file or one that was named: Ravi's command line lets a `.ravi/config.json` of the
//! working directory replace the home file, which anyone who writes a repository can plant. The file
//! has to be the user's own and closed to others. Imports `client`'s and `types`' plain types.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::client::ImportKeys;
use crate::secret::Secret;

/// The file is a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why the file was not taken. Never quotes its content.
#[derive(Debug, Error)]
pub(crate) enum RaviFileError {
    #[error("your home directory is not known\nname the file: ravi-broker login --import PATH")]
    NoHome,
    #[error("there is no file {}\nsign in with `ravi-broker login`, or name the file", .0.display())]
    Absent(PathBuf),
    #[error("{} is not a regular file\nname the file itself, not a link to it", .0.display())]
    NotAFile(PathBuf),
    #[error("{} belongs to another user\nrun this as its owner, or copy it into a file of your own", .0.display())]
    Owner(PathBuf),
    #[error("{} is open to other users, who may have read its keys\nclose it with `chmod 600`, and consider new keys", .0.display())]
    Mode(PathBuf),
    #[error("{} is not a file of Ravi's command line\nsign in with `ravi-broker login` instead", .0.display())]
    Malformed(PathBuf),
    #[error("{} comes from an old version of Ravi's command line, whose tokens are no longer valid\nsign in with `ravi-broker login` instead", .0.display())]
    Legacy(PathBuf),
    #[error("{} holds no keys\nsign in with `ravi-broker login` instead", .0.display())]
    NoKeys(PathBuf),
    #[error("{} does not say which identity its identity key belongs to\nsign in with `ravi-broker login` instead", .0.display())]
    KeyWithoutIdentity(PathBuf),
    #[error("{} could not be read: {}\nsee that this user may read it", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
}

/// `~/.ravi/config.json` of the calling user.
pub(crate) fn home_path() -> Result<PathBuf, RaviFileError> {
    let named = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let known = || User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir);
    let home = named.or_else(known).ok_or(RaviFileError::NoHome)?;
    Ok(home.join(".ravi").join("config.json"))
}

/// Reads the keys of a file that nobody else can have written or read.
pub(crate) fn read(path: &Path) -> Result<ImportKeys, RaviFileError> {
    let mut file = open(path)?;
    let mut text = Zeroizing::new(vec![0; check(&file, path)?]);
    file.read_exact(&mut text).map_err(|error| RaviFileError::Io(path.to_owned(), error))?;
    // The parser's own error could quote a key.
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|_| RaviFileError::Malformed(path.to_owned()))?;
    stored.keys(path)
}

fn open(path: &Path) -> Result<File, RaviFileError> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
        // Before API keys, the login lay in a file beside it.
        Some(libc::ENOENT) if path.with_file_name("auth.json").exists() => {
            RaviFileError::Legacy(path.with_file_name("auth.json"))
        }
        Some(libc::ENOENT | libc::ENOTDIR) => RaviFileError::Absent(path.to_owned()),
        Some(libc::ELOOP | libc::ENXIO) => RaviFileError::NotAFile(path.to_owned()),
        _ => RaviFileError::Io(path.to_owned(), error),
    })
}

/// Judges the opened file and returns its size in bytes.
fn check(file: &File, path: &Path) -> Result<usize, RaviFileError> {
    let found = file.metadata().map_err(|error| RaviFileError::Io(path.to_owned(), error))?;
    if !found.is_file() {
        return Err(RaviFileError::NotAFile(path.to_owned()));
    }
    if found.uid() != Uid::effective().as_raw() {
        return Err(RaviFileError::Owner(path.to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(RaviFileError::Mode(path.to_owned()));
    }
    if found.len() > MAX_BYTES {
        return Err(RaviFileError::Malformed(path.to_owned()));
    }
    usize::try_from(found.len()).map_err(|_| RaviFileError::Malformed(path.to_owned()))
}

/// Both generations of the file; what else it holds is of no interest.
#[derive(Deserialize)]
struct Stored {
    management_key: Option<Secret>,
    identity_key: Option<Secret>,
    identity_uuid: Option<String>,
    access_token: Option<IgnoredAny>,
    refresh_token: Option<IgnoredAny>,
    bound_access_token: Option<IgnoredAny>,
    bound_refresh_token: Option<IgnoredAny>,
}

impl Stored {
    fn keys(self, path: &Path) -> Result<ImportKeys, RaviFileError> {
        let given = |key: Option<Secret>| key.filter(|key| !key.is_empty());
        let legacy =
            [self.access_token, self.refresh_token, self.bound_access_token, self.bound_refresh_token];
        match (given(self.management_key), given(self.identity_key)) {
            (None, None) if legacy.iter().any(Option::is_some) => Err(RaviFileError::Legacy(path.to_owned())),
            (None, None) => Err(RaviFileError::NoKeys(path.to_owned())),
            (management_key, None) => Ok(ImportKeys { management_key, identity_key: None }),
            (management_key, Some(key)) => {
                let uuid = self.identity_uuid.and_then(|uuid| uuid.parse().ok());
                let uuid = uuid.ok_or_else(|| RaviFileError::KeyWithoutIdentity(path.to_owned()))?;
                Ok(ImportKeys { management_key, identity_key: Some((uuid, key)) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const CANARY: &str = "ravi_mgmt_canary7c1e";

    struct Home(tempfile::TempDir);

    impl Home {
        fn with(text: &str) -> (Self, PathBuf) {
            let home = Self(tempfile::tempdir().unwrap());
            let path = home.0.path().join("config.json");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            (home, path)
        }
    }

    fn refused(text: &str) -> RaviFileError {
        let (_home, path) = Home::with(text);
        let error = read(&path).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("canary"));
        error
    }

    #[test]
    fn the_keys_of_the_current_form_are_read() {
        let (_home, path) = Home::with(
            r#"{"management_key":"ravi_mgmt_a","identity_key":"ravi_id_b","identity_name":"x",
                "identity_uuid":"6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a","user_email":"u@example.com"}"#,
        );
        let keys = read(&path).unwrap();
        assert_eq!(keys.management_key.unwrap().expose(), "ravi_mgmt_a");
        let (uuid, key) = keys.identity_key.unwrap();
        assert_eq!(
            (uuid.to_string().as_str(), key.expose()),
            ("6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a", "ravi_id_b")
        );
    }

    #[test]
    fn empty_keys_count_as_absent() {
        assert!(matches!(refused(r#"{"management_key":"","identity_key":null}"#), RaviFileError::NoKeys(_)));
        assert!(matches!(refused(r#"{"identity_uuid":"x"}"#), RaviFileError::NoKeys(_)));
    }

    #[test]
    fn a_key_of_an_unknown_identity_is_refused() {
        let error = refused(r#"{"identity_key":"canary"}"#);
        assert!(matches!(error, RaviFileError::KeyWithoutIdentity(_)));
    }

    #[test]
    fn older_generations_are_recognised() {
        let bound = r#"{"identity_uuid":"x","bound_access_token":"canary","bound_refresh_token":"canary"}"#;
        assert!(matches!(refused(bound), RaviFileError::Legacy(_)));
        let (home, path) = Home::with("{}");
        std::fs::rename(&path, home.0.path().join("auth.json")).unwrap();
        assert!(matches!(read(&path), Err(RaviFileError::Legacy(_))));
    }

    #[test]
    fn broken_files_are_refused_without_quoting_them() {
        for text in [
            format!(r#"{{"management_key":"{CANARY}""#),
            format!(r#"{{"management_key":["{CANARY}"]}}"#),
            CANARY.to_owned(),
            String::new(),
            format!(r#"{{"management_key":"{CANARY}{}"}}"#, " ".repeat(70_000)),
        ] {
            assert!(matches!(refused(&text), RaviFileError::Malformed(_)));
        }
    }

    #[test]
    fn a_file_that_others_can_read_a_link_and_a_directory_are_refused() {
        let (home, path) = Home::with(r#"{"management_key":"canary"}"#);
        let link = home.0.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read(&link), Err(RaviFileError::NotAFile(_))));
        assert!(matches!(read(home.0.path()), Err(RaviFileError::NotAFile(_))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(RaviFileError::Mode(_))));
    }
}
