//! Calls that ended, as spans that wait for an export, and what became of exports. A queue of fixed size: when it is
//! full the newest is dropped and counted, and no call ever waits. A span names a method, a role and how it ended,
//! and nothing of what was asked for. Imports `metrics`.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metrics::{Counter, Exposition, Kind};

/// Spans that wait at most.
pub const MAX_SPANS: usize = 2048;
/// From so many on they do not wait for the time of the next export.
const MANY: usize = 512;

/// One call, from its head to the beginning of its answer.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace: the caller's, or one of its own.
    pub trace: [u8; 16],
    /// Its own.
    pub id: [u8; 8],
    /// The caller's step and the flags of its trace, if it named one.
    pub parent: Option<([u8; 8], u8)>,
    /// As metrics label it: `LeaseService/AcquireLease`, or `other`.
    pub method: &'static str,
    /// The role of the session that made it, as metrics label it.
    pub role: Option<Box<str>>,
    /// The code of gRPC.
    pub status: i32,
    /// The reason that the caller was given, a word of a closed list.
    pub error: Option<&'static str>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
}

/// Spans that wait. Any thread adds; one task takes.
#[derive(Debug)]
pub struct Spans {
    waiting: Mutex<VecDeque<Span>>,
    many: Notify,
    dropped: Counter,
    keys: [RandomState; 3],
    ids: AtomicU64,
}

impl Default for Spans {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(VecDeque::with_capacity(MAX_SPANS)),
            many: Notify::new(),
            dropped: Counter::new(),
            keys: std::array::from_fn(|_| RandomState::new()),
            ids: AtomicU64::new(0),
        }
    }
}

impl Spans {
    /// An id for a trace, and one for a span in it; never zero, which means none.
    pub fn ids(&self) -> ([u8; 16], [u8; 8]) {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let [high, low, id] = self.keys.each_ref().map(|key| key.hash_one(number).max(1));
        ((u128::from(high) << 64 | u128::from(low)).to_be_bytes(), id.to_be_bytes())
    }

    /// Adds one, or drops it if too many wait.
    pub fn add(&self, span: Span) {
        let mut waiting = self.lock();
        if waiting.len() == MAX_SPANS {
            self.dropped.one();
            return;
        }
        waiting.push_back(span);
        if waiting.len() == MANY {
            self.many.notify_one();
        }
    }

    /// Takes the oldest, so many at most.
    pub fn take(&self, most: usize) -> Vec<Span> {
        let mut waiting = self.lock();
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }

    /// Waits until many wait.
    pub async fn many(&self) {
        self.many.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Numbers.
    Metrics,
    /// Spans.
    Traces,
}

/// How an export ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// The collector took all of it.
    Accepted,
    /// It took a part.
    Partial,
    /// It took nothing, or did not answer in time.
    Failed,
}

const SIGNALS: [(Signal, &str); 2] = [(Signal::Metrics, "metrics"), (Signal::Traces, "traces")];
const ENDS: [(Exported, &str); 3] =
    [(Exported::Accepted, "accepted"), (Exported::Partial, "partial"), (Exported::Failed, "failed")];

/// How exports ended. One for the daemon, where it exports.
#[derive(Debug, Default)]
pub struct Exports {
    ends: [[Counter; ENDS.len()]; SIGNALS.len()],
    given_up: Counter,
}

impl Exports {
    /// One more.
    pub fn ended(&self, signal: Signal, end: Exported) {
        self.ends[signal as usize][end as usize].one();
    }

    /// Spans that no collector took.
    pub fn gave_up(&self, spans: usize) {
        self.given_up.add(u64::try_from(spans).unwrap_or(u64::MAX));
    }

    /// Writes them down, with what was dropped of the spans.
    pub fn write(&self, spans: Option<&Spans>, page: &mut Exposition) {
        let name = "ravi_broker_otlp_exports_total";
        page.family(name, Kind::Counter, "Exports to the OpenTelemetry collector by signal and outcome.");
        for (signal, signal_name) in SIGNALS {
            for (end, end_name) in ENDS {
                let labels = [("signal", signal_name), ("outcome", end_name)];
                page.sample(name, &labels, self.ends[signal as usize][end as usize].value());
            }
        }
        let Some(spans) = spans else { return };
        let name = "ravi_broker_otlp_spans_dropped_total";
        page.family(
            name,
            Kind::Counter,
            "Spans that were dropped: too many waited, or no collector took them.",
        );
        page.sample(name, &[("cause", "queue_full")], spans.dropped.value());
        page.sample(name, &[("cause", "not_taken")], self.given_up.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64) -> Span {
        let (trace, id) = ([1; 16], [1; 8]);
        let (parent, role, error) = (None, None, None);
        Span { trace, id, parent, method: "other", role, status: 0, error, start, end: start }
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_counts_them() {
        let spans = Spans::default();
        (0..MAX_SPANS as u64 + 3).for_each(|start| spans.add(span(start)));
        let mut page = Exposition::default();
        Exports::default().write(Some(&spans), &mut page);
        let text = page.into_text();
        assert!(text.contains("ravi_broker_otlp_spans_dropped_total{cause=\"queue_full\"} 3\n"), "{text}");
        let first: Vec<u64> = spans.take(2).iter().map(|span| span.start).collect();
        assert_eq!(first, [0, 1]);
        assert_eq!(spans.take(usize::MAX).len(), MAX_SPANS - 2);
        assert!(spans.take(1).is_empty());
    }

    #[test]
    fn ids_differ_and_are_never_zero() {
        let spans = Spans::default();
        let ids: Vec<_> = (0..1000).map(|_| spans.ids()).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        assert!(ids.iter().all(|(trace, id)| *trace != [0; 16] && *id != [0; 8]));
    }
}
