//! The audit trail: one hash-chained record per decision, written before a value leaves (I9).
//!
//! [`Event`] says what happened and cannot express a secret, [`chain`] seals and checks records,
//! [`AuditFile`] writes them, [`verify_path`] checks what is on disk. When a record cannot be written
//! the caller refuses: [`AuditFile::record`] and [`AuditFile::commit`] are called on the request path and fail closed.
//!
//! On disk, in a directory that nobody else may write:
//!
//! ```text
//! audit.jsonl           the newest records, one JSON object per line
//! audit.jsonl.head      number and hash of the newest record; makes a missing end noticeable
//! audit.<first>.jsonl   files that were set aside when they were full, oldest first
//! ```
//!
//! May import layer 0.

pub mod chain;
mod counts;
mod event;
mod file;
mod folder;
mod group;
mod head;
mod verify;
mod words;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use chain::{Fault, Hash, Head};
pub use counts::Counts;
pub use event::{Actor, Event, NOBODY, Target};
pub use file::{AuditFile, Follow};
pub use verify::{Breach, Report, VerifiedFile, verify_path};
pub use words::{Cause, Outcome, Verb};

/// Why the trail cannot be opened, written or read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditError {
    /// A record was not written, and nothing of it is left. The next one is tried again.
    #[error("no audit record can be written to {}: {kind}\nmake room or mend the file; nothing is released until then", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// The file was removed, cut or written by somebody else while the daemon had it open.
    #[error("{} was changed by somebody else\nrun `ravi-broker audit verify`; nothing is released until the daemon is restarted", path.display())]
    Disturbed {
        /// The file.
        path: PathBuf,
    },
    /// The file, its head file or their directory cannot be opened or read.
    #[error("cannot open {}: {kind}\nits directory must exist and belong to the user of the daemon", path.display())]
    Unopened {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// Not a file that the daemon may append to.
    #[error("{} is not to be trusted: {fault}\nmove it away; the daemon makes a new one", path.display())]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What speaks against it.
        fault: FileFault,
    },
    /// Another daemon writes to the same trail.
    #[error("{} is in use by another daemon\nstop that one, or give each its own audit.file", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The trail was tampered with or lost its end. The daemon does not add to it.
    #[error("the audit trail is broken: {}\nrun `ravi-broker audit verify`, find out why, then move {}, its .head file and the files set aside to another place: the daemon begins a new trail", breach, trail.display())]
    Broken {
        /// Where and how.
        breach: Breach,
        /// The file that the daemon would write to.
        trail: PathBuf,
    },
}

/// What is wrong with a file or directory before a byte of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FileFault {
    /// A directory, pipe, socket, device or symbolic link.
    #[error("it is not a regular file")]
    NotRegular,
    /// The daemon's user does not own it.
    #[error("it belongs to another user")]
    Owner,
    /// It has a second name, so that appending to it would change another file.
    #[error("it has more than one name (hard link)")]
    Linked,
    /// Others than its owner have rights to it.
    #[error("others than its owner have rights to it")]
    Mode,
}
