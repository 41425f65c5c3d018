//! Signals of the launcher, read one by one instead of interrupting it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::time::register;

/// What is read here.
const READ: [Signal; 10] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGCHLD,
];

/// Blocked and not read: then a terminal refuses us (EIO) or lets us, and does not stop us.
const REFUSED: [Signal; 2] = [Signal::SIGTTIN, Signal::SIGTTOU];

/// One signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) signal: Signal,
    pub(super) from: Sender,
}

/// Who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The kernel: a terminal sends to a whole process group.
    Kernel,
    /// The process with this pid.
    Process(i32),
}

/// The signals, blocked for this thread and those it starts.
pub(super) struct Signals {
    descriptor: SignalFd,
    readable: AsyncFd<OwnedFd>,
    before: SigSet,
    /// Read already. Holds no more than one of each: that is what the kernel keeps.
    waiting: RefCell<VecDeque<Received>>,
}

impl Signals {
    /// Blocks the signals. Inside a tokio runtime, before another thread starts.
    pub(super) fn block() -> io::Result<Self> {
        let read: SigSet = READ.into_iter().collect();
        let blocked: SigSet = READ.into_iter().chain(REFUSED).collect();
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let descriptor = SignalFd::with_flags(&read, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let readable = register(descriptor.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self { descriptor, readable, before, waiting: RefCell::default() })
    }

    /// What was blocked before.
    pub(super) fn before(&self) -> &SigSet {
        &self.before
    }

    /// The next signal. Nothing is lost if this is cancelled.
    pub(super) async fn next(&self) -> Received {
        loop {
            let waiting = self.waiting.borrow_mut().pop_front();
            if let Some(received) = waiting.or_else(|| self.read()) {
                return received;
            }
            match self.readable.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                // The runtime is ending.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Forgets a SIGCONT that has come.
    pub(super) fn forget_continue(&self) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.extend(std::iter::from_fn(|| self.read()));
        waiting.retain(|received| received.signal != Signal::SIGCONT);
    }

    fn read(&self) -> Option<Received> {
        let info = self.descriptor.read_signal().ok()??;
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        let from = match info.ssi_code {
            libc::SI_KERNEL => Sender::Kernel,
            _ => Sender::Process(info.ssi_pid.cast_signed()),
        };
        Some(Received { signal, from })
    }

    /// The next signal that is meant to end this process, as its number. Others are dropped.
    pub(super) async fn terminating(&self) -> i32 {
        loop {
            let signal = self.next().await.signal;
            if matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) {
                return signal as i32;
            }
        }
    }
}
