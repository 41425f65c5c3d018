//! What may be tried again, after how long, and what is said when it may not. Pure.
//!
//! Invariant: only a read is ever repeated. May import layer 0.

use std::time::Duration;

use super::{AnswerFault, UpstreamError};

/// Attempts at one request, the first included.
pub(super) const MAX_ATTEMPTS: u32 = 3;
/// Highest wait before the second attempt; doubles with each further one.
const FIRST_CEILING: Duration = Duration::from_millis(250);
/// Said to the caller when a 429 does not say how long.
pub(super) const GUESSED_THROTTLE: Duration = Duration::from_secs(5);
/// What a server may ask for at most: a day.
const MAX_THROTTLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How an attempt ended, if not with an answer to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection: nothing was sent.
    Unreached,
    /// Something may have been sent, and no answer came.
    Lost,
    /// The answer broke off.
    Truncated,
    /// 502, 503 or 504.
    Busy,
    /// Any other 5xx.
    Broken,
    /// 429: refused for now, for so long.
    Throttled(Duration),
    /// Nothing that another attempt would change.
    Final(UpstreamError),
}

/// Whether a call may change something upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Read,
    Write,
}

/// How long to wait before the next attempt, or `None` to give up.
///
/// `attempt` counts from 1; `left` is what remains of the deadline; `dice` is uniformly random.
pub(super) fn wait(
    effect: Effect,
    attempt: u32,
    fault: &Fault,
    left: Duration,
    dice: u32,
) -> Option<Duration> {
    if effect == Effect::Write || attempt >= MAX_ATTEMPTS {
        return None;
    }
    let wait = match fault {
        Fault::Unreached | Fault::Lost | Fault::Truncated | Fault::Busy => jitter(attempt, dice),
        Fault::Throttled(asked) => asked.saturating_add(jitter(attempt, dice)),
        Fault::Broken | Fault::Final(_) => return None,
    };
    (wait < left).then_some(wait)
}

/// What the caller learns when no further attempt is made.
pub(super) fn give_up(effect: Effect, fault: Fault) -> UpstreamError {
    match (fault, effect) {
        (Fault::Unreached, _) => UpstreamError::Unavailable,
        (Fault::Lost | Fault::Truncated | Fault::Busy | Fault::Broken, Effect::Write) => {
            UpstreamError::OutcomeUnknown
        }
        (Fault::Truncated, Effect::Read) => UpstreamError::Answer(AnswerFault::Malformed),
        (Fault::Lost | Fault::Busy | Fault::Broken, Effect::Read) => UpstreamError::Unavailable,
        (Fault::Throttled(retry_after), _) => UpstreamError::Throttled { retry_after },
        (Fault::Final(error), _) => error,
    }
}

/// How long a 429 asks for: by its body, else by its header, else a guess; at most a day.
pub(super) fn throttle(body_seconds: Option<u64>, header_seconds: Option<u64>) -> Duration {
    let asked = body_seconds.or(header_seconds).map_or(GUESSED_THROTTLE, Duration::from_secs);
    asked.min(MAX_THROTTLE)
}

/// Full jitter: anything from zero to a ceiling that doubles.
fn jitter(attempt: u32, dice: u32) -> Duration {
    let ceiling = FIRST_CEILING.saturating_mul(1 << (attempt - 1).min(4));
    ceiling.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn faults() -> impl Strategy<Value = Fault> {
        prop_oneof![
            Just(Fault::Unreached),
            Just(Fault::Lost),
            Just(Fault::Truncated),
            Just(Fault::Busy),
            Just(Fault::Broken),
            (0_u64..100).prop_map(|s| Fault::Throttled(Duration::from_secs(s))),
            Just(Fault::Final(UpstreamError::Invalid)),
        ]
    }

    proptest! {
        #[test]
        fn a_write_is_never_repeated(fault in faults(), attempt in 1_u32..5, dice in any::<u32>()) {
            prop_assert_eq!(wait(Effect::Write, attempt, &fault, LONG, dice), None);
        }

        #[test]
        fn a_read_is_repeated_at_most_twice_and_within_its_deadline(
            fault in faults(), attempt in 1_u32..9, left in 0_u64..40_000, dice in any::<u32>()
        ) {
            let left = Duration::from_millis(left);
            if let Some(wait) = wait(Effect::Read, attempt, &fault, left, dice) {
                prop_assert!(attempt < MAX_ATTEMPTS && wait < left);
            }
        }

        #[test]
        fn a_throttled_read_waits_at_least_as_long_as_it_was_told(asked in 0_u64..29, dice in any::<u32>()) {
            let asked = Duration::from_secs(asked);
            let wait = wait(Effect::Read, 1, &Fault::Throttled(asked), LONG, dice).unwrap();
            prop_assert!(wait >= asked && wait <= asked + FIRST_CEILING);
        }
    }

    #[test]
    fn the_jitter_spans_from_zero_to_a_doubling_ceiling() {
        for (attempt, ceiling) in [(1, 250), (2, 500)] {
            let at = |dice| wait(Effect::Read, attempt, &Fault::Busy, LONG, dice).unwrap();
            assert_eq!(at(0), Duration::ZERO);
            assert_eq!(at(u32::MAX), Duration::from_millis(ceiling));
        }
    }

    #[test]
    fn a_throttle_beyond_the_deadline_is_passed_on() {
        let fault = Fault::Throttled(Duration::from_secs(60));
        assert_eq!(wait(Effect::Read, 1, &fault, LONG, 0), None);
        let error = UpstreamError::Throttled { retry_after: Duration::from_secs(60) };
        assert_eq!(give_up(Effect::Read, fault), error);
    }

    #[test]
    fn a_server_error_other_than_a_gateways_is_not_repeated() {
        assert_eq!(wait(Effect::Read, 1, &Fault::Broken, LONG, 0), None);
    }

    #[test]
    fn a_write_that_may_have_arrived_has_an_unknown_outcome() {
        for fault in [Fault::Lost, Fault::Truncated, Fault::Busy, Fault::Broken] {
            assert_eq!(give_up(Effect::Write, fault), UpstreamError::OutcomeUnknown);
        }
        assert_eq!(give_up(Effect::Write, Fault::Unreached), UpstreamError::Unavailable);
    }

    #[test]
    fn the_body_of_a_throttle_goes_before_its_header() {
        assert_eq!(throttle(Some(7), Some(9)), Duration::from_secs(7));
        assert_eq!(throttle(None, Some(9)), Duration::from_secs(9));
        assert_eq!(throttle(None, None), GUESSED_THROTTLE);
        assert_eq!(throttle(Some(u64::MAX), None), MAX_THROTTLE);
    }
}
