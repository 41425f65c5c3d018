//! Sessions: open, describe, close, and what follows when one ends.

use std::sync::Arc;
use std::time::Duration;

use super::error::{BrokerError, Result};
use super::refusal::NO_CALL;
use super::{Admitted, Broker, Caller, Revoked};
use crate::approval::Lapsed;
use crate::clock::BootInstant;
use crate::lease::Lease;
use crate::limit::Remaining;
use crate::peer::Peer;
use crate::secret::Secret;
use crate::session::{Binding, Delegation, End, OpenError, Opening, Session};
use crate::types::{Resource, RoleName, SessionId};

/// A session that was opened, and its token.
pub struct Opened {
    /// As [`Broker::describe_session`] shows it.
    pub described: Described,
    /// For the opener alone.
    pub token: Secret,
}

/// What a session may know of itself.
#[derive(Clone, Debug)]
pub struct Described {
    /// Public handle.
    pub id: SessionId,
    /// Its role.
    pub role: RoleName,
    /// The identity, as the configuration names it.
    pub identity: String,
    /// Effective scopes, canonical.
    pub scopes: Vec<String>,
    /// When it ends.
    pub expires_at: BootInstant,
    /// Which processes may use it.
    pub binding: Binding,
    /// The session it was delegated from.
    pub parent: Option<SessionId>,
    /// What is left of the limits of its role, and of its own.
    pub limits: Vec<Remaining>,
    /// Live leases.
    pub leases: usize,
    /// How many there may be.
    pub max_leases: usize,
}

/// A session that is over, with what went with it. Nothing of it is left in memory but this.
pub(super) struct Ended {
    pub(super) session: Arc<Session>,
    pub(super) end: End,
    pub(super) leases: Vec<Lease>,
    pub(super) lapsed: Vec<Lapsed>,
    exposed: Vec<Resource>,
}

impl Broker {
    /// Assumes a role for the calling process.
    pub async fn open_session(
        self: &Arc<Self>,
        caller: Caller<'_>,
        role: &RoleName,
        opening: Opening,
    ) -> Result<Opened> {
        self.gate.check()?;
        let peer = caller.peer;
        self.limits.take_open(peer.uid).map_err(|limited| {
            self.refuse_open_rate(caller, role, "limits.open");
            BrokerError::limited("limits.open", limited)
        })?;
        let peer = &peer.established(self.policy.load().needs(role, peer)).await;
        let policy = self.policy.load();
        let now = Arc::new(peer.as_of_now());
        let assumed = policy.assume(role, &now);
        let role =
            assumed.map_err(|denied| self.refuse_role(Caller { peer: &now, ..caller }, role, denied))?;
        let opened = self.sessions.open(&role, peer, opening);
        let (session, token) = opened.inspect_err(|error| self.refuse_open(caller, &role, *error))?;
        self.establish(caller, &session)?;
        Ok(Opened { described: self.describe(&session)?, token })
    }

    /// The session whose processes may take turns on a link, by the token of the launcher that made it.
    pub fn bind_link(&self, peer: &Arc<Peer>, token: &str) -> Option<Arc<Session>> {
        let caller = Caller { peer, token: Some(token), linked: None, denial: NO_CALL };
        self.identify(caller).ok()
    }

    /// Whether the process may speak on the link of this session. A refusal is recorded.
    pub fn link_admits(&self, session: &Session, peer: &Arc<Peer>) -> bool {
        let caller = Caller { peer, token: None, linked: Some(session.id), denial: NO_CALL };
        self.identify(caller).is_ok()
    }

    /// Bytes of a process on a connection or in a conversation that another one had begun.
    pub fn refuse_stranger(&self, owner: &Arc<Peer>, stranger: u32) {
        let caller = Caller { peer: owner, token: None, linked: None, denial: NO_CALL };
        self.refuse_sender(caller, stranger);
    }

    /// Opens a session below the caller's own, at most as able and as long.
    pub fn delegate_session(self: &Arc<Self>, admitted: &Admitted, delegation: Delegation) -> Result<Opened> {
        let parent = &admitted.session;
        let policy = self.policy.load();
        let role = policy.role(&parent.role).ok_or(BrokerError::SessionRevoked)?;
        let caller = admitted.caller();
        let delegated = self.sessions.delegate(role, parent, caller.peer, delegation);
        let refused = |error: &OpenError| self.refuse_delegation(admitted, role, *error);
        let (session, token) = delegated.inspect_err(refused)?;
        self.establish(caller, &session)?;
        Ok(Opened { described: self.describe(&session)?, token })
    }

    /// Moves the end of the session, as far as its role and its parent let it.
    pub fn renew_session(&self, admitted: &Admitted, ttl: Option<Duration>) -> Result<Described> {
        let session = &admitted.session;
        let policy = self.policy.load();
        let role = policy.role(&session.role).ok_or(BrokerError::SessionRevoked)?;
        let longest = role.bounds.session_ttl;
        let ttl = ttl.map_or(longest, |ttl| ttl.min(longest));
        let ttl = self.sessions.reach(session, ttl);
        self.record_session_renewed(session, ttl)?;
        let renewed = self.sessions.renew(session, ttl);
        renewed.ok_or_else(|| session.end().map_or(BrokerError::SessionExpired, BrokerError::from))?;
        self.describe(session)
    }

    /// Completes a session that was just added. A lock, a reload or a revocation since the first checks
    /// may not have seen it, or may have ended it before it had a book: so all is asked once more.
    pub(super) fn establish(self: &Arc<Self>, caller: Caller<'_>, session: &Arc<Session>) -> Result<()> {
        self.leases.enroll(session.id);
        let recorded = self.record_opened(session).and_then(|()| self.end_with_process(session));
        recorded.and_then(|()| self.still_admitted(caller, session)).inspect_err(|_| {
            self.end_session(session.id, End::Revoked);
            self.leases.dismiss(session.id);
        })
    }

    fn still_admitted(&self, caller: Caller<'_>, session: &Session) -> Result<()> {
        self.gate.check()?;
        let assumed = self.policy.load().assume(&session.role, &session.opener);
        assumed.map_err(|denied| self.refuse_role(caller, &session.role, denied))?;
        session.end().map_or(Ok(()), |end| Err(end.into()))
    }

    /// Who am I, what may I, what is left of each limit.
    pub fn describe_session(&self, admitted: &Admitted) -> Result<Described> {
        self.describe(&admitted.session)
    }

    /// Ends the caller's session. Returns how many leases ended with it.
    pub fn close_session(&self, admitted: &Admitted) -> usize {
        self.end_session(admitted.session.id, End::Closed).leases
    }

    /// Ends a session, those delegated from it and their leases, whatever the reason.
    pub(super) fn end_session(&self, id: SessionId, end: End) -> Revoked {
        let ended = self.forget_all(self.sessions.end(id, end));
        self.record_all_ended(&ended);
        Revoked::of_sessions(ended)
    }

    /// Takes all access of sessions that ended, before anything is written: the disk holds up no end.
    pub(super) fn forget_all(&self, sessions: Vec<Arc<Session>>) -> Vec<Ended> {
        let forget = |session: Arc<Session>| {
            let exposed = self.leases.seen(session.id);
            let leases = self.leases.dismiss(session.id);
            self.limits.forget(session.id);
            self.sends.forget(session.id);
            self.inbox.watches.end_session(session.id);
            let lapsed = self.approvals.end_session(session.id);
            let end = session.end().unwrap_or(End::Closed);
            Ended { session, end, leases, lapsed, exposed }
        };
        sessions.into_iter().map(forget).collect()
    }

    pub(super) fn record_all_ended(&self, ended: &[Ended]) {
        ended.iter().for_each(|one| self.record_ended(one));
    }

    fn describe(&self, session: &Session) -> Result<Described> {
        let policy = self.policy.load();
        let role = policy.role(&session.role).ok_or(BrokerError::SessionRevoked)?;
        let scopes = role.scopes_within(session.narrowed.as_deref());
        Ok(Described {
            id: session.id,
            role: session.role.clone(),
            identity: role.identity().to_string(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            expires_at: session.expires_at(),
            binding: session.binding().clone(),
            parent: session.parent,
            limits: self.limits.remaining(role, session.root),
            leases: self.leases.count(session.id),
            max_leases: role.bounds.lease_max_live,
        })
    }
}

impl Revoked {
    pub(super) fn of_sessions(ended: Vec<Ended>) -> Self {
        let mut all = Self::default();
        for Ended { leases, exposed, .. } in ended {
            all.add(Self { sessions: 1, leases: leases.len(), exposed });
        }
        all
    }
}
