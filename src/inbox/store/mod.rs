//! What the inbox must not forget over a restart: how far it has read, which message was given to whom, what is
//! still to be told to whom, and how much was sent today.
//!
//! Numbers and names alone: what a message says is never written down, it is fetched from Ravi again when it is
//! needed. One file, `inbox.db` beside the audit trail, of one daemon at a time. A change is on its way to the disk
//! before it counts (SQLite in WAL mode with `synchronous = FULL`). May import `types`.

pub mod claims;
pub mod cursors;
pub mod outbox;
pub mod provisioning;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use thiserror::Error;

/// Of the tables below. A file of an earlier version is brought to it, one of a later version is refused.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE cursor (
    identity TEXT NOT NULL, channel TEXT NOT NULL,
    last_id INTEGER NOT NULL, last_created INTEGER NOT NULL,
    PRIMARY KEY (identity, channel)
) WITHOUT ROWID;
CREATE TABLE claim (
    identity TEXT NOT NULL, channel TEXT NOT NULL, message INTEGER NOT NULL,
    watch TEXT NOT NULL, session TEXT NOT NULL, claimed_at INTEGER NOT NULL,
    PRIMARY KEY (identity, channel, message)
) WITHOUT ROWID;
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, target TEXT NOT NULL,
    identity TEXT NOT NULL, channel TEXT NOT NULL, message INTEGER NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    queued_at INTEGER NOT NULL, next_at INTEGER NOT NULL, fault TEXT NOT NULL DEFAULT '',
    UNIQUE (rule, identity, channel, message)
);
CREATE INDEX outbox_state ON outbox (state, target, sequence);
CREATE TABLE sent (
    identity TEXT NOT NULL, channel TEXT NOT NULL, day TEXT NOT NULL, used INTEGER NOT NULL,
    closed_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (identity, channel)
) WITHOUT ROWID;
CREATE TABLE provisioning (
    name TEXT PRIMARY KEY, begun_at INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Why the store did not do it. Nothing is quoted of what was to be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The file cannot be opened, or another daemon has it.
    #[error("cannot open {}\nits directory must exist, belong to the user of the daemon and have room, and no other daemon may use it", path.display())]
    Unopened {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a later version, or none of ours.
    #[error("{} is not to be read by this version\nupdate ravi-broker, or move the file away: what it noted is forgotten then", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was not written or read: the disk is full, or the file is damaged.
    #[error("what the inbox has to remember cannot be written or read")]
    Failed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(_: rusqlite::Error) -> Self {
        Self::Failed
    }
}

/// Result of what the store does.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The file. Clones share it; one call at a time, off the runtime's workers.
#[derive(Clone)]
pub struct Store(Arc<Mutex<Connection>>);

impl Store {
    /// Opens the file, or makes it, readable for us alone (the process has made its umask 0077).
    pub fn open(path: &Path) -> Result<Self> {
        let unopened = || StoreError::Unopened { path: path.to_owned() };
        let mut connection = Connection::open(path).map_err(|_| unopened())?;
        configure(&connection).map_err(|_| unopened())?;
        let foreign = || StoreError::Foreign { path: path.to_owned() };
        let found = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        match found.map_err(|_| foreign())? {
            0 => lay_out(&mut connection).map_err(|_| unopened())?,
            1 => close_days(&mut connection).map_err(|_| unopened())?,
            VERSION => {}
            _ => return Err(foreign()),
        }
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// One change, whole or not at all. `work` runs on a thread that may block, and goes on to its end even if the
    /// caller goes away.
    pub async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let changed = tokio::task::spawn_blocking(move || store.change_now(work)).await;
        changed.unwrap_or(Err(StoreError::Failed))
    }

    /// The same on this thread, for the start of the daemon and for tests.
    pub fn change_now<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // One daemon: its lock is held as long as the file is open, and no shared memory is needed.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn lay_out(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// From version 1 to 2: a day of sending can be closed by Ravi. Files of version 1 were made both without and with the
/// column.
fn close_days(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let known = "SELECT 1 FROM pragma_table_info('sent') WHERE name = 'closed_until'";
    if !transaction.prepare(known)?.exists([])? {
        transaction.execute_batch("ALTER TABLE sent ADD COLUMN closed_until INTEGER NOT NULL DEFAULT 0")?;
    }
    transaction.pragma_update(None, "user_version", 2)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, as it was at first.
    const FIRST_SCHEMA: &str = include_str!("first.sql");

    fn room() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("inbox.db");
        (directory, path)
    }

    #[test]
    fn what_was_changed_is_there_after_it_was_opened_again() {
        let (_directory, path) = room();
        let store = Store::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let add = |tx: &Transaction<'_>| tx.execute("INSERT INTO provisioning VALUES ('notes', 1)", []);
        assert_eq!(store.change_now(add), Ok(1));
        assert_eq!(store.change_now(add), Err(StoreError::Failed));
        drop(store);
        let store = Store::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let count = |tx: &Transaction<'_>| {
            tx.query_row("SELECT count(*) FROM provisioning", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.change_now(count), Ok(1));
    }

    type Shape = Vec<(String, String, i64)>;

    /// Every column of every table.
    fn shape(tx: &Transaction<'_>) -> rusqlite::Result<Shape> {
        let columns = "SELECT t.name, c.name, c.pk FROM sqlite_schema t JOIN pragma_table_info(t.name) c
            WHERE t.type = 'table' ORDER BY t.name, c.name";
        tx.prepare(columns)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    }

    #[test]
    fn a_file_of_the_first_version_is_brought_to_this_one_with_all_that_is_in_it() {
        let (_directory, path) = room();
        let new = Store::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let this = new.change_now(shape).unwrap();
        drop(new);
        for more in ["", "ALTER TABLE sent ADD COLUMN closed_until INTEGER NOT NULL DEFAULT 0;"] {
            let (_directory, path) = room();
            let old = Connection::open(&path).unwrap();
            old.execute_batch(FIRST_SCHEMA).unwrap();
            old.execute_batch(more).unwrap();
            old.execute("INSERT INTO sent (identity, channel, day, used) VALUES ('a', 'email', 'd', 7)", [])
                .unwrap();
            old.pragma_update(None, "user_version", 1).unwrap();
            drop(old);
            for _ in 0..2 {
                let store = Store::open(&path).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(store.change_now(shape), Ok(this.clone()));
                let kept = store.change_now(|tx| {
                    tx.query_row("SELECT used, closed_until FROM sent", [], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                    })
                });
                assert_eq!(kept, Ok((7, 0)));
            }
        }
    }

    #[test]
    fn a_file_of_another_daemon_or_of_a_later_version_is_refused() {
        let (_directory, path) = room();
        let first = Store::open(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Store::open(&path).err(), Some(StoreError::Unopened { path: path.clone() }));
        first.change_now(|tx| tx.pragma_update(None, "user_version", VERSION + 1)).unwrap();
        drop(first);
        let refused = Store::open(&path).err().expect("it is of a later version");
        assert_eq!(refused, StoreError::Foreign { path });
        assert!(refused.to_string().contains("\nupdate ravi-broker, or move the file away"), "{refused}");
    }
}
