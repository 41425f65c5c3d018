//! Which processes may present a session's token: what the kernel says of them, never the pid alone.

use std::fmt;

use crate::peer::{Peer, ProcessId};

/// The processes of a session. Read from the kernel at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// This one.
    Process(ProcessId),
    /// This one and its descendants. A process whose parent has ended is given to another parent and
    /// descends from the first no more.
    Subtree(ProcessId),
}

impl Binding {
    /// The process that the session lives and dies with.
    pub fn anchor(&self) -> ProcessId {
        match self {
            Self::Process(anchor) | Self::Subtree(anchor) => *anchor,
        }
    }

    /// Whether the process is one of them, as of now. A session whose anchor has ended has none.
    pub fn admits(&self, peer: &Peer) -> bool {
        match self {
            Self::Process(anchor) => peer.process == Some(*anchor) && peer.is_alive(),
            Self::Subtree(anchor) => peer.descends_from(*anchor),
        }
    }

    /// Whether a process that is to have a session below this one is one of them, as of now.
    pub(super) fn covers(&self, process: ProcessId) -> bool {
        match self {
            Self::Process(anchor) => process == *anchor,
            Self::Subtree(anchor) => process == *anchor || process.descends_from(*anchor),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(anchor) => write!(f, "process {}", anchor.pid),
            Self::Subtree(anchor) => write!(f, "subtree of {}", anchor.pid),
        }
    }
}
