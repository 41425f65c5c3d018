-- Version 1 of `inbox.db`, as the first daemons made it: the file that an update finds. Never changed.
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
    PRIMARY KEY (identity, channel)
) WITHOUT ROWID;
CREATE TABLE provisioning (
    name TEXT PRIMARY KEY, begun_at INTEGER NOT NULL
) WITHOUT ROWID;
