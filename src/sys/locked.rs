//! Memory for secrets: pages of its own between two guard pages, not swapped, not dumped, not inherited
//! by a fork, wiped when dropped.
//!
//! No `Debug`, `Display` or `Clone` (invariant I6). A host that refuses to lock memory gives the memory
//! all the same; [`LockedBytes::shortfall`] says so, and whether that will do is for the caller to decide.

mod guarded;

use std::io;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, madvise, mlock};
use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;
use zeroize::optimization_barrier;

use self::guarded::Guarded;
use super::Protection;

/// So many bytes in pages of their own; zero at first.
pub struct LockedBytes {
    pages: Guarded,
    length: usize,
    locked: Result<(), Errno>,
    not_dumped: bool,
    not_inherited: bool,
}

/// What a region lacks, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Shortfall {
    /// More than `RLIMIT_MEMLOCK` lets a process without `CAP_IPC_LOCK` lock.
    #[error("RLIMIT_MEMLOCK is too low")]
    MemlockLimit,
    /// `mlock(2)` fails for another reason.
    #[error("the kernel refuses to lock memory")]
    LockRefused,
    /// `MADV_DONTDUMP` (Linux 3.4) fails.
    #[error("it cannot be kept out of core dumps")]
    Dumped,
    /// `MADV_WIPEONFORK` (Linux 4.14) or `MADV_DONTFORK` fails.
    #[error("it cannot be kept from child processes")]
    Inherited,
    /// `memfd_secret(2)` is unknown to the kernel or switched off.
    #[error("the kernel offers no memfd_secret")]
    NoSecretMemory,
    /// `memfd_secret(2)` is there and fails.
    #[error("the kernel refuses memfd_secret")]
    SecretMemoryRefused,
}

// SAFETY: the mapping is private to this value and reached only through `&self` and `&mut self`, so
// the borrow rules hold across threads as they do for a `Box<[u8]>`.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; `&self` gives shared reads only, and `start` a pointer that takes `unsafe` to follow.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// `length` zero bytes, locked and resident at once.
    ///
    /// # Errors
    /// `EINVAL` for a length of zero or beyond the address space, and whatever `mmap` says.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        Self::private(length, |start, length| {
            // SAFETY: the range is a mapping of ours; locking does not change what it holds.
            unsafe { mlock(start, length) }
        })
    }

    /// The same, each page resident from its first use on: `mlock2(2)` with `MLOCK_ONFAULT` (Linux 4.4).
    /// The whole counts against `RLIMIT_MEMLOCK` all the same.
    ///
    /// # Errors
    /// As [`LockedBytes::zeroed`].
    pub fn on_demand(length: usize) -> io::Result<Self> {
        Self::private(length, |start, length| {
            // SAFETY: the range is a mapping of ours; locking does not change what it holds. nix has no
            // wrapper.
            let outcome = unsafe { libc::mlock2(start.as_ptr(), length, libc::MLOCK_ONFAULT) };
            Errno::result(outcome).map(drop)
        })
    }

    /// `length` zero bytes of `memfd_secret(2)` (Linux 5.14): locked, and out of the reach of
    /// `/proc/PID/mem`, `process_vm_readv` and the kernel's own mappings, for root as well.
    ///
    /// # Errors
    /// Why there is no such memory.
    pub fn secret(length: usize) -> Result<Self, Shortfall> {
        let pages =
            Guarded::secret(length).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOSYS) => Shortfall::NoSecretMemory,
                // From `mmap`: these pages count as locked from the start.
                Some(Errno::EAGAIN) => Shortfall::MemlockLimit,
                _ => Shortfall::SecretMemoryRefused,
            })?;
        // Wiping on fork is for private mappings; a child does not get this one at all.
        Ok(Self::advised(pages, length, Ok(()), MmapAdvise::MADV_DONTFORK))
    }

    fn private(
        length: usize,
        lock: impl FnOnce(NonNull<std::ffi::c_void>, usize) -> Result<(), Errno>,
    ) -> io::Result<Self> {
        let pages = Guarded::private(length)?;
        // A huge page would make much resident, and locked, that is not used. No harm where it fails.
        let _ = advise(&pages, MmapAdvise::MADV_NOHUGEPAGE);
        let locked = lock(pages.start(), pages.length());
        Ok(Self::advised(pages, length, locked, MmapAdvise::MADV_WIPEONFORK))
    }

    fn advised(pages: Guarded, length: usize, locked: Result<(), Errno>, on_fork: MmapAdvise) -> Self {
        let not_dumped = advise(&pages, MmapAdvise::MADV_DONTDUMP);
        let not_inherited = advise(&pages, on_fork);
        Self { pages, length, locked, not_dumped, not_inherited }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `length` bytes from the start are mapped, initialised (fresh pages are zero) and live as
        // long as `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.length) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.length) }
    }

    /// The first byte, for an owner who deals parts of the region out and keeps them apart.
    pub fn start(&self) -> NonNull<u8> {
        self.pages.start().cast()
    }

    /// The first thing that is missing of: locked, not dumped, not inherited.
    pub fn shortfall(&self) -> Option<Shortfall> {
        match self.locked {
            Err(errno) => Some(lock_shortfall(errno)),
            Ok(()) if !self.not_dumped => Some(Shortfall::Dumped),
            Ok(()) if !self.not_inherited => Some(Shortfall::Inherited),
            Ok(()) => None,
        }
    }

    /// What was reached, one by one.
    pub fn protections(&self) -> [Protection; 3] {
        [
            Protection::of("memory locked", self.locked.is_ok()),
            Protection::of("memory not dumped", self.not_dumped),
            Protection::of("memory not inherited by a fork", self.not_inherited),
        ]
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        wipe(self.as_mut_slice());
    }
}

/// Overwrites with zeros, which the compiler must not leave out although nobody reads them.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

fn advise(pages: &Guarded, advice: MmapAdvise) -> bool {
    // SAFETY: the range is a mapping of ours, and no advice given here changes what it holds in this
    // process.
    unsafe { madvise(pages.start(), pages.length(), advice) }.is_ok()
}

/// `mlock(2)`: `ENOMEM` beyond the limit, `EPERM` under a limit of zero. A seccomp filter may say `EPERM`
/// as well.
fn lock_shortfall(errno: Errno) -> Shortfall {
    let limit = || getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    match errno {
        Errno::ENOMEM | Errno::EAGAIN => Shortfall::MemlockLimit,
        Errno::EPERM if limit() == 0 => Shortfall::MemlockLimit,
        _ => Shortfall::LockRefused,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use super::*;

    type Make = fn() -> Option<LockedBytes>;

    /// Every kind of region that this host offers.
    fn regions() -> Vec<LockedBytes> {
        let kinds: [Make; 3] = [
            || LockedBytes::zeroed(5000).ok(),
            || LockedBytes::on_demand(5000).ok(),
            || LockedBytes::secret(5000).ok(),
        ];
        let made: Vec<_> = kinds.iter().filter_map(|make| make()).collect();
        assert!(made.len() >= 2);
        made
    }

    #[test]
    fn the_kernel_confirms_what_is_reported() {
        for region in regions() {
            let flags = kernel_flags(address(&region));
            let has = |flag| flags.split(' ').any(|seen| seen == flag);
            let confirmed = [has("lo"), has("dd"), has("wf") || has("dc")];
            assert_eq!(region.protections().map(|protection| protection.full), confirmed, "{flags}");
            assert!(confirmed[1] && confirmed[2], "{flags}");
            let limited = region.shortfall() == Some(Shortfall::MemlockLimit);
            assert!(confirmed[0] || limited, "{flags}");
        }
    }

    #[test]
    fn a_page_without_access_lies_on_either_side() {
        for region in regions() {
            let (start, end) = (address(&region), address(&region) + 2 * 4096);
            assert!(permissions(start).starts_with("rw-"));
            assert_eq!([permissions(start - 1), permissions(end)], ["---p", "---p"]);
        }
    }

    #[test]
    fn a_page_becomes_resident_when_it_is_used() {
        let mut region = LockedBytes::on_demand(64 * 4096).unwrap();
        region.as_mut_slice()[5 * 4096] = 1;
        assert_eq!(smaps(address(&region), "Rss:").trim(), "4 kB");
    }

    #[test]
    fn secret_memory_cannot_be_read_through_the_kernel_and_leaves_no_descriptor() {
        let Ok(mut region) = LockedBytes::secret(32) else { return };
        region.as_mut_slice().fill(7);
        let memory = File::open("/proc/self/mem").unwrap();
        let read = |region: &LockedBytes| memory.read_at(&mut [0; 32], address(region) as u64);
        assert!(read(&region).is_err());
        assert_eq!(read(&LockedBytes::zeroed(32).unwrap()).unwrap(), 32, "the test reads nothing at all");
        assert_eq!(region.as_slice(), [7; 32]);
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        assert!(!targets.into_iter().any(|target| target.to_string_lossy().contains("secretmem")));
    }

    #[test]
    fn the_bytes_are_zero_then_hold_what_is_written() {
        for mut region in regions() {
            assert!(region.as_slice().iter().all(|byte| *byte == 0));
            region.as_mut_slice()[4999] = 7;
            assert_eq!(region.as_slice()[4998..], [0, 7]);
        }
    }

    #[test]
    fn nothing_and_everything_cannot_be_mapped() {
        for length in [0, usize::MAX, usize::MAX - 4096] {
            assert!(LockedBytes::zeroed(length).is_err());
            assert!(LockedBytes::secret(length).is_err());
        }
    }

    fn address(region: &LockedBytes) -> usize {
        region.start().as_ptr() as usize
    }

    /// `VmFlags` of the mapping that holds `address`.
    fn kernel_flags(address: usize) -> String {
        smaps(address, "VmFlags: ")
    }

    fn smaps(address: usize, field: &str) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut mapping = maps.lines().skip_while(|line| !holds(line, address));
        mapping.find_map(|line| line.strip_prefix(field)).unwrap_or_default().to_owned()
    }

    fn permissions(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mapping = maps.lines().find(|line| holds(line, address));
        mapping.and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned()
    }

    fn holds(line: &str, address: usize) -> bool {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let parse = |text| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(from, to)| {
            parse(from).is_some_and(|from| from <= address) && parse(to).is_some_and(|to| address < to)
        })
    }
}
