//! What the operator can do: look, revoke, lock, unlock, reload.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Broker;
use super::error::{BrokerError, Result};
use super::session::Ended;
use crate::audit::{Cause, Follow, Head, Verb};
use crate::lease::Lease;
use crate::policy::{Policy, Role};
use crate::session::{End, Session};
use crate::types::{LeaseId, Reason, Resource, RoleName, SessionId};
use crate::upstream::KeyId;

/// The broker at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Locked by the operator.
    pub locked: bool,
    /// Where upstream calls go.
    pub upstream: String,
    /// Whether a usable management key is held.
    pub management_key_held: bool,
    /// Usable identity keys.
    pub identity_keys: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Live leases.
    pub leases: usize,
    /// Requests that wait for the operator.
    pub approvals: usize,
    /// Requests that were answered with what they asked for.
    pub served: u64,
    /// Requests that were refused.
    pub denied: u64,
    /// HTTP requests to Ravi.
    pub upstream_calls: u64,
    /// The newest audit record.
    pub audit: Head,
    /// Whether it could be written.
    pub audit_healthy: bool,
    /// Names of the roles, in order.
    pub roles: Vec<RoleName>,
}

/// One session, for the operator.
pub struct SessionView {
    /// The session.
    pub session: Arc<Session>,
    /// The identity, as the configuration names it; empty if the role is gone.
    pub identity: String,
    /// Live leases.
    pub leases: usize,
}

/// What to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// One lease.
    Lease(LeaseId),
    /// One session.
    Session(SessionId),
    /// The sessions of a role.
    Role(RoleName),
    /// Every session.
    All,
}

/// What was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// How many sessions.
    pub sessions: usize,
    /// How many leases.
    pub leases: usize,
    /// Static values that the ended leases and sessions were given, also under leases that were given back
    /// or ran out: what was shown stays known until it is rotated.
    pub exposed: Vec<Resource>,
}

impl Broker {
    /// The broker now.
    pub fn snapshot(&self) -> Snapshot {
        let mut roles: Vec<RoleName> = self.policy.load().roles().map(|role| role.name().clone()).collect();
        roles.sort();
        let (audit, audit_healthy) = self.audit.head();
        Snapshot {
            locked: self.gate.is_locked(),
            upstream: self.upstream.origin().to_owned(),
            management_key_held: self.vault.keyring().holds(KeyId::Management),
            identity_keys: self.vault.keyring().identity_keys(),
            sessions: self.sessions.len(),
            leases: self.leases.len(),
            approvals: self.approvals.len(),
            served: self.served.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
            upstream_calls: self.upstream.calls(),
            audit,
            audit_healthy,
            roles,
        }
    }

    /// The live sessions, oldest first.
    pub fn list_sessions(&self) -> Vec<SessionView> {
        let mut sessions = self.sessions.list();
        sessions.sort_by_key(|session| (session.opened_at, session.id));
        let policy = self.policy.load();
        let view = |session: Arc<Session>| {
            let identity = policy.role(&session.role).map(|role| role.identity().to_string());
            let leases = self.leases.count(session.id);
            SessionView { session, identity: identity.unwrap_or_default(), leases }
        };
        sessions.into_iter().map(view).collect()
    }

    /// The live leases of one session, or of all.
    pub fn list_all_leases(&self, session: Option<SessionId>) -> Vec<Lease> {
        match session {
            Some(session) => self.leases.list(session),
            None => self.list_sessions().iter().flat_map(|view| self.leases.list(view.session.id)).collect(),
        }
    }

    /// Ends access, whether or not the order can be recorded: what takes access away does not wait for the
    /// disk. An error for the record says that it is not written, not that access goes on.
    pub fn revoke(&self, target: &Revocation, reason: Option<&Reason>) -> Result<Revoked> {
        let recorded = self.record_revoke(target, reason);
        let revoked = self.end_access(target)?;
        recorded.map(|()| revoked).map_err(|_| BrokerError::Unrecorded)
    }

    fn end_access(&self, target: &Revocation) -> Result<Revoked> {
        let ended = match target {
            Revocation::Lease(id) => {
                let lease = self.leases.revoke(*id).ok_or(BrokerError::LeaseNotAvailable)?;
                self.record_lease_revoked(&lease, Cause::Operator);
                return Ok(Revoked::of(lease));
            }
            Revocation::Session(id) => vec![*id],
            Revocation::Role(role) => self.sessions_where(|session| session.role == *role),
            Revocation::All => self.sessions_where(|_| true),
        };
        let revoked = self.end_all(&ended, End::Revoked);
        match target {
            Revocation::Session(_) if revoked.sessions == 0 => Err(BrokerError::SessionInvalid),
            _ => Ok(revoked),
        }
    }

    /// Kill switch, which outlives a restart of the daemon. The gate comes first, so that nothing that is
    /// under way passes the last check; then values, keys, sessions and leases go, whether or not the record
    /// can be written.
    pub fn lock(&self, reason: Option<&Reason>) -> Result<Revoked> {
        self.gate.lock();
        let _switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        // Once more: an unlock that was under way has opened it.
        self.gate.lock();
        let ended = self.take_all(&self.sessions_where(|_| true), End::Locked);
        let wiped = self.vault.wipe();
        self.tell_health();
        self.locks.send_replace(());
        // From here on nobody has anything: the disk holds up no end.
        self.record_all_ended(&ended);
        let revoked = Revoked::of_sessions(ended);
        let marked = self.mark.make();
        self.record_admin(Verb::AdminLock, reason).map_err(|_| BrokerError::Unrecorded)?;
        marked.map_err(|_| BrokerError::Argument {
            field: "lock",
            problem: "locked until the daemon ends, but not beyond: its state directory cannot be written",
        })?;
        wiped.map_err(|_| BrokerError::Internal)?;
        Ok(revoked)
    }

    /// Serves again, once the keys that come from files are read again; if one is bad, nothing opens.
    /// Returns whether a management key is held.
    pub fn unlock(&self) -> Result<bool> {
        let _switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gate.is_locked() {
            self.record_admin(Verb::AdminUnlock, None)?;
            self.vault.reopen();
            let read = match self.logged_out.load(Ordering::Relaxed) {
                true => Ok(()),
                false => self.keys.load(self.vault.keyring()),
            };
            let loaded = read.map_err(|error| {
                tracing::error!(%error, "the broker stays locked");
                BrokerError::Argument {
                    field: "keys",
                    problem: "a key file is bad, the broker stays locked: see the daemon's log",
                }
            });
            let unmarked = loaded.and_then(|()| self.mark.remove().map_err(|_| cannot_unmark()));
            if let Err(error) = unmarked {
                let _ = self.vault.wipe();
                return Err(error);
            }
            self.gate.unlock();
            self.tell_health();
        }
        Ok(self.vault.keyring().holds(KeyId::Management))
    }

    /// Takes a new policy over, all of it at once. Sessions whose role is gone, is another identity or no
    /// longer matches end. Returns how many.
    pub fn reload(&self, policy: Policy) -> Result<usize> {
        self.record_admin(Verb::AdminReload, None)?;
        self.admit_roles(&policy);
        let policy = Arc::new(policy);
        let before = self.policy.swap(policy.clone());
        self.limits.retain_roles(|role| policy.role(role).is_some());
        let stays = |session: &Session, role: &Role| {
            let same = before.role(&session.role).is_some_and(|old| old.identity() == role.identity());
            same && role.matches(&session.opener)
        };
        let gone = self
            .sessions_where(|session| policy.role(&session.role).is_none_or(|role| !stays(session, role)));
        Ok(self.end_all(&gone, End::RoleChanged).sessions)
    }

    /// Records that a new configuration was refused. Nothing changes.
    pub fn reload_refused(&self) {
        self.record_reload_refused();
    }

    /// The last records of the audit trail, and those that follow.
    pub fn follow_audit(&self, lines: usize) -> Follow {
        self.audit.follow(lines)
    }

    /// A lock of a former run still holds. Called before anything is served.
    pub fn resume_lock(&self) -> bool {
        let locked = self.mark.is_there();
        if locked {
            self.gate.lock();
            let _ = self.vault.wipe();
            self.tell_health();
        }
        locked
    }

    /// No new work, and streams end; calls under way may finish. Called when the daemon is told to stop.
    pub fn drain(&self) {
        self.gate.drain();
        self.tell_health();
        self.stopping.cancel();
    }

    /// Cancelled by [`Broker::drain`]: streams end.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// The end: sessions, leases, values and keys are gone when this returns.
    pub fn shut(&self) {
        self.drain();
        self.end_all(&self.sessions_where(|_| true), End::Stopping);
        self.record_deaths();
        let _ = self.vault.wipe();
    }

    fn sessions_where(&self, matches: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        self.sessions.list().iter().filter(|session| matches(session)).map(|session| session.id).collect()
    }

    fn end_all(&self, sessions: &[SessionId], end: End) -> Revoked {
        let ended = self.take_all(sessions, end);
        self.record_all_ended(&ended);
        Revoked::of_sessions(ended)
    }
}

impl Broker {
    /// Takes the access of sessions; nothing is written.
    fn take_all(&self, sessions: &[SessionId], end: End) -> Vec<Ended> {
        sessions.iter().flat_map(|id| self.forget_all(self.sessions.end(*id, end))).collect()
    }
}

fn cannot_unmark() -> BrokerError {
    BrokerError::Argument {
        field: "unlock",
        problem: "the broker stays locked: its state directory cannot be written",
    }
}

impl Revoked {
    fn of(lease: Lease) -> Self {
        let exposed = if lease.revocable { Vec::new() } else { vec![lease.resource] };
        Self { sessions: 0, leases: 1, exposed }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.leases += other.leases;
        self.exposed.extend(other.exposed);
        self.exposed.sort();
        self.exposed.dedup();
    }
}
