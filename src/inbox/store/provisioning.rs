//! Identities that Ravi was asked to create and whose making is not certain. Imports `types`.

use rusqlite::{OptionalExtension, params};

use super::{Result, Store};
use crate::types::IdentityName;

/// When the creation of this name was begun, in seconds, if one was and is not known to have come about.
pub async fn begun(store: &Store, name: &IdentityName) -> Result<Option<i64>> {
    let name = name.to_string();
    store
        .change(move |tx| {
            tx.prepare_cached("SELECT begun_at FROM provisioning WHERE name = ?1")?
                .query_row(params![name], |row| row.get(0))
                .optional()
        })
        .await
}

/// Notes that it is about to be created.
pub async fn begin(store: &Store, name: &IdentityName, at: i64) -> Result<()> {
    let name = name.to_string();
    store
        .change(move |tx| {
            tx.prepare_cached("INSERT OR REPLACE INTO provisioning (name, begun_at) VALUES (?1, ?2)")?
                .execute(params![name, at])
                .map(drop)
        })
        .await
}

/// Forgets it: it is there, or surely was not made.
pub async fn end(store: &Store, name: &IdentityName) -> Result<()> {
    let name = name.to_string();
    store
        .change(move |tx| {
            tx.prepare_cached("DELETE FROM provisioning WHERE name = ?1")?.execute(params![name]).map(drop)
        })
        .await
}
