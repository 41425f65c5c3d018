//! Pages between two guard pages: a read or write that runs off either end faults instead of meeting
//! other memory.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use nix::unistd::{SysconfVar, sysconf};

const OPEN: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Readable, writable, zeroed pages. Unmapped with their guards when dropped; wiping is the owner's part.
pub(super) struct Guarded {
    start: NonNull<c_void>,
    length: NonZeroUsize,
    _reserved: Reserved,
}

impl Guarded {
    /// Private anonymous pages.
    pub(super) fn private(length: usize) -> io::Result<Self> {
        let (start, length, reserved) = Reserved::around(length)?;
        // SAFETY: the range lies within the reservation just made, and nothing refers to it yet.
        unsafe { mprotect(start, length.get(), OPEN) }?;
        Ok(Self { start, length, _reserved: reserved })
    }

    /// Pages of `memfd_secret(2)` (Linux 5.14), which the kernel itself cannot read. The descriptor is
    /// closed before this returns: while it is open, root could take it with `pidfd_getfd(2)` and map it.
    pub(super) fn secret(length: usize) -> io::Result<Self> {
        let (start, length, reserved) = Reserved::around(length)?;
        let file = File::from(memfd_secret()?);
        file.set_len(length.get() as u64)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: what it replaces lies within the reservation just made, and nothing refers to it yet.
        unsafe { mmap(Some(address(start)?), length, OPEN, flags, &file, 0) }?;
        Ok(Self { start, length, _reserved: reserved })
    }

    /// The first byte between the guards.
    pub(super) fn start(&self) -> NonNull<c_void> {
        self.start
    }

    /// Whole pages, in bytes, without the guards.
    pub(super) fn length(&self) -> usize {
        self.length.get()
    }
}

/// Address space without access, and whatever was mapped into it since. Unmapped when dropped.
struct Reserved {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Reserved {
    /// Reserves `length` bytes rounded to pages, and a page on either side. Returns what lies between.
    fn around(length: usize) -> io::Result<(NonNull<c_void>, NonZeroUsize, Self)> {
        let page = page_size().ok_or(Errno::EINVAL)?;
        let inner = NonZeroUsize::new(length).and_then(|length| length.get().checked_next_multiple_of(page));
        let inner = inner.and_then(NonZeroUsize::new).ok_or(Errno::EINVAL)?;
        let whole = inner.checked_add(2 * page).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces no other.
        let start = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) }?;
        let reserved = Self { start, length: whole };
        // SAFETY: one page into a reservation of at least three.
        Ok((unsafe { start.byte_add(page) }, inner, reserved))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and no reference into it outlives the owner of `self`.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

fn memfd_secret() -> io::Result<OwnedFd> {
    // Its manual page names FD_CLOEXEC; the kernel (mm/secretmem.c) takes O_CLOEXEC.
    // SAFETY: the call takes one integer and touches no memory of ours. No crate at hand wraps it.
    let number = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let number = Errno::result(number)?;
    let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn address(start: NonNull<c_void>) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(start.as_ptr() as usize).ok_or_else(|| Errno::EINVAL.into())
}

fn page_size() -> Option<usize> {
    usize::try_from(sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?).ok()
}
