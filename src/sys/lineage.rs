//! From whom a process descends, read from `/proc/<pid>/stat` of each on the way. Imports its neighbours in `sys`.

use std::io;

use nix::errno::Errno;

use super::peer::stat;

/// Longest chain of parents that is followed.
pub(super) const MAX_DEPTH: usize = 64;

/// One process of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub pid: u32,
    /// See [`super::peer::Stat::start_time`].
    pub start_time: u64,
}

/// A process, its parent, the parent of that, and so on up to the one that was asked for; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage(pub Vec<Link>);

/// The chain from a process up to `top`. `ESRCH`: it does not descend from it, or a link changed meanwhile.
///
/// Each link is read twice, around the reading of the next one: a process keeps its parent for as long as that
/// lives, so a link that still holds proves that the pid in it was not recycled meanwhile. The caller pins both
/// ends.
pub fn lineage(pid: u32, top: u32) -> io::Result<Lineage> {
    let gone = || io::Error::from(Errno::ESRCH);
    let mut chain = Vec::new();
    let (mut child, mut its) = (pid, stat(pid)?);
    while chain.len() < MAX_DEPTH {
        chain.push(Link { pid: child, start_time: its.start_time });
        if child == top {
            return Ok(Lineage(chain));
        }
        if its.parent == 0 {
            return Err(gone());
        }
        let above = stat(its.parent)?;
        if stat(child)? != its {
            return Err(gone());
        }
        (child, its) = (its.parent, above);
    }
    Err(gone())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_chain_begins_with_the_process_and_ends_at_the_top() {
        let own = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let link = |pid| Link { pid, start_time: stat(pid).unwrap().start_time };
        assert_eq!(lineage(own, own).unwrap().0, [link(own)]);
        assert_eq!(lineage(child.id(), own).unwrap().0, [link(child.id()), link(own)]);
        let above = stat(own).unwrap().parent;
        assert_eq!(lineage(child.id(), above).unwrap().0.len(), 3);
        assert_eq!(lineage(own, child.id()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(lineage(u32::MAX, own).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
