//! The ends of many processes, waited for by one thread: `epoll(7)` over pidfds, which become readable when
//! their process has ended (`pidfd_open(2)`, Linux 5.3).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Told at once.
const BATCH: usize = 256;
/// The key of `stop`.
const STOP: u64 = u64::MAX;

/// A set of processes. Concurrency: any thread adds; one waits.
pub struct Exits {
    epoll: Epoll,
    stop: EventFd,
}

impl Exits {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Self { epoll, stop })
    }

    /// Adds a process: `key` (below `u64::MAX`) is told once, when it ends or if it has ended already. To
    /// close the pidfd and all its copies takes it out again.
    pub fn add(&self, pidfd: impl AsFd, key: u64) -> io::Result<()> {
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        Ok(self.epoll.add(pidfd, EpollEvent::new(once, key))?)
    }

    /// The keys of processes that have ended, at most 256; waits for the first for so long, or for ever.
    /// `None`: stopped.
    pub fn wait(&self, longest: Option<Duration>) -> io::Result<Option<Vec<u64>>> {
        let mut events = [EpollEvent::empty(); BATCH];
        let longest = longest.map_or(Ok(EpollTimeout::NONE), EpollTimeout::try_from);
        let count = match self.epoll.wait(&mut events, longest.map_err(|_| Errno::EINVAL)?) {
            Err(Errno::EINTR) => 0,
            counted => counted?,
        };
        let keys: Vec<u64> = events[..count].iter().map(EpollEvent::data).collect();
        Ok((!keys.contains(&STOP)).then_some(keys))
    }

    /// Ends every wait from now on.
    pub fn stop(&self) {
        // It fails only when it has been said often enough.
        let _ = self.stop.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::super::peer::pidfd_open;
    use super::*;

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn an_end_is_told_once_also_one_that_came_before() {
        let exits = Exits::new().unwrap();
        let mut children = [child(), child()];
        let pidfds = children.each_ref().map(|child| pidfd_open(child.id()).unwrap());
        exits.add(&pidfds[0], 7).unwrap();
        assert_eq!(exits.wait(Some(Duration::ZERO)).unwrap(), Some(Vec::new()));
        children.iter_mut().for_each(|child| child.kill().unwrap());
        assert_eq!(exits.wait(None).unwrap(), Some(vec![7]));
        for child in &mut children {
            child.wait().unwrap();
        }
        exits.add(&pidfds[1], 8).unwrap();
        assert_eq!(exits.wait(None).unwrap(), Some(vec![8]));
        assert_eq!(exits.wait(Some(Duration::ZERO)).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_closed_pidfd_and_a_stop_tell_of_nobody() {
        let exits = Exits::new().unwrap();
        let mut child = child();
        let pidfd = pidfd_open(child.id()).unwrap();
        exits.add(&pidfd, 7).unwrap();
        drop(pidfd);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(exits.wait(Some(Duration::ZERO)).unwrap(), Some(Vec::new()));
        exits.stop();
        assert_eq!(exits.wait(None).unwrap(), None);
        assert_eq!(exits.wait(None).unwrap(), None);
    }
}
