//! What takes the right to trace a process: read by the attestor where there is one, else by ourselves.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use super::{Executable, Pidfd};
use crate::sys;
use crate::sys::attestor::Attestor;
use crate::sys::facts::{self, FileVersion, Traced};

/// Looks into processes for us. Set once, by `main`, before a thread is started; absent in clients and
/// in tests, which are not confined and look for themselves. One for the whole process, as confinement
/// is: whoever asks, the rule of what may be looked into is the same.
static ATTESTOR: OnceLock<Attestor> = OnceLock::new();

/// From now on, processes are looked into by the attestor. Only the first one counts.
pub fn look_through(attestor: Attestor) {
    let _ = ATTESTOR.set(attestor);
}

/// Done when the attestor has ended; never where there is none. Must run inside a tokio runtime.
pub async fn attestor_ended() {
    let Some(attestor) = ATTESTOR.get() else { return std::future::pending().await };
    if let Ok(pidfd) = attestor.pidfd().try_clone_to_owned() {
        Pidfd::new(pidfd).ended().await;
    }
}

/// `pid` is the process's own; `None` also if it has ended meanwhile, as then it may have been read of another
/// one.
impl Pidfd {
    pub(super) fn executable(&self, pid: u32) -> Option<Executable> {
        self.look(pid, Attestor::executable, sys::peer::executable)
    }

    pub(super) fn traced(&self, pid: u32) -> Traced {
        self.look(pid, Attestor::traced, |pid| Ok(facts::traced(pid))).unwrap_or_default()
    }

    pub(super) fn executable_version(&self, pid: u32) -> Option<FileVersion> {
        self.look(pid, Attestor::executable_version, facts::executable_version)
    }

    pub(super) fn open_executable(&self, pid: u32) -> Option<File> {
        self.look(pid, Attestor::open_executable, facts::open_executable)
    }

    fn look<T>(
        &self,
        pid: u32,
        through: impl Fn(&Attestor, u32) -> io::Result<T>,
        ourselves: impl Fn(u32) -> io::Result<T>,
    ) -> Option<T> {
        let found = match ATTESTOR.get() {
            Some(attestor) => through(attestor, pid),
            None => ourselves(pid),
        };
        if let Err(error) = &found
            && error.kind() == io::ErrorKind::TimedOut
        {
            // Once for each time it falls silent: until it speaks again, nothing is asked.
            tracing::warn!(
                "the attestor does not answer; roles that need to look into a process are refused"
            );
        }
        found.ok().filter(|_| self.is_alive())
    }
}
