//! Group commit: records of callers that come at the same time share one `write(2)`.
//!
//! The first caller of a group leads it. If a write has just been made, others are likely to be about to record, too:
//! the leader lets every task go first that is ready to run, and then writes for all of them. Nobody else's thread is
//! needed, and a caller that is alone does not wait. A leader that is dropped meanwhile writes all the same. Imports
//! its neighbours.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::event::Stamp;
use super::{AuditError, Event};
use crate::clock::{BootInstant, Clock};

/// So soon after a write the next caller is not alone. Several times what a write takes, and less than a lone caller
/// needs from one call to its next.
const CROWDED: Duration = Duration::from_micros(80);

/// The group that is open, if any.
#[derive(Default)]
pub(super) struct Groups(Mutex<Open>);

#[derive(Default)]
struct Open {
    group: Option<(Arc<Group>, Vec<String>)>,
    stamp: Stamp,
    written_at: Option<BootInstant>,
}

/// What the callers of one group wait for.
#[derive(Default)]
pub(super) struct Group {
    outcome: OnceLock<Result<(), AuditError>>,
    written: Notify,
}

/// A place in a group.
pub(super) struct Place {
    pub(super) group: Arc<Group>,
    /// It is the first of its group.
    pub(super) leads: bool,
    /// Others are likely to come.
    pub(super) crowded: bool,
}

impl Groups {
    /// Adds a record to the open group.
    pub(super) fn join(&self, event: &Event<'_>, clock: &dyn Clock) -> Place {
        let (wall, boot) = (clock.wall(), clock.now());
        let mut open = self.open();
        let fields = event.to_json(&mut open.stamp, wall);
        let crowded = open.written_at.is_some_and(|at| boot.since(at) < CROWDED);
        let leads = open.group.is_none();
        let (group, records) = open.group.get_or_insert_default();
        records.push(fields);
        Place { group: Arc::clone(group), leads, crowded }
    }

    /// Closes the open group: its records are to be written now.
    pub(super) fn take(&self) -> Option<(Arc<Group>, Vec<String>)> {
        self.open().group.take()
    }

    /// Notes when a group was written.
    pub(super) fn written(&self, at: BootInstant) {
        self.open().written_at = Some(at);
    }

    /// A record is added whole or not at all: poison says nothing.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Tells all who wait. What was told first stands.
    pub(super) fn tell(&self, outcome: Result<(), AuditError>) {
        let _ = self.outcome.set(outcome);
        self.written.notify_waiters();
    }

    /// Waits for it to be written.
    pub(super) async fn outcome(&self) -> Result<(), AuditError> {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            // From here on no word is missed.
            written.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            written.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use futures_util::future::join_all;

    use super::super::{AuditFile, NOBODY, Verb};
    use super::*;
    use crate::clock::manual::ManualClock;

    struct Trail {
        file: AuditFile,
        clock: ManualClock,
        folder: tempfile::TempDir,
    }

    impl Trail {
        fn new() -> Self {
            let (clock, folder) = (ManualClock::new(), tempfile::TempDir::new().unwrap());
            let path = folder.path().join("audit.jsonl");
            let file = AuditFile::open(&path, 1 << 20, Arc::new(clock.clone())).unwrap();
            Self { file, clock, folder }
        }

        fn records(&self) -> usize {
            std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap().lines().count()
        }

        async fn commit(&self) -> Result<(), AuditError> {
            self.file.commit(&Event::of(Verb::AdminLock, &NOBODY)).await
        }
    }

    /// Polls it once.
    fn begin<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn a_caller_that_is_alone_does_not_wait() {
        let trail = Trail::new();
        for count in 1..4 {
            assert!(matches!(begin(&mut Box::pin(trail.commit())), Poll::Ready(Ok(()))), "{count}");
            assert_eq!(trail.records(), count);
            trail.clock.advance(CROWDED);
        }
    }

    #[tokio::test]
    async fn those_who_come_together_are_written_together_and_all_of_them_are_told() {
        let trail = Trail::new();
        trail.commit().await.unwrap();
        let (mut first, mut second) = (Box::pin(trail.commit()), Box::pin(trail.commit()));
        assert!(begin(&mut first).is_pending() && begin(&mut second).is_pending());
        assert_eq!(trail.records(), 1, "the first waits for others");
        first.await.unwrap();
        assert_eq!(trail.records(), 3, "and writes for them");
        assert!(matches!(begin(&mut second), Poll::Ready(Ok(()))));
        let told = join_all((0..100).map(|_| trail.commit())).await;
        assert!(told.iter().all(Result::is_ok));
        assert_eq!((trail.records(), trail.file.head().0.sequence), (103, 103));
        let report = super::super::verify_path(&trail.folder.path().join("audit.jsonl")).unwrap();
        assert!(report.breach.is_none());
    }

    #[tokio::test]
    async fn who_leads_and_goes_away_leaves_nobody_waiting() {
        let trail = Trail::new();
        trail.commit().await.unwrap();
        let (mut first, mut second) = (Box::pin(trail.commit()), Box::pin(trail.commit()));
        assert!(begin(&mut first).is_pending() && begin(&mut second).is_pending());
        drop(first);
        assert!(matches!(begin(&mut second), Poll::Ready(Ok(()))));
        assert_eq!(trail.records(), 3);
    }

    #[tokio::test]
    async fn where_nothing_can_be_written_everybody_is_refused() {
        let trail = Trail::new();
        trail.commit().await.unwrap();
        let (mut first, mut second) = (Box::pin(trail.commit()), Box::pin(trail.commit()));
        assert!(begin(&mut first).is_pending() && begin(&mut second).is_pending());
        std::fs::remove_file(trail.folder.path().join("audit.jsonl")).unwrap();
        for told in [first.await, second.await] {
            assert!(matches!(told, Err(AuditError::Disturbed { .. })));
        }
    }

    #[tokio::test]
    async fn who_records_without_waiting_is_not_held_up_by_a_group() {
        let trail = Trail::new();
        trail.commit().await.unwrap();
        let mut first = Box::pin(trail.commit());
        assert!(begin(&mut first).is_pending());
        trail.file.record(&Event::of(Verb::AdminUnlock, &NOBODY)).unwrap();
        assert_eq!(trail.records(), 2);
        trail.file.flush();
        assert_eq!(trail.records(), 3);
        first.await.unwrap();
        assert_eq!(trail.records(), 3, "once");
    }
}
