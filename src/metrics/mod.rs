//! Counting: atomics that cost an addition, and pages of them, of which Prometheus reads the text.
//!
//! Invariants: counting takes no lock and, but for the first use of a label, no memory. A label is a word of a
//! closed list, or a name that was admitted to a [`Names`] of fixed size; every other one counts as `other`. No
//! value, name of a secret, handle, address or text of a caller can be a label. Imports nothing of this crate.

mod exposition;
mod names;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use exposition::{Exposition, Kind, Measured, Number, Sample, Series, Spread, bounds};
pub use names::{Family, Names, OTHER};

/// Goes up, and begins at 0 with the process. Any thread may count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// At 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets in microseconds: a lease from the cache takes tens of them, one from Ravi hundreds of
/// thousands, and a wait for a code or for the operator up to a minute.
const BOUNDS: [u64; 8] = [250, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

/// How long something took: how often within each bound, and the sum.
#[derive(Debug, Default)]
pub struct Latency {
    /// One for each bound, and one for what is above them all.
    buckets: [Counter; BOUNDS.len() + 1],
    micros: Counter,
}

impl Latency {
    /// It took so long.
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].one();
        self.micros.add(micros);
    }

    /// How often.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }
}

/// Something for each word of a closed list, found by the word's place in it. A word shows once it was used.
#[derive(Debug)]
pub struct Words<W, T> {
    used: [(OnceLock<W>, T); MOST_WORDS],
}

/// Words of a list, at most.
pub const MOST_WORDS: usize = 96;

impl<W: Copy, T: Default> Default for Words<W, T> {
    fn default() -> Self {
        Self { used: std::array::from_fn(|_| (OnceLock::new(), T::default())) }
    }
}

impl<W: Copy, T> Words<W, T> {
    /// What belongs to the word at this place of its list. `None` beyond the longest list there may be.
    pub fn at(&self, word: W, place: usize) -> Option<&T> {
        let (used, of_word) = self.used.get(place)?;
        used.get_or_init(|| word);
        Some(of_word)
    }

    /// The words that were used, in the order of their list.
    pub fn used(&self) -> impl Iterator<Item = (W, &T)> {
        self.used.iter().filter_map(|(used, of_word)| Some((*used.get()?, of_word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for micros in [0, 250, 251, 10_000_000, 10_000_001] {
            latency.took(Duration::from_micros(micros));
        }
        let buckets: Vec<u64> = latency.buckets.iter().map(Counter::value).collect();
        assert_eq!(buckets, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((latency.count(), latency.micros.value()), (5, 20_000_502));
    }

    #[test]
    fn a_word_shows_once_it_was_used_and_one_too_many_is_none() {
        let words: Words<&str, Counter> = Words::default();
        words.at("b", 1).unwrap().one();
        assert!(words.at("beyond", MOST_WORDS).is_none());
        let used: Vec<_> = words.used().map(|(word, counter)| (word, counter.value())).collect();
        assert_eq!(used, [("b", 1)]);
    }
}
