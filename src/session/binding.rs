//! Which processes may present a session's token: what the kernel says of them, never the pid alone.

use std::fmt;

use crate::config::Bind;
use crate::peer::{Cgroup, Peer, ProcessId};

/// The processes of a session. Read from the kernel at each use. A session whose anchor has ended has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// This one.
    Process(ProcessId),
    /// This one and its descendants. A process whose parent has ended is given to another parent and
    /// descends from the first no more.
    Subtree(ProcessId),
    /// All of a cgroup, whoever started them.
    Cgroup {
        /// The group.
        cgroup: Cgroup,
        /// The process that the session lives and dies with.
        anchor: ProcessId,
    },
}

impl Binding {
    /// What a role binds to, around this process. `None`: its cgroup is not known, or the root.
    pub(super) fn of(bind: Bind, anchor: ProcessId) -> Option<Self> {
        Some(match bind {
            Bind::Process => Self::Process(anchor),
            Bind::Subtree => Self::Subtree(anchor),
            Bind::Cgroup => Self::Cgroup { cgroup: Cgroup::of(anchor)?, anchor },
        })
    }

    /// The process that the session lives and dies with.
    pub fn anchor(&self) -> ProcessId {
        match self {
            Self::Process(anchor) | Self::Subtree(anchor) | Self::Cgroup { anchor, .. } => *anchor,
        }
    }

    /// Whether the process is one of them, as of now.
    pub fn admits(&self, peer: &Peer) -> bool {
        match self {
            Self::Process(anchor) => peer.process == Some(*anchor) && peer.is_alive(),
            Self::Subtree(anchor) => peer.descends_from(*anchor),
            Self::Cgroup { cgroup, anchor } => cgroup.holds(peer) && anchor.is_alive(),
        }
    }

    /// Whether a process that is to have a session below this one is one of them, as of now.
    pub(super) fn covers(&self, process: ProcessId) -> bool {
        match self {
            Self::Process(anchor) => process == *anchor,
            Self::Subtree(anchor) => process == *anchor || process.descends_from(*anchor),
            Self::Cgroup { cgroup, .. } => cgroup.holds_process(process),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(anchor) => write!(f, "process {}", anchor.pid),
            Self::Subtree(anchor) => write!(f, "subtree of {}", anchor.pid),
            Self::Cgroup { cgroup, anchor } => write!(f, "cgroup {cgroup} while {} lives", anchor.pid),
        }
    }
}
