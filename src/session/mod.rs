//! Sessions: agent processes that have assumed a role.
//!
//! A session belongs to its anchor, a process that the kernel named; its token works for that process
//! and what it starts, under the same user, and nowhere else. A token from elsewhere is refused with
//! the same error as an unknown one. May import layers 0 and 1, `policy` and `audit`.

mod token;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use self::token::{Presented, TokenHash};
use crate::audit::Actor;
use crate::clock::{BootInstant, Clock, Deadlines};
use crate::peer::{Peer, ProcessId};
use crate::policy::Role;
use crate::policy::scope::Scope;
use crate::secret::Secret;
use crate::types::{Reason, RoleName, SessionId};

/// Ended sessions that are still told why.
const REMEMBERED: usize = 1024;
/// The first process of a system or container: everything descends from it.
const INIT: u32 = 1;

/// How to open a session.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Fewer scopes than the role's.
    pub scopes: Vec<Scope>,
    /// Longest life; the role's bound applies.
    pub ttl: Option<Duration>,
    /// For the audit trail.
    pub reason: Option<Reason>,
    /// Which process the session belongs to.
    pub anchor: Anchor,
}

/// Which process a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The caller.
    Caller,
    /// The caller's parent, as the kernel names it.
    Parent,
}

/// One live or ended session.
pub struct Session {
    /// Public handle.
    pub id: SessionId,
    /// The role it assumed.
    pub role: RoleName,
    /// The scopes it was opened with, if fewer than the role's.
    pub narrowed: Option<Arc<[Scope]>>,
    /// Who opened it.
    pub opener: Arc<Peer>,
    /// Whose descendants may use it.
    pub anchor: ProcessId,
    /// When it began.
    pub opened_at: BootInstant,
    /// When it ends at the latest.
    pub expires_at: BootInstant,
    /// What the opener said it was for.
    pub reason: Option<Reason>,
    /// How the audit trail names it.
    pub actor: Actor,
    holder: Holder,
    ended: CancellationToken,
    end: OnceLock<End>,
}

/// Who may present a session's token.
#[derive(Clone, Copy)]
struct Holder {
    token: TokenHash,
    uid: u32,
    anchor: ProcessId,
}

/// What is kept of a session that ended: enough to tell its holder why, and no descriptor.
struct Past {
    id: SessionId,
    holder: Holder,
    end: End,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its holder closed it.
    Closed,
    /// Its time was up.
    Expired,
    /// The operator revoked it.
    Revoked,
    /// The operator locked the broker.
    Locked,
    /// The process that it belongs to ended.
    ProcessEnded,
    /// After a reload its role is gone or no longer matches.
    RoleChanged,
    /// The daemon is shutting down.
    Stopping,
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A scope goes beyond the role's.
    ScopeNotGranted,
    /// The kernel does not name the process to bind to, or it is the init process.
    NoAnchor,
    /// The role's sessions, or all, are at their bound.
    Capacity(&'static str),
    /// The system's random source failed.
    NoRandom,
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Unknown or malformed.
    Unknown,
    /// From a process that the session does not belong to. The caller is not told.
    Foreign,
    /// The caller's own session, which is over.
    Ended(End),
}

/// The sessions. Concurrency: any thread; one task waits on [`Sessions::due`].
pub struct Sessions {
    live: DashMap<SessionId, Arc<Session>>,
    /// Held while a session is counted and added, so that a bound is not overrun by a race.
    opening: Mutex<()>,
    remembered: Mutex<VecDeque<Past>>,
    deadlines: Deadlines<SessionId>,
    max: usize,
    clock: Arc<dyn Clock>,
}

impl Session {
    /// Whether it has not ended: not by an event, and not by the clock.
    pub fn is_live(&self, now: BootInstant) -> bool {
        self.end.get().is_none() && now < self.expires_at
    }

    /// Why it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Done when the session has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Holder {
    /// The token first: who does not have it learns nothing about the process it is bound to.
    fn check(&self, presented: &Presented, peer: &Peer) -> Result<(), TokenError> {
        if !presented.is(&self.token) {
            return Err(TokenError::Unknown);
        }
        let its_own = peer.uid == self.uid && !peer.foreign && peer.descends_from(self.anchor);
        if its_own { Ok(()) } else { Err(TokenError::Foreign) }
    }
}

impl Sessions {
    /// None yet; at most `max` at once.
    pub fn new(max: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            live: DashMap::new(),
            opening: Mutex::new(()),
            remembered: Mutex::new(VecDeque::new()),
            deadlines: Deadlines::new(),
            max,
            clock,
        }
    }

    /// Opens a session for a process that `policy` let assume the role. Returns it with its token.
    pub fn open(
        &self,
        role: &Role,
        opener: &Arc<Peer>,
        opening: Opening,
    ) -> Result<(Arc<Session>, Secret), OpenError> {
        let covered = |wanted: &Scope| role.scopes().iter().any(|granted| granted.covers(wanted));
        if !opening.scopes.iter().all(covered) {
            return Err(OpenError::ScopeNotGranted);
        }
        let anchor = anchor(opener, opening.anchor).ok_or(OpenError::NoAnchor)?;
        let (id, hash, token) = token::mint().ok_or(OpenError::NoRandom)?;
        let now = self.clock.now();
        let ttl = opening.ttl.unwrap_or(role.bounds.session_ttl).min(role.bounds.session_ttl);
        let session = Arc::new(Session {
            id,
            role: role.name().clone(),
            narrowed: (!opening.scopes.is_empty()).then(|| opening.scopes.into()),
            opener: opener.clone(),
            anchor,
            opened_at: now,
            expires_at: now + ttl,
            reason: opening.reason,
            actor: Actor { session: Some(id), ..actor_of(opener, Some(role.name())) },
            holder: Holder { token: hash, uid: opener.uid, anchor },
            ended: CancellationToken::new(),
            end: OnceLock::new(),
        });
        self.admit(session.clone(), role)?;
        Ok((session, token))
    }

    /// The live session of a token, if this process may use it.
    pub fn authenticate(&self, peer: &Peer, token: &str) -> Result<Arc<Session>, TokenError> {
        let presented = Presented::read(token).ok_or(TokenError::Unknown)?;
        let Some(session) = self.find(presented.id) else {
            let (holder, end) = self.recall(presented.id).ok_or(TokenError::Unknown)?;
            return holder.check(&presented, peer).and(Err(TokenError::Ended(end)));
        };
        session.holder.check(&presented, peer)?;
        match session.end() {
            Some(end) => Err(TokenError::Ended(end)),
            None if self.clock.now() >= session.expires_at => Err(TokenError::Ended(End::Expired)),
            None => Ok(session),
        }
    }

    /// Ends a session. `None`: it was not live.
    pub fn end(&self, id: SessionId, end: End) -> Option<Arc<Session>> {
        let (_, session) = self.live.remove(&id)?;
        self.deadlines.remove(session.expires_at, id);
        // Set once: the map gives the session to one caller only.
        let _ = session.end.set(end);
        session.ended.cancel();
        let mut remembered = lock(&self.remembered);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(Past { id, holder: session.holder, end });
        Some(session)
    }

    /// Waits for sessions whose time is up.
    pub async fn due(&self) -> Vec<SessionId> {
        self.deadlines.due(&*self.clock).await
    }

    /// The live sessions, in no order.
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.live.iter().map(|session| session.clone()).collect()
    }

    /// One live session.
    pub fn find(&self, id: SessionId) -> Option<Arc<Session>> {
        self.live.get(&id).map(|session| session.clone())
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none is live.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    fn admit(&self, session: Arc<Session>, role: &Role) -> Result<(), OpenError> {
        let _opening = lock(&self.opening);
        if self.live.len() >= self.max {
            return Err(OpenError::Capacity("limits.sessions"));
        }
        let of_role = self.live.iter().filter(|live| live.role == *role.name()).count();
        if of_role >= role.bounds.session_max_live {
            return Err(OpenError::Capacity("session.max_live"));
        }
        self.deadlines.insert(session.expires_at, session.id);
        self.live.insert(session.id, session);
        Ok(())
    }

    fn recall(&self, id: SessionId) -> Option<(Holder, End)> {
        let remembered = lock(&self.remembered);
        remembered.iter().rev().find(|past| past.id == id).map(|past| (past.holder, past.end))
    }
}

/// How the audit trail names a process that has no session.
pub fn actor_of(peer: &Peer, role: Option<&RoleName>) -> Actor {
    Actor {
        session: None,
        role: role.cloned(),
        identity: None,
        uid: Some(peer.uid),
        pid: peer.process.and_then(|process| i32::try_from(process.pid).ok()),
        exe: peer.executable.as_ref().map(|file| file.path.as_path().into()),
    }
}

fn anchor(opener: &Peer, anchor: Anchor) -> Option<ProcessId> {
    match anchor {
        Anchor::Caller => opener.process,
        Anchor::Parent => opener.parent().filter(|parent| parent.pid != INIT),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
