//! What is tried again, when, and what is given up: pure.
//!
//! Imports nothing of this crate but the clock's durations.

use std::time::Duration;

/// After the first failure.
pub const FIRST: Duration = Duration::from_secs(5);
/// Between two attempts at most, whatever the callback asks for.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// A fifth of a pause is a matter of chance.
const JITTER: u32 = 5;

/// What an answer means by its status alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Taken.
    Taken,
    /// Try again.
    Again,
    /// It will not be taken.
    Never,
}

/// What a status means: a redirect is not followed, and will not become anything else by itself.
pub const fn meaning(status: u16) -> Meaning {
    match status {
        200..=299 => Meaning::Taken,
        408 | 425 | 429 | 500..=599 => Meaning::Again,
        _ => Meaning::Never,
    }
}

/// Until the next attempt after so many failures, at least one: 5 s, doubled each time up to an hour, less up to a
/// fifth by `chance`. What the callback asks for counts if it is longer.
pub fn pause(failures: u32, asked: Option<Duration>, chance: u8) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let whole = doubled.min(LONGEST);
    let pause = whole - (whole / JITTER).mul_f64(f64::from(chance) / 255.0);
    pause.max(asked.unwrap_or_default()).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_are_never_quite_the_same() {
        let mut before = Duration::ZERO;
        for failures in 1..=10 {
            let (least, most) = (pause(failures, None, 255), pause(failures, None, 0));
            assert!(before < least && least < most, "{failures}: {before:?} {least:?} {most:?}");
            before = most;
        }
        assert_eq!(pause(1, None, 0), FIRST);
        for failures in [11, 100, u32::MAX] {
            assert_eq!(pause(failures, None, 0), LONGEST);
        }
    }

    #[test]
    fn what_the_callback_asks_for_counts_up_to_an_hour() {
        assert_eq!(pause(1, Some(Duration::from_secs(90)), 0), Duration::from_secs(90));
        assert_eq!(pause(9, Some(Duration::from_secs(1)), 0), Duration::from_secs(1280));
        assert_eq!(pause(1, Some(Duration::from_secs(999_999)), 0), LONGEST);
    }

    #[test]
    fn what_the_callback_refuses_is_not_tried_again() {
        for status in [200, 202, 204, 299] {
            assert_eq!(meaning(status), Meaning::Taken, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert_eq!(meaning(status), Meaning::Again, "{status}");
        }
        for status in [301, 302, 307, 308, 304, 400, 401, 403, 404, 410, 413, 422, 600, 999] {
            assert_eq!(meaning(status), Meaning::Never, "{status}");
        }
    }
}
