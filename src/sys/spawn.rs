//! Starts a program under `ravi-broker run`: descriptors at numbers of the caller's choice, a signal mask, and,
//! where it gets a terminal of its own, a session with a monitor in between.
//!
//! `std::process::Command` would not do: it keeps a descriptor of its own in the child, whose number may be
//! one that is asked for, and it leaves no room for the monitor. A process group whose parent is outside its
//! session cannot be stopped from its terminal (POSIX "orphaned process group"), so the monitor leads the session
//! and the program's group lies below it; it reports stops, and ends as the program did.
//!
//! After a fork only async-signal-safe calls are made (`signal-safety(7)`). Imports nothing of this crate.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null;

use libc::{c_char, c_int};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use zeroize::Zeroize;

/// Runs what has no `#!` line, as `execvp(3)` does.
const SHELL: &CStr = c"/bin/sh";

/// What is started.
pub struct Program {
    /// The file.
    pub path: CString,
    /// The program's own name first.
    pub arguments: Vec<CString>,
    /// Each `NAME=value` and a zero byte. May hold values of secrets.
    pub environment: Vec<Vec<u8>>,
}

/// What it finds around it.
pub struct Surroundings {
    /// Each becomes the descriptor of that number, open across the exec.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
    /// Blocked signals.
    pub mask: SigSet,
    /// Soft and hard limit of core dumps, in bytes.
    pub core_limit: (u64, u64),
    /// Its controlling terminal. Absent: it stays in our session and process group.
    pub terminal: Option<OwnedFd>,
}

/// A program that runs.
pub struct Started {
    /// Our child, to be waited for: the program, or the monitor, which ends with the program's exit code or
    /// 128 and the number of the signal that ended it.
    pub child: Pid,
    /// The program.
    pub program: Pid,
    /// With a monitor: one byte for each time the program stopped.
    pub stops: Option<File>,
}

/// Has the kernel tell how children end. A caller that ignores SIGCHLD hands that on over an exec, and then no
/// child can be waited for.
///
/// # Errors
/// None that the kernel documents for this signal.
pub fn expect_children() -> io::Result<()> {
    // SAFETY: the default disposition installs no handler, so nothing can run in its context.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Starts the program. No other thread may run.
///
/// # Errors
/// That of the exec (`ENOENT`, `EACCES`, …) or of what had to be done before it.
pub fn spawn(program: Program, surroundings: Surroundings) -> io::Result<Started> {
    let (failure, failed) = pipe2(OFlag::O_CLOEXEC)?;
    let (status, reported) = pipe2(OFlag::O_CLOEXEC)?;
    let mut prepared = Prepared::new(program, surroundings, failed, reported)?;
    // SAFETY: the child makes async-signal-safe calls alone and ends in an exec or `_exit`.
    let child = match unsafe { fork() }? {
        ForkResult::Child => match prepared.terminal {
            Some(_) => monitor(&mut prepared),
            None => exec(&prepared),
        },
        ForkResult::Parent { child } => child,
    };
    let monitored = prepared.terminal.is_some();
    drop(prepared);
    let mut status = File::from(status);
    let mut pid = [0; 4];
    let program = if monitored && status.read_exact(&mut pid).is_ok() {
        Pid::from_raw(i32::from_ne_bytes(pid))
    } else {
        child
    };
    let mut error = Vec::new();
    File::from(failure).read_to_end(&mut error)?;
    if let Ok(error) = <[u8; 4]>::try_from(error) {
        let _ = waitpid(child, None);
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)));
    }
    Ok(Started { child, program, stops: monitored.then_some(status) })
}

/// All that is needed after the fork, with every allocation made before it.
struct Prepared {
    program: Program,
    arguments: Vec<*const c_char>,
    /// The same for the shell, behind its own name and the file.
    shell_arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// Above every number that is asked for, so that no move hits another's source.
    sources: Vec<(OwnedFd, RawFd)>,
    mask: SigSet,
    core_limit: libc::rlimit,
    terminal: Option<OwnedFd>,
    failed: OwnedFd,
    reported: OwnedFd,
}

impl Prepared {
    fn new(program: Program, around: Surroundings, failed: OwnedFd, reported: OwnedFd) -> io::Result<Self> {
        let floor = around.descriptors.iter().map(|(_, number)| *number).max().unwrap_or(0).max(2) + 1;
        let sources = around.descriptors.into_iter().map(|(fd, number)| Ok((raised(fd, floor)?, number)));
        let terminated =
            |pointers: Vec<*const c_char>| -> Vec<_> { pointers.into_iter().chain([null()]).collect() };
        let arguments = terminated(program.arguments.iter().map(|text| text.as_ptr()).collect());
        let rest = arguments.iter().skip(1).copied();
        let shell_arguments = [SHELL.as_ptr(), program.path.as_ptr()].into_iter().chain(rest).collect();
        let environment = terminated(program.environment.iter().map(|entry| entry.as_ptr().cast()).collect());
        let (rlim_cur, rlim_max) = around.core_limit;
        Ok(Self {
            arguments,
            shell_arguments,
            environment,
            sources: sources.collect::<io::Result<_>>()?,
            mask: around.mask,
            core_limit: libc::rlimit { rlim_cur, rlim_max },
            terminal: around.terminal.map(|fd| raised(fd, floor)).transpose()?,
            failed: raised(failed, floor)?,
            reported: raised(reported, floor)?,
            program,
        })
    }
}

fn raised(fd: OwnedFd, floor: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(floor))?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// In the child: becomes the program.
fn exec(prepared: &Prepared) -> ! {
    let environment = prepared.environment.as_ptr();
    // SAFETY: each call takes numbers, or pointers to what `prepared` keeps: strings that end in zero, arrays of
    // them that end in null, one `sigset_t`, one `rlimit`.
    unsafe {
        for (source, number) in &prepared.sources {
            if libc::dup2(source.as_raw_fd(), *number) < 0 {
                fail(prepared);
            }
        }
        // Rust's runtime ignores it, and an ignored signal stays so over an exec.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const prepared.core_limit);
        libc::sigprocmask(
            libc::SIG_SETMASK,
            std::ptr::from_ref(prepared.mask.as_ref()),
            std::ptr::null_mut(),
        );
        libc::execve(prepared.program.path.as_ptr(), prepared.arguments.as_ptr(), environment);
        if Errno::last_raw() == libc::ENOEXEC {
            libc::execve(SHELL.as_ptr(), prepared.shell_arguments.as_ptr(), environment);
        }
    }
    fail(prepared)
}

/// In the child: says why there is no program.
fn fail(prepared: &Prepared) -> ! {
    let error = Errno::last_raw().to_ne_bytes();
    // SAFETY: the kernel reads four bytes of this frame; `_exit` runs nothing of this process.
    unsafe {
        libc::write(prepared.failed.as_raw_fd(), error.as_ptr().cast(), error.len());
        libc::_exit(127)
    }
}

/// In the child: leads a session on the terminal, starts the program in the foreground, and reports on it.
fn monitor(prepared: &mut Prepared) -> ! {
    let terminal = prepared.terminal.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let reported = prepared.reported.as_raw_fd();
    // SAFETY: the calls take numbers, and pointers into this frame or to what `prepared` keeps. The second child
    // makes async-signal-safe calls alone, too.
    unsafe {
        if libc::setsid() < 0 || libc::ioctl(terminal, libc::TIOCSCTTY, 0) < 0 {
            fail(prepared);
        }
        let program = libc::fork();
        if program < 0 {
            fail(prepared);
        }
        if program == 0 {
            libc::setpgid(0, 0);
            // From the background, which is let through as SIGTTOU is blocked.
            libc::tcsetpgrp(terminal, libc::getpid());
            exec(prepared);
        }
        libc::setpgid(program, program);
        let pid = program.to_ne_bytes();
        libc::write(reported, pid.as_ptr().cast(), pid.len());
        // What it inherited of descriptors and values is none of its business.
        libc::dup2(reported, 0);
        if libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) < 0 {
            (1..1024).for_each(|number| {
                libc::close(number);
            });
        }
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        prepared.program.environment.iter_mut().for_each(|entry| entry.as_mut_slice().zeroize());
        report(program)
    }
}

/// In the monitor: waits for the program.
///
/// # Safety
/// Only in a process of its own: it never returns.
unsafe fn report(program: libc::pid_t) -> ! {
    loop {
        let mut status: c_int = 0;
        // SAFETY: the kernel writes one integer to this frame, and reads one byte of it.
        unsafe {
            if libc::waitpid(program, &raw mut status, libc::WUNTRACED) < 0 {
                if Errno::last_raw() == libc::EINTR {
                    continue;
                }
                libc::_exit(127);
            }
            if libc::WIFSTOPPED(status) {
                let signal = libc::WSTOPSIG(status).to_ne_bytes();
                libc::write(0, signal.as_ptr().cast(), 1);
            } else if libc::WIFEXITED(status) {
                libc::_exit(libc::WEXITSTATUS(status));
            } else {
                libc::_exit(128 + libc::WTERMSIG(status));
            }
        }
    }
}
