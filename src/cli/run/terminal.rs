//! The caller's terminal while the program has one of its own: raw mode, keys, size, stop and continue.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::say::Say;
use crate::sys::pty::{RawMode, copy_size, in_foreground};

/// The caller's terminal and our side of the program's.
pub(super) struct Outer {
    pub(super) terminal: OwnedFd,
    pub(super) master: OwnedFd,
}

/// The same, at work. Dropping it puts the terminal's settings back.
pub(super) struct Terminal {
    outer: OwnedFd,
    master: OwnedFd,
    raw: Option<RawMode>,
    /// Keys may be read: raw mode is on. What was typed before it has to be read in it, too.
    ours: Arc<AtomicBool>,
    /// Tells the thread of the keys that the terminal is ours again. Closed: that it is to end.
    wake: PipeWriter,
}

impl Terminal {
    /// Takes the terminal over, if it is ours to use.
    pub(super) fn start(outer: Outer, say: &Say<'_>) -> io::Result<Self> {
        let Outer { terminal, master } = outer;
        let (woken, wake) = pipe()?;
        let ours = Arc::new(AtomicBool::new(false));
        let keys = Keys {
            terminal: terminal.try_clone()?.into(),
            master: master.try_clone()?.into(),
            ours: Arc::clone(&ours),
            woken,
        };
        let mut started = Self { outer: terminal, master, raw: None, ours, wake };
        started.resume(say);
        std::thread::Builder::new().name("keys".into()).spawn(|| keys.run())?;
        Ok(started)
    }

    /// The terminal may have another size now.
    pub(super) fn resize(&self) {
        let _ = copy_size(self.outer.as_fd(), self.master.as_fd());
    }

    /// The terminal's settings as they were, for a while.
    pub(super) fn give_back(&mut self, say: &Say<'_>) {
        self.ours.store(false, Ordering::SeqCst);
        self.raw = None;
        say.set_raw(false);
    }

    /// Takes the terminal again, if we are in its foreground.
    pub(super) fn resume(&mut self, say: &Say<'_>) {
        self.resize();
        if self.raw.is_none() && in_foreground(self.outer.as_fd()) {
            self.raw = RawMode::set(self.outer.as_fd()).ok();
            say.set_raw(self.raw.is_some());
            self.ours.store(true, Ordering::SeqCst);
            let _ = self.wake.write(&[0]);
        }
    }
}

/// Copies keys to the program.
struct Keys {
    terminal: File,
    master: File,
    ours: Arc<AtomicBool>,
    woken: PipeReader,
}

impl Keys {
    fn run(mut self) {
        let mut buffer = [0; 4096];
        loop {
            if !self.may_read() {
                match self.woken.read(&mut [0]) {
                    Ok(1) => continue,
                    _ => return,
                }
            }
            match self.wait() {
                Err(Errno::EINTR) => {}
                Ok([_, true]) => {
                    if !matches!(self.woken.read(&mut [0]), Ok(1)) {
                        return;
                    }
                }
                // Taken from us while we waited.
                Ok([true, false]) if !self.may_read() => {}
                Ok([true, false]) => match self.terminal.read(&mut buffer) {
                    Ok(count @ 1..) if self.master.write_all(&buffer[..count]).is_ok() => {}
                    // Between the two questions it was taken from us.
                    Err(error) if error.raw_os_error() == Some(libc::EIO) && !self.may_read() => {}
                    _ => return,
                },
                Ok([false, false]) => {}
                Err(_) => return,
            }
        }
    }

    fn may_read(&self) -> bool {
        self.ours.load(Ordering::SeqCst) && in_foreground(self.terminal.as_fd())
    }

    /// Whether there are keys, and whether we were woken.
    fn wait(&self) -> nix::Result<[bool; 2]> {
        let mut watched =
            [self.terminal.as_fd(), self.woken.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut watched, PollTimeout::NONE)?;
        Ok(watched.map(|watched| watched.any().unwrap_or_default()))
    }
}
