//! What is read of processes: by the attestor where there is one, else by ourselves.
//!
//! What takes the right to trace a process is always asked of it, and everything where `/proc` hides processes
//! from us. The rest we read ourselves where we can, so that an attestor that is silent denies no more than it
//! has to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Executable, Pidfd};
use crate::sys;
use crate::sys::attestor::{Attestor, is_silence};
use crate::sys::facts::{self, Facts, FileVersion};
use crate::sys::lineage::{self, Lineage};
use crate::sys::peer::Stat;

/// Looks into processes for us. Set once, by `main`, before a thread is started; absent in clients and
/// in tests, which are not confined and look for themselves. One for the whole process, as confinement
/// is: whoever asks, the rule of what may be looked into is the same.
static ATTESTOR: OnceLock<Through> = OnceLock::new();
/// Whether the last question was not answered.
static SILENT: AtomicBool = AtomicBool::new(false);

struct Through {
    attestor: Attestor,
    /// `/proc` hides processes from us.
    hidden: bool,
}

/// What the attestor was asked cannot be told now, of whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence;

/// From now on, processes are looked into by the attestor; all that is asked of them is, where `/proc` hides them
/// (`hidden`). Only the first one counts.
pub fn look_through(attestor: Attestor, hidden: bool) {
    let _ = ATTESTOR.set(Through { attestor, hidden });
}

/// Done when the attestor, a child, has ended; never where there is none, or where it is a service, which comes
/// back. Must run inside a tokio runtime.
pub async fn attestor_ended() {
    let pidfd = ATTESTOR.get().and_then(|through| through.attestor.pidfd());
    let Some(pidfd) = pidfd else { return std::future::pending().await };
    if let Ok(pidfd) = pidfd.try_clone_to_owned() {
        Pidfd::new(pidfd).ended().await;
    }
}

/// `pid` is the process's own; `None` also if it has ended meanwhile, as then it may have been read of another
/// one.
impl Pidfd {
    pub(super) fn executable(&self, pid: u32) -> Result<Option<Executable>, Silence> {
        self.traced(|attestor| attestor.executable(pid), || sys::peer::executable(pid))
    }

    pub(super) fn executable_version(&self, pid: u32) -> Result<Option<FileVersion>, Silence> {
        self.traced(|attestor| attestor.executable_version(pid), || facts::executable_version(pid))
    }

    pub(super) fn open_executable(&self, pid: u32) -> Result<Option<File>, Silence> {
        self.traced(|attestor| attestor.open_executable(pid), || facts::open_executable(pid))
    }

    fn traced<T>(
        &self,
        through: impl FnOnce(&Attestor) -> io::Result<T>,
        ourselves: impl FnOnce() -> io::Result<T>,
    ) -> Result<Option<T>, Silence> {
        let found = match ATTESTOR.get() {
            Some(Through { attestor, .. }) => heard(through(attestor))?,
            None => ourselves().ok(),
        };
        Ok(found.filter(|_| self.is_alive()))
    }
}

/// All that is asked of every peer, in one exchange. The caller pins the process, and looks afterwards whether it
/// is alive still.
pub(super) fn look(pid: u32) -> Facts {
    let own = std::process::id();
    let Some(Through { attestor, hidden }) = ATTESTOR.get() else { return facts::look(pid, own) };
    match heard(attestor.facts(pid)) {
        Ok(found) => found.unwrap_or_default(),
        Err(Silence) if *hidden => Facts::default(),
        Err(Silence) => facts::look_from_afar(pid, own),
    }
}

/// The caller pins the process.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    untraced(|attestor| attestor.stat(pid), || sys::peer::stat(pid))
}

/// The caller pins the process.
pub(super) fn cgroup(pid: u32) -> Option<Vec<u8>> {
    untraced(|attestor| attestor.cgroup(pid), || facts::cgroup(pid))
}

/// One exchange for the whole chain. The caller pins both ends.
pub(super) fn lineage(pid: u32, top: u32) -> Option<Lineage> {
    untraced(|attestor| attestor.lineage(pid, top), || lineage::lineage(pid, top))
}

fn untraced<T>(
    through: impl FnOnce(&Attestor) -> io::Result<T>,
    ourselves: impl FnOnce() -> io::Result<T>,
) -> Option<T> {
    match ATTESTOR.get() {
        Some(Through { attestor, hidden: true }) => heard(through(attestor)).ok().flatten(),
        _ => ourselves().ok(),
    }
}

/// The path without links, as whoever looks into processes sees it: a service may see homes that we do not.
pub(super) fn canonical(path: &Path) -> Option<PathBuf> {
    match ATTESTOR.get() {
        Some(Through { attestor, .. }) if attestor.is_service() => {
            heard(attestor.canonical(path)).ok().flatten()
        }
        _ => std::fs::canonicalize(path).ok(),
    }
}

/// Tells once when it falls silent, and once when it speaks again.
fn heard<T>(said: io::Result<T>) -> Result<Option<T>, Silence> {
    let silent = said.as_ref().is_err_and(is_silence);
    if SILENT.swap(silent, Ordering::Relaxed) != silent {
        match silent {
            true => tracing::warn!(
                "the attestor does not answer; roles that need to look into a process are refused"
            ),
            false => tracing::info!("the attestor answers again"),
        }
    }
    if silent { Err(Silence) } else { Ok(said.ok()) }
}
