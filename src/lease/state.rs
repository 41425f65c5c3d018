//! The terms of a lease: until when, and how far it can be moved. Pure.

use std::time::Duration;

use crate::clock::BootInstant;

/// Warned before its end by a tenth of its life, but at least this.
const LEAST_WARNING: Duration = Duration::from_secs(1);

/// Until when a lease holds. `expires_at` never passes `limit_at` (invariant I3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it was granted.
    pub granted_at: BootInstant,
    /// When it ends.
    pub expires_at: BootInstant,
    /// How far it can be renewed: the earliest of the role's maximum, the session's end and the
    /// value's own end.
    pub limit_at: BootInstant,
}

impl Terms {
    /// Begins now.
    pub fn new(now: BootInstant, ttl: Duration, limit_at: BootInstant) -> Self {
        Self { granted_at: now, expires_at: (now + ttl).min(limit_at), limit_at }
    }

    /// Whether it still holds; at its end it does not.
    pub fn hold(&self, now: BootInstant) -> bool {
        now < self.expires_at
    }

    /// Counts `ttl` from now; `longest` is the role's maximum of today. The caller has checked that the
    /// lease holds.
    pub fn renewed(&self, now: BootInstant, ttl: Duration, longest: Duration) -> Self {
        let limit_at = self.limit_at.min(self.granted_at + longest);
        Self { expires_at: (now + ttl).min(limit_at), limit_at, ..*self }
    }

    /// When its holder is warned, as seen at `now`; `None` if the life left is too short to warn.
    pub fn warn_at(&self, now: BootInstant) -> Option<BootInstant> {
        let left = self.expires_at.since(now);
        let warning = (left / 10).max(LEAST_WARNING);
        (left > warning).then(|| now + (left - warning))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_sequence_of_renewals_passes_the_limit(limit in 0u64..7200, ttls in proptest::collection::vec((0u64..600, 0u64..7200), 0..20)) {
            let mut now = BootInstant::from_nanos(5_000_000_000);
            let limit_at = now + Duration::from_secs(limit);
            let mut terms = Terms::new(now, Duration::from_secs(300), limit_at);
            for (wait, ttl) in ttls {
                now = now + Duration::from_secs(wait);
                terms = terms.renewed(now, Duration::from_secs(ttl), Duration::from_secs(7200));
                prop_assert!(terms.expires_at <= limit_at);
                prop_assert!(terms.warn_at(now).is_none_or(|at| at < terms.expires_at && at >= now));
            }
        }
    }

    #[test]
    fn a_lease_does_not_hold_at_its_end() {
        let now = BootInstant::from_nanos(0);
        let terms = Terms::new(now, Duration::from_secs(5), now + Duration::from_secs(60));
        assert!(terms.hold(now + Duration::from_nanos(4_999_999_999)));
        assert!(!terms.hold(now + Duration::from_secs(5)));
    }
}
