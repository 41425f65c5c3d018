//! SHA-256 of an executable, within a bound on bytes and time. For a thread that may block.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::time::ClockId;

use super::facts::FileVersion;
use super::time::boot_nanos;

/// Largest file that is read.
pub const MAX_BYTES: i64 = 512 << 20;
/// Longest time that it may take.
pub const LONGEST: Duration = Duration::from_secs(5);
const CHUNK: usize = 256 << 10;
/// More than a tick of any kernel: two changes of a file that are this far apart have different times.
const SETTLING: Duration = Duration::from_millis(100);

/// What a file held in one of its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The state that was read.
    pub version: FileVersion,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// Hashes an executable that was just opened.
///
/// A file that changes meanwhile is `ESTALE`, one that is too large `EFBIG`, too slow `ETIMEDOUT`. A file on
/// FUSE is `EOPNOTSUPP`: whoever serves it can give the kernel one content and the reader another.
pub fn digest(file: &mut File) -> io::Result<Digest> {
    let deadline = boot_nanos().saturating_add(u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX));
    if fstatfs(&*file)?.filesystem_type() == FUSE_SUPER_MAGIC {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let version = FileVersion::from(fstat(&*file)?);
    if version.size > MAX_BYTES {
        return Err(Errno::EFBIG.into());
    }
    settle(&version)?;
    let sha256 = content(file, version.size, deadline)?;
    // By its times: nobody can have changed it in between and made it look as before.
    if FileVersion::from(fstat(&*file)?) == version {
        Ok(Digest { version, sha256 })
    } else {
        Err(Errno::ESTALE.into())
    }
}

/// Waits until another change of the file would show in its times.
fn settle(version: &FileVersion) -> io::Result<()> {
    let now = ClockId::CLOCK_REALTIME.now()?;
    let (seconds, nanos) = version.changed;
    let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let age = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()) - changed;
    // Changed in the future: the clock was set back, and that moment comes again.
    let age = Duration::from_nanos(u64::try_from(age).map_err(|_| Errno::ESTALE)?);
    std::thread::sleep(SETTLING.saturating_sub(age));
    Ok(())
}

fn content(file: &mut File, size: i64, deadline: u64) -> io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    loop {
        if boot_nanos() > deadline {
            return Err(Errno::ETIMEDOUT.into());
        }
        let length = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if length == 0 {
            break;
        }
        context.update(&buffer[..length]);
        left -= i64::try_from(length).unwrap_or(i64::MAX);
        if left < 0 {
            return Err(Errno::ESTALE.into());
        }
    }
    context.finish().as_ref().try_into().map_err(|_| Errno::EIO.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn hex(sha256: [u8; 32]) -> String {
        sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_hash_is_of_the_whole_content() {
        let mut file = tempfile::tempfile().unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(digest(&mut file).unwrap().sha256), empty);
        // A million times `a`: more than one chunk (FIPS 180-2, B.3).
        file.write_all(&vec![b'a'; 1_000_000]).unwrap();
        file.rewind().unwrap();
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        let digest = digest(&mut file).unwrap();
        assert_eq!((hex(digest.sha256).as_str(), digest.version.size), (million, 1_000_000));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(u64::try_from(MAX_BYTES).unwrap() + 1).unwrap();
        assert_eq!(digest(&mut file).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }

    #[test]
    fn reading_ends_at_the_deadline_and_where_the_file_grew() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        assert_eq!(content(&mut file, 3, 0).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        assert_eq!(content(&mut file, 2, u64::MAX).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    fn a_file_from_the_future_never_settles() {
        let mut version = FileVersion::from(fstat(tempfile::tempfile().unwrap()).unwrap());
        assert!(settle(&version).is_ok());
        version.changed.0 += 3600;
        assert!(settle(&version).is_err());
    }
}
