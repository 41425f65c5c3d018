//! A set of deadlines that one task waits on: the next one is known, a new earlier one wakes it.
//!
//! Concurrency: any thread inserts and removes; one task calls [`Deadlines::due`]. The lock is never
//! held over `.await`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::{BootInstant, Clock};

/// Handed out at once, so that a storm of deadlines does not hold the lock for long.
const BATCH: usize = 1024;

/// Deadlines by time. Bounded by its owner, which removes what it no longer waits for.
pub struct Deadlines<K> {
    set: Mutex<BTreeSet<(BootInstant, K)>>,
    earlier: Notify,
}

impl<K: Ord + Copy> Deadlines<K> {
    /// An empty set.
    pub fn new() -> Self {
        Self { set: Mutex::new(BTreeSet::new()), earlier: Notify::new() }
    }

    /// Adds a deadline; wakes the waiting task if it is the earliest.
    pub fn insert(&self, at: BootInstant, key: K) {
        let mut set = self.lock();
        let earliest = set.first().is_none_or(|(first, _)| at < *first);
        set.insert((at, key));
        drop(set);
        if earliest {
            self.earlier.notify_one();
        }
    }

    /// Takes a deadline out again.
    pub fn remove(&self, at: BootInstant, key: K) {
        self.lock().remove(&(at, key));
    }

    /// Waits until deadlines have come and takes them out, at most 1,024 at a time, earliest first.
    /// Cancel safe: what was not returned stays.
    pub async fn due(&self, clock: &dyn Clock) -> Vec<K> {
        loop {
            let earlier = self.earlier.notified();
            let (due, next) = self.take_due(clock.now());
            if !due.is_empty() {
                return due;
            }
            match next {
                Some(next) => tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = earlier => {}
                },
                None => earlier.await,
            }
        }
    }

    fn take_due(&self, now: BootInstant) -> (Vec<K>, Option<BootInstant>) {
        let mut set = self.lock();
        let mut due = Vec::new();
        while let Some((at, _)) = set.first() {
            if *at > now || due.len() == BATCH {
                break;
            }
            due.extend(set.pop_first().map(|(_, key)| key));
        }
        (due, set.first().map(|(at, _)| *at))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(BootInstant, K)>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::manual::ManualClock;
    use super::*;

    #[tokio::test]
    async fn deadlines_come_in_order_and_only_when_due() {
        let clock = ManualClock::new();
        let deadlines = Deadlines::new();
        deadlines.insert(clock.now() + Duration::from_secs(2), 2);
        deadlines.insert(clock.now() + Duration::from_secs(1), 1);
        deadlines.insert(clock.now() + Duration::from_secs(9), 9);
        clock.advance(Duration::from_secs(2));
        assert_eq!(deadlines.due(&clock).await, [1, 2]);
    }

    #[tokio::test]
    async fn an_earlier_deadline_wakes_the_waiting_task() {
        let clock = ManualClock::new();
        let deadlines = Deadlines::new();
        deadlines.insert(clock.now() + Duration::from_secs(60), 60);
        let soon = async {
            tokio::task::yield_now().await;
            deadlines.insert(clock.now() + Duration::from_secs(1), 1);
            clock.advance(Duration::from_secs(1));
        };
        let (due, ()) = tokio::join!(deadlines.due(&clock), soon);
        assert_eq!(due, [1]);
    }

    #[tokio::test]
    async fn a_removed_deadline_does_not_come() {
        let clock = ManualClock::new();
        let deadlines = Deadlines::new();
        let at = clock.now() + Duration::from_secs(1);
        deadlines.insert(at, 1);
        deadlines.insert(at, 2);
        deadlines.remove(at, 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadlines.due(&clock).await, [2]);
    }
}
