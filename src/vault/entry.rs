//! Freshness of a cached answer. Pure.

use std::time::Duration;

use crate::clock::BootInstant;

/// Share of its life, from the end, in which an answer is renewed before it is missed.
const AHEAD: u32 = 5;

/// How far an answer is through its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and fetch its successor meanwhile.
    RefreshAhead,
    /// Do not serve it.
    Expired,
}

/// When an answer was fetched and until when it may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    fetched_at: BootInstant,
    expires_at: BootInstant,
}

impl Life {
    /// Begins now.
    pub(super) fn new(fetched_at: BootInstant, lifetime: Duration) -> Self {
        Self { fetched_at, expires_at: fetched_at + lifetime }
    }

    /// At `now`. The end itself is expired.
    pub(super) fn freshness(&self, now: BootInstant) -> Freshness {
        let lifetime = self.expires_at.since(self.fetched_at);
        if now >= self.expires_at {
            Freshness::Expired
        } else if self.expires_at.since(now) * AHEAD <= lifetime {
            Freshness::RefreshAhead
        } else {
            Freshness::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_fresh_then_refreshed_ahead_then_expired() {
        let start = BootInstant::from_nanos(1_000);
        let life = Life::new(start, Duration::from_secs(100));
        let at = |seconds| life.freshness(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Freshness::Fresh);
        assert_eq!(at(79), Freshness::Fresh);
        assert_eq!(at(80), Freshness::RefreshAhead);
        assert_eq!(at(99), Freshness::RefreshAhead);
        assert_eq!(at(100), Freshness::Expired);
    }

    #[test]
    fn an_answer_without_life_is_never_served() {
        let start = BootInstant::from_nanos(1_000);
        assert_eq!(Life::new(start, Duration::ZERO).freshness(start), Freshness::Expired);
    }
}
