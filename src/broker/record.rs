//! What the verbs write into the audit trail. An allowed act whose record cannot be written does not
//! happen (I9); a refusal stands whether or not it could be recorded. Refusals that no other limit bounds
//! are recorded at a bounded rate for each user, and the others counted in the next record.

use super::error::{BrokerError, Result};
use super::{Broker, Revocation};
use crate::audit::{Actor, Cause, Event, NOBODY, Target, Verb};
use crate::lease::{Lease, LeaseError};
use crate::peer::Peer;
use crate::policy::{Action, Denied};
use crate::session::{End, OpenError, Session, TokenError, actor_of};
use crate::types::{IdentityUuid, LeaseId, Reason, Resource, RoleName};
use crate::upstream::UpstreamError;

impl Broker {
    pub(super) fn record_opened(&self, session: &Session) -> Result<()> {
        let ttl = session.expires_at.since(session.opened_at);
        let event = Event::of(Verb::SessionOpened, &session.actor).ttl(ttl);
        self.must_record(&event.reason(session.reason.as_ref()))
    }

    pub(super) fn record_role_denied(&self, peer: &Peer, role: &RoleName, denied: Denied) {
        let actor = actor_of(peer, Some(role));
        self.try_record(&Event::of(Verb::SessionDenied, &actor).denied(rule(denied)));
    }

    pub(super) fn record_open_refused(&self, peer: &Peer, role: &RoleName, error: OpenError) {
        let cause = match error {
            OpenError::ScopeNotGranted => Cause::ScopeNotGranted,
            OpenError::NoAnchor => Cause::PeerUnknown,
            OpenError::Capacity(_) => Cause::CapacityReached,
            OpenError::NoRandom => Cause::Internal,
        };
        let actor = actor_of(peer, Some(role));
        self.try_record(&Event::of(Verb::SessionDenied, &actor).denied(cause));
    }

    pub(super) fn record_token_refused(&self, peer: &Peer, error: TokenError) {
        self.record_stranger(
            peer,
            match error {
                TokenError::Unknown => Cause::TokenUnknown,
                TokenError::Foreign => Cause::TokenForeign,
                TokenError::Ended(_) => Cause::SessionOver,
            },
        );
    }

    pub(super) fn record_no_token(&self, peer: &Peer) {
        self.record_stranger(peer, Cause::TokenMissing);
    }

    /// A call under no session of the caller's.
    fn record_stranger(&self, peer: &Peer, cause: Cause) {
        let Some(unrecorded) = self.limits.take_refusal(peer.uid) else { return };
        let actor = actor_of(peer, None);
        self.try_record(&Event::of(Verb::SessionDenied, &actor).denied(cause).unrecorded(unrecorded));
    }

    pub(super) fn record_ended(&self, session: &Session, end: End, leases: usize) {
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let event = |verb| Event::of(verb, &session.actor).ended(1, leases);
        self.try_record(&match end {
            End::Closed => event(Verb::SessionClosed),
            End::Expired => event(Verb::SessionExpired),
            End::Revoked => event(Verb::SessionRevoked).because(Cause::Operator),
            End::Locked => event(Verb::SessionRevoked).because(Cause::Locked),
            End::Stopping => event(Verb::SessionRevoked).because(Cause::Stopping),
            End::ProcessEnded => event(Verb::SessionRevoked).because(Cause::PeerExited),
            End::RoleChanged => event(Verb::SessionRevoked).because(Cause::Reload),
        });
    }

    pub(super) fn record_open_limited(&self, peer: &Peer, role: &RoleName) {
        let Some(unrecorded) = self.limits.take_refusal(peer.uid) else { return };
        let actor = actor_of(peer, Some(role));
        let event = Event::of(Verb::SessionDenied, &actor).denied(Cause::RateLimited);
        self.try_record(&event.unrecorded(unrecorded));
    }

    /// A request that was refused before it was known, or asked, what it is about.
    pub(super) fn record_unasked(&self, session: &Session, cause: Cause) {
        let Some(unrecorded) = self.limits.take_refusal(session.opener.uid) else { return };
        let event = Event::of(Verb::RequestDenied, &session.actor).denied(cause);
        self.try_record(&event.unrecorded(unrecorded));
    }

    /// A handle that means no live lease of the session. The operator is told what it does mean.
    pub(super) fn record_lease_refused(&self, session: &Session, id: LeaseId, error: LeaseError) {
        let cause = match error {
            LeaseError::NotAvailable if self.leases.is_live(id) => Cause::LeaseForeign,
            LeaseError::NotAvailable => Cause::LeaseUnknown,
            LeaseError::Expired | LeaseError::Revoked => Cause::LeaseOver,
            LeaseError::Capacity(_) => Cause::CapacityReached,
            LeaseError::SessionEnded => Cause::SessionOver,
            LeaseError::NoRandom => Cause::Internal,
        };
        let Some(unrecorded) = self.limits.take_refusal(session.opener.uid) else { return };
        let event = Event::of(Verb::RequestDenied, &session.actor).target(Target::Lease(id)).denied(cause);
        self.try_record(&event.unrecorded(unrecorded));
    }

    pub(super) fn record_denied(&self, session: &Session, action: &Action, denied: Denied) {
        let resource = resource_of(action);
        let event = about(Event::of(refused(action), &session.actor), resource.as_ref());
        self.try_record(&event.denied(rule(denied)));
    }

    pub(super) fn record_failed(&self, session: &Session, action: &Action, error: &BrokerError) {
        if let BrokerError::Upstream(_) | BrokerError::LoginRequired | BrokerError::NoIdentity = error {
            tracing::warn!(role = %session.role, %error, "Ravi did not give what a role allows");
        }
        let resource = resource_of(action);
        let event = about(Event::of(refused(action), &session.actor), resource.as_ref());
        self.try_record(&match error {
            BrokerError::Capacity(_) => event.denied(Cause::CapacityReached),
            error => event.failed(cause(error)),
        });
    }

    pub(super) fn record_performed(
        &self,
        session: &Session,
        action: &Action,
        reason: Option<&Reason>,
    ) -> Result<()> {
        let resource = resource_of(action);
        let event = about(Event::of(verb_of(action), &session.actor), resource.as_ref());
        self.must_record(&event.reason(reason))
    }

    pub(super) fn record_acquired(
        &self,
        session: &Session,
        lease: &Lease,
        reason: Option<&Reason>,
    ) -> Result<()> {
        let ttl = lease.terms.expires_at.since(lease.terms.granted_at);
        let event = Event::lease(Verb::LeaseAcquired, &session.actor, lease.id, &lease.resource);
        self.must_record(&event.identity(lease.identity).ttl(ttl).reason(reason))
    }

    pub(super) fn record_read(&self, session: &Session, lease: &Lease) -> Result<()> {
        self.must_record(&about_lease(Verb::LeaseRead, session, lease))
    }

    pub(super) fn record_renewed(&self, session: &Session, lease: &Lease) -> Result<()> {
        let ttl = lease.terms.expires_at.since(self.clock.now());
        self.must_record(&about_lease(Verb::LeaseRenewed, session, lease).ttl(ttl))
    }

    pub(super) fn record_released(&self, session: &Session, lease: &Lease) {
        self.try_record(&about_lease(Verb::LeaseReleased, session, lease).exposed(!lease.revocable));
    }

    /// Whoever's request caused it; the key itself stays in the daemon.
    pub(super) fn record_minted(&self, session: &Session, identity: IdentityUuid) {
        self.try_record(&Event::of(Verb::KeyMinted, &session.actor).identity(identity));
    }

    pub(super) fn record_expired(&self, lease: &Lease) {
        let actor = holder_of(lease);
        let event = Event::lease(Verb::LeaseExpired, &actor, lease.id, &lease.resource);
        self.try_record(&event.identity(lease.identity).exposed(!lease.revocable));
    }

    /// One record for each lease that ended before its time: what its holder has seen is to be rotated.
    pub(super) fn record_lease_revoked(&self, lease: &Lease, cause: Cause) {
        let actor = holder_of(lease);
        let event = Event::lease(Verb::LeaseRevoked, &actor, lease.id, &lease.resource);
        self.try_record(&event.identity(lease.identity).exposed(!lease.revocable).because(cause));
    }

    pub(super) fn record_revoke(&self, target: &Revocation, reason: Option<&Reason>) -> Result<()> {
        let target = match target {
            Revocation::Lease(id) => Target::Lease(*id),
            Revocation::Session(id) => Target::Session(*id),
            Revocation::Role(role) => Target::Role(role),
            Revocation::All => Target::All,
        };
        self.must_record(&Event::of(Verb::AdminRevoke, &NOBODY).target(target).reason(reason))
    }

    pub(super) fn record_admin(&self, verb: Verb, reason: Option<&Reason>) -> Result<()> {
        self.must_record(&Event::of(verb, &NOBODY).reason(reason))
    }

    pub(super) fn record_reload_refused(&self) {
        self.try_record(&Event::of(Verb::AdminReload, &NOBODY).failed(Cause::ConfigurationInvalid));
    }

    /// Writes the start or the end of the daemon.
    pub fn record_daemon(&self, verb: Verb) -> Result<()> {
        self.must_record(&Event::daemon(verb))
    }

    fn must_record(&self, event: &Event<'_>) -> Result<()> {
        let written = self.audit.record(event);
        if let Err(error) = &written {
            tracing::error!(%error, "the audit record was not written; nothing is released until one is");
        }
        // Only a change of the trail's health is worth telling.
        if written.is_ok() != *self.serving.borrow() {
            self.tell_health();
        }
        written.map_err(|_| BrokerError::AuditUnavailable)
    }

    /// For what has happened already, or was refused anyway.
    fn try_record(&self, event: &Event<'_>) {
        let _ = self.must_record(event);
    }
}

/// Who has a lease, where the session itself may be over.
fn holder_of(lease: &Lease) -> Actor {
    Actor { session: Some(lease.session), role: Some(lease.role.clone()), ..Actor::default() }
}

fn about_lease<'a>(verb: Verb, session: &'a Session, lease: &'a Lease) -> Event<'a> {
    Event::lease(verb, &session.actor, lease.id, &lease.resource).identity(lease.identity)
}

fn about<'a>(event: Event<'a>, resource: Option<&'a Resource>) -> Event<'a> {
    match resource {
        Some(resource) => event.resource(resource),
        None => event,
    }
}

fn rule(denied: Denied) -> Cause {
    match denied {
        Denied::NoRole => Cause::RoleUnknown,
        Denied::NoMatch => Cause::RoleMismatch,
        Denied::NoScope => Cause::ScopeMissing,
        Denied::Narrowed => Cause::ScopeNotGranted,
        Denied::Delivery => Cause::DeliveryForbidden,
    }
}

fn verb_of(action: &Action) -> Verb {
    match action {
        Action::Acquire(..) => Verb::LeaseAcquired,
        Action::ListSecrets | Action::ListPasswords => Verb::VaultList,
        Action::SetSecret(_) => Verb::VaultSet,
        Action::CreatePassword(_) => Verb::VaultCreate,
        Action::UpdatePassword(_) => Verb::VaultUpdate,
        Action::DeleteSecret(_) | Action::DeletePassword(_) => Verb::VaultDelete,
        Action::ReadIdentity => Verb::IdentityRead,
    }
}

fn refused(action: &Action) -> Verb {
    match action {
        Action::Acquire(..) => Verb::LeaseDenied,
        action => verb_of(action),
    }
}

fn resource_of(action: &Action) -> Option<Resource> {
    match action {
        Action::Acquire(resource, _) => Some(resource.clone()),
        Action::SetSecret(key) | Action::DeleteSecret(key) => Some(Resource::Secret(key.clone())),
        Action::CreatePassword(name) | Action::UpdatePassword(name) | Action::DeletePassword(name) => {
            Some(Resource::Password(name.clone()))
        }
        Action::ListSecrets | Action::ListPasswords | Action::ReadIdentity => None,
    }
}

fn cause(error: &BrokerError) -> Cause {
    match error {
        BrokerError::ResourceNotAvailable | BrokerError::NoIdentity => Cause::Absent,
        BrokerError::Ambiguous => Cause::ArgumentInvalid,
        BrokerError::Locked => Cause::Locked,
        BrokerError::Draining => Cause::Stopping,
        BrokerError::LoginRequired => Cause::LoginRequired,
        BrokerError::RateLimited { .. } => Cause::UpstreamThrottled,
        BrokerError::SessionExpired | BrokerError::SessionRevoked => Cause::SessionOver,
        BrokerError::Upstream(error) => upstream_cause(error),
        _ => Cause::Internal,
    }
}

fn upstream_cause(error: &UpstreamError) -> Cause {
    match error {
        UpstreamError::NoKey | UpstreamError::KeyRejected => Cause::LoginRequired,
        UpstreamError::Refused | UpstreamError::Invalid => Cause::UpstreamRefused,
        UpstreamError::NotFound => Cause::Absent,
        UpstreamError::PlanRequired => Cause::PlanRequired,
        UpstreamError::Conflict => Cause::Conflict,
        UpstreamError::Throttled { .. } | UpstreamError::BudgetReached { .. } => Cause::UpstreamThrottled,
        UpstreamError::Unavailable => Cause::UpstreamUnavailable,
        UpstreamError::OutcomeUnknown => Cause::OutcomeUnknown,
        UpstreamError::Answer(_) => Cause::UpstreamInvalid,
    }
}
