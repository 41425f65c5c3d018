//! The tree of sessions: what is delegated has at most what its parent has, ends no later, and ends with
//! it. All that changes a tree holds [`Sessions::changing`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Delegation, End, Holder, MAX_BARRED, OpenError, Past, REMEMBERED, Session, Sessions, actor_of, lock,
    token,
};
use crate::audit::Actor;
use crate::clock::BootInstant;
use crate::peer::Peer;
use crate::policy::Role;
use crate::policy::scope::Scope;
use crate::secret::Secret;
use crate::types::SessionId;

/// Generations of a tree. Each narrows the one above, so a deep one has little left to give.
const MAX_DEPTH: usize = 8;

impl Sessions {
    /// Opens a session below another one, at the wish of a process that may use that one.
    pub fn delegate(
        &self,
        role: &Role,
        parent: &Arc<Session>,
        caller: &Peer,
        delegation: Delegation,
    ) -> Result<(Arc<Session>, Secret), OpenError> {
        let given = role.scopes_within(parent.narrowed.as_deref());
        let covered = |wanted: &Scope| given.iter().any(|granted| granted.covers(wanted));
        if !delegation.scopes.iter().all(covered) {
            return Err(OpenError::ScopeNotGranted);
        }
        if parent.depth >= MAX_DEPTH {
            return Err(OpenError::Capacity("generations of delegated sessions"));
        }
        let binding = parent.holder.binding_for(delegation.pid).ok_or(OpenError::NoProcess)?;
        let (id, token, secret) = token::mint().ok_or(OpenError::NoRandom)?;
        let (now, longest) = (self.clock.now(), parent.expires_at());
        let end = delegation.ttl.map_or(longest, |ttl| longest.min(now + ttl));
        let narrowed = match delegation.scopes.is_empty() {
            true => parent.narrowed.clone(),
            false => Some(delegation.scopes.into()),
        };
        let session = Arc::new(Session {
            id,
            role: parent.role.clone(),
            narrowed,
            opener: parent.opener.clone(),
            parent: Some(parent.id),
            root: parent.root,
            opened_at: now,
            reason: delegation.reason,
            actor: Actor { session: Some(id), ..actor_of(caller, Some(&parent.role)) },
            holder: Holder { token, binding, ..parent.holder.clone() },
            depth: parent.depth + 1,
            expires_at: AtomicU64::new(end.as_nanos()),
            children: Mutex::default(),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
        });
        self.admit(&session, role, Some(parent))?;
        Ok((session, secret))
    }

    /// Moves the end of a live session to `ttl` from now, at most to its parent's end. What is below it ends
    /// no later than it. Returns the new end; `None`: it is over.
    pub fn renew(&self, session: &Session, ttl: Duration) -> Option<BootInstant> {
        let _changing = lock(&self.changing);
        let now = self.clock.now();
        if !session.is_live(now) {
            return None;
        }
        let of_parent = session.parent.and_then(|parent| self.find(parent)).map(|parent| parent.expires_at());
        let end = of_parent.map_or(now + ttl, |latest| latest.min(now + ttl));
        self.move_end(session, end);
        let mut below = self.children(session);
        while let Some(child) = below.pop() {
            if child.expires_at() > end {
                self.move_end(&child, end);
                below.extend(self.children(&child));
            }
        }
        Some(end)
    }

    /// What is left of a wish for `ttl` under the parent's end.
    pub fn reach(&self, session: &Session, ttl: Duration) -> Duration {
        let parent = session.parent.and_then(|parent| self.find(parent));
        parent.map_or(ttl, |parent| ttl.min(parent.expires_at().since(self.clock.now())))
    }

    fn move_end(&self, session: &Session, end: BootInstant) {
        self.deadlines.remove(session.expires_at(), session.id);
        session.expires_at.store(end.as_nanos(), Ordering::Relaxed);
        self.deadlines.insert(end, session.id);
    }

    fn children(&self, session: &Session) -> Vec<Arc<Session>> {
        lock(&session.children).iter().filter_map(|child| self.find(*child)).collect()
    }

    /// Ends a session and those delegated from it, itself first. Empty: it was not live.
    pub fn end(&self, id: SessionId, end: End) -> Vec<Arc<Session>> {
        let _changing = lock(&self.changing);
        self.end_tree(id, end)
    }

    /// Ends a session whose time is up, unless it was renewed meanwhile.
    pub fn expire(&self, id: SessionId) -> Vec<Arc<Session>> {
        let _changing = lock(&self.changing);
        let now = self.clock.now();
        match self.find(id) {
            Some(session) if session.expires_at() <= now => self.end_tree(id, End::Expired),
            _ => Vec::new(),
        }
    }

    fn end_tree(&self, id: SessionId, end: End) -> Vec<Arc<Session>> {
        let mut ended: Vec<_> = self.end_one(id, end).into_iter().collect();
        let mut at = 0;
        while let Some(session) = ended.get(at) {
            let children = std::mem::take(&mut *lock(&session.children));
            ended.extend(children.into_iter().filter_map(|child| self.end_one(child, end.of_child())));
            at += 1;
        }
        ended
    }

    fn end_one(&self, id: SessionId, end: End) -> Option<Arc<Session>> {
        let (_, session) = self.live.remove(&id)?;
        self.deadlines.remove(session.expires_at(), id);
        // Set once: the map gives the session to one caller only.
        let _ = session.end.set(end);
        session.ended.cancel();
        if let Some(parent) = session.parent.and_then(|parent| self.find(parent)) {
            lock(&parent.children).retain(|child| *child != id);
        }
        if end == End::Honeytoken {
            let mut barred = lock(&self.barred);
            if barred.len() == MAX_BARRED {
                barred.pop_front();
            }
            barred.push_back(session.holder.clone());
        }
        let mut remembered = lock(&self.remembered);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(Past { id, holder: session.holder.clone(), end });
        drop(remembered);
        Some(session)
    }
}

impl End {
    /// Whether the session did not end by itself, nor with the daemon: what it holds is to be held no longer.
    pub fn takes_away(self) -> bool {
        match self {
            Self::Revoked | Self::Locked | Self::RoleChanged | Self::Honeytoken => true,
            Self::Closed | Self::Expired | Self::ProcessEnded | Self::ParentEnded | Self::Stopping => false,
        }
    }

    /// Why a session ended whose parent ended for this reason. None outlives the parent's time, and what the
    /// operator or the daemon does is done to all.
    fn of_child(self) -> Self {
        match self {
            Self::Closed | Self::ProcessEnded | Self::ParentEnded => Self::ParentEnded,
            Self::Expired
            | Self::Revoked
            | Self::Locked
            | Self::RoleChanged
            | Self::Honeytoken
            | Self::Stopping => self,
        }
    }
}
