//! How much may be sent and uploaded (docs/ravi-api.md §5). Whether Ravi's day is that of the calendar is not
//! documented; here days and hours begin where those of UTC do. Imports `reply`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::reply::Refusal;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// What was used up. One entry an inbox or identity, of which there are few.
#[derive(Default)]
pub(super) struct Budgets {
    mails: BTreeMap<i64, Window>,
    texts: BTreeMap<i64, Window>,
    uploads: Window,
}

/// Uses within the hour or day of that number, counted since the epoch.
#[derive(Default)]
struct Window {
    number: i64,
    used: u32,
}

impl Budgets {
    /// Uses up one mail of an inbox.
    pub(super) fn mail(&mut self, inbox: i64, limit: Option<u32>, now: Timestamp) -> Result<(), Refusal> {
        self.mails.entry(inbox).or_default().spend(limit, DAY, now)
    }

    /// Uses up one SMS of an identity.
    pub(super) fn text(&mut self, identity: i64, limit: Option<u32>, now: Timestamp) -> Result<(), Refusal> {
        self.texts.entry(identity).or_default().spend(limit, DAY, now)
    }

    /// Uses up one upload of the account.
    pub(super) fn upload(&mut self, limit: Option<u32>, now: Timestamp) -> Result<(), Refusal> {
        self.uploads.spend(limit, HOUR, now)
    }
}

impl Window {
    fn spend(&mut self, limit: Option<u32>, seconds: i64, now: Timestamp) -> Result<(), Refusal> {
        let number = now.as_second().div_euclid(seconds);
        if number != self.number {
            *self = Self { number, used: 0 };
        }
        if limit.is_some_and(|limit| self.used >= limit) {
            let rest = seconds - now.as_second().rem_euclid(seconds);
            return Err(Refusal::throttled(rest.unsigned_abs()));
        }
        self.used = self.used.saturating_add(1);
        Ok(())
    }
}
