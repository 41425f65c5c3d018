//! Durations (`30s`, `5m`, `12h`, `2d`) and rates (`60/min`) as people write them.
//!
//! One number and one unit: what a person reads is what was meant. Imports nothing of this crate
//! but the types it parses into.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::Rate;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A hundred years: far above every limit, far below an overflow.
const MAX_SECONDS: u64 = 36_500 * DAY;

/// A duration or rate that is not in the form above. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// See [`parse_duration`].
    #[error("expected a duration such as 30s, 5m, 12h or 2d")]
    Duration,
    /// See [`Rate`].
    #[error("expected a rate such as 5/s, 60/min, 10/h or 100/d")]
    Rate,
}

/// Reads a whole number followed by `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`UnitError::Duration`] for every other form.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(UnitError::Duration)?;
    let seconds_per_unit = match unit {
        "s" => 1,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err(UnitError::Duration),
    };
    let seconds = digits(number).and_then(|number| number.checked_mul(seconds_per_unit));
    seconds.filter(|&s| s <= MAX_SECONDS).map(Duration::from_secs).ok_or(UnitError::Duration)
}

/// Writes whole seconds the way [`parse_duration`] reads them, in the largest unit that is exact.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (size, unit) = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")]
        .into_iter()
        .find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size))
        .unwrap_or((1, "s"));
    format!("{}{unit}", seconds / size)
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = text.split_once('/').ok_or(UnitError::Rate)?;
        let per = match unit {
            "s" => 1,
            "min" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            _ => return Err(UnitError::Rate),
        };
        let count = digits(count).and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
        Ok(Self { count: count.ok_or(UnitError::Rate)?, per: Duration::from_secs(per) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{}/s", self.count),
            MINUTE => write!(f, "{}/min", self.count),
            HOUR => write!(f, "{}/h", self.count),
            DAY => write!(f, "{}/d", self.count),
            _ => write!(f, "{}/{}", self.count, duration_text(self.per)),
        }
    }
}

/// Digits alone: `u64::from_str` would take a plus sign as well.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_back_as_it_was_written() {
        for text in ["0s", "30s", "90s", "5m", "12h", "2d", "36500d"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        assert_eq!(duration_text(Duration::from_secs(7200)), "2h");
    }

    #[test]
    fn other_forms_of_durations_are_refused() {
        for text in
            ["", "s", "5", "5 m", "+5m", "-5m", "5M", "1h30m", "5ms", "36501d", "99999999999s", "5µ", "٥m"]
        {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_rate_reads_back_as_it_was_written() {
        for text in ["5/s", "60/min", "10/h", "100/d"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_forms_of_rates_are_refused() {
        for text in ["", "60", "60/", "/min", "0/min", "-1/h", "60/m", "60 / min", "60/min ", "4294967296/s"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}
