//! Sessions: agent processes that have assumed a role, and what they delegate.
//!
//! A session belongs to its anchor, a process that the kernel named; its token works for the processes of
//! its [`Binding`], under the same user, and nowhere else. A token from elsewhere is refused with the same
//! error as an unknown one. Sessions form trees (`tree`): one that was delegated ends with its parent. May import
//! layers 0 and 1, `policy` and `audit`.

mod binding;
mod token;
mod tree;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

pub use self::binding::Binding;
use self::token::{Presented, TokenHash};
use crate::audit::Actor;
use crate::clock::{BootInstant, Clock, Deadlines};
use crate::peer::{Namespace, Peer, ProcessId};
use crate::policy::Role;
use crate::policy::scope::Scope;
use crate::secret::Secret;
use crate::types::{Reason, RoleName, SessionId};

/// Ended sessions that are still told why.
const REMEMBERED: usize = 1024;
/// Holders that may open no session any more; the oldest give way.
const MAX_BARRED: usize = 256;
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

/// How to delegate.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Fewer scopes than the parent's. Empty: all of them.
    pub scopes: Vec<Scope>,
    /// Longest life; the parent's end applies.
    pub ttl: Option<Duration>,
    /// For the audit trail.
    pub reason: Option<Reason>,
    /// The process that the child belongs to. Absent: the parent's own.
    pub pid: Option<u32>,
}

/// One live or ended session.
pub struct Session {
    /// Public handle.
    pub id: SessionId,
    /// The role it assumed.
    pub role: RoleName,
    /// The scopes it was opened with, if fewer than the role's.
    pub narrowed: Option<Arc<[Scope]>>,
    /// Who assumed the role: of a delegated session, the opener of its root.
    pub opener: Arc<Peer>,
    /// The session it was delegated from.
    pub parent: Option<SessionId>,
    /// The first of its tree, whose meters count for all of them.
    pub root: SessionId,
    /// When it began.
    pub opened_at: BootInstant,
    /// What the opener said it was for.
    pub reason: Option<Reason>,
    /// How the audit trail names it.
    pub actor: Actor,
    holder: Holder,
    /// Sessions above it.
    depth: usize,
    /// Nanoseconds of a [`BootInstant`]. Written under [`Sessions::changing`].
    expires_at: AtomicU64,
    /// Live sessions that were delegated from it. Changed under [`Sessions::changing`].
    children: Mutex<Vec<SessionId>>,
    ended: CancellationToken,
    end: OnceLock<End>,
}

/// Who may present a session's token.
#[derive(Clone)]
struct Holder {
    token: TokenHash,
    uid: u32,
    binding: Binding,
    /// The role says that it may be used from them.
    other_namespaces: bool,
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
    /// The session that it was delegated from ended.
    ParentEnded,
    /// After a reload its role is gone or no longer matches.
    RoleChanged,
    /// It asked for a name that no honest agent asks for.
    Honeytoken,
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
    /// The role binds to a cgroup, and the process is in none but the root.
    NoCgroup,
    /// A process whose session asked for a honeytoken opens no other.
    Barred,
    /// The named process is not alive, or may not use the parent session.
    NoProcess,
    /// The parent session is over.
    ParentEnded,
    /// The role's sessions, or all, are at their bound.
    Capacity(&'static str),
    /// The system's random source failed.
    NoRandom,
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Unknown or malformed.
    Unknown,
    /// From a process that the session does not belong to. The caller is not told; the operator is.
    Foreign {
        /// Whose token it is.
        session: SessionId,
        /// In words, to what it is bound.
        bound: String,
    },
    /// The caller's own session, which is over.
    Ended(End),
    /// The process that assumed the role has become another program, which does not match. With the reasons,
    /// for the operator.
    Exec(Vec<String>),
    /// The role asks what its process runs, and that cannot be told now. The session goes on.
    Untold,
}

/// The sessions. Concurrency: any thread; one task waits on [`Sessions::due`].
pub struct Sessions {
    live: DashMap<SessionId, Arc<Session>>,
    /// Held while a session is counted and added, moved or ended: a bound is not overrun, and no child is
    /// added to a parent that ends.
    changing: Mutex<()>,
    remembered: Mutex<VecDeque<Past>>,
    /// Whose sessions asked for a honeytoken.
    barred: Mutex<VecDeque<Holder>>,
    deadlines: Deadlines<SessionId>,
    max: usize,
    clock: Arc<dyn Clock>,
}

impl Session {
    /// Whether it has not ended: not by an event, and not by the clock.
    pub fn is_live(&self, now: BootInstant) -> bool {
        self.end.get().is_none() && now < self.expires_at()
    }

    /// When it ends at the latest.
    pub fn expires_at(&self) -> BootInstant {
        BootInstant::from_nanos(self.expires_at.load(Ordering::Relaxed))
    }

    /// Which processes may use it.
    pub fn binding(&self) -> &Binding {
        &self.holder.binding
    }

    /// The process that it lives and dies with.
    pub fn anchor(&self) -> ProcessId {
        self.holder.binding.anchor()
    }

    /// Why it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Cancelled when the session has ended: for what does not hold it.
    pub fn end_token(&self) -> CancellationToken {
        self.ended.clone()
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
        let foreign = || TokenError::Foreign { session: presented.id, bound: self.binding.to_string() };
        if self.admits(peer) { Ok(()) } else { Err(foreign()) }
    }

    /// The binding of a child: the parent's own, or the subtree of a living process within it.
    fn binding_for(&self, pid: Option<u32>) -> Option<Binding> {
        let Some(pid) = pid else { return Some(self.binding.clone()) };
        let process = ProcessId::of(pid).filter(|process| process.pid != INIT)?;
        self.binding.covers(process).then_some(Binding::Subtree(process))
    }

    /// Whether the process may use the session.
    fn admits(&self, peer: &Peer) -> bool {
        let named = !peer.foreign && (self.other_namespaces || peer.namespace == Namespace::Ours);
        peer.uid == self.uid && named && self.binding.admits(peer)
    }
}

impl Sessions {
    /// None yet; at most `max` at once.
    pub fn new(max: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            live: DashMap::new(),
            changing: Mutex::new(()),
            remembered: Mutex::new(VecDeque::new()),
            barred: Mutex::new(VecDeque::new()),
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
        if self.is_barred(opener) {
            return Err(OpenError::Barred);
        }
        let covered = |wanted: &Scope| role.scopes().iter().any(|granted| granted.covers(wanted));
        if !opening.scopes.iter().all(covered) {
            return Err(OpenError::ScopeNotGranted);
        }
        let anchor = anchor(opener, opening.anchor).ok_or(OpenError::NoAnchor)?;
        let binding = Binding::of(role.bind, anchor).ok_or(OpenError::NoCgroup)?;
        let other_namespaces = role.admits_other_namespaces();
        let (id, token, secret) = token::mint().ok_or(OpenError::NoRandom)?;
        let now = self.clock.now();
        let ttl = opening.ttl.unwrap_or(role.bounds.session_ttl).min(role.bounds.session_ttl);
        let session = Arc::new(Session {
            id,
            role: role.name().clone(),
            narrowed: (!opening.scopes.is_empty()).then(|| opening.scopes.into()),
            opener: opener.clone(),
            parent: None,
            root: id,
            opened_at: now,
            reason: opening.reason,
            actor: Actor { session: Some(id), ..actor_of(opener, Some(role.name())) },
            holder: Holder { token, uid: opener.uid, binding, other_namespaces },
            depth: 0,
            expires_at: AtomicU64::new((now + ttl).as_nanos()),
            children: Mutex::default(),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
        });
        self.admit(&session, role, None)?;
        Ok((session, secret))
    }

    /// The live session of a token, if this process may use it.
    pub fn authenticate(&self, peer: &Peer, token: &str) -> Result<Arc<Session>, TokenError> {
        let presented = Presented::read(token).ok_or(TokenError::Unknown)?;
        let Some(session) = self.find(presented.id) else {
            let (holder, end) = self.recall(presented.id).ok_or(TokenError::Unknown)?;
            return holder.check(&presented, peer).and(Err(TokenError::Ended(end)));
        };
        session.holder.check(&presented, peer)?;
        self.living(session)
    }

    /// The live session of a link, if this process may use it.
    pub fn authenticate_linked(&self, peer: &Peer, id: SessionId) -> Result<Arc<Session>, TokenError> {
        let session = self.find(id).ok_or(TokenError::Unknown)?;
        if !session.holder.admits(peer) {
            return Err(TokenError::Foreign { session: id, bound: session.binding().to_string() });
        }
        self.living(session)
    }

    fn living(&self, session: Arc<Session>) -> Result<Arc<Session>, TokenError> {
        match session.end() {
            Some(end) => Err(TokenError::Ended(end)),
            None if self.clock.now() >= session.expires_at() => Err(TokenError::Ended(End::Expired)),
            None => Ok(session),
        }
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

    fn admit(
        &self,
        session: &Arc<Session>,
        role: &Role,
        parent: Option<&Arc<Session>>,
    ) -> Result<(), OpenError> {
        let _changing = lock(&self.changing);
        if parent.is_some_and(|parent| parent.end().is_some()) {
            return Err(OpenError::ParentEnded);
        }
        if self.live.len() >= self.max {
            return Err(OpenError::Capacity("limits.sessions"));
        }
        let of_role = self.live.iter().filter(|live| live.role == *role.name()).count();
        if of_role >= role.bounds.session_max_live {
            return Err(OpenError::Capacity("session.max_live"));
        }
        if let Some(parent) = parent {
            // Its end may have been moved meanwhile.
            session.expires_at.fetch_min(parent.expires_at.load(Ordering::Relaxed), Ordering::Relaxed);
            lock(&parent.children).push(session.id);
        }
        self.deadlines.insert(session.expires_at(), session.id);
        self.live.insert(session.id, session.clone());
        Ok(())
    }

    fn is_barred(&self, opener: &Peer) -> bool {
        lock(&self.barred).iter().any(|holder| holder.admits(opener))
    }

    fn recall(&self, id: SessionId) -> Option<(Holder, End)> {
        let remembered = lock(&self.remembered);
        remembered.iter().rev().find(|past| past.id == id).map(|past| (past.holder.clone(), past.end))
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
