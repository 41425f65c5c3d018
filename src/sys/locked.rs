//! Memory for key material: pages of its own, not swapped, not dumped, not inherited by a fork, wiped
//! when dropped.
//!
//! No `Debug`, `Display` or `Clone` (invariant I6). A host that refuses to lock memory
//! (`RLIMIT_MEMLOCK` 0) gets the memory all the same, and [`LockedBytes::protections`] says so.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use nix::unistd::{SysconfVar, sysconf};
use zeroize::Zeroize;

use super::Protection;

/// So many bytes in locked pages; zero at first.
pub struct LockedBytes {
    start: NonNull<c_void>,
    length: usize,
    mapped: NonZeroUsize,
    locked: bool,
    not_dumped: bool,
    wiped_on_fork: bool,
}

// SAFETY: the mapping is private to this value and reached only through `&self` and `&mut self`, so
// the borrow rules hold across threads as they do for a `Box<[u8]>`.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; `&self` gives shared reads only.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// Maps `length` zero bytes and protects them as far as the host allows.
    ///
    /// # Errors
    /// `EINVAL` for a length of zero or beyond the address space, and whatever `mmap` says.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        let mapped = round_to_pages(length).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces no other.
        let start = unsafe { mmap_anonymous(None, mapped, access, MapFlags::MAP_PRIVATE) }?;
        let advise = |advice| {
            // SAFETY: the range is the mapping just made; neither advice changes what it holds in this process.
            unsafe { madvise(start, mapped.get(), advice) }.is_ok()
        };
        let not_dumped = advise(MmapAdvise::MADV_DONTDUMP);
        let wiped_on_fork = advise(MmapAdvise::MADV_WIPEONFORK);
        // SAFETY: the range is the mapping just made; locking does not change what it holds.
        let locked = unsafe { mlock(start, mapped.get()) }.is_ok();
        Ok(Self { start, length, mapped, locked, not_dumped, wiped_on_fork })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped, initialised (anonymous pages are zero) and
        // live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }

    /// What was reached, for `status`.
    pub fn protections(&self) -> [Protection; 3] {
        [
            Protection::of("key memory locked", self.locked),
            Protection::of("key memory not dumped", self.not_dumped),
            Protection::of("key memory wiped on fork", self.wiped_on_fork),
        ]
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
        // SAFETY: the range is our own mapping and no reference to it can outlive `self`.
        let _ = unsafe { munmap(self.start, self.mapped.get()) };
    }
}

fn round_to_pages(length: usize) -> Option<NonZeroUsize> {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
    NonZeroUsize::new(length)?;
    NonZeroUsize::new(length.checked_next_multiple_of(usize::try_from(page).ok()?)?)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit};

    use super::*;

    #[test]
    fn the_kernel_confirms_what_is_reported() {
        let bytes = LockedBytes::zeroed(5000).unwrap();
        let flags = kernel_flags(bytes.as_slice().as_ptr() as usize);
        let confirmed = ["lo", "dd", "wf"].map(|flag| flags.split(' ').any(|seen| seen == flag));
        assert_eq!(bytes.protections().map(|protection| protection.full), confirmed, "{flags}");
        assert!(confirmed[1] && confirmed[2], "{flags}");
        let (budget, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        assert!(confirmed[0] || budget < 1 << 20, "{flags}");
    }

    #[test]
    fn the_bytes_are_zero_then_hold_what_is_written() {
        let mut key = LockedBytes::zeroed(32).unwrap();
        assert_eq!(key.as_slice(), [0; 32]);
        key.as_mut_slice()[31] = 7;
        assert_eq!(key.as_slice()[30..], [0, 7]);
    }

    #[test]
    fn nothing_and_everything_cannot_be_mapped() {
        assert!(LockedBytes::zeroed(0).is_err());
        assert!(LockedBytes::zeroed(usize::MAX).is_err());
    }

    /// `VmFlags` of the mapping that holds `address`.
    fn kernel_flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut mapping = maps.lines().skip_while(|line| !holds(line, address));
        mapping.find_map(|line| line.strip_prefix("VmFlags: ")).unwrap_or_default().to_owned()
    }

    fn holds(line: &str, address: usize) -> bool {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let parse = |text| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(from, to)| {
            parse(from).is_some_and(|from| from <= address) && parse(to).is_some_and(|to| address < to)
        })
    }
}
