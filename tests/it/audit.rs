//! The audit trail on a real disk: written, restarted, filled up, tampered with.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sys::resource::{Resource as Limit, getrlimit, setrlimit};
use proptest::prelude::*;
use ravi_broker::audit::{
    Actor, AuditError, AuditFile, Breach, Cause, Event, Fault, FileFault, NOBODY, Report, Verb, verify_path,
};
use ravi_broker::clock::SystemClock;
use tempfile::TempDir;

const LARGE: u64 = 1 << 30;

/// A directory of its own with a trail in it.
struct Trail {
    dir: TempDir,
    log: PathBuf,
    head: PathBuf,
}

impl Trail {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("audit.jsonl");
        Self { head: dir.path().join("audit.jsonl.head"), log, dir }
    }

    /// A trail of so many records that was closed.
    fn of(records: usize) -> Self {
        let trail = Self::new();
        record(&trail.open(), records);
        trail
    }

    fn open(&self) -> AuditFile {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_open(&self) -> Result<AuditFile, AuditError> {
        open(&self.log, LARGE)
    }

    fn refusal(&self) -> AuditError {
        self.try_open().err().expect("the trail is not opened")
    }

    fn verify(&self) -> Report {
        verify_path(&self.log).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap()
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(&self.log, bytes).unwrap();
    }

    /// Line and fault of the breach, as a start and as `audit verify` see it.
    fn breach(&self) -> (u64, Fault) {
        let Some(Breach { line, fault, .. }) = self.verify().breach else { panic!("verify found nothing") };
        match self.refusal() {
            AuditError::Broken { breach, .. } => assert_eq!((breach.line, breach.fault), (line, fault)),
            other => panic!("{other:?}"),
        }
        (line, fault)
    }

    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap();
        let record = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|line| record(line)["event"].as_str().unwrap().to_owned()).collect()
    }
}

fn open(path: &Path, max_bytes: u64) -> Result<AuditFile, AuditError> {
    AuditFile::open(path, max_bytes, Arc::new(SystemClock))
}

fn record(audit: &AuditFile, times: usize) {
    let actor = Actor { uid: Some(1000), ..Actor::default() };
    for _ in 0..times {
        audit.record(&Event::of(Verb::IdentityRead, &actor)).unwrap();
    }
}

#[test]
fn a_trail_goes_on_where_it_ended() {
    let trail = Trail::of(3);
    let audit = trail.open();
    let (head, healthy) = audit.head();
    assert_eq!((head.sequence, healthy), (3, true));
    record(&audit, 2);
    let report = trail.verify();
    assert!(report.is_whole(), "{report}");
    assert_eq!((report.first(), report.head), (1, audit.head().0));
    assert_eq!(report.head.sequence, 5);
}

#[test]
fn the_files_are_for_the_daemon_alone() {
    let trail = Trail::of(1);
    for path in [&trail.log, &trail.head] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_denied_request_is_a_record_with_its_rule() {
    let trail = Trail::new();
    let denied = Event::of(Verb::LeaseDenied, &NOBODY).denied(Cause::ScopeMissing);
    trail.open().record(&denied).unwrap();
    let text = String::from_utf8(trail.bytes()).unwrap();
    assert!(text.contains(r#""event":"lease.denied","outcome":"denied","cause":"scope_missing""#), "{text}");
}

#[test]
fn records_of_many_threads_keep_one_order() {
    let trail = Trail::new();
    let audit = trail.open();
    let mut follow = audit.follow(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| record(&audit, 100));
        }
    });
    assert_eq!(trail.verify().head.sequence, 800);
    let text = fs::read_to_string(&trail.log).unwrap();
    for line in text.lines() {
        assert_eq!(&*follow.next.try_recv().unwrap(), line);
    }
}

#[test]
fn a_follower_sees_the_last_records_and_then_every_new_one() {
    let trail = Trail::of(5);
    let audit = trail.open();
    record(&audit, 1);
    let mut follow = audit.follow(2);
    let sequence =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap();
    assert_eq!(follow.last.iter().map(|line| sequence(line)).collect::<Vec<_>>(), [5, 6]);
    record(&audit, 1);
    assert_eq!(sequence(&follow.next.try_recv().unwrap()), 7);
    assert!(follow.next.try_recv().is_err());
    assert_eq!(audit.tail(100).len(), 7);
}

#[test]
fn a_second_daemon_is_kept_out() {
    let trail = Trail::new();
    let first = trail.open();
    assert!(matches!(trail.refusal(), AuditError::InUse { .. }));
    record(&first, 1);
    drop(first);
    trail.open();
}

#[test]
fn a_full_file_is_set_aside_and_the_chain_goes_on() {
    let trail = Trail::new();
    let audit = open(&trail.log, 2048).unwrap();
    record(&audit, 40);
    assert!(fs::metadata(&trail.log).unwrap().len() <= 2048);
    let report = trail.verify();
    assert!(report.is_whole() && report.files.len() > 3, "{report:?}");
    assert_eq!(report.head, audit.head().0);
    assert!(trail.dir.path().join("audit.1.jsonl").exists());
    assert_eq!(trail.events()[0], "audit.rotated");
    drop(audit);
    record(&open(&trail.log, 2048).unwrap(), 40);
    assert!(trail.verify().is_whole());
}

#[test]
fn a_file_that_was_set_aside_is_never_replaced() {
    let trail = Trail::new();
    let audit = open(&trail.log, 1024).unwrap();
    let taken = trail.dir.path().join("audit.1.jsonl");
    fs::write(&taken, "precious").unwrap();
    let refused = (0..20).find_map(|_| audit.record(&Event::of(Verb::IdentityRead, &NOBODY)).err());
    assert!(matches!(refused, Some(AuditError::Unwritten { .. })), "{refused:?}");
    assert!(!audit.head().1);
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
    fs::remove_file(&taken).unwrap();
    record(&audit, 20);
    assert!(audit.head().1 && trail.verify().is_whole());
}

#[test]
fn a_missing_or_changed_file_that_was_set_aside_is_found() {
    let trail = Trail::new();
    record(&open(&trail.log, 1024).unwrap(), 20);
    let files = trail.verify().files;
    let middle = &files[1].path;
    let bytes = fs::read(middle).unwrap();
    let fault = |trail: &Trail| trail.verify().breach.map(|breach| breach.fault);

    fs::remove_file(middle).unwrap();
    assert!(matches!(fault(&trail), Some(Fault::Missing { .. })));
    fs::write(middle, [&bytes[..], b"x"].concat()).unwrap();
    assert_eq!(fault(&trail), Some(Fault::Malformed));
    fs::write(middle, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(fault(&trail), Some(Fault::Malformed));
    fs::write(middle, &bytes).unwrap();
    assert!(trail.verify().is_whole());

    fs::remove_file(&files[0].path).unwrap();
    let report = trail.verify();
    assert!(report.is_whole() && report.first() > 1, "moving the oldest away is allowed and told: {report}");
    assert!(report.to_string().contains("are not here"));
}

#[test]
fn a_crash_between_the_two_steps_of_setting_aside_is_mended() {
    let trail = Trail::of(3);
    fs::rename(&trail.log, trail.dir.path().join("audit.1.jsonl")).unwrap();
    assert!(trail.verify().is_whole());
    let audit = trail.open();
    record(&audit, 1);
    assert_eq!(trail.events(), ["audit.rotated", "identity.read"]);
    assert_eq!(trail.verify().head.sequence, 5);
    assert!(trail.verify().is_whole());
}

#[test]
fn a_crash_before_the_head_is_noted_is_mended() {
    let trail = Trail::of(3);
    let head = fs::read(&trail.head).unwrap();
    record(&trail.open(), 1);
    fs::write(&trail.head, head).unwrap();
    assert!(trail.verify().is_whole());
    assert_eq!(trail.open().head().0.sequence, 4);
}

#[test]
fn an_unfinished_record_is_cut_off_and_that_is_recorded() {
    let trail = Trail::of(2);
    let mut bytes = trail.bytes();
    bytes.extend_from_slice(b"{\"seq\":3,\"pre");
    trail.write(&bytes);
    let report = trail.verify();
    assert!(report.is_whole() && report.unfinished == 13, "{report:?}");
    record(&trail.open(), 1);
    assert_eq!(trail.events()[2..], ["audit.recovered", "identity.read"]);
    assert!(String::from_utf8(trail.bytes()).unwrap().contains("\"cut_bytes\":13"));
    assert_eq!(trail.verify().unfinished, 0);
}

#[test]
fn an_end_that_was_cut_off_anywhere_is_found() {
    let trail = Trail::of(3);
    let bytes = trail.bytes();
    for length in 0..bytes.len() {
        trail.write(&bytes[..length]);
        let (line, fault) = trail.breach();
        let last = bytes[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!((line, fault), (0, Fault::Truncated { last, head: 3 }), "cut at {length}");
    }
    trail.write(&bytes);
    trail.open();
}

#[test]
fn a_trail_without_its_files_is_not_begun_anew() {
    let trail = Trail::of(3);
    fs::remove_file(&trail.log).unwrap();
    assert!(
        matches!(trail.refusal(), AuditError::Broken { breach, .. } if breach.fault == Fault::Truncated { last: 0, head: 3 })
    );

    let trail = Trail::of(3);
    fs::remove_file(&trail.head).unwrap();
    assert_eq!(trail.breach(), (0, Fault::HeadMissing));
    assert_eq!(trail.breach(), (0, Fault::HeadMissing), "the refusal did not make a new head");

    let trail = Trail::new();
    record(&open(&trail.log, 1024).unwrap(), 20);
    [&trail.log, &trail.head].into_iter().for_each(|path| fs::remove_file(path).unwrap());
    assert!(
        matches!(trail.refusal(), AuditError::Broken { breach, .. } if breach.fault == Fault::HeadMissing)
    );
}

#[test]
fn a_trail_that_was_moved_away_makes_room_for_a_new_one() {
    let trail = Trail::of(3);
    trail.write(&trail.bytes()[..10]);
    let error = trail.refusal().to_string();
    assert!(error.contains("audit verify") && error.contains("to another place"), "{error}");
    [&trail.log, &trail.head].into_iter().for_each(|path| fs::remove_file(path).unwrap());
    record(&trail.open(), 1);
    assert!(trail.verify().is_whole());
}

#[test]
fn a_head_of_another_time_or_trail_is_found() {
    let trail = Trail::new();
    let audit = open(&trail.log, 1024).unwrap();
    record(&audit, 1);
    let old = fs::read(&trail.head).unwrap();
    record(&audit, 20);
    drop(audit);
    let new = fs::read(&trail.head).unwrap();
    // An older head than the current file: only the start minds, for verify sees all files.
    fs::write(&trail.head, old).unwrap();
    assert!(
        matches!(trail.refusal(), AuditError::Broken { breach, .. } if breach.fault == Fault::HeadMismatch)
    );
    for at in 0..new.len() {
        let mut head = new.clone();
        head[at] ^= 1;
        fs::write(&trail.head, head).unwrap();
        let fault = trail.verify().breach.map(|breach| breach.fault);
        assert!(fault.is_some() || at < 20, "byte {at}");
        assert!(trail.try_open().is_err(), "byte {at}: {fault:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_change_of_any_byte_is_found(at: usize, byte: u8) {
        let trail = Trail::of(4);
        let mut bytes = trail.bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        trail.write(&bytes);
        trail.breach();
    }

    #[test]
    fn any_other_choice_or_order_of_the_records_is_found(lines in proptest::collection::vec(0usize..5, 0..7)) {
        prop_assume!(lines != [0, 1, 2, 3, 4]);
        let trail = Trail::of(5);
        let text = String::from_utf8(trail.bytes()).unwrap();
        let all: Vec<&str> = text.lines().collect();
        let other: String = lines.iter().map(|&at| format!("{}\n", all[at])).collect();
        trail.write(other.as_bytes());
        trail.breach();
    }
}

#[test]
fn what_is_not_the_daemons_own_regular_file_is_left_alone() {
    let fault = |trail: &Trail| match trail.refusal() {
        AuditError::Untrusted { fault, .. } => fault,
        other => panic!("{other:?}"),
    };
    for which in ["audit.jsonl", "audit.jsonl.head"] {
        let trail = Trail::new();
        let (path, victim) = (trail.dir.path().join(which), trail.dir.path().join("victim"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&victim)
            .unwrap()
            .write_all(b"mine")
            .unwrap();

        symlink(&victim, &path).unwrap();
        assert_eq!(fault(&trail), FileFault::NotRegular, "{which}");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        assert_eq!(fault(&trail), FileFault::Linked, "{which}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(fault(&trail), FileFault::NotRegular, "{which}");
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert_eq!(fault(&trail), FileFault::NotRegular, "{which}");
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_permissions(Permissions::from_mode(0o640)).unwrap();
        assert_eq!(fault(&trail), FileFault::Mode, "{which}");
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }
}

#[test]
fn a_file_that_is_no_trail_is_neither_cut_nor_added_to() {
    for content in ["a key without a line break", "a key\n", "{}\n{}\n"] {
        let trail = Trail::new();
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&trail.log).unwrap();
        trail.write(content.as_bytes());
        assert!(matches!(trail.refusal(), AuditError::Broken { .. }), "{content:?}");
        assert_eq!(trail.bytes(), content.as_bytes());
    }
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let trail = Trail::new();
    fs::set_permissions(trail.dir.path(), Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(trail.refusal(), AuditError::Untrusted { fault: FileFault::Mode, .. }));
    assert_eq!(fs::read_dir(trail.dir.path()).unwrap().count(), 0);
    let absent = trail.dir.path().join("absent/audit.jsonl");
    assert!(matches!(open(&absent, LARGE), Err(AuditError::Unopened { .. })));
}

#[test]
fn a_file_that_is_removed_or_changed_under_the_daemon_stops_it() {
    type Change = fn(&Trail);
    let changes: [Change; 3] = [
        |trail| fs::remove_file(&trail.log).unwrap(),
        |trail| trail.write(b""),
        |trail| OpenOptions::new().append(true).open(&trail.log).unwrap().write_all(b"{}\n").unwrap(),
    ];
    for change in changes {
        let trail = Trail::new();
        let audit = trail.open();
        record(&audit, 2);
        change(&trail);
        let refused = audit.record(&Event::of(Verb::IdentityRead, &NOBODY));
        assert!(matches!(refused, Err(AuditError::Disturbed { .. })), "{refused:?}");
        assert_eq!((audit.head().0.sequence, audit.head().1), (2, false));
    }
}

/// The name under which the test below runs itself again, with a limit on file sizes.
const CHILD: &str = "RAVI_BROKER_TEST_DISK_FULL";

#[test]
fn a_full_disk_fails_closed_and_heals() {
    if let Some(log) = std::env::var_os(CHILD) {
        return fill_the_disk(Path::new(&log));
    }
    let trail = Trail::new();
    // A write over the limit then fails with EFBIG instead of ending the process.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact audit::a_full_disk_fails_closed_and_heals"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, &trail.log)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report = trail.verify();
    assert!(report.is_whole() && report.head.sequence == 5 && report.unfinished == 0, "{report:?}");
}

fn fill_the_disk(log: &Path) {
    let audit = open(log, LARGE).unwrap();
    record(&audit, 3);
    let full = fs::metadata(log).unwrap().len();
    let (_, hard) = getrlimit(Limit::RLIMIT_FSIZE).unwrap();
    let actor = Actor { uid: Some(1), ..Actor::default() };
    let event = Event::of(Verb::LeaseAcquired, &actor);
    // First not a byte fits, then a part: a short write.
    for room in [0, 1, 100] {
        setrlimit(Limit::RLIMIT_FSIZE, full + room, hard).unwrap();
        let refused = audit.record(&event);
        assert!(matches!(refused, Err(AuditError::Unwritten { .. })), "{refused:?}");
        assert_eq!((audit.head().0.sequence, audit.head().1), (3, false));
        assert_eq!(fs::metadata(log).unwrap().len(), full, "nothing of the record is left");
    }
    // Of records that are written together, none is left where the last does not fit.
    setrlimit(Limit::RLIMIT_FSIZE, full + 600, hard).unwrap();
    let together: Vec<_> = (0..5).map(|_| event.clone()).collect();
    assert!(matches!(audit.record_all(&together), Err(AuditError::Unwritten { .. })));
    assert_eq!((audit.head().0.sequence, fs::metadata(log).unwrap().len()), (3, full));
    setrlimit(Limit::RLIMIT_FSIZE, hard, hard).unwrap();
    record(&audit, 2);
    assert!(audit.head().1);
}

/// All that belongs together is in one write, or in few where a file is full; each file is whole.
#[test]
fn records_that_are_written_together_are_chained_like_others() {
    const SMALL: u64 = 4096;
    let trail = Trail::new();
    let audit = open(&trail.log, SMALL).unwrap();
    let actor = Actor { uid: Some(1000), ..Actor::default() };
    let events: Vec<_> = (0..100).map(|_| Event::of(Verb::LeaseRevoked, &actor)).collect();
    for count in [1, 0, 2, 100] {
        audit.record_all(&events[..count]).unwrap();
        record(&audit, 1);
        let report = trail.verify();
        assert!(report.is_whole() && report.unfinished == 0, "{count}: {report:?}");
        assert_eq!(report.head, audit.head().0);
    }
    let report = trail.verify();
    let changes = u64::try_from(report.files.len()).unwrap() - 1;
    assert!(changes > 2, "the batch of a hundred needs several files");
    assert_eq!(report.head.sequence, 103 + 4 + changes);
    assert_eq!(audit.tail(3).len(), 3);
}
