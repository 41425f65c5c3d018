//! What came in and what is to go wrong: counts of requests and the armed faults, both bounded.
//! Imports `fault`'s plain types.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::fault::Fault;

const MAX_FAULTS: usize = 64;
/// Beyond this many different paths, requests are counted under `*`.
const MAX_PATHS: usize = 4096;

/// Requests of one method and path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestCount {
    /// Upper case.
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// Since the start or the last reset.
    pub count: u64,
}

pub(super) struct Traffic {
    book: Mutex<Book>,
    /// Changes with every request.
    arrivals: watch::Sender<()>,
    /// Changes when held requests are let go.
    releases: watch::Sender<()>,
}

#[derive(Default)]
struct Book {
    counts: BTreeMap<(String, String), u64>,
    total: u64,
    faults: Vec<Fault>,
}

impl Default for Traffic {
    fn default() -> Self {
        let (arrivals, _) = watch::channel(());
        let (releases, _) = watch::channel(());
        Self { book: Mutex::default(), arrivals, releases }
    }
}

impl Traffic {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request and uses up one turn of the first fault that applies to it. The second value
    /// sees every release from now on.
    pub(super) fn arrive(&self, method: &str, path: &str) -> (Option<Fault>, watch::Receiver<()>) {
        let released = self.releases.subscribe();
        let fault = self.book().note(method, path);
        self.arrivals.send_replace(());
        (fault, released)
    }

    /// False: too many are armed.
    pub(super) fn arm(&self, fault: Fault) -> bool {
        let mut book = self.book();
        let fits = book.faults.len() < MAX_FAULTS;
        if fits {
            book.faults.push(fault);
        }
        fits
    }

    /// Those with turns left, oldest first.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.book().faults.clone()
    }

    pub(super) fn disarm(&self) {
        self.book().faults.clear();
    }

    pub(super) fn release(&self) {
        self.releases.send_replace(());
    }

    /// Forgets counts and faults, and lets held requests go.
    pub(super) fn reset(&self) {
        *self.book() = Book::default();
        self.release();
    }

    pub(super) fn total(&self) -> u64 {
        self.book().total
    }

    /// Requests of one method and exact path.
    pub(super) fn count(&self, method: &str, path: &str) -> u64 {
        self.book().counts.get(&(method.to_owned(), path.to_owned())).copied().unwrap_or(0)
    }

    pub(super) fn counts(&self) -> Vec<RequestCount> {
        let book = self.book();
        let row = |((method, path), count): (&(String, String), &u64)| RequestCount {
            method: method.clone(),
            path: path.clone(),
            count: *count,
        };
        book.counts.iter().map(row).collect()
    }

    /// Waits until that many have come.
    pub(super) async fn reached(&self, method: &str, path: &str, count: u64) {
        let mut arrivals = self.arrivals.subscribe();
        while self.count(method, path) < count {
            if arrivals.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Book {
    fn note(&mut self, method: &str, path: &str) -> Option<Fault> {
        self.total += 1;
        let key = (method.to_owned(), path.to_owned());
        let known = self.counts.len() < MAX_PATHS || self.counts.contains_key(&key);
        let key = if known { key } else { ("*".to_owned(), "*".to_owned()) };
        *self.counts.entry(key).or_default() += 1;
        let index = self.faults.iter().position(|fault| fault.applies(method, path))?;
        let fault = self.faults[index].clone();
        if let Some(times) = &mut self.faults[index].times {
            *times -= 1;
            if *times == 0 {
                self.faults.remove(index);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::fault::Answer;

    #[test]
    fn a_fault_serves_its_number_of_turns() {
        let traffic = Traffic::default();
        assert!(traffic.arm(Fault::new("/api/secrets/", Answer::Status(503)).times(2)));
        let hit = |path| traffic.arrive("GET", path).0.is_some();
        assert_eq!(
            [hit("/api/passwords/"), hit("/api/secrets/"), hit("/api/secrets/x/")],
            [false, true, true]
        );
        assert!(!hit("/api/secrets/"));
        assert!(traffic.faults().is_empty());
    }

    #[test]
    fn counts_and_faults_are_bounded() {
        let traffic = Traffic::default();
        for index in 0..MAX_PATHS + 10 {
            traffic.arrive("GET", &format!("/{index}"));
        }
        assert_eq!(traffic.counts().len(), MAX_PATHS + 1);
        assert_eq!(traffic.count("*", "*"), 10);
        for _ in 0..MAX_FAULTS {
            assert!(traffic.arm(Fault::new("/", Answer::Hang)));
        }
        assert!(!traffic.arm(Fault::new("/", Answer::Hang)));
    }
}
