//! Checks a trail on disk, without a daemon: every file that was set aside, in order, then the current
//! one, then the head file.
//!
//! May run beside a daemon that writes: a record under way is not a fault, and a change of files
//! in between is looked at again.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::AuditError;
use super::chain::{Fault, Head, walk};
use super::folder::Names;
use super::head::{Damage, judge, read_path};

/// How often a trail that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// What a check of a trail found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The files in the order of their records. With a breach, those up to it.
    pub files: Vec<VerifiedFile>,
    /// The last good record.
    pub head: Head,
    /// Bytes of a record at the end that was never finished, and so never counted.
    pub unfinished: u64,
    /// The first thing that is wrong.
    pub breach: Option<Breach>,
}

/// One file of a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Number of its first record.
    pub first: u64,
    /// Number of its last good record.
    pub last: u64,
}

/// Where and how a trail is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1; 0 if it is about the file as a whole.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// Checks the trail whose current file is `path`.
///
/// # Errors
/// [`AuditError::Unopened`]. What is wrong with the trail itself is in the report.
pub fn verify_path(path: &Path) -> Result<Report, AuditError> {
    let unopened = |kind| AuditError::Unopened { path: path.to_owned(), kind };
    let names = Names::of(path).ok_or_else(|| unopened(io::ErrorKind::InvalidInput))?;
    let head_path = path.with_file_name(&names.head);
    let mut noted = read_head(&head_path)?;
    for _ in 1..ATTEMPTS {
        let report = verify(path, &names, noted).map_err(|error| unopened(error.kind()))?;
        let noted_now = read_head(&head_path)?;
        if report.breach.is_none() || noted_now == noted {
            return Ok(report);
        }
        noted = noted_now;
    }
    verify(path, &names, noted).map_err(|error| unopened(error.kind()))
}

fn read_head(path: &Path) -> Result<Option<Head>, AuditError> {
    match read_path(path) {
        Ok(noted) => Ok(noted),
        Err(Damage::Form) => Ok(None),
        Err(Damage::Io(kind)) => Err(AuditError::Unopened { path: path.to_owned(), kind }),
    }
}

fn verify(path: &Path, names: &Names, noted: Option<Head>) -> io::Result<Report> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut paths = names.asides(directory)?;
    paths.push(path.to_owned());
    let mut report = Report { files: Vec::new(), head: Head::START, unfinished: 0, breach: None };
    let mut at_noted = None;
    let mut before = None;
    let files = paths.len();
    for (at, path) in paths.into_iter().enumerate() {
        let file = match File::open(&path) {
            Ok(file) => file,
            // A crash between the two renames of a change of files: the head decides below.
            Err(error) if error.kind() == io::ErrorKind::NotFound && before.is_some() => continue,
            Err(error) => return Err(error),
        };
        let walked =
            walk(BufReader::with_capacity(1 << 16, file), before.map(|_| report.head), |_, head| {
                if noted.is_some_and(|noted| noted.sequence == head.sequence) {
                    at_noted = Some(head.hash);
                }
            })?;
        before.get_or_insert(walked.before);
        report.head = walked.head;
        report.unfinished = walked.unfinished;
        let records = walked.head.sequence - walked.before.sequence;
        // Only the file that is written to can have a record that is not finished.
        let cut = (at + 1 < files && walked.unfinished > 0).then_some((records + 1, Fault::Malformed));
        let (first, last) = (walked.before.sequence + 1, walked.head.sequence);
        report.files.push(VerifiedFile { path: path.clone(), first, last });
        if let Some((line, fault)) = walked.breach.or(cut) {
            report.breach = Some(Breach { path, line, fault });
            return Ok(report);
        }
    }
    let judged = match noted {
        Some(noted) => judge(&noted, &before.unwrap_or(Head::START), &report.head, at_noted),
        None => Err(Fault::HeadMissing),
    };
    report.breach = judged.err().map(|fault| Breach { path: path.to_owned(), line: 0, fault });
    Ok(report)
}

impl Report {
    /// Number of the first record that is there. Above 1: earlier files were moved elsewhere or removed.
    pub fn first(&self) -> u64 {
        self.files.first().map_or(1, |file| file.first)
    }

    /// True if nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.breach.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.head.sequence);
        match &self.breach {
            Some(breach) => write!(f, "{breach}")?,
            None => write!(f, "records {first} to {last} are whole; the newest hash is {}", self.head.hash)?,
        }
        if first > 1 {
            write!(f, "\nrecords 1 to {} are not here", first - 1)?;
        }
        if self.unfinished > 0 {
            write!(f, "\n{} bytes of an unfinished record at the end do not count", self.unfinished)?;
        }
        Ok(())
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.fault),
            line => write!(f, "{} line {line}: {}", self.path.display(), self.fault),
        }
    }
}
