//! How far the messages of each identity have been looked at.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::types::{Channel, IdentityUuid};

/// The newest message that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its number.
    pub id: i64,
    /// When Ravi got it.
    pub created: Timestamp,
}

/// Reads the cursor. `None`: this channel was never looked at.
pub fn read(
    tx: &Transaction<'_>,
    identity: IdentityUuid,
    channel: Channel,
) -> rusqlite::Result<Option<Cursor>> {
    let mut query =
        tx.prepare_cached("SELECT last_id, last_created FROM cursor WHERE identity = ? AND channel = ?")?;
    let found = query.query_row(params![identity.to_string(), channel.name()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    let cursor =
        |(id, micros)| Cursor { id, created: Timestamp::from_microsecond(micros).unwrap_or_default() };
    Ok(found.optional()?.map(cursor))
}

/// Moves the cursor.
pub fn save(
    tx: &Transaction<'_>,
    identity: IdentityUuid,
    channel: Channel,
    cursor: Cursor,
) -> rusqlite::Result<()> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO cursor (identity, channel, last_id, last_created) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (identity, channel) DO UPDATE SET last_id = ?3, last_created = ?4",
    )?;
    let micros = cursor.created.as_microsecond();
    upsert.execute(params![identity.to_string(), channel.name(), cursor.id, micros]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::store::Store;

    #[test]
    fn a_cursor_reads_back_as_it_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("inbox.db")).unwrap();
        let identity = IdentityUuid(uuid::Uuid::from_u128(1));
        let cursor = |id| Cursor { id, created: "2026-11-23T10:00:00.123456Z".parse().unwrap() };
        assert_eq!(store.change_now(|tx| read(tx, identity, Channel::Sms)), Ok(None));
        for id in [3, 5] {
            store.change_now(|tx| save(tx, identity, Channel::Sms, cursor(id))).unwrap();
            assert_eq!(store.change_now(|tx| read(tx, identity, Channel::Sms)), Ok(Some(cursor(id))));
        }
        assert_eq!(store.change_now(|tx| read(tx, identity, Channel::Email)), Ok(None));
    }
}
