//! Files in memory that nobody can change any more: how a value reaches a child.
//!
//! A sealed file has no name in any file system, cannot be written, grown or shrunk, and is opened for
//! reading only. Imports nothing of this crate.

use std::ffi::c_void;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, munmap};

/// A sealed file. Its pages are kept from swap for as long as this lives, where the host allows.
pub struct SealedFile {
    file: File,
    locked: Option<LockedPages>,
}

impl SealedFile {
    /// A file with this content, closed on exec.
    ///
    /// # Errors
    /// Whatever the kernel says to `memfd_create(2)`, `write(2)` and the seals, and what opening it again
    /// through `/proc/self/fd` says.
    pub fn of(content: &[u8]) -> io::Result<Self> {
        let mut writable = File::from(create()?);
        writable.write_all(content)?;
        // Through /proc it can be opened again: by its owner, for reading.
        writable.set_permissions(Permissions::from_mode(0o400))?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        fcntl(&writable, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        let file = reopen(&writable)?;
        let locked = NonZeroUsize::new(content.len()).and_then(|length| LockedPages::of(&file, length));
        Ok(Self { file, locked })
    }

    /// The same file with an offset of its own, at its begin; read-only, closed on exec.
    ///
    /// # Errors
    /// What opening it again through `/proc/self/fd` says.
    pub fn open(&self) -> io::Result<OwnedFd> {
        reopen(&self.file).map(OwnedFd::from)
    }

    /// Closes the file. Its pages stay locked for as long as what is returned lives and somebody has it open.
    pub fn into_locked(self) -> Option<LockedPages> {
        self.locked
    }

    /// True if its pages are kept from swap.
    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }
}

/// Linux 6.3 knows the flag that makes it a file that can never be executed; an older kernel is asked without.
fn create() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let not_executable = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    match memfd_create("value", flags | not_executable) {
        Err(Errno::EINVAL) => memfd_create("value", flags),
        created => created,
    }
}

fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A file's own pages, locked in memory; not dumped, not handed to a fork.
pub struct LockedPages {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: the mapping is never read or written through this value, only kept and unmapped.
unsafe impl Send for LockedPages {}

impl LockedPages {
    fn of(file: impl AsFd, length: NonZeroUsize) -> Option<Self> {
        // Private, since before Linux 6.7 a shared mapping of a sealed file is refused. What is only read
        // is not copied: the pages that are locked are those of the file.
        // SAFETY: a new mapping at an address of the kernel's choice replaces no other.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0) }.ok()?;
        let pages = Self { start, length: length.get() };
        for advice in [MmapAdvise::MADV_DONTDUMP, MmapAdvise::MADV_DONTFORK] {
            // SAFETY: the range is the mapping just made, which nothing refers to.
            let _ = unsafe { madvise(pages.start, pages.length, advice) };
        }
        // SAFETY: as above; locking does not change what the pages hold.
        unsafe { mlock(pages.start, pages.length) }.ok().map(|()| pages)
    }
}

impl Drop for LockedPages {
    fn drop(&mut self) {
        // SAFETY: the range is our own mapping, which nothing refers to.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read;

    use super::*;

    fn read(file: OwnedFd) -> Vec<u8> {
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn a_sealed_file_is_read_from_its_begin_as_often_as_it_is_opened() {
        let sealed = SealedFile::of(b"content").unwrap();
        assert_eq!(read(sealed.open().unwrap()), b"content");
        assert_eq!(read(sealed.open().unwrap()), b"content");
        assert_eq!(read(SealedFile::of(b"").unwrap().open().unwrap()), b"");
    }

    #[test]
    fn nobody_can_change_a_sealed_file() {
        let sealed = SealedFile::of(b"content").unwrap();
        let mut opened = File::from(sealed.open().unwrap());
        assert!(opened.write(b"x").is_err() && opened.set_len(0).is_err());
        // Root opens what its mode forbids; the seal holds all the same.
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
        if let Ok(mut writable) = OpenOptions::new().write(true).open(path) {
            assert!(writable.write(b"x").is_err() && writable.set_len(1).is_err());
        }
        let seals = fcntl(&opened, FcntlArg::F_GET_SEALS).unwrap();
        let all = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        assert_eq!(seals & all, all);
    }
}
