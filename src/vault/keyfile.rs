//! Keys on their way in: `$CREDENTIALS_DIRECTORY` (systemd, encrypted at rest), else the 0600 file that
//! the configuration names. Never an environment variable, never the Ravi CLI's own file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::keyring::Keyring;
use crate::secret::Secret;
use crate::types::IdentityUuid;
use crate::upstream::KeyId;

/// Name of the management key in the credentials directory.
const MANAGEMENT: &str = "management-key";
/// Names of identity keys begin so; an identity's UUID follows.
const IDENTITY: &str = "identity-key.";
const MANAGEMENT_PREFIX: &str = "ravi_mgmt_";
const IDENTITY_PREFIX: &str = "ravi_id_";
/// Ravi states no length; this is far above any seen.
const MAX_LEN: u64 = 4096;
const OTHERS: u32 = 0o077;
const ROOT: u32 = 0;
/// Name of the pipe through which a key goes to what seals it.
pub const SEALING: &str = "sealing";

/// Where keys are read from and written to.
#[derive(Clone, Debug, Default)]
pub struct KeySource {
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// `upstream.management_key_file`.
    pub management_file: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, where a pipe for a key that is to be sealed may lie.
    pub state: Option<PathBuf>,
}

/// Why a key was not taken in. Holds paths, never contents.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it, or it belongs to somebody else.
    #[error("{0}: a key file must be a regular file, belong to the daemon's user and have mode 0600")]
    Exposed(PathBuf),
    /// Not a key of the expected kind.
    #[error("{0}: does not hold a key of the expected kind ({1}…)")]
    Kind(PathBuf, &'static str),
    /// Too short, too long, or with other characters.
    #[error("{0}: expected {1} to {2} visible ASCII characters in one line")]
    Form(PathBuf, u64, u64),
    /// There is none.
    #[error("{0}: there is no such file")]
    Absent(PathBuf),
    /// No pipe for a key that is to be sealed.
    #[error("{0}: there is no private pipe that somebody reads from")]
    Pipe(PathBuf),
    /// `identity-key.` is not followed by a UUID.
    #[error("{0}: expected identity-key.<uuid of the identity>")]
    Name(PathBuf),
}

impl KeySource {
    /// Reads what there is into the keyring. Absent keys are fine: `login` brings them.
    pub fn load(&self, keyring: &Keyring) -> Result<(), KeyError> {
        if let Some(key) = self.management()? {
            keyring.insert(KeyId::Management, &key);
        }
        for (identity, key) in self.identities()? {
            keyring.insert(KeyId::Identity(identity), &key);
        }
        Ok(())
    }

    /// Writes the management key to the configured file, so that it survives a restart. False: none is
    /// configured.
    pub fn store(&self, key: &Secret) -> Result<bool, KeyError> {
        let Some(path) = &self.management_file else { return Ok(false) };
        replace(path, key).map_err(|source| KeyError::File { path: path.clone(), source })?;
        Ok(true)
    }

    /// Removes the configured file. False: there was none.
    pub fn remove(&self) -> Result<bool, KeyError> {
        let Some(path) = &self.management_file else { return Ok(false) };
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(KeyError::File { path: path.clone(), source }),
        }
    }

    /// Writes the key into the pipe [`SEALING`] of the state directory. Never waits: a pipe that nobody reads from is
    /// refused, and one write of a key fits into any.
    pub fn hand_over(&self, key: &Secret) -> Result<(), KeyError> {
        let Some(directory) = &self.state else { return Err(KeyError::Pipe(SEALING.into())) };
        let path = directory.join(SEALING);
        let refused = || KeyError::Pipe(path.clone());
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let mut pipe =
            OpenOptions::new().write(true).custom_flags(flags).open(&path).map_err(|_| refused())?;
        let found = pipe.metadata().map_err(|_| refused())?;
        let ours = found.uid() == nix::unistd::geteuid().as_raw() || found.uid() == ROOT;
        if !found.file_type().is_fifo() || !ours || found.mode() & OTHERS != 0 {
            return Err(refused());
        }
        pipe.write_all(key.expose().as_bytes()).map_err(|_| refused())
    }

    fn management(&self) -> Result<Option<Secret>, KeyError> {
        if let Some(directory) = &self.credentials
            && let Some(key) = read(&directory.join(MANAGEMENT), MANAGEMENT_PREFIX, Trust::Directory)?
        {
            return Ok(Some(key));
        }
        match &self.management_file {
            Some(path) => read(path, MANAGEMENT_PREFIX, Trust::Nobody),
            None => Ok(None),
        }
    }

    fn identities(&self) -> Result<Vec<(IdentityUuid, Secret)>, KeyError> {
        let Some(directory) = &self.credentials else { return Ok(Vec::new()) };
        let failed = |source| KeyError::File { path: directory.clone(), source };
        let mut keys = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(uuid) = name.strip_prefix(IDENTITY) else { continue };
            let identity = uuid.parse().map_err(|_| KeyError::Name(path.clone()))?;
            keys.extend(read(&path, IDENTITY_PREFIX, Trust::Directory)?.map(|key| (identity, key)));
        }
        Ok(keys)
    }
}

/// Whether a key looks like a management key.
pub fn is_management_key(key: &Secret) -> bool {
    has_form(key.expose(), MANAGEMENT_PREFIX)
}

/// Whether a key looks like an identity key.
pub fn is_identity_key(key: &Secret) -> bool {
    has_form(key.expose(), IDENTITY_PREFIX)
}

/// Whom to trust with the protection of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// systemd made the directory and decides who may read it.
    Directory,
    /// The file itself must be 0600 and ours.
    Nobody,
}

/// Reads a key that is none of Ravi's: one line of visible ASCII in a 0600 file of ours.
pub fn read_private(path: &Path, lengths: RangeInclusive<u64>) -> Result<Secret, KeyError> {
    let wrong = || KeyError::Form(path.to_owned(), *lengths.start(), *lengths.end());
    let key = read_line(path, Trust::Nobody)?
        .ok_or_else(|| KeyError::Absent(path.to_owned()))?
        .ok_or_else(wrong)?;
    let fits = lengths.contains(&(key.len() as u64)) && key.expose().bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(key) } else { Err(wrong()) }
}

fn read(path: &Path, prefix: &'static str, trust: Trust) -> Result<Option<Secret>, KeyError> {
    let Some(key) = read_line(path, trust)? else { return Ok(None) };
    let key = key.filter(|key| has_form(key.expose(), prefix));
    key.map(Some).ok_or_else(|| KeyError::Kind(path.to_owned(), prefix))
}

/// `None`: there is no file. `Some(None)`: it is too long to be a key.
fn read_line(path: &Path, trust: Trust) -> Result<Option<Option<Secret>>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let private = metadata.mode() & OTHERS == 0 && metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || (trust == Trust::Nobody && !private) {
        return Err(KeyError::Exposed(path.to_owned()));
    }
    if metadata.len() > MAX_LEN {
        return Ok(Some(None));
    }
    let text = read_exactly(file, metadata.len()).map_err(failed)?;
    Ok(Some(Some(Secret::copy_of(text.expose().trim_end_matches(['\r', '\n'])))))
}

/// Into a buffer of the right size at once, so that no half-grown copies are left.
fn read_exactly(file: File, length: u64) -> io::Result<Secret> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn has_form(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| {
        !rest.is_empty() && key.len() as u64 <= MAX_LEN && rest.bytes().all(|b| b.is_ascii_graphic())
    })
}

/// Written beside the old one and moved over it, so that a crash leaves one whole key.
fn replace(path: &Path, key: &Secret) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let mut file = options.open(&beside)?;
    file.write_all(key.expose().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::super::arena::Arena;
    use super::*;
    use crate::config::MemoryTier;
    use crate::upstream::Keys;

    fn keyring() -> Keyring {
        Keyring::new(Arc::new(Arena::new(MemoryTier::Locked).unwrap()))
    }

    fn source(directory: &Path) -> KeySource {
        KeySource { management_file: Some(directory.join("key")), ..KeySource::default() }
    }

    #[test]
    fn a_stored_key_is_private_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let (source, keyring) = (source(directory.path()), keyring());
        assert!(source.store(&Secret::copy_of("ravi_mgmt_first")).unwrap());
        assert!(source.store(&Secret::copy_of("ravi_mgmt_second")).unwrap());
        let mode = fs::metadata(directory.path().join("key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        source.load(&keyring).unwrap();
        assert_eq!(keyring.open(KeyId::Management).unwrap().value.expose(), "ravi_mgmt_second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let source = source(directory.path());
        source.store(&Secret::copy_of("ravi_mgmt_key")).unwrap();
        fs::set_permissions(directory.path().join("key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(source.load(&keyring()), Err(KeyError::Exposed(_))));
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target =
            KeySource { management_file: Some(directory.path().join("target")), ..KeySource::default() };
        target.store(&Secret::copy_of("ravi_mgmt_key")).unwrap();
        std::os::unix::fs::symlink(directory.path().join("target"), directory.path().join("key")).unwrap();
        assert!(matches!(source(directory.path()).load(&keyring()), Err(KeyError::File { .. })));
    }

    #[test]
    fn what_is_not_a_key_of_the_kind_is_refused_without_being_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let source = source(directory.path());
        source.store(&Secret::copy_of("canary-in-the-file")).unwrap();
        let error = source.load(&keyring()).unwrap_err();
        assert!(matches!(error, KeyError::Kind(..)));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn the_credentials_directory_comes_first_and_brings_identity_keys() {
        let directory = tempfile::tempdir().unwrap();
        let uuid = "6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a";
        fs::write(directory.path().join("management-key"), "ravi_mgmt_credential\n").unwrap();
        fs::write(directory.path().join(format!("identity-key.{uuid}")), "ravi_id_one").unwrap();
        let files = source(directory.path());
        files.store(&Secret::copy_of("ravi_mgmt_file")).unwrap();
        let source = KeySource { credentials: Some(directory.path().to_owned()), ..files };
        let keyring = keyring();
        source.load(&keyring).unwrap();
        assert_eq!(keyring.open(KeyId::Management).unwrap().value.expose(), "ravi_mgmt_credential");
        assert!(keyring.holds(KeyId::Identity(uuid.parse().unwrap())));
    }

    #[test]
    fn a_key_goes_into_a_pipe_that_somebody_reads_and_nowhere_else() {
        let room = tempfile::tempdir().unwrap();
        let (pipe, key) = (room.path().join(SEALING), Secret::copy_of("ravi_mgmt_sealed"));
        let source = KeySource { state: Some(room.path().to_owned()), ..KeySource::default() };
        let refused = || assert!(matches!(source.hand_over(&key), Err(KeyError::Pipe(_))));
        refused();
        // A file would keep it.
        fs::write(&pipe, "").unwrap();
        fs::set_permissions(&pipe, fs::Permissions::from_mode(0o600)).unwrap();
        refused();
        assert_eq!(fs::read_to_string(&pipe).unwrap(), "");
        fs::remove_file(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        // Nobody reads.
        refused();
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        source.hand_over(&key).unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "ravi_mgmt_sealed");
        fs::set_permissions(&pipe, fs::Permissions::from_mode(0o640)).unwrap();
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        refused();
        fs::remove_file(&pipe).unwrap();
        std::os::unix::fs::symlink("/dev/null", &pipe).unwrap();
        refused();
    }

    #[test]
    fn a_key_file_is_removed_once() {
        let directory = tempfile::tempdir().unwrap();
        let source = source(directory.path());
        assert!(!source.remove().unwrap());
        source.store(&Secret::copy_of("ravi_mgmt_first")).unwrap();
        assert!(source.remove().unwrap() && !source.remove().unwrap());
    }
}
