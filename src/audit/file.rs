//! The file that records are appended to, one `write(2)` each, under one lock: the order of the file
//! is the order of the numbers.
//!
//! A record counts when it and the head file are written. What was written of one that failed is cut
//! off again, at the latest before the next; so a full disk refuses requests and nothing else, and
//! frees itself when there is room. Nothing here waits for the disk (`fsync`): a record survives the
//! death of the process, not a power cut.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::chain::{Fault, Head, Walk, seal, walk};
use super::folder::Folder;
use super::head::{HeadFile, judge};
use super::{AuditError, Breach, Counts, Event};
use crate::clock::Clock;

/// Records kept in memory for those who want to see the last ones.
const RECENT: usize = 1000;
/// Records that a follower may be behind before it misses some.
const BEHIND: usize = 1024;
/// Records of one write: far below the smallest size of a file.
const AT_ONCE: usize = 16;
/// What the frame of the chain adds to a record's own fields, at most.
const FRAME: u64 = 256;

/// The audit trail of this daemon. Share it behind an `Arc`; any thread may record.
pub struct AuditFile {
    log: Mutex<Log>,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

/// The last records and those to come.
pub struct Follow {
    /// Oldest first, without line breaks.
    pub last: Vec<Arc<str>>,
    /// What follows, without a gap. A reader that falls 1,024 records behind is told how many it missed.
    pub next: broadcast::Receiver<Arc<str>>,
}

impl AuditFile {
    /// Opens the trail at `path`, or begins one, and checks the whole current file, its head and what
    /// a crash may have left. The directory must exist. At `max_bytes` the file is set aside.
    ///
    /// # Errors
    /// All but [`AuditError::Disturbed`]. The daemon must not start then.
    pub fn open(path: &Path, max_bytes: u64, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let log = Log::open(path, max_bytes, clock.wall())?;
        Ok(Self { log: Mutex::new(log), clock, counts: Counts::default() })
    }

    /// Writes one record. Blocks for the time of one `write(2)`; call it before the value leaves.
    ///
    /// # Errors
    /// [`AuditError::Unwritten`] or [`AuditError::Disturbed`]: nothing was recorded, so refuse.
    pub fn record(&self, event: &Event<'_>) -> Result<(), AuditError> {
        let mut log = self.lock();
        let written = log.record(event, self.clock.wall());
        log.healthy = written.is_ok();
        drop(log);
        self.count(std::slice::from_ref(event), &written);
        written
    }

    /// Writes records that belong together, in order, in as few writes as the files allow.
    ///
    /// # Errors
    /// As [`record`](Self::record). Of a write that failed nothing is recorded; one before it may stand.
    pub fn record_all(&self, events: &[Event<'_>]) -> Result<(), AuditError> {
        let mut log = self.lock();
        let now = self.clock.wall();
        let written = events.chunks(AT_ONCE).try_for_each(|events| log.record_all(events, now));
        log.healthy = written.is_ok();
        drop(log);
        self.count(events, &written);
        written
    }

    fn count(&self, events: &[Event<'_>], written: &Result<(), AuditError>) {
        match written {
            Ok(()) => events.iter().for_each(|event| self.counts.written(event)),
            Err(_) => self.counts.unwritten(),
        }
    }

    /// How many there are of each kind since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The newest record, and whether the last attempt to write one succeeded.
    pub fn head(&self) -> (Head, bool) {
        let log = self.lock();
        (log.head, log.healthy)
    }

    /// The last `count` records, at most 1,000 and at most those of the current file, and all that
    /// follow.
    pub fn follow(&self, count: usize) -> Follow {
        let log = self.lock();
        let skipped = log.recent.len().saturating_sub(count);
        Follow { last: log.recent.iter().skip(skipped).cloned().collect(), next: log.followers.subscribe() }
    }

    /// The last `count` records, as [`follow`](Self::follow) gives them.
    pub fn tail(&self, count: usize) -> Vec<Arc<str>> {
        self.follow(count).last
    }

    /// A panic under the lock leaves `dirty` set, which the next record mends: poison says no more.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Log {
    folder: Folder,
    path: PathBuf,
    file: File,
    head_file: HeadFile,
    /// The newest record.
    head: Head,
    /// Number of the first record of the current file.
    first: u64,
    /// Bytes of the records in the current file.
    length: u64,
    max_bytes: u64,
    /// More than `length` bytes may be in the file, or another head in the head file.
    dirty: bool,
    healthy: bool,
    recent: VecDeque<Arc<str>>,
    followers: broadcast::Sender<Arc<str>>,
}

impl Log {
    fn open(path: &Path, max_bytes: u64, now: Timestamp) -> Result<Self, AuditError> {
        let folder = Folder::open(path)?;
        let (head_file, noted) = HeadFile::open(&folder)?;
        let path = folder.log_path();
        let file = folder.log()?;
        let mut log = Self {
            path,
            file,
            head_file,
            head: Head::START,
            first: 1,
            length: 0,
            max_bytes,
            dirty: true,
            healthy: true,
            recent: VecDeque::new(),
            followers: broadcast::Sender::new(BEHIND),
            folder,
        };
        let walk = log.walk(noted)?;
        match walk.bytes {
            0 => log.begin(noted, now)?,
            _ => log.resume(&walk)?,
        }
        if walk.unfinished > 0 {
            log.record(&Event::recovered(walk.unfinished), now)?;
        }
        Ok(log)
    }

    /// Checks the records of the current file against each other and against the head file.
    fn walk(&self, noted: Option<Head>) -> Result<Walk, AuditError> {
        let mut at_noted = None;
        let walked = walk(BufReader::with_capacity(1 << 16, &self.file), None, |_, head| {
            if noted.is_some_and(|noted| noted.sequence == head.sequence) {
                at_noted = Some(head.hash);
            }
        });
        let walked = walked.map_err(|error| self.unopened(&error))?;
        if let Some((line, fault)) = walked.breach {
            return Err(self.broken(line, fault));
        }
        if walked.bytes + walked.unfinished > 0 {
            // Also what keeps a file that is no trail at all from being cut.
            let noted = noted.ok_or_else(|| self.broken(0, Fault::HeadMissing))?;
            judge(&noted, &walked.before, &walked.head, at_noted).map_err(|fault| self.broken(0, fault))?;
        }
        Ok(walked)
    }

    /// Goes on where the file ends.
    fn resume(&mut self, walk: &Walk) -> Result<(), AuditError> {
        (self.head, self.first, self.length) = (walk.head, walk.before.sequence + 1, walk.bytes);
        self.clean()?;
        self.recent = self.read_recent().map_err(|error| self.unopened(&error))?;
        Ok(())
    }

    /// Begins a file: the first of a trail, or the one that a crash kept from taking the place of a
    /// full one. Anything else is a trail that has lost its end.
    fn begin(&mut self, noted: Option<Head>, now: Timestamp) -> Result<(), AuditError> {
        let newest_aside = self.folder.asides()?.pop();
        match (noted.unwrap_or(Head::START), newest_aside) {
            (Head::START, None) => self.clean(),
            (Head::START, Some(_)) => Err(self.broken(0, Fault::HeadMissing)),
            (noted, None) => Err(self.broken(0, Fault::Truncated { last: 0, head: noted.sequence })),
            (noted, Some(aside)) => {
                let file = File::open(&aside).map_err(|error| self.unopened(&error))?;
                let walked =
                    walk(BufReader::new(file), None, |_, _| {}).map_err(|error| self.unopened(&error))?;
                if walked.head != noted || walked.breach.is_some() || walked.unfinished > 0 {
                    let last = walked.head.sequence;
                    return Err(self.broken(0, Fault::Truncated { last, head: noted.sequence }));
                }
                (self.head, self.first) = (noted, noted.sequence + 1);
                self.clean()?;
                let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.append(&self.fields(&Event::rotated(&name), now)?)
            }
        }
    }

    fn record(&mut self, event: &Event<'_>, now: Timestamp) -> Result<(), AuditError> {
        let fields = self.fields(event, now)?;
        if self.length > 0 && self.length + fields.len() as u64 + FRAME > self.max_bytes {
            self.change_files(now)?;
        }
        self.append(&fields)
    }

    fn record_all(&mut self, events: &[Event<'_>], now: Timestamp) -> Result<(), AuditError> {
        let fields = events.iter().map(|event| self.fields(event, now)).collect::<Result<Vec<_>, _>>()?;
        let bytes: u64 = fields.iter().map(|fields| fields.len() as u64 + FRAME).sum();
        if self.length > 0 && self.length + bytes > self.max_bytes {
            self.change_files(now)?;
        }
        self.append_all(&fields)
    }

    fn append(&mut self, fields: &str) -> Result<(), AuditError> {
        self.append_all(&[fields])
    }

    /// All of them, or none.
    fn append_all(&mut self, fields: &[impl AsRef<str>]) -> Result<(), AuditError> {
        self.prepare()?;
        let mut newest = self.head;
        let seal = |fields: &_| {
            let (line, head) = seal(&newest, AsRef::as_ref(fields));
            newest = head;
            (line, head)
        };
        let sealed: Vec<(String, Head)> = fields.iter().map(seal).collect();
        let bytes: String = sealed.iter().map(|(line, _)| line.as_str()).collect();
        self.dirty = true;
        let written = self.file.write_all(bytes.as_bytes()).and_then(|()| self.head_file.write(&newest));
        if let Err(error) = written {
            let _ = self.clean();
            return Err(self.unwritten(&error));
        }
        self.dirty = false;
        self.length += bytes.len() as u64;
        sealed.into_iter().for_each(|(line, head)| self.accept(&line, head));
        Ok(())
    }

    /// Sets the full file aside. The new one is complete before it takes the place of the old.
    fn change_files(&mut self, now: Timestamp) -> Result<(), AuditError> {
        self.prepare()?;
        let aside = self.folder.names().aside(self.first);
        let (line, head) = seal(&self.head, &self.fields(&Event::rotated(&aside), now)?);
        let mut next = self.folder.next()?;
        let written = next.write_all(line.as_bytes()).map_err(|error| self.unwritten(&error));
        let changed = written.and_then(|()| self.folder.change_files(&aside));
        changed.inspect_err(|_| self.folder.discard_next())?;
        self.file = next;
        (self.first, self.length, self.dirty) = (head.sequence, line.len() as u64, true);
        self.accept(&line, head);
        self.clean()
    }

    fn fields(&self, event: &Event<'_>, now: Timestamp) -> Result<String, AuditError> {
        event.to_json(now).map_err(|error| self.unwritten(&error.into()))
    }

    /// Makes a sealed and written record the newest and shows it to the followers.
    fn accept(&mut self, line: &str, head: Head) {
        self.head = head;
        let line: Arc<str> = line.trim_end().into();
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&line));
        // An error says that nobody follows.
        let _ = self.followers.send(line);
    }

    /// Makes sure that the file holds the records that count, and nothing else.
    fn prepare(&mut self) -> Result<(), AuditError> {
        match self.dirty {
            true => self.clean(),
            false if self.size()? == self.length => Ok(()),
            false => Err(AuditError::Disturbed { path: self.path.clone() }),
        }
    }

    /// Cuts off what does not count and notes the head.
    fn clean(&mut self) -> Result<(), AuditError> {
        if self.size()? < self.length {
            return Err(AuditError::Disturbed { path: self.path.clone() });
        }
        let cleaned = self.file.set_len(self.length).and_then(|()| self.head_file.write(&self.head));
        self.dirty = cleaned.is_err();
        cleaned.map_err(|error| self.unwritten(&error))
    }

    /// Bytes of the file, which must still have a name.
    fn size(&self) -> Result<u64, AuditError> {
        let status = self.file.metadata().map_err(|error| self.unwritten(&error))?;
        match status.nlink() {
            0 => Err(AuditError::Disturbed { path: self.path.clone() }),
            _ => Ok(status.len()),
        }
    }

    /// The last records of the current file, from its last bytes.
    fn read_recent(&self) -> io::Result<VecDeque<Arc<str>>> {
        const WINDOW: u64 = 1 << 20;
        let from = self.length.saturating_sub(WINDOW);
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        file.take(WINDOW).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let whole = if from == 0 { &text[..] } else { text.split_once('\n').map_or("", |(_, whole)| whole) };
        let mut recent: VecDeque<Arc<str>> = whole.lines().rev().take(RECENT).map(Arc::from).collect();
        recent.make_contiguous().reverse();
        Ok(recent)
    }

    fn unwritten(&self, error: &io::Error) -> AuditError {
        AuditError::Unwritten { path: self.path.clone(), kind: error.kind() }
    }

    fn unopened(&self, error: &io::Error) -> AuditError {
        AuditError::Unopened { path: self.path.clone(), kind: error.kind() }
    }

    fn broken(&self, line: u64, fault: Fault) -> AuditError {
        let breach = Breach { path: self.path.clone(), line, fault };
        AuditError::Broken { breach, trail: self.path.clone() }
    }
}
