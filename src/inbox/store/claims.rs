//! Which message was given to whom. A message that is in here is given to nobody else.

use rusqlite::{Transaction, params};

use crate::types::{IdentityUuid, MessageRef, SessionId, WatchId};

/// Claims of one identity that are kept. An older message is one that no watch of today can win.
const KEPT: i64 = 2_000;

/// Takes a message for a watch. False if it was taken before.
pub fn claim(
    tx: &Transaction<'_>,
    identity: IdentityUuid,
    message: MessageRef,
    winner: (WatchId, SessionId),
    at: i64,
) -> rusqlite::Result<bool> {
    let (watch, session) = (winner.0.to_string(), winner.1.to_string());
    let (identity, channel) = (identity.to_string(), message.channel.name());
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO claim (identity, channel, message, watch, session, claimed_at) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    let taken = insert.execute(params![identity, channel, message.id, watch, session, at])? == 1;
    let mut prune = tx.prepare_cached(
        "DELETE FROM claim WHERE identity = ?1 AND channel = ?2 AND message <= (
            SELECT message FROM claim WHERE identity = ?1 AND channel = ?2 ORDER BY message DESC LIMIT 1 OFFSET ?3)",
    )?;
    prune.execute(params![identity, channel, KEPT])?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::store::Store;

    const NOTES: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(1));
    const WINNER: (WatchId, SessionId) = (WatchId([1; 16]), SessionId([1; 16]));
    const OTHER: (WatchId, SessionId) = (WatchId([2; 16]), SessionId([2; 16]));

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("inbox.db")).unwrap();
        (directory, store)
    }

    #[test]
    fn a_message_is_given_once_over_a_restart_too() {
        let (directory, store) = store();
        let message: MessageRef = "sms/7".parse().unwrap();
        assert_eq!(store.change_now(|tx| claim(tx, NOTES, message, WINNER, 0)), Ok(true));
        assert_eq!(store.change_now(|tx| claim(tx, NOTES, message, OTHER, 0)), Ok(false));
        drop(store);
        let store = Store::open(&directory.path().join("inbox.db")).unwrap();
        assert_eq!(store.change_now(|tx| claim(tx, NOTES, message, OTHER, 0)), Ok(false));
        // The same number of the other channel, or of another identity, is another message.
        let mail = "email/7".parse().unwrap();
        assert_eq!(store.change_now(|tx| claim(tx, NOTES, mail, OTHER, 0)), Ok(true));
        let deploy = IdentityUuid(uuid::Uuid::from_u128(2));
        assert_eq!(store.change_now(|tx| claim(tx, deploy, message, OTHER, 0)), Ok(true));
    }

    #[test]
    fn the_newest_claims_are_kept() {
        let (_directory, store) = store();
        let count = store.change_now(|tx| {
            for id in 1..=KEPT + 50 {
                let message = MessageRef { channel: crate::types::Channel::Sms, id };
                claim(tx, NOTES, message, WINNER, 0)?;
            }
            tx.query_row("SELECT count(*), min(message) FROM claim", [], |row| Ok((row.get(0)?, row.get(1)?)))
        });
        assert_eq!(count, Ok((KEPT, 51)));
    }
}
