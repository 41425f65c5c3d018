//! A cgroup that a session can be bound to.

use std::fmt;

use super::{Peer, ProcessId};
use crate::sys::facts;
use crate::types::CgroupPath;

/// One group of the unified hierarchy, not only its path: a group that was removed and made again under the
/// same name is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: CgroupPath,
    /// Of its directory. `None`: the hierarchy is not mounted where we can see it.
    inode: Option<u64>,
}

impl Cgroup {
    /// The one that the process is in now. `None`: it cannot be told, or it is the root, in which everybody
    /// is.
    pub fn of(process: ProcessId) -> Option<Self> {
        let path = super::cgroup(process.pid).filter(|path| !path.is_root())?;
        let inode = facts::cgroup_inode(path.as_str());
        process.is_alive().then_some(Self { path, inode })
    }

    /// Whether the peer is in it or in one below it, as of now.
    pub fn holds(&self, peer: &Peer) -> bool {
        let Some(process) = peer.process else { return false };
        let within = super::cgroup(process.pid).is_some_and(|path| path.is_within(&self.path));
        within && self.is_there() && peer.is_alive()
    }

    /// The same for a process that nobody connected from.
    pub fn holds_process(&self, process: ProcessId) -> bool {
        let within = super::cgroup(process.pid).is_some_and(|path| path.is_within(&self.path));
        within && self.is_there() && process.is_alive()
    }

    fn is_there(&self) -> bool {
        facts::cgroup_inode(self.path.as_str()) == self.inode
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_str())
    }
}
