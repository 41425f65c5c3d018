//! Leases: time-bounded access of one session to one credential.
//!
//! Each session has a book of its leases, so a lease of another session is simply not there. A lease
//! ends by the deadline task, and a read checks the deadline as well. Only a [`Grant`], which only
//! policy makes, gets a lease. May import layers 0 and 1, `policy` and `session`.

mod book;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use dashmap::DashMap;
use tokio::sync::broadcast;

use self::book::{Book, Kept};
pub use self::state::Terms;
use crate::approval::Approval;
use crate::clock::{BootInstant, Clock, Deadlines};
use crate::policy::Grant;
use crate::session::Session;
use crate::types::{Delivery, IdentityUuid, LeaseId, Resource, RoleName, SessionId};

/// Watchers of one session.
const MAX_WATCHERS: usize = 8;

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
    /// How its value is delivered.
    pub delivery: Delivery,
    /// Until when.
    pub terms: Terms,
    /// How often the value was handed out under it.
    pub uses: u64,
    /// Whether its end really ends access.
    pub revocable: bool,
    /// What the operator said to it, if that was asked for: what is done under the lease is not asked about again.
    pub approval: Option<Approval>,
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
    handles: Handles,
    clock: Arc<dyn Clock>,
}

impl Leases {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { books: DashMap::new(), deadlines: Deadlines::new(), handles: Handles::default(), clock }
    }

    /// Opens the book of a new session.
    pub fn enroll(&self, session: SessionId) {
        self.books.insert(session, Book::new());
    }

    /// Whether one more lease fits: asked before anything is fetched for it.
    pub fn check_room(&self, session: SessionId, max_live: usize) -> Result<(), LeaseError> {
        self.books.get(&session).ok_or(LeaseError::SessionEnded)?.check_room(max_live)
    }

    /// Grants a lease on what the vault found for the grant.
    pub fn grant(
        &self,
        session: &Session,
        grant: &Grant,
        found: Found,
        ttl: Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let bounds = grant.bounds();
        let now = self.clock.now();
        let limit = (now + bounds.lease_max_ttl).min(session.expires_at());
        let limit = found.ends_at.map_or(limit, |ends_at| limit.min(ends_at));
        let ttl = ttl.unwrap_or(bounds.lease_default_ttl);
        let lease = Lease {
            id: self.handles.next()?,
            session: session.id,
            role: session.role.clone(),
            identity: found.identity,
            revocable: found.resource == Resource::SsoToken,
            resource: found.resource,
            delivery: grant.delivery(),
            terms: Terms::new(now, ttl, limit),
            uses: 1,
            approval: grant.approval().cloned(),
        };
        let mut book = self.books.get_mut(&session.id).ok_or(LeaseError::SessionEnded)?;
        book.check_room(bounds.lease_max_live)?;
        let kept = Kept { warn_at: self.schedule(&lease, now), lease: lease.clone() };
        book.open(kept);
        Ok(lease)
    }

    /// A live lease of the session.
    pub fn find(&self, session: SessionId, id: LeaseId) -> Result<Lease, LeaseError> {
        let book = self.books.get(&session).ok_or(LeaseError::SessionEnded)?;
        book.find(id, self.clock.now()).map(|kept| kept.lease.clone())
    }

    /// Whether any session has this live lease. Looks at all of them, whatever it finds, so that the time it
    /// takes does not tell.
    pub fn is_live(&self, id: LeaseId) -> bool {
        self.books.iter().filter(|book| book.live.contains_key(&id)).count() > 0
    }

    /// Counts one more use of a live lease.
    pub fn count_use(&self, session: SessionId, id: LeaseId) -> Result<Lease, LeaseError> {
        let mut book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
        let kept = book.find_mut(id, self.clock.now())?;
        kept.lease.uses = kept.lease.uses.saturating_add(1);
        Ok(kept.lease.clone())
    }

    /// Moves the end of a live lease; `longest` is the role's maximum of today.
    pub fn renew(
        &self,
        session: SessionId,
        id: LeaseId,
        ttl: Duration,
        longest: Duration,
    ) -> Result<Lease, LeaseError> {
        let now = self.clock.now();
        let mut book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
        let kept = book.find_mut(id, now)?;
        self.unschedule(kept);
        kept.lease.terms = kept.lease.terms.renewed(now, ttl, longest);
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

    /// The static values that a session was given, in order: its end does not take them back.
    pub fn seen(&self, session: SessionId) -> Vec<Resource> {
        self.books.get(&session).map_or_else(Vec::new, |book| book.seen())
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
        // Alone with the book, so that two who come at once do not take the same place.
        let book = self.books.get_mut(&session).ok_or(LeaseError::SessionEnded)?;
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
        let kept = book.close(id, why)?;
        self.unschedule(&kept);
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

/// Random handles, of which many are drawn at once: they are no secrets.
#[derive(Default)]
struct Handles(Mutex<Vec<[u8; 16]>>);

impl Handles {
    const DRAWN: usize = 64;

    fn next(&self) -> Result<LeaseId, LeaseError> {
        let mut drawn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.is_empty() {
            let mut more = [[0; 16]; Self::DRAWN];
            rand::fill(more.as_flattened_mut()).map_err(|_| LeaseError::NoRandom)?;
            drawn.extend(more);
        }
        drawn.pop().map(LeaseId).ok_or(LeaseError::NoRandom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;
    use crate::config::{self, Environment, Overrides, Source};
    use crate::peer::{Peer, ProcessId};
    use crate::policy::{Action, Decision, Policy};
    use crate::session::{Anchor, Opening, Sessions};

    const HOUR: Duration = Duration::from_secs(3_600);
    const ROLE: &str = r#"
version = 1
[role.notes]
identity = "assistant-notes-agent"
match = { uid = 1000 }
scopes = ["secret:read", "sso:mint"]
session = { ttl = "2h" }
lease = { default_ttl = "5m", max_ttl = "1h", max_live = 3 }
"#;

    /// A session of one role, its policy, and the leases, on a clock that the test moves.
    struct World {
        clock: ManualClock,
        leases: Leases,
        policy: Policy,
        session: Arc<Session>,
    }

    impl World {
        fn new() -> Self {
            let clock = ManualClock::new();
            let source = Source::of("test", ROLE);
            let environment = Environment::of(
                1000,
                [(config::Variable::XdgRuntimeDir, "/run/user/1000"), (config::Variable::Home, "/home/user")],
            );
            let draft = config::read(&source, &environment, &Overrides::default()).unwrap();
            let policy = Policy::compile(&draft.config).unwrap();
            draft.finish(Vec::new()).unwrap();
            let shared: Arc<dyn Clock> = Arc::new(clock.clone());
            let sessions = Sessions::new(8, shared.clone());
            let opener = Arc::new(Peer::imagined(1000, 1000, Some(ProcessId::imagined(4242, 1)), None));
            let role = policy.assume(&"notes".parse().unwrap(), &opener).unwrap();
            let opening = Opening { scopes: Vec::new(), ttl: None, reason: None, anchor: Anchor::Caller };
            let (session, _) =
                sessions.open(&role, &opener, opening).unwrap_or_else(|error| panic!("{error:?}"));
            let leases = Leases::new(shared);
            leases.enroll(session.id);
            Self { clock, leases, policy, session }
        }

        fn acquire_for(
            &self,
            name: &str,
            ends_in: Option<u64>,
            ttl: Option<u64>,
        ) -> Result<Lease, LeaseError> {
            let resource: Resource = name.parse().unwrap();
            let action = Action::Acquire(resource.clone(), Delivery::Shown);
            let decided = self.policy.authorize(&self.session.role, None, action).unwrap();
            let Decision::Granted(grant) = decided else { panic!("it waits") };
            let ends_at = ends_in.map(|seconds| self.clock.now() + Duration::from_secs(seconds));
            let found = Found { identity: IdentityUuid(uuid::Uuid::nil()), resource, ends_at };
            self.leases.grant(&self.session, &grant, found, ttl.map(Duration::from_secs))
        }

        fn acquire(&self) -> Lease {
            self.acquire_for("secret/KEY", None, None).unwrap()
        }

        fn left(&self, lease: &Lease) -> u64 {
            lease.terms.expires_at.since(self.clock.now()).as_secs()
        }

        fn pass(&self, seconds: u64) {
            self.clock.advance(Duration::from_secs(seconds));
        }

        async fn act_on_what_is_due(&self) -> Vec<LeaseId> {
            let due = self.leases.due().await;
            due.into_iter().filter_map(|due| self.leases.act(due)).map(|lease| lease.id).collect()
        }
    }

    #[test]
    fn a_lease_lasts_as_the_role_says_and_no_longer_than_its_maximum() {
        let world = World::new();
        assert_eq!(world.left(&world.acquire()), 300);
        assert_eq!(world.left(&world.acquire_for("secret/KEY", None, Some(9_000)).unwrap()), 3600);
    }

    #[test]
    fn a_lease_never_outlives_its_session() {
        let world = World::new();
        world.pass(7_000);
        let lease = world.acquire();
        assert_eq!(world.left(&lease), 200);
        let renewed =
            world.leases.renew(world.session.id, lease.id, Duration::from_secs(3_600), HOUR).unwrap();
        assert_eq!(world.left(&renewed), 200);
    }

    #[test]
    fn a_lease_never_outlives_the_value_it_is_for() {
        let world = World::new();
        let lease = world.acquire_for("sso/token", Some(240), None).unwrap();
        assert_eq!(world.left(&lease), 240);
        assert!(lease.revocable);
        let renewed = world.leases.renew(world.session.id, lease.id, Duration::from_secs(300), HOUR).unwrap();
        assert_eq!(world.left(&renewed), 240);
    }

    #[test]
    fn renewals_together_stay_within_the_maximum_of_the_role() {
        let world = World::new();
        let lease = world.acquire();
        for _ in 0..20 {
            world.pass(170);
            let renewed =
                world.leases.renew(world.session.id, lease.id, Duration::from_secs(300), HOUR).unwrap();
            assert!(renewed.terms.expires_at <= lease.terms.limit_at);
        }
        world.pass(3_600 - 20 * 170);
        let late = world.leases.renew(world.session.id, lease.id, Duration::from_secs(300), HOUR);
        assert_eq!(late, Err(LeaseError::Expired));
    }

    #[test]
    fn a_read_checks_the_deadline_itself() {
        let world = World::new();
        let lease = world.acquire();
        world.pass(300);
        assert_eq!(world.leases.find(world.session.id, lease.id), Err(LeaseError::Expired));
        assert_eq!(world.leases.count_use(world.session.id, lease.id), Err(LeaseError::Expired));
        assert!(world.leases.list(world.session.id).is_empty());
    }

    #[tokio::test]
    async fn the_holder_is_warned_and_then_told() {
        let world = World::new();
        let mut events = world.leases.watch(world.session.id).unwrap();
        let lease = world.acquire();
        world.pass(270);
        assert!(world.act_on_what_is_due().await.is_empty());
        assert_eq!(events.try_recv().unwrap().kind, EventKind::Expiring);
        world.pass(30);
        assert_eq!(world.act_on_what_is_due().await, [lease.id]);
        assert_eq!(events.try_recv().unwrap().kind, EventKind::Expired);
        assert_eq!(world.leases.find(world.session.id, lease.id), Err(LeaseError::Expired));
    }

    #[tokio::test]
    async fn a_deadline_that_was_taken_out_before_a_renewal_does_not_end_the_lease() {
        let world = World::new();
        let lease = world.acquire();
        world.pass(299);
        let _warning = world.leases.due().await;
        world.leases.renew(world.session.id, lease.id, Duration::from_secs(600), HOUR).unwrap();
        let stale = Due { kind: DueKind::Expire, session: world.session.id, lease: lease.id };
        world.pass(1);
        assert!(world.leases.act(stale).is_none());
        assert!(world.leases.find(world.session.id, lease.id).is_ok());
    }

    #[test]
    fn a_session_has_no_more_leases_than_the_role_lets_it() {
        let world = World::new();
        let first = world.acquire();
        world.acquire();
        world.acquire();
        assert_eq!(world.acquire_for("secret/KEY", None, None), Err(LeaseError::Capacity("lease.max_live")));
        world.leases.release(world.session.id, first.id).unwrap();
        world.acquire();
    }

    #[test]
    fn a_lease_of_another_session_is_not_there() {
        let world = World::new();
        let lease = world.acquire();
        let other = SessionId([9; 16]);
        world.leases.enroll(other);
        assert_eq!(world.leases.find(other, lease.id), Err(LeaseError::NotAvailable));
        assert_eq!(world.leases.release(other, lease.id), Err(LeaseError::NotAvailable));
    }

    #[test]
    fn a_revoked_lease_stays_revoked() {
        let world = World::new();
        let lease = world.acquire();
        world.leases.revoke(lease.id).unwrap();
        let renewed = world.leases.renew(world.session.id, lease.id, Duration::from_secs(60), HOUR);
        assert_eq!(renewed, Err(LeaseError::Revoked));
        assert!(world.leases.revoke(lease.id).is_none());
    }

    #[test]
    fn with_its_session_every_lease_ends_and_nothing_is_left() {
        let world = World::new();
        let mut events = world.leases.watch(world.session.id).unwrap();
        world.acquire();
        world.acquire();
        assert_eq!(world.leases.dismiss(world.session.id).len(), 2);
        assert_eq!(events.try_recv().unwrap().kind, EventKind::Revoked);
        assert_eq!(events.try_recv().unwrap().kind, EventKind::Revoked);
        assert_eq!(events.try_recv(), Err(broadcast::error::TryRecvError::Closed));
        assert!(world.leases.is_empty());
        assert_eq!(world.acquire_for("secret/KEY", None, None), Err(LeaseError::SessionEnded));
    }

    #[test]
    fn only_the_holders_of_a_changed_value_are_told() {
        let world = World::new();
        world.acquire_for("secret/KEY", None, None).unwrap();
        world.acquire_for("secret/OTHER", None, None).unwrap();
        let mut events = world.leases.watch(world.session.id).unwrap();
        world.leases.rotated(IdentityUuid(uuid::Uuid::nil()), &"secret/KEY".parse().unwrap());
        let event = events.try_recv().unwrap();
        assert_eq!((event.kind, event.resource), (EventKind::Rotated, "secret/KEY".parse().unwrap()));
        assert!(events.try_recv().is_err());
    }
}
