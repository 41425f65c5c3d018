//! The attestor's own life, in the child. Imports its neighbours in `sys`.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid};

use super::super::{capability, descriptors, harden};
use super::NAME;
use super::answer::answer_one;

/// What is sent to a whole terminal or control group. The daemon decides when the attestor ends.
const NOT_FOR_IT: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// The child's whole life. A panic must not unwind into the parent's code, of which this is a copy.
pub(super) fn live(socket: &OwnedFd, parent: Pid) -> ! {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        settle(socket, parent)?;
        serve(socket)
    }));
    let code = i32::from(!matches!(lived, Ok(Ok(()))));
    // SAFETY: ends the process without running what the parent has registered for its own end.
    unsafe { libc::_exit(code) }
}

/// Leaves nothing of the daemon in the child that it does not need.
fn settle(socket: &OwnedFd, parent: Pid) -> io::Result<()> {
    prctl::set_name(NAME)?;
    for ignored in NOT_FOR_IT {
        // SAFETY: ignoring a signal installs no handler, so nothing can run in its context.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // Besides the end of the socket: it holds even while a question keeps us in the kernel.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    // Closed below with all others.
    std::mem::forget(null);
    // SAFETY: `_exit` ends this copy of the program, so no owner of a closed descriptor is dropped, and
    // what is opened from here on has owners of its own.
    unsafe { descriptors::close_all_but(socket.as_raw_fd()) }?;
    capability::keep_only(&[capability::SYS_PTRACE, capability::DAC_READ_SEARCH])?;
    if harden::not_dumpable() { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// Answers until the daemon's end is closed.
fn serve(socket: &OwnedFd) -> io::Result<()> {
    while answer_one(socket)? {}
    Ok(())
}
