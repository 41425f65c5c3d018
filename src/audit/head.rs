//! The head file: number and hash of the newest record, beside the log. A log that ends before it has
//! lost its end. The lock that keeps a second daemon away is held on this file, which never changes
//! places.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::chain::{Fault, Hash, Head};
use super::folder::Folder;
use super::{AuditError, Breach};

/// Twenty digits, a space, 64 of hexadecimal, a line break: of one length, so that each write
/// replaces all of the last.
const LENGTH: usize = 20 + 1 + 64 + 1;

/// The head file, locked for this process.
pub(super) struct HeadFile(Flock<File>);

impl HeadFile {
    /// Opens and locks it, and reads what it says. `None`: it was just made.
    pub(super) fn open(folder: &Folder) -> Result<(Self, Option<Head>), AuditError> {
        let file = folder.head()?;
        let locked =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => AuditError::InUse { path: folder.log_path() },
                errno => {
                    AuditError::Unopened { path: folder.head_path(), kind: io::Error::from(errno).kind() }
                }
            })?;
        match read(&locked) {
            Ok(noted) => Ok((Self(locked), noted)),
            Err(Damage::Form) => Err(AuditError::Broken {
                breach: Breach { path: folder.head_path(), line: 0, fault: Fault::HeadMissing },
                trail: folder.log_path(),
            }),
            Err(Damage::Io(kind)) => Err(AuditError::Unopened { path: folder.head_path(), kind }),
        }
    }

    pub(super) fn write(&self, head: &Head) -> io::Result<()> {
        let mut text = String::with_capacity(LENGTH);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(head.sequence);
        text.extend(std::iter::repeat_n('0', 20 - digits.len()));
        text.push_str(digits);
        text.push(' ');
        head.hash.push_hex(&mut text);
        text.push('\n');
        self.0.write_all_at(text.as_bytes(), 0)
    }
}

/// Why a head file says nothing.
pub(super) enum Damage {
    /// Not in its form.
    Form,
    /// What the kernel said.
    Io(io::ErrorKind),
}

/// Reads the head file at `path` without locking it. `None`: absent, or empty.
pub(super) fn read_path(path: &Path) -> Result<Option<Head>, Damage> {
    match File::open(path) {
        Ok(file) => read(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Damage::Io(error.kind())),
    }
}

fn read(file: &File) -> Result<Option<Head>, Damage> {
    let failed = |error: io::Error| Damage::Io(error.kind());
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(None);
    }
    let mut bytes = [0; LENGTH + 1];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64).map_err(failed)? {
            0 => break,
            more => length += more,
        }
    }
    parse(&bytes[..length]).map(Some).ok_or(Damage::Form)
}

fn parse(bytes: &[u8]) -> Option<Head> {
    let (number, rest) = bytes.split_at_checked(20)?;
    let hash = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let digits = number.iter().all(u8::is_ascii_digit);
    let sequence = std::str::from_utf8(number).ok().filter(|_| digits)?.parse().ok()?;
    Some(Head { sequence, hash: Hash::of_hex(hash)? })
}

/// Compares a chain with what the head file noted. `at_noted` is the hash of the noted record, as it
/// was met on the way from `before` to `last`.
///
/// The chain may be ahead: the record is written first, and a crash may come in between.
pub(super) fn judge(noted: &Head, before: &Head, last: &Head, at_noted: Option<Hash>) -> Result<(), Fault> {
    if noted.sequence > last.sequence {
        return Err(Fault::Truncated { last: last.sequence, head: noted.sequence });
    }
    let here = if noted.sequence == before.sequence { Some(before.hash) } else { at_noted };
    if here == Some(noted.hash) { Ok(()) } else { Err(Fault::HeadMismatch) }
}
