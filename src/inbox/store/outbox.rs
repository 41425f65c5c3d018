//! What is still to be told to callbacks, what was told, and what could not be.
//!
//! A row names a message and never holds it. The rows of one target are a queue: its oldest pending one is the only
//! one that may be tried. A row that is settled stays for a while, so that a message that is seen again is not told
//! anew. All times are milliseconds since 1970, by the wall clock. May import `types`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params};

use crate::types::{DispatchId, IdentityUuid, MessageRef};

/// Pending rows. Beyond that nothing is taken in.
pub const MAX_PENDING: i64 = 10_000;
/// Delivered and dropped rows that are remembered, the newest.
pub const MAX_SETTLED: i64 = 20_000;
/// Dead rows that are kept, the newest.
pub const MAX_DEAD: i64 = 10_000;
/// How long any settled row is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 86_400);

/// What has become of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be tried.
    Pending,
    /// The callback took it.
    Delivered,
    /// Nobody is to be told: a rule or the operator decided so.
    Dropped,
    /// Given up, until the operator has it tried again.
    Dead,
}

impl State {
    const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dropped, Self::Dead];

    /// `pending`, `delivered`, `dropped` or `dead`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for State {
    type Err = rusqlite::Error;

    fn from_str(text: &str) -> rusqlite::Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(rusqlite::Error::InvalidQuery)
    }
}

/// A delivery to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// The same in every attempt.
    pub id: DispatchId,
    /// Name of the rule.
    pub rule: String,
    /// Where it goes.
    pub target: String,
    /// Whose message.
    pub identity: IdentityUuid,
    /// Which.
    pub message: MessageRef,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the queue.
    pub sequence: i64,
    /// What it is.
    pub new: New,
    /// What has become of it.
    pub state: State,
    /// Attempts that count.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at: i64,
    /// When it may be tried next; of a settled one, when it was settled.
    pub next_at: i64,
    /// Why the last attempt failed; a closed word.
    pub fault: String,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To be tried.
    pub pending: u32,
    /// Given up.
    pub dead: u32,
    /// When the oldest pending one was queued.
    pub oldest_pending: Option<i64>,
}

/// Nothing is taken in: too much is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Queues all of them, but for those that were queued before, or none. How many were new.
pub fn add(tx: &Transaction<'_>, news: &[New], now: i64) -> rusqlite::Result<Result<usize, Full>> {
    let mut known = tx.prepare_cached(
        "SELECT 1 FROM outbox WHERE rule = ? AND identity = ? AND channel = ? AND message = ?",
    )?;
    let mut fresh = Vec::new();
    for new in news {
        let (identity, channel) = (new.identity.to_string(), new.message.channel.name());
        if !known.exists(params![new.rule, identity, channel, new.message.id])? {
            fresh.push(new);
        }
    }
    let room = MAX_PENDING - number(tx, State::Pending)?;
    if i64::try_from(fresh.len()).unwrap_or(i64::MAX) > room {
        return Ok(Err(Full));
    }
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO outbox (id, rule, target, identity, channel, message, state, queued_at, next_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'pending', ?7, ?7)",
    )?;
    let mut added = 0;
    for New { id, rule, target, identity, message } in fresh {
        let (id, identity) = (id.to_string(), identity.to_string());
        added +=
            insert.execute(params![id, rule, target, identity, message.channel.name(), message.id, now])?;
    }
    Ok(Ok(added))
}

/// The oldest pending one of each target, due or not.
pub fn heads<'a>(
    tx: &Transaction<'_>,
    targets: impl IntoIterator<Item = &'a str>,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut head = tx.prepare_cached(
        "SELECT * FROM outbox WHERE state = 'pending' AND target = ? ORDER BY sequence LIMIT 1",
    )?;
    let mut heads = Vec::new();
    for target in targets {
        heads.extend(head.query_row([target], read).optional()?);
    }
    Ok(heads)
}

/// Notes what came of an attempt, unless the operator has settled it meanwhile. False then.
pub fn settle(tx: &Transaction<'_>, after: &Delivery) -> rusqlite::Result<bool> {
    let mut update = tx.prepare_cached(
        "UPDATE outbox SET state = ?, attempts = ?, next_at = ?, fault = ? WHERE sequence = ? AND state = 'pending'",
    )?;
    let Delivery { state, attempts, next_at, fault, sequence, .. } = after;
    Ok(update.execute(params![state.name(), attempts, next_at, fault, sequence])? == 1)
}

/// Sends what is pending where its rule points to now. What no rule is for any more is dead.
pub fn retarget<'a>(
    tx: &Transaction<'_>,
    rules: impl IntoIterator<Item = (&'a str, &'a str)>,
    fault: &str,
    now: i64,
) -> rusqlite::Result<()> {
    let mut pending = tx.prepare_cached("SELECT DISTINCT rule FROM outbox WHERE state = 'pending'")?;
    let mut orphans: Vec<String> =
        pending.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut update = tx.prepare_cached(
        "UPDATE outbox SET target = ?2 WHERE state = 'pending' AND rule = ?1 AND target != ?2",
    )?;
    for (rule, target) in rules {
        update.execute([rule, target])?;
        orphans.retain(|orphan| orphan != rule);
    }
    let mut bury = tx.prepare_cached(
        "UPDATE outbox SET state = 'dead', next_at = ?2, fault = ?3 WHERE state = 'pending' AND rule = ?1",
    )?;
    for orphan in orphans {
        bury.execute(params![orphan, now, fault])?;
    }
    Ok(())
}

/// One page, oldest first, from behind `after`.
pub fn list(
    tx: &Transaction<'_>,
    state: Option<State>,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut page = tx.prepare_cached(
        "SELECT * FROM outbox WHERE sequence > ?1 AND (?2 IS NULL OR state = ?2) ORDER BY sequence LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = page.query_map(params![after, state.map(State::name), limit], read)?;
    rows.collect()
}

/// Which ones an order of the operator is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// One that is pending or dead.
    One(DispatchId),
    /// All that are dead.
    AllDead,
}

/// Has them tried again, from now on and with all their attempts. How many.
pub fn retry(tx: &Transaction<'_>, chosen: Chosen, now: i64) -> rusqlite::Result<usize> {
    let room = MAX_PENDING - number(tx, State::Pending)?;
    let set = "UPDATE outbox SET state = 'pending', attempts = 0, next_at = ?1, fault = ''";
    match chosen {
        Chosen::One(id) => {
            let of = "WHERE id = ?2 AND (state = 'pending' OR state = 'dead' AND ?3 > 0)";
            tx.execute(&format!("{set} {of}"), params![now, id.to_string(), room])
        }
        Chosen::AllDead => {
            let of = "WHERE sequence IN (SELECT sequence FROM outbox WHERE state = 'dead' ORDER BY sequence LIMIT ?2)";
            tx.execute(&format!("{set} {of}"), params![now, room.max(0)])
        }
    }
}

/// Settles them without telling anybody. How many.
pub fn drop_chosen(tx: &Transaction<'_>, chosen: Chosen, now: i64) -> rusqlite::Result<usize> {
    let set = "UPDATE outbox SET state = 'dropped', next_at = ?1, fault = 'operator'";
    match chosen {
        Chosen::One(id) => {
            let of = "WHERE id = ?2 AND state IN ('pending', 'dead')";
            tx.execute(&format!("{set} {of}"), params![now, id.to_string()])
        }
        Chosen::AllDead => tx.execute(&format!("{set} WHERE state = 'dead'"), [now]),
    }
}

/// How many there are.
pub fn counts(tx: &Transaction<'_>) -> rusqlite::Result<Counts> {
    let count = |state| number(tx, state).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let oldest = "SELECT min(queued_at) FROM outbox WHERE state = 'pending'";
    let oldest_pending = tx.query_row(oldest, [], |row| row.get(0))?;
    Ok(Counts { pending: count(State::Pending)?, dead: count(State::Dead)?, oldest_pending })
}

/// Forgets what was settled long ago, and what is more than is remembered.
pub fn prune(tx: &Transaction<'_>, now: i64) -> rusqlite::Result<()> {
    let oldest = now - i64::try_from(KEPT_FOR.as_millis()).unwrap_or(i64::MAX);
    tx.execute("DELETE FROM outbox WHERE state != 'pending' AND next_at < ?", [oldest])?;
    for (states, kept) in [("'delivered', 'dropped'", MAX_SETTLED), ("'dead'", MAX_DEAD)] {
        let beyond = format!(
            "DELETE FROM outbox WHERE state IN ({states}) AND sequence <= (
                SELECT sequence FROM outbox WHERE state IN ({states}) ORDER BY sequence DESC LIMIT 1 OFFSET ?)"
        );
        tx.execute(&beyond, [&kept as &dyn ToSql])?;
    }
    Ok(())
}

fn number(tx: &Transaction<'_>, state: State) -> rusqlite::Result<i64> {
    let mut count = tx.prepare_cached("SELECT count(*) FROM outbox WHERE state = ?")?;
    count.query_row([state.name()], |row| row.get(0))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let parsed = |name: &str| row.get::<_, String>(name);
    let wrong = |_| rusqlite::Error::InvalidQuery;
    let channel = parsed("channel")?.parse().map_err(wrong)?;
    Ok(Delivery {
        sequence: row.get("sequence")?,
        new: New {
            id: parsed("id")?.parse().map_err(wrong)?,
            rule: row.get("rule")?,
            target: row.get("target")?,
            identity: parsed("identity")?.parse().map_err(wrong)?,
            message: MessageRef { channel, id: row.get("message")? },
        },
        state: parsed("state")?.parse()?,
        attempts: row.get("attempts")?,
        queued_at: row.get("queued_at")?,
        next_at: row.get("next_at")?,
        fault: row.get("fault")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::store::Store;
    use crate::types::Channel;

    const NOTES: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(1));
    const DAY: i64 = 86_400_000;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("inbox.db")).unwrap();
        (directory, store)
    }

    fn new(number: i64) -> New {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        New {
            id: DispatchId(id),
            rule: "notes".into(),
            target: "http://127.0.0.1:3000/a".into(),
            identity: NOTES,
            message: MessageRef { channel: Channel::Email, id: number },
        }
    }

    fn head(tx: &Transaction<'_>) -> rusqlite::Result<Option<Delivery>> {
        Ok(heads(tx, ["http://127.0.0.1:3000/a"])?.pop())
    }

    fn settled(tx: &Transaction<'_>, state: State, now: i64) -> rusqlite::Result<()> {
        let head = head(tx)?.expect("one is pending");
        assert!(settle(tx, &Delivery { state, next_at: now, ..head })?);
        Ok(())
    }

    #[test]
    fn a_message_is_queued_once_for_each_rule_whatever_became_of_it() {
        let (_directory, store) = store();
        let again = |tx: &Transaction<'_>| add(tx, &[New { id: DispatchId([9; 16]), ..new(1) }], 5);
        assert_eq!(store.change_now(|tx| add(tx, &[new(1)], 0)), Ok(Ok(1)));
        assert_eq!(store.change_now(again), Ok(Ok(0)));
        store.change_now(|tx| settled(tx, State::Delivered, 5)).unwrap();
        assert_eq!(store.change_now(again), Ok(Ok(0)), "a tombstone was not seen");
        let other = New { id: DispatchId([8; 16]), rule: "other".into(), ..new(1) };
        assert_eq!(store.change_now(|tx| add(tx, &[other], 5)), Ok(Ok(1)));
    }

    #[test]
    fn the_oldest_of_a_target_comes_first_and_a_dead_one_lets_the_next_go_on() {
        let (_directory, store) = store();
        store.change_now(|tx| add(tx, &[new(1), new(2)], 0)).unwrap().unwrap();
        let first = |tx: &Transaction<'_>| Ok(head(tx)?.map(|head| head.new.message.id));
        // Not even due later does it let another one past.
        store
            .change_now(|tx| {
                let head = head(tx)?.unwrap();
                settle(tx, &Delivery { next_at: 1_000_000, attempts: 1, ..head })
            })
            .unwrap();
        assert_eq!(store.change_now(first), Ok(Some(1)));
        store.change_now(|tx| settled(tx, State::Dead, 5)).unwrap();
        assert_eq!(store.change_now(first), Ok(Some(2)));
        assert_eq!(store.change_now(|tx| retry(tx, Chosen::AllDead, 9)), Ok(1));
        assert_eq!(store.change_now(first), Ok(Some(1)), "it has its old place");
    }

    #[test]
    fn a_full_queue_takes_all_or_nothing() {
        let (_directory, store) = store();
        let most: Vec<New> = (1..=MAX_PENDING - 1).map(new).collect();
        store.change_now(|tx| add(tx, &most, 0)).unwrap().unwrap();
        let two = [new(MAX_PENDING), new(MAX_PENDING + 1)];
        assert_eq!(store.change_now(|tx| add(tx, &two, 0)), Ok(Err(Full)));
        assert_eq!(store.change_now(counts).unwrap().pending, u32::try_from(MAX_PENDING - 1).unwrap());
        assert_eq!(store.change_now(|tx| add(tx, &two[..1], 0)), Ok(Ok(1)));
        assert_eq!(store.change_now(|tx| add(tx, &most[..5], 0)), Ok(Ok(0)), "what is queued takes no room");
    }

    #[test]
    fn what_was_settled_is_remembered_for_a_while_and_up_to_a_number() {
        let (_directory, store) = store();
        store.change_now(|tx| add(tx, &[new(1), new(2), new(3)], 0)).unwrap().unwrap();
        store.change_now(|tx| settled(tx, State::Delivered, 0)).unwrap();
        store.change_now(|tx| settled(tx, State::Dead, DAY)).unwrap();
        let left = |tx: &Transaction<'_>| Ok(list(tx, None, 0, 100)?.len());
        store.change_now(|tx| prune(tx, 30 * DAY)).unwrap();
        assert_eq!(store.change_now(left), Ok(3));
        store.change_now(|tx| prune(tx, 30 * DAY + 1)).unwrap();
        assert_eq!(store.change_now(left), Ok(2));
        store.change_now(|tx| prune(tx, 90 * DAY)).unwrap();
        assert_eq!(store.change_now(left), Ok(1), "what is pending stays");
        let many = store.change_now(|tx| {
            for at in 0..MAX_SETTLED + 20 {
                add(tx, &[new(at + 10)], 0)?.unwrap();
                tx.execute("UPDATE outbox SET state = 'delivered' WHERE message = ?", [at + 10])?;
            }
            prune(tx, DAY)?;
            Ok(list(tx, Some(State::Delivered), 0, usize::MAX)?.len())
        });
        assert_eq!(many, Ok(usize::try_from(MAX_SETTLED).unwrap()));
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let (_directory, store) = store();
        store.change_now(|tx| add(tx, &[new(1), new(2)], 0)).unwrap().unwrap();
        let under_way = store.change_now(head).unwrap().unwrap();
        assert_eq!(store.change_now(|tx| drop_chosen(tx, Chosen::One(new(1).id), 1)), Ok(1));
        let done = Delivery { state: State::Delivered, ..under_way };
        assert_eq!(store.change_now(|tx| settle(tx, &done)), Ok(false));
        assert_eq!(store.change_now(|tx| retry(tx, Chosen::One(new(1).id), 1)), Ok(0), "it is settled");
        let target = "http://127.0.0.1:4000/b";
        store.change_now(|tx| retarget(tx, [("notes", target)], "rule_gone", 2)).unwrap();
        assert_eq!(store.change_now(|tx| Ok(heads(tx, [target])?.len())), Ok(1));
        store.change_now(|tx| retarget(tx, [("other", target)], "rule_gone", 2)).unwrap();
        let counted = Counts { pending: 0, dead: 1, oldest_pending: None };
        assert_eq!(store.change_now(counts), Ok(counted));
    }
}
