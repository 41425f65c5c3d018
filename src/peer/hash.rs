//! The hash of an executable: read once for each state of a file, off the async workers, one at a time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::attestor::Silence;
use super::{Executable, Pidfd, ProcessId};
use crate::sys::digest::{LONGEST, digest};
use crate::sys::facts::FileVersion;
use crate::types::FileHash;

/// States of files whose hash is kept.
const KEPT: usize = 256;

/// Held while a file is read: two callers do not read the same one, and readers do not crowd out the rest.
static TURN: Semaphore = Semaphore::const_new(1);
/// Held for a few instructions.
static KNOWN: Mutex<Known> = Mutex::new(Known(VecDeque::new()));

/// What a file held in one of its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// SHA-256 of the content.
    pub hash: FileHash,
    version: FileVersion,
}

impl Hashed {
    /// Whether the process runs this file, in this state, as of now.
    pub(super) fn is_of(&self, process: ProcessId) -> Result<bool, Silence> {
        Ok(version_of(process)? == Some(self.version))
    }

    #[cfg(test)]
    pub(crate) fn imagined(hash: FileHash) -> Self {
        let version = FileVersion { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) };
        Self { hash, version }
    }
}

/// The hash of the file that the process runs, if that is the attested one. `None` also if it takes longer
/// than [`LONGEST`], the wait for others included.
pub(super) async fn hash(process: ProcessId, attested: &Executable) -> Option<Hashed> {
    let version = version_of(process).ok()??;
    if (version.device, version.inode) != (attested.device, attested.inode) {
        return None;
    }
    let kept = known().recall(version);
    match kept {
        Some(hashed) => Some(hashed),
        None => tokio::time::timeout(LONGEST, read_once(process, version)).await.ok()?,
    }
}

async fn read_once(process: ProcessId, version: FileVersion) -> Option<Hashed> {
    let turn = TURN.acquire().await.ok()?;
    let kept = known().recall(version);
    if kept.is_some() {
        return kept;
    }
    let read = move || {
        // Whoever waits may have given up; the turn ends with the reading.
        let _turn = turn;
        let pidfd = Pidfd::open(process)?;
        let digest = digest(&mut pidfd.open_executable(process.pid).ok()??).ok()?;
        let hashed = Hashed { hash: FileHash(digest.sha256), version: digest.version };
        (digest.version == version).then(|| known().remember(hashed))
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

fn version_of(process: ProcessId) -> Result<Option<FileVersion>, Silence> {
    Pidfd::open(process).map_or(Ok(None), |pidfd| pidfd.executable_version(process.pid))
}

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last hashes that were asked for, the latest at the end.
struct Known(VecDeque<Hashed>);

impl Known {
    fn recall(&mut self, version: FileVersion) -> Option<Hashed> {
        let at = self.0.iter().position(|hashed| hashed.version == version)?;
        let hashed = self.0.remove(at)?;
        self.0.push_back(hashed);
        Some(hashed)
    }

    fn remember(&mut self, hashed: Hashed) -> Hashed {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(hashed);
        hashed
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn version(inode: u64) -> FileVersion {
        FileVersion { device: 1, inode, size: 2, modified: (3, 4), changed: (5, 6) }
    }

    #[test]
    fn as_many_hashes_are_kept_as_there_is_room_for_and_the_latest_stay() {
        let mut known = Known(VecDeque::new());
        let hashed = |inode| Hashed { hash: FileHash([7; 32]), version: version(inode) };
        for inode in 0..256 {
            known.remember(hashed(inode));
        }
        assert_eq!(known.recall(version(0)), Some(hashed(0)));
        known.remember(hashed(256));
        assert_eq!((known.0.len(), known.recall(version(1))), (KEPT, None));
        assert!(known.recall(version(0)).is_some() && known.recall(version(256)).is_some());
        assert_eq!(known.recall(FileVersion { changed: (5, 7), ..version(0) }), None);
    }

    fn running(program: &std::path::Path) -> Child {
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_file_is_read_once_for_each_of_its_states() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        // By another process: a file that we had open for writing could still be so in a child of another thread.
        assert!(
            Command::new("cp").args(["/bin/cat".as_ref(), program.as_os_str()]).status().unwrap().success()
        );
        let mut child = running(&program);
        let process = ProcessId::of(child.id()).unwrap();
        let executable = process.executable().unwrap();
        let hashed = hash(process, &executable).await.unwrap();
        assert!(known().0.contains(&hashed) && hashed.is_of(process).unwrap());
        // What is kept is believed: the file is not read again.
        let marked = Hashed { hash: FileHash([9; 32]), ..hashed };
        known().0.iter_mut().filter(|kept| **kept == hashed).for_each(|kept| *kept = marked);
        assert_eq!(hash(process, &executable).await, Some(marked));
        // Touched, it is another state.
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert!(!hashed.is_of(process).unwrap());
        assert_eq!(hash(process, &executable).await.unwrap().hash, hashed.hash);
        let other = Executable { inode: executable.inode ^ 1, ..executable };
        assert_eq!(hash(process, &other).await, None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!hashed.is_of(process).unwrap());
    }
}
