//! A process by more than its pid, and the descriptor that pins it. Imports `sys`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;

use super::{Executable, attestor};
use crate::sys;
use crate::sys::lineage::{Lineage, Link};

/// Where the end of a process cannot be waited for (descriptor limit), it is asked for this often.
const FALLBACK_POLL: Duration = Duration::from_millis(100);

/// Names one process, not only its pid. Stays the same over exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// In our pid namespace; never 0.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
    /// The kernel's number for this process, never used twice (Linux 6.9). It tells two processes
    /// apart that had the same pid within one tick.
    pub(super) serial: Option<u64>,
}

impl ProcessId {
    /// A name that no real process need have, for tests of what is decided about processes.
    #[cfg(test)]
    pub(crate) fn imagined(pid: u32, start_time: u64) -> Self {
        Self { pid, start_time, serial: None }
    }

    /// The process that has this pid now. `None`: there is none, or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        Pidfd::identify(pid).map(|(_, process)| process)
    }

    /// True if it has not ended.
    pub fn is_alive(self) -> bool {
        Pidfd::open(self).is_some_and(|pidfd| pidfd.is_alive())
    }

    /// The parent, as of now.
    pub fn parent(self) -> Option<Self> {
        self.pinned_parent().map(|(_, parent)| parent)
    }

    /// The parent, and what pins it.
    pub(super) fn pinned_parent(self) -> Option<(Pidfd, Self)> {
        let pidfd = Pidfd::open(self)?;
        let above = parent_pid(self.pid)?;
        let parent = Pidfd::identify(above)?;
        let unchanged = parent_pid(self.pid) == Some(above);
        (unchanged && pidfd.is_alive()).then_some(parent)
    }

    /// The file that it runs now: another one after an exec. `None` as in [`super::Peer::executable`].
    pub fn executable(self) -> Option<Executable> {
        Pidfd::open(self)?.executable(self.pid).ok()?
    }

    /// True if both are alive and this is `ancestor` or one of its descendants, as of now. Only the chain between
    /// them is read, and at once.
    pub fn descends_from(self, ancestor: Self) -> bool {
        let pinned = (Pidfd::open(self), Pidfd::open(ancestor));
        let (Some(own), Some(top)) = pinned else { return false };
        let Some(Lineage(chain)) = attestor::lineage(self.pid, ancestor.pid) else { return false };
        let ends = (chain.first().copied(), chain.last().copied());
        ends == (Some(self.link()), Some(ancestor.link())) && own.is_alive() && top.is_alive()
    }

    fn link(self) -> Link {
        Link { pid: self.pid, start_time: self.start_time }
    }
}

fn parent_pid(pid: u32) -> Option<u32> {
    attestor::stat(pid).map(|stat| stat.parent).filter(|&parent| parent != 0)
}

/// A pinned process: while this is held, what it names cannot become another process.
#[derive(Clone, Debug)]
pub struct Pidfd(Arc<OwnedFd>);

impl Pidfd {
    /// Pins this very process. `None`: it has ended, or the host gives no pidfd for it.
    pub fn open(process: ProcessId) -> Option<Self> {
        let pidfd = Self::of(process.pid)?;
        let same = match process.serial {
            // Never used twice: nothing of it needs to be read.
            Some(_) => sys::peer::serial(&pidfd.0) == process.serial,
            None => pidfd.process(process.pid, attestor::stat(process.pid)?.start_time) == Some(process),
        };
        (same && pidfd.is_alive()).then_some(pidfd)
    }

    /// True if the process has not ended. An error counts as ended.
    pub fn is_alive(&self) -> bool {
        sys::peer::has_ended(&self.0).is_ok_and(|ended| !ended)
    }

    /// Done when the process has ended. Must run inside a tokio runtime.
    pub async fn ended(self) {
        if let Ok(watch) = self.watch() {
            let _ = watch.readable().await;
        }
        while sys::peer::has_ended(&self.0).is_ok_and(|ended| !ended) {
            tokio::time::sleep(FALLBACK_POLL).await;
        }
    }

    fn watch(&self) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
        sys::time::register(self.0.try_clone()?, Interest::READABLE)
    }

    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    pub(super) fn of(pid: u32) -> Option<Self> {
        sys::peer::pidfd_open(pid).ok().map(Self::new)
    }

    /// Pins whoever has this pid now, and says who it is.
    fn identify(pid: u32) -> Option<(Self, ProcessId)> {
        let pidfd = Self::of(pid)?;
        let stat = attestor::stat(pid)?;
        let process = pidfd.process(pid, stat.start_time)?;
        Some((pidfd, process))
    }

    /// Makes an identity of what was read under `pid` while this was held. `None` if the process has
    /// ended meanwhile, as then it may have been read of another one.
    pub(super) fn process(&self, pid: u32, start_time: u64) -> Option<ProcessId> {
        let serial = sys::peer::serial(&self.0);
        self.is_alive().then_some(ProcessId { pid, start_time, serial })
    }
}
