//! Pseudo-terminals: a pair, its size, raw mode, and who is in the foreground.
//!
//! Imports nothing of this crate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A terminal for a child. Both sides are closed on exec.
pub struct Pair {
    /// Our side.
    pub master: OwnedFd,
    /// The child's.
    pub slave: OwnedFd,
}

impl Pair {
    /// A pair with the size and settings of another terminal.
    ///
    /// # Errors
    /// Whatever `openpty(3)` says; `outer` is not a terminal.
    pub fn like(outer: BorrowedFd<'_>) -> io::Result<Self> {
        let (size, settings) = (size(outer)?, tcgetattr(outer)?);
        let pair = openpty(&size, &settings)?;
        for side in [&pair.master, &pair.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(Self { master: pair.master, slave: pair.slave })
    }
}

/// Gives a terminal the size of another. Whoever is in its foreground is told by SIGWINCH.
///
/// # Errors
/// One of them is no terminal.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let size = size(from)?;
    // SAFETY: the kernel reads one `winsize` that outlives the call, and writes nothing.
    Errno::result(unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

fn size(terminal: BorrowedFd<'_>) -> io::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one `winsize` to a place that is one.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// True unless this terminal controls our session and another process group is in its foreground. On a
/// terminal that does not control our session there is no job control that could forbid anything.
pub fn in_foreground(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()) || !controls_us(terminal)
}

fn controls_us(terminal: BorrowedFd<'_>) -> bool {
    !matches!(tcgetpgrp(terminal), Err(Errno::ENOTTY))
}

/// A terminal in raw mode: each byte as it is typed, nothing echoed, nothing turned into a signal, output
/// as it is. Dropping it puts the settings back.
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Sets raw mode.
    ///
    /// # Errors
    /// It is no terminal, or out of descriptors.
    pub fn set(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Not after a drain, like above: output that is stopped (Ctrl-S) must not hold this up.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}
