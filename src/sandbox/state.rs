//! The account that the sandbox pretends to hold: plain rows under one lock that is never held over
//! an `.await`. Every list is bounded by a `MAX_…` constant. Imports `secret`, `clock`, `behaviour`, `budget`,
//! `events`, `seed`, `traffic`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use bytes::Bytes;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::clock::{BootInstant, Clock};
use crate::secret::Secret;

use super::behaviour::Behaviour;
use super::budget::Budgets;
use super::events::Events;
use super::outbox::Sent;
use super::seed::Seed;
use super::traffic::Traffic;

pub(super) const MAX_IDENTITIES: usize = 64;
pub(super) const MAX_KEYS: usize = 1024;
pub(super) const MAX_LOGINS: usize = 64;
pub(super) const MAX_MESSAGES: usize = 8192;
pub(super) const MAX_ENTRIES: usize = 4096;
pub(super) const MAX_ATTACHMENTS: usize = 1024;
/// Of all attachments together.
pub(super) const MAX_ATTACHED_BYTES: usize = 128 * 1024 * 1024;
const MAX_UPLOADS_AT_ONCE: usize = 4;

/// What every handler gets.
pub(super) type Api = Arc<Shared>;

/// The running sandbox, without its sockets.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    /// Scheme, host and port, for absolute links in answers.
    pub(super) origin: String,
    /// The second listener, which takes uploads alone.
    pub(super) storage_origin: String,
    /// What `reset` goes back to.
    pub(super) seed: Seed,
    pub(super) initial: Behaviour,
    pub(super) traffic: Traffic,
    /// Woken whenever a device login was decided; held polls wait on it.
    pub(super) logins_changed: watch::Sender<()>,
    pub(super) events: Events,
    /// Whoever reads an upload into memory holds one.
    pub(super) uploads: Semaphore,
    world: Mutex<World>,
}

impl Shared {
    /// `origins`: of the API, and of the storage.
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        origins: (String, String),
        seed: Seed,
        initial: Behaviour,
        world: World,
    ) -> Self {
        let (origin, storage_origin) = origins;
        Self {
            clock,
            origin,
            storage_origin,
            seed,
            initial,
            traffic: Traffic::default(),
            logins_changed: watch::channel(()).0,
            events: Events::default(),
            uploads: Semaphore::new(MAX_UPLOADS_AT_ONCE),
            world: Mutex::new(world),
        }
    }

    /// The account. Keep the guard out of every `.await`.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, as timestamps of answers have it: in microseconds.
    pub(super) fn wall(&self) -> Timestamp {
        to_micros(self.clock.wall())
    }
}

pub(super) fn to_micros(time: Timestamp) -> Timestamp {
    let rule = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::Trunc);
    time.round(rule).unwrap_or(time)
}

/// As Django writes a time: six digits of a second or none, and `Z`.
pub(super) fn stamp(time: Timestamp) -> String {
    match to_micros(time).subsec_nanosecond() {
        0 => format!("{time:.0}"),
        _ => format!("{time:.6}"),
    }
}

/// One account of Ravi.
pub(super) struct World {
    pub(super) behaviour: Behaviour,
    pub(super) owner: Owner,
    pub(super) identities: Vec<Identity>,
    pub(super) keys: Vec<Key>,
    pub(super) logins: Vec<Login>,
    /// By time, then by `id`.
    pub(super) mails: Vec<Mail>,
    /// By time, then by `id`.
    pub(super) texts: Vec<Text>,
    pub(super) contacts: Vec<Contact>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) budgets: Budgets,
    /// What left the account, in order.
    pub(super) sent: Vec<Sent>,
    /// Requests at the storage that brought an `Authorization` header.
    pub(super) keys_at_storage: u64,
    pub(super) passwords: Vec<PasswordRow>,
    pub(super) secrets: Vec<SecretRow>,
    /// Signs SSO tokens.
    pub(super) sso_key: hmac::Key,
    pub(super) next_id: i64,
}

impl World {
    /// A number that no row has had.
    pub(super) fn fresh_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    /// Puts a mail where its time belongs.
    pub(super) fn file_mail(&mut self, mail: Mail) {
        let place = self.mails.partition_point(|other| (other.created, other.id) < (mail.created, mail.id));
        self.mails.insert(place, mail);
    }

    /// Puts an SMS where its time belongs.
    pub(super) fn file_text(&mut self, text: Text) {
        let place = self.texts.partition_point(|other| (other.created, other.id) < (text.created, text.id));
        self.texts.insert(place, text);
    }

    pub(super) fn identity(&self, id: i64) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id == id)
    }

    pub(super) fn identity_of(&self, uuid: Uuid) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.uuid == uuid)
    }

    /// The first identity that is not `id`: whose rows the fault "wrong identity" shows.
    pub(super) fn other_than(&self, id: i64) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id != id)
    }
}

pub(super) struct Owner {
    pub(super) id: i64,
    pub(super) email: &'static str,
    pub(super) first_name: &'static str,
    pub(super) last_name: &'static str,
}

pub(super) struct Identity {
    /// The internal number that rows carry in `identity`.
    pub(super) id: i64,
    pub(super) uuid: Uuid,
    pub(super) name: String,
    pub(super) inbox: Option<Inbox>,
    pub(super) phone: Option<Phone>,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

pub(super) struct Inbox {
    pub(super) id: i64,
    pub(super) address: String,
}

pub(super) struct Phone {
    pub(super) id: i64,
    pub(super) number: String,
    pub(super) created: Timestamp,
}

/// Which kind a key is of. `Identity` is fenced to that identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Management,
    Identity(i64),
}

pub(super) struct Key {
    pub(super) kind: KeyKind,
    pub(super) value: Secret,
    pub(super) label: String,
    pub(super) created: Timestamp,
}

pub(super) struct Login {
    pub(super) device_code: Secret,
    pub(super) user_code: String,
    pub(super) expires: BootInstant,
    /// Grows by five seconds with each `slow_down`.
    pub(super) interval_seconds: u32,
    pub(super) last_poll: Option<BootInstant>,
    pub(super) decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Pending,
    Approved,
    Denied,
    /// Approved and collected: the device code is good for nothing more.
    Collected,
}

/// Whether somebody wrote to the identity, or the identity to somebody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Incoming,
    Outgoing,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

pub(super) struct Mail {
    pub(super) id: i64,
    pub(super) identity: i64,
    pub(super) thread_id: String,
    /// RFC 5322 `Message-ID`.
    pub(super) message_id: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cc: Vec<String>,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
    pub(super) direction: Direction,
    pub(super) is_read: bool,
    pub(super) attachments: Vec<Uuid>,
    pub(super) created: Timestamp,
}

pub(super) struct Attachment {
    pub(super) uuid: Uuid,
    /// `None`: presigned for the account.
    pub(super) identity: Option<i64>,
    pub(super) filename: String,
    pub(super) content_type: String,
    pub(super) size: usize,
    pub(super) is_inline: bool,
    /// The end of the upload's address, which is all that the storage asks for.
    pub(super) signature: Secret,
    /// `None`: not uploaded.
    pub(super) content: Option<Bytes>,
    /// Part of a mail.
    pub(super) is_used: bool,
    pub(super) created: Timestamp,
}

pub(super) struct Contact {
    pub(super) uuid: Uuid,
    pub(super) identity: i64,
    /// `""`: none, likewise the number.
    pub(super) email: String,
    pub(super) phone_number: String,
    pub(super) display_name: String,
    pub(super) nickname: String,
    pub(super) is_trusted: bool,
    pub(super) source: &'static str,
    pub(super) interactions: u64,
    pub(super) last_interaction: Option<Timestamp>,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

pub(super) struct Text {
    pub(super) id: i64,
    pub(super) identity: i64,
    /// The number at the other end.
    pub(super) remote: String,
    pub(super) body: String,
    pub(super) direction: Direction,
    pub(super) is_read: bool,
    pub(super) created: Timestamp,
}

pub(super) struct PasswordRow {
    pub(super) uuid: Uuid,
    pub(super) identity: i64,
    pub(super) domain: String,
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) notes: Secret,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

pub(super) struct SecretRow {
    pub(super) uuid: Uuid,
    pub(super) identity: i64,
    pub(super) key: String,
    pub(super) value: Secret,
    pub(super) notes: Secret,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

/// A row that belongs to one identity.
pub(super) trait Owned {
    fn owner(&self) -> i64;
}

/// A vault row, found by its uuid.
pub(super) trait Entry: Owned {
    fn uuid(&self) -> Uuid;
}

macro_rules! owned {
    ($($row:ty),*) => {$(
        impl Owned for $row {
            fn owner(&self) -> i64 {
                self.identity
            }
        }
    )*};
}

owned!(Mail, Text, PasswordRow, SecretRow, Contact);

macro_rules! entry {
    ($($row:ty),*) => {$(
        impl Entry for $row {
            fn uuid(&self) -> Uuid {
                self.uuid
            }
        }
    )*};
}

entry!(PasswordRow, SecretRow, Contact);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_six_digits_of_a_second_or_none() {
        let written = |text: &str| stamp(text.parse().unwrap());
        assert_eq!(written("2026-11-23T10:00:00.12345Z"), "2026-11-23T10:00:00.123450Z");
        assert_eq!(written("2026-11-23T10:00:00.123456789Z"), "2026-11-23T10:00:00.123456Z");
        assert_eq!(written("2026-11-23T10:00:00Z"), "2026-11-23T10:00:00Z");
    }
}
