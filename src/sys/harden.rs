//! Hardening of the process itself, before anything is read. Imports nothing but its
//! neighbours in `sys`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::IntoRawFd;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, umask};

use super::{Protection, descriptors};

/// Hardens the process. To be called first in `main`, before a thread is started: the umask belongs to
/// all threads, and only those started later inherit "no new privileges". What could not be done is in
/// the report, not hidden; nothing is fatal here.
pub fn harden() -> Vec<Protection> {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    survive_file_size_limit();
    vec![
        Protection::of("standard descriptors open", stdio_is_open()),
        Protection::of("not dumpable, not traceable by the same user", not_dumpable()),
        Protection::of("no core dump", no_core()),
        Protection::of("no new privileges", no_new_privileges()),
        Protection::of("no descriptor survives an exec", descriptors::close_on_exec().is_ok()),
    ]
}

/// Raises the soft limit of open descriptors to `wanted`, or as far as the hard limit allows. Returns
/// the limit that holds now. Each connection takes two: the socket and the peer's pidfd.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let target = wanted.min(hard);
    if target <= soft {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, target, hard)?;
    Ok(target)
}

/// A write beyond `RLIMIT_FSIZE` must fail like one to a full disk, not kill the daemon: the audit trail
/// then refuses, and every request with it.
fn survive_file_size_limit() {
    // SAFETY: ignoring a signal installs no handler, so nothing can run in its context.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// A file or socket that took the number of a closed standard descriptor would get our log lines.
fn stdio_is_open() -> bool {
    (0..=2).all(|number| {
        // SAFETY: the call takes two integers and changes nothing. A `BorrowedFd`, which nix asks for,
        // would promise that the descriptor is open, and that is the very question.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        flags >= 0 || fill(number)
    })
}

/// Opens `/dev/null` under the lowest free number, which is `number` as all below it are open.
fn fill(number: i32) -> bool {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.is_ok_and(|file| file.into_raw_fd() == number)
}

/// Neither a core dump nor the same user's debugger gets at our memory; `/proc/<pid>` belongs to root.
pub(super) fn not_dumpable() -> bool {
    prctl::set_dumpable(false).is_ok() && prctl::get_dumpable() == Ok(false)
}

fn no_core() -> bool {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).is_ok() && getrlimit(Resource::RLIMIT_CORE) == Ok((0, 0))
}

fn no_new_privileges() -> bool {
    prctl::set_no_new_privs().is_ok() && prctl::get_no_new_privs() == Ok(true)
}
