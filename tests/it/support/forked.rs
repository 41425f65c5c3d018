//! Processes that a test makes by `fork` or `clone3`: cheap ones, and ones with a chosen pid. To be called
//! where no other thread runs that the child would need.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork as plain_fork};

/// A child that plays its part and ends with what that returns, or with 101 if it panics.
#[expect(unsafe_code, reason = "nothing else makes a process without a program of its own")]
pub(crate) fn fork(play: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child has one thread, which plays and ends without going back to the harness.
    match unsafe { plain_fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => end_with(play),
    }
}

/// The same under this pid, which must be free: `clone3` with `set_tid` (Linux 5.5, as root).
#[expect(unsafe_code, reason = "neither libc nor nix wraps it")]
pub(crate) fn fork_as(pid: Pid, play: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    let wanted = [pid.as_raw()];
    let arguments = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: wanted.as_ptr() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY: the kernel reads two objects that outlive the call. Without a shared memory the child goes on with a
    // copy of everything, as after a fork, and ends without going back to the harness.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match Errno::result(made)? {
        0 => end_with(play),
        child => Ok(Pid::from_raw(i32::try_from(child).expect("a pid"))),
    }
}

/// Waits for the end of a child. What it ended with; 128 and the signal if it was killed.
pub(crate) fn wait(child: Pid) -> i32 {
    match waitpid(child, None).expect("it is our child") {
        WaitStatus::Exited(_, status) => status,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

#[expect(unsafe_code, reason = "the harness must not end twice")]
fn end_with(play: impl FnOnce() -> i32) -> ! {
    let status = catch_unwind(AssertUnwindSafe(play)).unwrap_or(101);
    // SAFETY: ends the process at once; nothing of the parent's is torn down.
    unsafe { libc::_exit(status) }
}

/// Goes before all others, where we may: what is seen late would be measured as late.
#[expect(unsafe_code, reason = "nix does not wrap it")]
pub(crate) fn preempt() {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads a struct that outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
}
