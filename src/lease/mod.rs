//! Leases: time-bounded access of one session to one credential.
//!
//! Each session has a book of its leases, so a lease of another session is simply not there. A lease
//! ends by the deadline task, and a read checks the deadline as well. Only a [`Grant`], which only
//! policy makes, gets a lease. May import layers 0 and 1, `policy` and `session`.

mod state;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use dashmap::DashMap;
use tokio::sync::broadcast;

pub use self::state::Terms;
use crate::clock::{BootInstant, Clock, Deadlines};
use crate::policy::Grant;
use crate::session::Session;
use crate::types::{IdentityUuid, LeaseId, Resource, RoleName, SessionId};

/// Events that a slow watcher may be behind before it is told that it missed some.
const EVENTS_KEPT: usize = 64;
/// Watchers of one session.
const MAX_WATCHERS: usize = 8;
/// Ended leases of a session that are still told why.
const REMEMBERED: usize = 64;

/// One lease, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Public handle.
    pub id: LeaseId,
    /// Whose.
    pub session: SessionId,
    /// The session's role.
    pub role: RoleName,
    /// The Ravi identity that the credential belongs to.
    pub identity: IdentityUuid,
    /// For what.
    pub resource: Resource,
    /// Until when.
    pub terms: Terms,
    /// How often the value was handed out under it.
    pub uses: u64,
    /// Whether its end really ends access.
    pub revocable: bool,
}

/// What happens to a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub lease: LeaseId,
    /// For what.
    pub resource: Resource,
    /// What.
    pub kind: EventKind,
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The value changed upstream.
    Rotated,
    /// Little of its life is left.
    Expiring,
    /// Its time was up.
    Expired,
    /// Ended before its time, not by its holder.
    Revoked,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseError {
    /// The session has none of that handle.
    NotAvailable,
    /// Its time was up.
    Expired,
    /// It was revoked or released.
    Revoked,
    /// The session has as many as it may.
    Capacity(&'static str),
    /// The session is over.
    SessionEnded,
    /// The system's random source failed.
    NoRandom,
}

/// A deadline of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    kind: DueKind,
    session: SessionId,
    lease: LeaseId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DueKind {
    Warn,
    Expire,
}

/// The leases. Concurrency: any thread; one task waits on [`Leases::due`]. Bounded by the sessions and
/// each role's `lease.max_live`.
pub struct Leases {
    books: DashMap<SessionId, Book>,
    deadlines: Deadlines<Due>,
    clock: Arc<dyn Clock>,
}

struct Book {
    live: HashMap<LeaseId, Kept>,
    ended: VecDeque<(LeaseId, LeaseError)>,
    events: broadcast::Sender<Event>,
}

struct Kept {
    lease: Lease,
    warn_at: Option<BootInstant>,
}

impl Leases {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { books: DashMap::new(), deadlines: Deadlines::new(), clock }
    }

    /// Opens the book of a new session.
    pub fn enroll(&self, session: SessionId) {
        let book = Book {
            live: HashMap::new(),
            ended: VecDeque::new(),
            events: broadcast::Sender::new(EVENTS_KEPT),
        };
        self.books.insert(session, book);
    }

    /// Whether one more lease fits: asked before anything is fetched for it.
    pub fn check_room(&self, session: SessionId, max_live: usize) -> Result<(), LeaseError> {
        self.books.get(&session).ok_or(LeaseError::SessionEnded)?.check_room(max_live)
    }

    /// Grants a lease on what the vault found: `resource` is its canonical name, `ends_at` the value's
    /// own end if it has one.
    pub fn grant(
        &self,
        session: &Session,
        grant: &Grant,
        found: Found,
        ttl: Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let bounds = grant.bounds();
        let now = self.clock.now();
        let limit = (now + bounds.lease_max_ttl).min(session.expires_at);
        let limit = found.ends_at.map_or(limit, |ends_at| limit.min(ends_at));
        let ttl = ttl.unwrap_or(bounds.lease_default_ttl);
        let lease = Lease {
            id: new_id()?,
            session: session.id,
            role: session.role.clone(),
            identity: found.identity,
            revocable: found.resource == Resource::SsoToken,
            resource: found.resource,
            terms: Terms::new(now, ttl, limit),
            uses: 1,
        };
        let mut book = self.books.get_mut(&session.id).ok_or(LeaseError::SessionEnded)?;
        book.check_room(bounds.lease_max_live)?;
        let kept = Kept { warn_at: self.schedule(&lease, now), lease: lease.clone() };
        book.live.insert(lease.id, kept);
        Ok(lease)
    }

    /// A live lease of the session.
    pub fn find(&self, session: SessionId, id: LeaseId) -> Result<Lease, LeaseError> {
        let book = self.books.get(&session).ok_or(LeaseError::SessionEnded)?;
        book.find(id, self.clock.now()).map(|kept| kept.lease.clone())
    }

    /// Counts one more use of a live lease.
    pub fn count_use(&self, session: SessionId, id: LeaseId) -> Result<Lease, LeaseError> {
        let mut book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
        let kept = book.find_mut(id, self.clock.now())?;
        kept.lease.uses = kept.lease.uses.saturating_add(1);
        Ok(kept.lease.clone())
    }

    /// Moves the end of a live lease, as far as today's grant lets it. `ttl` absent: the role's.
    pub fn renew(
        &self,
        session: SessionId,
        id: LeaseId,
        grant: &Grant,
        ttl: Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let bounds = grant.bounds();
        let ttl = ttl.unwrap_or(bounds.lease_default_ttl);
        let now = self.clock.now();
        let mut book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
        let kept = book.find_mut(id, now)?;
        self.unschedule(kept);
        kept.lease.terms = kept.lease.terms.renewed(now, ttl, bounds.lease_max_ttl);
        kept.warn_at = self.schedule(&kept.lease, now);
        Ok(kept.lease.clone())
    }

    /// Ends a live lease at its holder's wish, or because its value could not be released.
    pub fn release(&self, session: SessionId, id: LeaseId) -> Result<Lease, LeaseError> {
        let mut book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
        book.find(id, self.clock.now())?;
        self.end(&mut book, id, LeaseError::Revoked).ok_or(LeaseError::NotAvailable)
    }

    /// Ends a lease at the operator's wish, whosever it is.
    pub fn revoke(&self, id: LeaseId) -> Option<Lease> {
        self.books.iter_mut().find_map(|mut book| {
            let lease = self.end(&mut book, id, LeaseError::Revoked)?;
            book.tell(&lease, EventKind::Revoked);
            Some(lease)
        })
    }

    /// Closes the book of a session that ended. Its watchers see every lease revoked, then the end.
    pub fn dismiss(&self, session: SessionId) -> Vec<Lease> {
        let Some((_, mut book)) = self.books.remove(&session) else { return Vec::new() };
        let live: Vec<LeaseId> = book.live.keys().copied().collect();
        let end = |id| {
            let lease = self.end(&mut book, id, LeaseError::Revoked)?;
            book.tell(&lease, EventKind::Revoked);
            Some(lease)
        };
        live.into_iter().filter_map(end).collect()
    }

    /// Waits for deadlines; give them to [`Leases::act`].
    pub async fn due(&self) -> Vec<Due> {
        self.deadlines.due(&*self.clock).await
    }

    /// Warns or expires. Returns the lease if this ended it. A lease that was renewed after its deadline
    /// was taken out of the set is left alone: its new deadlines are in it.
    pub fn act(&self, due: Due) -> Option<Lease> {
        let now = self.clock.now();
        let mut book = self.books.get_mut(&due.session)?;
        let kept = book.live.get(&due.lease)?;
        match due.kind {
            DueKind::Warn if kept.warn_at.is_some_and(|at| at <= now) => {
                book.tell(&kept.lease, EventKind::Expiring);
                None
            }
            DueKind::Expire if !kept.lease.terms.hold(now) => {
                let lease = self.end(&mut book, due.lease, LeaseError::Expired)?;
                book.tell(&lease, EventKind::Expired);
                Some(lease)
            }
            DueKind::Warn | DueKind::Expire => None,
        }
    }

    /// Tells the holders of leases on a value that it changed.
    pub fn rotated(&self, identity: IdentityUuid, resource: &Resource) {
        for book in &self.books {
            for kept in book.live.values() {
                if kept.lease.identity == identity && kept.lease.resource == *resource {
                    book.tell(&kept.lease, EventKind::Rotated);
                }
            }
        }
    }

    /// What happens to the session's leases from now on.
    pub fn watch(&self, session: SessionId) -> Result<broadcast::Receiver<Event>, LeaseError> {
        let book = self.books.get(&session).ok_or(LeaseError::SessionEnded)?;
        if book.events.receiver_count() >= MAX_WATCHERS {
            return Err(LeaseError::Capacity("watchers of one session"));
        }
        Ok(book.events.subscribe())
    }

    /// The values that somebody watches a lease on, without repetition.
    pub fn watched(&self) -> Vec<(IdentityUuid, Resource)> {
        let watched = self.books.iter().filter(|book| book.events.receiver_count() > 0);
        let mut values: Vec<_> = watched
            .flat_map(|book| {
                let value = |kept: &Kept| (kept.lease.identity, kept.lease.resource.clone());
                book.live.values().map(value).collect::<Vec<_>>()
            })
            .collect();
        values.sort();
        values.dedup();
        values
    }

    /// The live leases of a session, oldest first.
    pub fn list(&self, session: SessionId) -> Vec<Lease> {
        let now = self.clock.now();
        let Some(book) = self.books.get(&session) else { return Vec::new() };
        let live = book.live.values().filter(|kept| kept.lease.terms.hold(now));
        let mut leases: Vec<Lease> = live.map(|kept| kept.lease.clone()).collect();
        leases.sort_by_key(|lease| (lease.terms.granted_at, lease.id));
        leases
    }

    /// How many leases a session has.
    pub fn count(&self, session: SessionId) -> usize {
        self.books.get(&session).map_or(0, |book| book.live.len())
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.books.iter().map(|book| book.live.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self, book: &mut Book, id: LeaseId, why: LeaseError) -> Option<Lease> {
        let kept = book.live.remove(&id)?;
        self.unschedule(&kept);
        if book.ended.len() == REMEMBERED {
            book.ended.pop_front();
        }
        book.ended.push_back((id, why));
        Some(kept.lease)
    }

    fn schedule(&self, lease: &Lease, now: BootInstant) -> Option<BootInstant> {
        let due = |kind| Due { kind, session: lease.session, lease: lease.id };
        self.deadlines.insert(lease.terms.expires_at, due(DueKind::Expire));
        let warn_at = lease.terms.warn_at(now);
        if let Some(at) = warn_at {
            self.deadlines.insert(at, due(DueKind::Warn));
        }
        warn_at
    }

    fn unschedule(&self, kept: &Kept) {
        let due = |kind| Due { kind, session: kept.lease.session, lease: kept.lease.id };
        self.deadlines.remove(kept.lease.terms.expires_at, due(DueKind::Expire));
        if let Some(at) = kept.warn_at {
            self.deadlines.remove(at, due(DueKind::Warn));
        }
    }
}

/// What the vault found for a grant.
#[derive(Clone, Debug)]
pub struct Found {
    /// Whose it is.
    pub identity: IdentityUuid,
    /// Its canonical name.
    pub resource: Resource,
    /// When the value itself ends.
    pub ends_at: Option<BootInstant>,
}

impl Book {
    fn check_room(&self, max_live: usize) -> Result<(), LeaseError> {
        if self.live.len() >= max_live { Err(LeaseError::Capacity("lease.max_live")) } else { Ok(()) }
    }

    fn find(&self, id: LeaseId, now: BootInstant) -> Result<&Kept, LeaseError> {
        match self.live.get(&id) {
            Some(kept) if kept.lease.terms.hold(now) => Ok(kept),
            Some(_) => Err(LeaseError::Expired),
            None => Err(self.why_ended(id)),
        }
    }

    fn find_mut(&mut self, id: LeaseId, now: BootInstant) -> Result<&mut Kept, LeaseError> {
        self.find(id, now)?;
        self.live.get_mut(&id).ok_or(LeaseError::NotAvailable)
    }

    fn why_ended(&self, id: LeaseId) -> LeaseError {
        let ended = self.ended.iter().find(|(ended, _)| *ended == id);
        ended.map_or(LeaseError::NotAvailable, |(_, why)| *why)
    }

    fn tell(&self, lease: &Lease, kind: EventKind) {
        // Nobody watching is fine.
        let _ = self.events.send(Event { lease: lease.id, resource: lease.resource.clone(), kind });
    }
}

fn new_id() -> Result<LeaseId, LeaseError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| LeaseError::NoRandom)?;
    Ok(LeaseId(bytes))
}
