//! Sessions: open, describe, close, and what follows when one ends.

use std::sync::Arc;

use super::error::{BrokerError, Result};
use super::{Admitted, Broker, Revoked};
use crate::audit::Cause;
use crate::clock::BootInstant;
use crate::limit::Remaining;
use crate::peer::{Peer, Pidfd};
use crate::policy::Denied;
use crate::secret::Secret;
use crate::session::{End, Opening, Session};
use crate::types::{RoleName, SessionId};

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
    /// What is left of the limits of its role, and of its own.
    pub limits: Vec<Remaining>,
    /// Live leases.
    pub leases: usize,
    /// How many there may be.
    pub max_leases: usize,
}

impl Broker {
    /// Assumes a role for the calling process.
    pub async fn open_session(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        role: &RoleName,
        opening: Opening,
    ) -> Result<Opened> {
        self.gate.check()?;
        self.limits.take_open(peer.uid).map_err(|limited| {
            self.count_denied();
            self.record_open_limited(peer, role);
            BrokerError::limited("limits.open", limited)
        })?;
        let peer = &peer.established(self.policy.load().needs(role, peer)).await;
        let policy = self.policy.load();
        let role =
            policy.assume(role, &peer.as_of_now()).map_err(|denied| self.role_denied(peer, role, denied))?;
        let (session, token) = self.sessions.open(&role, peer, opening).inspect_err(|error| {
            self.count_denied();
            self.record_open_refused(peer, role.name(), *error);
        })?;
        self.establish(&session)?;
        Ok(Opened { described: self.describe(&session)?, token })
    }

    /// Completes a session that was just added. A lock, a reload or a revocation since the first checks
    /// may not have seen it, or may have ended it before it had a book: so all is asked once more.
    pub(super) fn establish(self: &Arc<Self>, session: &Arc<Session>) -> Result<()> {
        self.leases.enroll(session.id);
        let recorded = self.record_opened(session).and_then(|()| self.end_with_process(session));
        recorded.and_then(|()| self.still_admitted(session)).inspect_err(|_| {
            self.end_session(session.id, End::Revoked);
            self.leases.dismiss(session.id);
        })
    }

    fn still_admitted(&self, session: &Session) -> Result<()> {
        self.gate.check()?;
        let assumed = self.policy.load().assume(&session.role, &session.opener);
        assumed.map_err(|denied| self.role_denied(&session.opener, &session.role, denied))?;
        session.end().map_or(Ok(()), |end| Err(end.into()))
    }

    /// Who am I, what may I, what is left of each limit.
    pub fn describe_session(&self, admitted: &Admitted) -> Result<Described> {
        self.describe(&admitted.session)
    }

    /// Ends the caller's session. Returns how many leases ended with it.
    pub fn close_session(&self, admitted: &Admitted) -> usize {
        self.end_session(admitted.session.id, End::Closed).map_or(0, |ended| ended.leases)
    }

    /// Ends a session and its leases, whatever the reason. `None`: it was over already.
    pub(super) fn end_session(&self, id: SessionId, end: End) -> Option<Revoked> {
        let session = self.sessions.end(id, end)?;
        let exposed = self.leases.seen(id);
        let leases = self.leases.dismiss(id);
        self.limits.forget(id);
        self.record_ended(&session, end, leases.len());
        leases.iter().for_each(|lease| self.record_lease_revoked(lease, Cause::SessionEnded));
        Some(Revoked { sessions: 1, leases: leases.len(), exposed })
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
            expires_at: session.expires_at,
            limits: self.limits.remaining(role, session.id),
            leases: self.leases.count(session.id),
            max_leases: role.bounds.lease_max_live,
        })
    }

    fn role_denied(&self, peer: &Peer, role: &RoleName, denied: Denied) -> BrokerError {
        self.count_denied();
        self.record_role_denied(peer, role, denied);
        BrokerError::RoleNotAvailable
    }

    /// The session ends when the kernel says that its process has.
    fn end_with_process(self: &Arc<Self>, session: &Arc<Session>) -> Result<()> {
        let process = Pidfd::open(session.anchor).ok_or(BrokerError::RoleNotAvailable)?;
        let (broker, session) = (Arc::downgrade(self), session.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = process.ended() => {}
                () = session.ended() => return,
            }
            if let Some(broker) = broker.upgrade() {
                broker.end_session(session.id, End::ProcessEnded);
            }
        });
        Ok(())
    }
}
