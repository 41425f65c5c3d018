//! What the verbs write into the audit trail. An allowed act whose record cannot be written does not
//! happen (I9); what has happened already stands whether or not it could be recorded.

use std::time::Duration;

use super::error::{BrokerError, Result};
use super::session::Ended;
use super::{Broker, Revocation};
use crate::audit::{Actor, AuditError, Cause, Event, NOBODY, Target, Verb};
use crate::inbox::watch::Given;
use crate::lease::Lease;
use crate::policy::Action;
use crate::session::{End, Session};
use crate::types::{IdentityUuid, Reason, Resource, Subject};

impl Broker {
    pub(super) fn record_opened(&self, session: &Session) -> Result<()> {
        let ttl = session.expires_at().since(session.opened_at);
        let event = match session.parent {
            None => Event::of(Verb::SessionOpened, &session.actor),
            Some(parent) => Event::of(Verb::SessionDelegated, &session.actor).target(Target::Session(parent)),
        };
        self.must_record(&event.ttl(ttl).reason(session.reason.as_ref()))
    }

    pub(super) fn record_session_renewed(&self, session: &Session, ttl: Duration) -> Result<()> {
        self.must_record(&Event::of(Verb::SessionRenewed, &session.actor).ttl(ttl))
    }

    /// The end of a session and of its leases, in one write.
    pub(super) fn record_ended(&self, ended: &Ended) {
        let Ended { session, end, leases, .. } = ended;
        let count = u32::try_from(leases.len()).unwrap_or(u32::MAX);
        let event = |verb| Event::of(verb, &session.actor).ended(1, count);
        let of_session = match end {
            End::Closed => event(Verb::SessionClosed),
            End::Expired => event(Verb::SessionExpired),
            End::Revoked => event(Verb::SessionRevoked).because(Cause::Operator),
            End::Locked => event(Verb::SessionRevoked).because(Cause::Locked),
            End::Stopping => event(Verb::SessionRevoked).because(Cause::Stopping),
            End::ProcessEnded => event(Verb::SessionRevoked).because(Cause::PeerExited),
            End::ParentEnded => event(Verb::SessionRevoked).because(Cause::SessionEnded),
            End::Honeytoken => event(Verb::SessionRevoked).because(Cause::Honeytoken),
            End::RoleChanged => event(Verb::SessionRevoked).because(Cause::Reload),
        };
        let holder =
            Actor { session: Some(session.id), role: Some(session.role.clone()), ..Actor::default() };
        let of_leases = leases.iter().map(|lease| revoked(lease, &holder, Cause::SessionEnded));
        let events: Vec<Event<'_>> = std::iter::once(of_session).chain(of_leases).collect();
        let _ = self.told(self.audit.record_all(&events));
        ended.lapsed.iter().for_each(|lapsed| self.record_lapsed(lapsed, Cause::SessionEnded));
    }

    pub(super) fn record_performed(
        &self,
        session: &Session,
        action: &Action,
        reason: Option<&Reason>,
    ) -> Result<()> {
        let (resource, subject) = (action.resource(), action.subject());
        let event = about(Event::of(verb_of(action), &session.actor), resource.as_ref());
        let event = match &subject {
            Some(subject) => event.target(Target::Subject(subject)),
            None => event,
        };
        self.must_record(&event.reason(reason))
    }

    /// A code is about to leave.
    pub(super) fn record_claimed(&self, session: &Session, given: &Given) -> Result<()> {
        let message = Subject::Message(given.message);
        self.must_record(&Event::of(Verb::CodeClaimed, &session.actor).target(Target::Subject(&message)))
    }

    pub(super) async fn record_acquired(
        &self,
        session: &Session,
        lease: &Lease,
        reason: Option<&Reason>,
    ) -> Result<()> {
        let ttl = lease.terms.expires_at.since(lease.terms.granted_at);
        let event = Event::lease(Verb::LeaseAcquired, &session.actor, lease.id, &lease.resource);
        self.told(self.audit.commit(&event.identity(lease.identity).ttl(ttl).reason(reason)).await)
    }

    pub(super) async fn record_read(&self, session: &Session, lease: &Lease) -> Result<()> {
        self.told(self.audit.commit(&about_lease(Verb::LeaseRead, session, lease)).await)
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
        self.try_record(&revoked(lease, &holder_of(lease), cause));
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
        self.must_record(&Event::daemon(verb))?;
        self.audit.settle();
        Ok(())
    }

    pub(super) fn must_record(&self, event: &Event<'_>) -> Result<()> {
        self.told(self.audit.record(event))
    }

    fn told(&self, written: std::result::Result<(), AuditError>) -> Result<()> {
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
    pub(super) fn try_record(&self, event: &Event<'_>) {
        let _ = self.must_record(event);
    }
}

fn revoked<'a>(lease: &'a Lease, holder: &'a Actor, cause: Cause) -> Event<'a> {
    let event = Event::lease(Verb::LeaseRevoked, holder, lease.id, &lease.resource);
    event.identity(lease.identity).exposed(!lease.revocable).because(cause)
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

pub(super) fn verb_of(action: &Action) -> Verb {
    match action {
        Action::Acquire(..) => Verb::LeaseAcquired,
        Action::ListSecrets | Action::ListPasswords => Verb::VaultList,
        Action::SetSecret(_) => Verb::VaultSet,
        Action::CreatePassword(_) => Verb::VaultCreate,
        Action::UpdatePassword(_) => Verb::VaultUpdate,
        Action::DeleteSecret(_) | Action::DeletePassword(_) => Verb::VaultDelete,
        Action::ReadIdentity => Verb::IdentityRead,
        Action::ReadMessages(_) => Verb::InboxList,
        Action::ReadMessage(_) => Verb::InboxRead,
        Action::AwaitCode(_) => Verb::CodeWatched,
        Action::SendEmail(_) | Action::SendSms(_) | Action::Send(_) => Verb::MessageSent,
        Action::SearchContacts => Verb::ContactsSearched,
        Action::CreateIdentity(_) => Verb::IdentityCreated,
        Action::ProvisionPhone => Verb::IdentityProvisioned,
    }
}
