//! How surely a process is the one that connected.

use std::os::unix::net::UnixStream;

use crate::sys;
use crate::sys::Protection;

/// How a process was tied to its pid, the surest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerTier {
    /// Not at all.
    None,
    /// By its start time, read at accept: a pid recycled between connect and accept goes unseen.
    PidAndStartTime,
    /// By a pidfd that the kernel took at connect (Linux 6.5): a recycled pid cannot be taken for it.
    PidfdAtConnect,
}

impl PeerTier {
    /// The best that this host offers, tried on a pair of sockets of our own.
    pub fn of_host() -> Self {
        let tried = UnixStream::pair().and_then(|(own, _peer)| sys::peer::pidfd_at_connect(&own));
        match tried {
            Ok(Some(_)) => Self::PidfdAtConnect,
            Ok(None) => Self::PidAndStartTime,
            Err(_) => Self::None,
        }
    }

    /// For `status`.
    pub fn protection(self) -> Protection {
        let tier = match self {
            Self::None => "process unknown",
            Self::PidAndStartTime => "pid and start time, read at accept",
            Self::PidfdAtConnect => "pidfd, taken by the kernel at connect",
        };
        Protection { name: "callers identified by", tier, full: self == Self::PidfdAtConnect }
    }
}
