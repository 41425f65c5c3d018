//! The file that records are appended to, under one lock: the order of the file is the order of the numbers.
//!
//! A record counts when it is written. The head file follows within [`LAG`]: of many records in a row, one pays for
//! it. What was written of a record that failed is cut off again, at the latest before the next; so a full disk refuses requests and nothing else, and
//! frees itself when there is room. Nothing here waits for the disk (`fsync`): a record survives the
//! death of the process, not a power cut.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};

use super::chain::{FRAME, Fault, Head, Walk, seal, seal_into, walk};
use super::event::Stamp;
use super::folder::Folder;
use super::group::{Groups, Place};
use super::head::{HeadFile, judge};
use super::{AuditError, Breach, Counts, Event};
use crate::clock::{BootInstant, Clock};

/// Records kept in memory for those who want to see the last ones.
const RECENT: usize = 1000;
/// Records that a follower may be behind before it misses some.
const BEHIND: usize = 1024;
/// Records of one write: far below the smallest size of a file.
const AT_ONCE: usize = 32;
/// How far the head file may be behind.
pub(super) const LAG: Duration = Duration::from_millis(10);

/// The audit trail of this daemon. Share it behind an `Arc`; any thread may record.
pub struct AuditFile {
    log: Mutex<Log>,
    groups: Groups,
    clock: Arc<dyn Clock>,
    counts: Counts,
    /// The head file has fallen behind.
    behind: Notify,
}

/// Now, on both clocks.
#[derive(Clone, Copy)]
struct Now {
    wall: Timestamp,
    boot: BootInstant,
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
        let log = Log::open(path, max_bytes, now(&*clock))?;
        let (groups, counts) = (Groups::default(), Counts::default());
        Ok(Self { log: Mutex::new(log), groups, clock, counts, behind: Notify::new() })
    }

    /// Writes one record. Blocks for the time of one `write(2)`; call it before the value leaves.
    ///
    /// # Errors
    /// [`AuditError::Unwritten`] or [`AuditError::Disturbed`]: nothing was recorded, so refuse.
    pub fn record(&self, event: &Event<'_>) -> Result<(), AuditError> {
        self.record_all(std::slice::from_ref(event))
    }

    /// Writes records that belong together, in order, in as few writes as the files allow.
    ///
    /// # Errors
    /// As [`record`](Self::record). Of a write that failed nothing is recorded; one before it may stand.
    pub fn record_all(&self, events: &[Event<'_>]) -> Result<(), AuditError> {
        let mut log = self.lock();
        let now = now(&*self.clock);
        let fields: Vec<String> = events.iter().map(|event| log.fields(event, now)).collect();
        let written = self.write(&mut log, &fields, now);
        drop(log);
        events.iter().for_each(|event| self.count(event, &written));
        written
    }

    /// As [`record`](Self::record), in one write with what others record at the same time. Dropped before it is done,
    /// it may have recorded or not.
    ///
    /// # Errors
    /// As [`record_all`](Self::record_all).
    pub async fn commit(&self, event: &Event<'_>) -> Result<(), AuditError> {
        let Place { group, leads, crowded } = self.groups.join(event, &*self.clock);
        if leads {
            let led = Led(self);
            if crowded {
                tokio::task::yield_now().await;
            }
            drop(led);
        }
        let written = group.outcome().await;
        self.count(event, &written);
        written
    }

    /// Writes what callers of [`commit`](Self::commit) are waiting for.
    pub fn flush(&self) {
        let mut log = self.lock();
        let Some((group, fields)) = self.groups.take() else { return };
        let now = now(&*self.clock);
        let written = self.write(&mut log, &fields, now);
        drop(log);
        self.groups.written(now.boot);
        group.tell(written);
    }

    fn write(&self, log: &mut Log, fields: &[String], now: Now) -> Result<(), AuditError> {
        let was_behind = log.behind;
        let written = fields.chunks(AT_ONCE).try_for_each(|fields| log.write(fields, now));
        log.healthy = written.is_ok();
        if log.behind && !was_behind {
            self.behind.notify_one();
        }
        written
    }

    fn count(&self, event: &Event<'_>, written: &Result<(), AuditError>) {
        match written {
            Ok(()) => self.counts.written(event),
            Err(_) => self.counts.unwritten(),
        }
    }

    /// How many there are of each kind since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Brings the head file up each time when it has fallen behind. Runs until dropped; at most one at a time.
    pub async fn keep_head(&self) {
        loop {
            self.behind.notified().await;
            self.clock.sleep_until(self.clock.now() + LAG).await;
            self.settle();
        }
    }

    /// Brings the head file up.
    pub fn settle(&self) {
        let mut log = self.lock();
        if log.behind && log.note().is_err() {
            log.healthy = false;
        }
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

impl Drop for AuditFile {
    fn drop(&mut self) {
        self.settle();
    }
}

/// A group that is to be written, also if its leader is dropped.
struct Led<'a>(&'a AuditFile);

impl Drop for Led<'_> {
    fn drop(&mut self) {
        self.0.flush();
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { wall: clock.wall(), boot: clock.now() }
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
    /// The head file names an older record.
    behind: bool,
    /// When a record last brought the head file up.
    settled_at: Option<BootInstant>,
    healthy: bool,
    stamp: Stamp,
    recent: VecDeque<Arc<str>>,
    followers: broadcast::Sender<Arc<str>>,
}

impl Log {
    fn open(path: &Path, max_bytes: u64, now: Now) -> Result<Self, AuditError> {
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
            behind: false,
            settled_at: None,
            healthy: true,
            stamp: Stamp::default(),
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
            let fields = log.fields(&Event::recovered(walk.unfinished), now);
            log.write(&[fields], now)?;
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
    fn begin(&mut self, noted: Option<Head>, now: Now) -> Result<(), AuditError> {
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
                let fields = self.fields(&Event::rotated(&name), now);
                self.append(&[fields], now)
            }
        }
    }

    fn write(&mut self, fields: &[String], now: Now) -> Result<(), AuditError> {
        let bytes: usize = fields.iter().map(|fields| fields.len() + FRAME).sum();
        if self.length > 0 && self.length + bytes as u64 > self.max_bytes {
            self.change_files(now)?;
        }
        self.append(fields, now)
    }

    /// All of them, or none.
    fn append(&mut self, fields: &[String], now: Now) -> Result<(), AuditError> {
        self.prepare()?;
        let (mut text, mut newest) = (String::new(), self.head);
        for fields in fields {
            newest = seal_into(&mut text, &newest, fields);
        }
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        debug_assert!(!was_dirty, "what does not count was cut off");
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            let _ = self.clean();
            return Err(self.unwritten(&error));
        }
        let settles = self.settled_at.is_none_or(|at| now.boot.since(at) >= LAG);
        if settles {
            self.settled_at = Some(now.boot);
            if let Err(error) = self.head_file.write(&newest) {
                let _ = self.clean();
                return Err(self.unwritten(&error));
            }
        }
        (self.dirty, self.behind) = (false, !settles);
        self.length += text.len() as u64;
        self.head = newest;
        text.lines().for_each(|line| self.show(line));
        Ok(())
    }

    /// Writes the head file. What cannot be is tried again before the next record.
    fn note(&mut self) -> Result<(), AuditError> {
        let written = self.head_file.write(&self.head);
        (self.behind, self.dirty) = (false, written.is_err());
        written.map_err(|error| self.unwritten(&error))
    }

    /// Sets the full file aside. The new one is complete before it takes the place of the old.
    fn change_files(&mut self, now: Now) -> Result<(), AuditError> {
        self.settled_at = None;
        self.prepare()?;
        let aside = self.folder.names().aside(self.first);
        let fields = self.fields(&Event::rotated(&aside), now);
        let (line, head) = seal(&self.head, &fields);
        let mut next = self.folder.next()?;
        let written = next.write_all(line.as_bytes()).map_err(|error| self.unwritten(&error));
        let changed = written.and_then(|()| self.folder.change_files(&aside));
        changed.inspect_err(|_| self.folder.discard_next())?;
        self.file = next;
        (self.first, self.length, self.dirty) = (head.sequence, line.len() as u64, true);
        self.head = head;
        self.show(line.trim_end());
        self.clean()
    }

    fn fields(&mut self, event: &Event<'_>, now: Now) -> String {
        event.to_json(&mut self.stamp, now.wall)
    }

    /// Shows a record that was written to the followers.
    fn show(&mut self, line: &str) {
        let line: Arc<str> = line.into();
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        if self.followers.receiver_count() > 0 {
            let _ = self.followers.send(Arc::clone(&line));
        }
        self.recent.push_back(line);
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
        (self.dirty, self.behind) = (cleaned.is_err(), false);
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

#[cfg(test)]
mod tests {
    use super::super::{NOBODY, Verb};
    use super::*;
    use crate::clock::manual::ManualClock;

    /// The record that the head file names.
    fn noted(folder: &Path) -> u64 {
        let text = std::fs::read_to_string(folder.join("audit.jsonl.head")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn the_head_file_is_behind_for_ten_milliseconds_and_no_longer() {
        let (clock, folder) = (ManualClock::new(), tempfile::TempDir::new().unwrap());
        let path = folder.path().join("audit.jsonl");
        let trail = AuditFile::open(&path, 1 << 20, Arc::new(clock.clone())).unwrap();
        let record = || trail.record(&Event::of(Verb::AdminLock, &NOBODY)).unwrap();
        record();
        assert_eq!(noted(folder.path()), 1);
        (0..8).for_each(|_| record());
        assert_eq!((noted(folder.path()), trail.head().0.sequence), (1, 9));
        let catches_up = async {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            assert_eq!(noted(folder.path()), 1, "before its time");
            clock.advance(LAG);
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = trail.keep_head() => {}
            () = catches_up => {}
        }
        assert_eq!(noted(folder.path()), 9);
        record();
        assert_eq!(noted(folder.path()), 10, "the first for a while brings it up itself");
        record();
        drop(trail);
        assert_eq!(noted(folder.path()), 11, "and so does the end");
    }
}
