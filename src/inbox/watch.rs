//! Who waits for a code, and who is given the one in a message. No clock, no network.
//!
//! A watch counts from the moment it is armed, which the poller does between two looks: what it saw before is no
//! answer. Of the watches that a message fits, the one that was opened first wins it, and has its one answer for as
//! long as it lives. Bounded: so many watches of one session, and in all. May import `vault::arena`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::code::{Found, Kind, Wanted};
use super::sender::{Sender, SenderPattern};
use crate::approval::Approval;
use crate::clock::BootInstant;
use crate::secret::Secret;
use crate::types::{Channel, IdentityUuid, MessageRef, SessionId, WatchId};
use crate::vault::arena::{Arena, Slot};

/// Watches of one session at once.
pub const MAX_OF_SESSION: usize = 16;
/// Watches in all.
pub const MAX_IN_ALL: usize = 4096;

/// So long is told that a watch has ended.
const TOLD: Duration = Duration::from_secs(60);

/// What a watch waits for.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Whose messages.
    pub identity: IdentityUuid,
    /// By which way.
    pub channel: Channel,
    /// From whom; `None`: anybody.
    pub from: Option<SenderPattern>,
    /// A code, a link, or either.
    pub wanted: Wanted,
    /// Who waits.
    pub session: SessionId,
    /// Until when.
    pub ends_at: BootInstant,
    /// What the operator said to it, if that was asked for.
    pub approval: Option<Approval>,
}

/// A code or link that was found, as its watch is told it.
pub struct Given {
    /// What to type, or where to go.
    pub value: Secret,
    /// Which of both.
    pub kind: Kind,
    /// Of a link.
    pub host: Option<String>,
    /// In which message.
    pub message: MessageRef,
    /// Who sent it, as it was given.
    pub from: String,
    /// When Ravi got it.
    pub created: Timestamp,
    /// Of the watch.
    pub approval: Option<Approval>,
}

/// Why there is no watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchError {
    /// None of that name.
    Unknown,
    /// Another session's.
    Foreign,
    /// Its time is up.
    Expired,
    /// Too many, by the name of the bound.
    Capacity(&'static str),
    /// The memory for secrets is full, or was locked.
    NoRoom,
}

/// The watches, in the order in which they were opened. Concurrency: any thread; the lock is held for a look or a
/// change.
pub struct Watches {
    book: Mutex<Book>,
    arena: Arc<Arena>,
}

#[derive(Default)]
struct Book {
    opened: u64,
    watches: BTreeMap<u64, Watch>,
}

struct Watch {
    id: WatchId,
    waiting: Waiting,
    armed: bool,
    answer: Option<Answer>,
    changed: Arc<Notify>,
}

struct Answer {
    slot: Slot,
    kind: Kind,
    host: Option<String>,
    message: MessageRef,
    from: String,
    created: Timestamp,
}

/// A message that may hold an answer.
pub struct Offer<'a> {
    /// Whose.
    pub identity: IdentityUuid,
    /// Its name.
    pub message: MessageRef,
    /// `None`: not plainly one sender.
    pub sender: Option<&'a Sender>,
}

/// A watch that a message fits, if what it holds is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Which.
    pub watch: WatchId,
    /// Whose.
    pub session: SessionId,
    /// What it wants.
    pub wanted: Wanted,
}

impl Watches {
    /// None yet.
    pub fn new(arena: Arc<Arena>) -> Self {
        Self { book: Mutex::default(), arena }
    }

    /// Opens a watch, which counts once it is armed.
    pub fn open(&self, id: WatchId, waiting: Waiting) -> Result<(), WatchError> {
        let mut book = self.book();
        let of_session = book.watches.values().filter(|watch| watch.waiting.session == waiting.session);
        if of_session.count() >= MAX_OF_SESSION {
            return Err(WatchError::Capacity("watches of a session"));
        }
        if book.watches.len() >= MAX_IN_ALL {
            return Err(WatchError::Capacity("watches"));
        }
        book.opened += 1;
        let opened = book.opened;
        let watch = Watch { id, waiting, armed: false, answer: None, changed: Arc::default() };
        book.watches.insert(opened, watch);
        Ok(())
    }

    /// From now on what comes in counts.
    pub fn arm(&self, id: WatchId) {
        let mut book = self.book();
        if let Some(watch) = book.watches.values_mut().find(|watch| watch.id == id) {
            watch.armed = true;
        }
    }

    /// The watches that a message fits, in the order in which they get it.
    pub fn fitting(&self, offer: &Offer<'_>, now: BootInstant) -> Vec<Fit> {
        let fits = |watch: &&Watch| {
            let Waiting { identity, channel, from, ends_at, .. } = &watch.waiting;
            let from_whom = match (from, offer.sender) {
                (None, _) => true,
                (Some(pattern), Some(sender)) => pattern.matches(sender),
                (Some(_), None) => false,
            };
            let open = watch.armed && watch.answer.is_none() && now < *ends_at;
            open && (*identity, *channel) == (offer.identity, offer.message.channel) && from_whom
        };
        let fit = |watch: &Watch| Fit {
            watch: watch.id,
            session: watch.waiting.session,
            wanted: watch.waiting.wanted,
        };
        self.book().watches.values().filter(fits).map(fit).collect()
    }

    /// Gives a watch its answer. False if it ended meanwhile, or has one.
    pub fn give(
        &self,
        id: WatchId,
        found: Found,
        message: MessageRef,
        from: &str,
        created: Timestamp,
    ) -> bool {
        let Ok(slot) = self.arena.seal(&found.value) else {
            tracing::error!("the memory for secrets is full: a code is not kept");
            return false;
        };
        let mut book = self.book();
        let open = |watch: &&mut Watch| watch.id == id && watch.answer.is_none();
        let Some(watch) = book.watches.values_mut().find(open) else { return false };
        let (kind, host, from) = (found.kind, found.host, from.to_owned());
        watch.answer = Some(Answer { slot, kind, host, message, from, created });
        watch.changed.notify_waiters();
        true
    }

    /// What a session's watch has, if anything.
    pub fn look(
        &self,
        session: SessionId,
        id: WatchId,
        now: BootInstant,
    ) -> Result<Option<Given>, WatchError> {
        let book = self.book();
        let watch = book.watches.values().find(|watch| watch.id == id).ok_or(WatchError::Unknown)?;
        if watch.waiting.session != session {
            return Err(WatchError::Foreign);
        }
        if now >= watch.waiting.ends_at {
            return Err(WatchError::Expired);
        }
        let Some(answer) = &watch.answer else { return Ok(None) };
        let value = self.arena.open(&answer.slot).ok_or(WatchError::NoRoom)?;
        let Answer { kind, host, message, from, created, .. } = answer;
        let (host, from) = (host.clone(), from.clone());
        let approval = watch.waiting.approval.clone();
        Ok(Some(Given { value, kind: *kind, host, message: *message, from, created: *created, approval }))
    }

    /// Told when the watch changes; and when it ends.
    pub fn changes(&self, id: WatchId) -> Option<(Arc<Notify>, BootInstant)> {
        let book = self.book();
        let watch = book.watches.values().find(|watch| watch.id == id)?;
        Some((watch.changed.clone(), watch.waiting.ends_at))
    }

    /// Ends a watch of a session. One that is over already is no error.
    pub fn close(&self, session: SessionId, id: WatchId) -> Result<(), WatchError> {
        let mut book = self.book();
        if book.watches.values().any(|watch| watch.id == id && watch.waiting.session != session) {
            return Err(WatchError::Foreign);
        }
        book.end(|watch| watch.id == id);
        Ok(())
    }

    /// Ends the watches of a session that ended.
    pub fn end_session(&self, session: SessionId) {
        self.book().end(|watch| watch.waiting.session == session);
    }

    /// Forgets those whose time has been up for a while, in which their holders were told so.
    pub fn prune(&self, now: BootInstant) {
        self.book().end(|watch| now >= watch.waiting.ends_at + TOLD);
    }

    /// The channels of an identity on which somebody still waits for an answer.
    pub fn wanted(&self, identity: IdentityUuid, now: BootInstant) -> Vec<Channel> {
        let book = self.book();
        let waits = |channel: &Channel| {
            book.watches.values().any(|watch| {
                let Waiting { identity: whose, channel: way, ends_at, .. } = &watch.waiting;
                (*whose, *way) == (identity, *channel) && watch.answer.is_none() && now < *ends_at
            })
        };
        Channel::ALL.into_iter().filter(waits).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.book().watches.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Whoever waits is told.
    fn end(&mut self, which: impl Fn(&Watch) -> bool) {
        self.watches.retain(|_, watch| {
            let ends = which(watch);
            if ends {
                watch.changed.notify_waiters();
            }
            !ends
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemoryTier;

    const NOW: BootInstant = BootInstant::from_nanos(1_000_000_000);
    const NOTES: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(1));
    const DEPLOY: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(2));
    const HOLDER: SessionId = SessionId([1; 16]);

    fn watches() -> Watches {
        Watches::new(Arc::new(Arena::new(MemoryTier::Locked).unwrap()))
    }

    fn id(number: u8) -> WatchId {
        WatchId([number; 16])
    }

    fn waiting(from: Option<&str>) -> Waiting {
        let from = from.map(|from| from.parse().unwrap());
        let ends_at = NOW + Duration::from_secs(300);
        Waiting {
            identity: NOTES,
            channel: Channel::Email,
            from,
            wanted: Wanted::Either,
            session: HOLDER,
            approval: None,
            ends_at,
        }
    }

    fn opened(watches: &Watches, number: u8, waiting: Waiting) {
        assert_eq!(watches.open(id(number), waiting), Ok(()));
        watches.arm(id(number));
    }

    fn fitting(watches: &Watches, identity: IdentityUuid, from: &str) -> Vec<WatchId> {
        let (message, sender) = ("email/1".parse().unwrap(), Sender::mail(from).ok());
        let offer = Offer { identity, message, sender: sender.as_ref() };
        watches.fitting(&offer, NOW).iter().map(|fit| fit.watch).collect()
    }

    fn found(value: &str) -> Found {
        Found { kind: Kind::Code, value: Secret::copy_of(value), written: Secret::copy_of(value), host: None }
    }

    fn give(watches: &Watches, number: u8, value: &str) -> bool {
        watches.give(
            id(number),
            found(value),
            "email/1".parse().unwrap(),
            "a@github.com",
            Timestamp::UNIX_EPOCH,
        )
    }

    fn value(watches: &Watches, session: SessionId, number: u8) -> Result<Option<String>, WatchError> {
        let given = watches.look(session, id(number), NOW);
        given.map(|given| given.map(|given| given.value.expose().to_owned()))
    }

    #[test]
    fn a_watch_counts_from_the_moment_it_is_armed() {
        let watches = watches();
        watches.open(id(1), waiting(None)).unwrap();
        assert!(fitting(&watches, NOTES, "a@github.com").is_empty());
        watches.arm(id(1));
        assert_eq!(fitting(&watches, NOTES, "a@github.com"), [id(1)]);
    }

    #[test]
    fn only_messages_of_its_identity_and_its_sender_fit() {
        let watches = watches();
        opened(&watches, 1, waiting(Some("github.com")));
        assert_eq!(fitting(&watches, NOTES, "GitHub <noreply@mail.github.com>"), [id(1)]);
        assert!(fitting(&watches, DEPLOY, "noreply@github.com").is_empty());
        for other in
            ["noreply@github.com.evil.io", "noreply@notgithub.com", "\"noreply@github.com\" <a@evil.io>"]
        {
            assert!(fitting(&watches, NOTES, other).is_empty(), "{other}");
        }
    }

    #[test]
    fn who_was_there_first_is_first_and_has_one_answer() {
        let watches = watches();
        (1..=3).for_each(|number| opened(&watches, number, waiting(None)));
        assert_eq!(fitting(&watches, NOTES, "a@b.io"), [id(1), id(2), id(3)]);
        assert!(give(&watches, 1, "482913"));
        assert!(!give(&watches, 1, "111111"), "a second answer");
        assert_eq!(fitting(&watches, NOTES, "a@b.io"), [id(2), id(3)]);
        assert_eq!(value(&watches, HOLDER, 1), Ok(Some("482913".into())));
        assert_eq!(value(&watches, HOLDER, 1), Ok(Some("482913".into())), "the same answer again");
        assert_eq!(value(&watches, HOLDER, 2), Ok(None));
    }

    #[test]
    fn nobody_sees_the_answer_of_another_session_or_after_its_end() {
        let watches = watches();
        opened(&watches, 1, waiting(None));
        give(&watches, 1, "482913");
        assert_eq!(value(&watches, SessionId([2; 16]), 1), Err(WatchError::Foreign));
        assert_eq!(watches.close(SessionId([2; 16]), id(1)), Err(WatchError::Foreign));
        let late = NOW + Duration::from_secs(300);
        assert_eq!(watches.look(HOLDER, id(1), late).err(), Some(WatchError::Expired));
        watches.end_session(HOLDER);
        assert_eq!(value(&watches, HOLDER, 1), Err(WatchError::Unknown));
        assert!(!give(&watches, 1, "482913"));
    }

    #[test]
    fn there_are_only_so_many() {
        let watches = watches();
        for number in 0..MAX_OF_SESSION {
            opened(&watches, u8::try_from(number).unwrap(), waiting(None));
        }
        assert_eq!(watches.open(id(99), waiting(None)), Err(WatchError::Capacity("watches of a session")));
        watches.prune(NOW + Duration::from_secs(300) + TOLD);
        assert!(watches.is_empty());
    }
}
