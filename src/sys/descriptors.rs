//! All open descriptors at once. Imports nothing of this crate.
//!
//! Sources: `close_range(2)` (Linux 5.9, its `CLOSE_RANGE_CLOEXEC` 5.11), `/proc/self/fd` on older
//! kernels.

use std::ffi::c_uint;
use std::fs::read_dir;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// The first after the standard ones.
const FIRST: c_uint = 3;

/// Keeps every descriptor but the standard ones from surviving an exec.
pub(super) fn close_on_exec() -> io::Result<()> {
    let flag = c_uint::try_from(libc::CLOSE_RANGE_CLOEXEC).map_err(|_| Errno::EINVAL)?;
    range(FIRST, c_uint::MAX, flag).or_else(|_| {
        each(FIRST, |number| {
            // SAFETY: the call takes three integers, and a flag of a descriptor is not memory.
            Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
        })
    })
}

/// Closes every descriptor but the standard ones and `kept`.
///
/// # Safety
/// Nobody may use, or close, another descriptor afterwards: an owner that drops one would close
/// whatever has its number by then.
pub(super) unsafe fn close_all_but(kept: RawFd) -> io::Result<()> {
    let number = c_uint::try_from(kept).map_err(|_| Errno::EBADF)?;
    let below = if number > FIRST { range(FIRST, number - 1, 0) } else { Ok(()) };
    below.and_then(|()| range(number.max(FIRST - 1) + 1, c_uint::MAX, 0)).or_else(|_| {
        each(FIRST, |open| {
            if open != kept {
                // SAFETY: the caller promises that nobody relies on it. `EBADF` is the directory that
                // was listed, which is closed already.
                unsafe { libc::close(open) };
            }
            Ok(())
        })
    })
}

fn range(first: c_uint, last: c_uint, flags: c_uint) -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory of ours; whether descriptors may be
    // closed is the caller's promise. The wrapper of libc needs a newer C library than we do.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Ok(Errno::result(done).map(drop)?)
}

/// Listed first: what is done with one must not disturb the listing. The entries of a directory keep it
/// open, so nothing of it may be left by then: it would be closed twice.
fn each(first: c_uint, act: impl Fn(RawFd) -> nix::Result<()>) -> io::Result<()> {
    let mut numbers: Vec<RawFd> = Vec::new();
    for entry in read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    numbers.retain(|&number| c_uint::try_from(number).is_ok_and(|number| number >= first));
    for number in numbers {
        match act(number) {
            Ok(()) | Err(Errno::EBADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
