//! How much an identity may send in a day: counted before each send, in the store, so that neither a restart nor
//! another session begins it anew.
//!
//! A send takes one from the budget before it is made, and gives it back only if it surely did not take effect. Where
//! Ravi itself says that nothing more goes out for more than an hour, the budget is closed until then. Days are those
//! of UTC, by the wall clock. Imports `inbox::store`, `clock` and `types`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::{OptionalExtension, Transaction, params};

use super::store::{Store, StoreError};
use crate::clock::Clock;
use crate::config::InboxConfig;
use crate::types::{Channel, IdentityUuid};

/// A wait that Ravi asks for and that is longer closes the budget.
const CLOSES: Duration = Duration::from_secs(3600);

/// The budgets of all identities. Concurrency: any thread; each change is one transaction of the store.
pub struct Budgets {
    store: Store,
    clock: Arc<dyn Clock>,
    email_per_day: u32,
    sms_per_day: u32,
}

/// What is left of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Sends in a day.
    pub limit: u32,
    /// Of these, used.
    pub used: u32,
    /// When it begins anew.
    pub resets_at: Timestamp,
}

/// One send that was counted.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    identity: IdentityUuid,
    channel: Channel,
    day: Date,
    /// With it.
    pub standing: Standing,
}

/// Why a send is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeError {
    /// The day is used up.
    Spent {
        /// Until it begins anew.
        retry_after: Duration,
    },
    /// It could not be written down, so that it must not be made.
    Store(StoreError),
}

/// A row of the table `sent`.
struct Row {
    day: String,
    used: u32,
    closed_until: i64,
}

impl Budgets {
    /// Bounds as configured.
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: InboxConfig) -> Self {
        let InboxConfig { email_per_day, sms_per_day, .. } = config;
        Self { store, clock, email_per_day, sms_per_day }
    }

    /// The name of a channel's budget.
    pub const fn name(channel: Channel) -> &'static str {
        match channel {
            Channel::Email => "inbox.email_per_day",
            Channel::Sms => "inbox.sms_per_day",
        }
    }

    /// Counts one send.
    pub async fn take(&self, identity: IdentityUuid, channel: Channel) -> Result<Taken, TakeError> {
        let (now, limit) = (self.clock.wall(), self.limit(channel));
        let counted = self.store.change(move |tx| {
            let standing = standing(&read(tx, identity, channel)?, now, limit);
            if standing.used >= limit {
                return Ok(Err(standing));
            }
            tx.prepare_cached(
                "INSERT INTO sent (identity, channel, day, used) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (identity, channel) DO UPDATE SET day = ?3, used = ?4",
            )?
            .execute(params![
                identity.to_string(),
                channel.name(),
                day_of(now).to_string(),
                standing.used + 1
            ])?;
            Ok(Ok(Standing { used: standing.used + 1, ..standing }))
        });
        match counted.await.map_err(TakeError::Store)? {
            Ok(standing) => Ok(Taken { identity, channel, day: day_of(now), standing }),
            Err(Standing { resets_at, .. }) => {
                let left = Duration::try_from(resets_at.duration_since(now)).unwrap_or_default();
                Err(TakeError::Spent { retry_after: left.max(Duration::from_secs(1)) })
            }
        }
    }

    /// Gives a send back that surely did not take effect. One of a day that is over is forgotten already.
    pub async fn give_back(&self, taken: Taken) -> Result<(), StoreError> {
        let Taken { identity, channel, day, .. } = taken;
        self.store
            .change(move |tx| {
                tx.prepare_cached(
                    "UPDATE sent SET used = used - 1
                     WHERE identity = ?1 AND channel = ?2 AND day = ?3 AND used > 0",
                )?
                .execute(params![identity.to_string(), channel.name(), day.to_string()])
                .map(drop)
            })
            .await
    }

    /// Ravi asked for a wait. One of more than an hour closes the budget until it is over.
    pub async fn throttled(&self, taken: Taken, retry_after: Duration) -> Result<(), StoreError> {
        if retry_after <= CLOSES {
            return Ok(());
        }
        let until = self.clock.wall().checked_add(retry_after).unwrap_or(Timestamp::MAX).as_second();
        let Taken { identity, channel, .. } = taken;
        self.store
            .change(move |tx| {
                tx.prepare_cached(
                    "UPDATE sent SET closed_until = max(closed_until, ?3) WHERE identity = ?1 AND channel = ?2",
                )?
                .execute(params![identity.to_string(), channel.name(), until])
                .map(drop)
            })
            .await
    }

    /// What is left now.
    pub async fn standing(&self, identity: IdentityUuid, channel: Channel) -> Result<Standing, StoreError> {
        let (now, limit) = (self.clock.wall(), self.limit(channel));
        self.store.change(move |tx| Ok(standing(&read(tx, identity, channel)?, now, limit))).await
    }

    fn limit(&self, channel: Channel) -> u32 {
        match channel {
            Channel::Email => self.email_per_day,
            Channel::Sms => self.sms_per_day,
        }
    }
}

fn read(tx: &Transaction<'_>, identity: IdentityUuid, channel: Channel) -> rusqlite::Result<Option<Row>> {
    tx.prepare_cached("SELECT day, used, closed_until FROM sent WHERE identity = ?1 AND channel = ?2")?
        .query_row(params![identity.to_string(), channel.name()], |row| {
            Ok(Row { day: row.get(0)?, used: row.get(1)?, closed_until: row.get(2)? })
        })
        .optional()
}

fn standing(row: &Option<Row>, now: Timestamp, limit: u32) -> Standing {
    let today = day_of(now);
    let used = row.as_ref().filter(|row| row.day == today.to_string()).map_or(0, |row| row.used);
    let closed = row.as_ref().and_then(|row| Timestamp::from_second(row.closed_until).ok());
    match closed.filter(|until| *until > now) {
        Some(until) => Standing { limit, used: limit, resets_at: until },
        None => Standing { limit, used, resets_at: end_of(today) },
    }
}

fn day_of(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

fn end_of(day: Date) -> Timestamp {
    let next = day.tomorrow().and_then(|next| next.to_zoned(TimeZone::UTC));
    next.map_or(Timestamp::MAX, |next| next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;

    const IDENTITY: IdentityUuid = IdentityUuid(uuid::Uuid::nil());
    const DAY: Duration = Duration::from_secs(86_400);

    fn config(email_per_day: u32) -> InboxConfig {
        let second = Duration::from_secs(2);
        InboxConfig { poll: second, idle_poll: second, events: false, email_per_day, sms_per_day: 1 }
    }

    fn budgets(path: &std::path::Path, clock: &ManualClock) -> Budgets {
        let store = Store::open(&path.join("inbox.db")).unwrap_or_else(|error| panic!("{error}"));
        Budgets::new(store, Arc::new(clock.clone()), config(2))
    }

    #[tokio::test]
    async fn a_day_has_so_many_sends_over_a_restart_and_the_next_begins_anew() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let first = budgets(directory.path(), &clock);
        assert_eq!(first.take(IDENTITY, Channel::Email).await.unwrap().standing.used, 1);
        assert_eq!(first.take(IDENTITY, Channel::Sms).await.unwrap().standing.used, 1);
        drop(first);
        let again = budgets(directory.path(), &clock);
        let second = again.take(IDENTITY, Channel::Email).await.unwrap();
        let midnight = Timestamp::UNIX_EPOCH + DAY;
        assert_eq!(second.standing, Standing { limit: 2, used: 2, resets_at: midnight });
        let spent = TakeError::Spent { retry_after: Duration::from_secs(23 * 3600) };
        assert_eq!(again.take(IDENTITY, Channel::Email).await.unwrap_err(), spent);
        clock.advance(Duration::from_secs(23 * 3600));
        assert_eq!(again.take(IDENTITY, Channel::Email).await.unwrap().standing.used, 1);
        // Of yesterday: nothing of today is given back.
        again.give_back(second).await.unwrap();
        assert_eq!(again.standing(IDENTITY, Channel::Email).await.unwrap().used, 1);
    }

    #[tokio::test]
    async fn what_did_not_go_out_is_given_back() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let budgets = budgets(directory.path(), &clock);
        for _ in 0..5 {
            let taken = budgets.take(IDENTITY, Channel::Email).await.unwrap();
            budgets.give_back(taken).await.unwrap();
        }
        assert_eq!(budgets.standing(IDENTITY, Channel::Email).await.unwrap().used, 0);
    }

    #[tokio::test]
    async fn a_long_wait_that_ravi_asks_for_closes_the_budget_until_it_is_over() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let budgets = budgets(directory.path(), &clock);
        let taken = budgets.take(IDENTITY, Channel::Email).await.unwrap();
        budgets.give_back(taken).await.unwrap();
        budgets.throttled(taken, CLOSES).await.unwrap();
        assert_eq!(budgets.standing(IDENTITY, Channel::Email).await.unwrap().used, 0);
        budgets.throttled(taken, 2 * CLOSES).await.unwrap();
        let spent = TakeError::Spent { retry_after: 2 * CLOSES };
        assert_eq!(budgets.take(IDENTITY, Channel::Email).await.unwrap_err(), spent);
        clock.advance(2 * CLOSES);
        assert_eq!(budgets.take(IDENTITY, Channel::Email).await.unwrap().standing.used, 1);
    }
}
