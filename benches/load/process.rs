//! What a process has used, as the kernel counts it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// A process that is measured from outside.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    /// The one that listens on a socket.
    pub(crate) fn behind(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server accepts");
        Self(getsockopt(&stream, PeerCredentials).expect("a Unix socket has a peer").pid())
    }

    /// On the processor since it began, all threads that still run.
    pub(crate) fn cpu(self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).expect("it runs");
        let nanos = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Resident, in KiB.
    pub(crate) fn resident(self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}
