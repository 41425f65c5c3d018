//! Leases: acquire, read, renew, release, list, watch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::error::{BrokerError, Result};
use super::{Admitted, Broker, Purpose};
use crate::lease::{Event, Found, Lease, LeaseError};
use crate::policy::{Action, Grant};
use crate::session::Session;
use crate::types::{Delivery, LeaseId, Reason, Resource};
use crate::vault::Credential;

/// A lease and the value it was granted for.
pub struct Leased {
    /// Its terms.
    pub lease: Lease,
    /// The value, for one response.
    pub credential: Credential,
}

/// The events of a session's leases, until the session ends.
pub struct Watch {
    events: broadcast::Receiver<Event>,
    session: Arc<Session>,
    stopping: CancellationToken,
}

/// What a watch saw.
pub enum Seen {
    /// An event.
    Event(Event),
    /// Some events were dropped: the reader is slow.
    Missed,
    /// No more events.
    Ended(BrokerError),
}

impl Broker {
    /// Grants a lease on a resource and returns its value, for the one way of delivery that was asked for.
    pub async fn acquire(
        &self,
        admitted: &Admitted,
        resource: Resource,
        delivery: Delivery,
        ttl: Option<Duration>,
        reason: Option<Reason>,
    ) -> Result<Leased> {
        let session = &admitted.session;
        let action = Action::Acquire(resource.clone(), delivery);
        let grant = self.permit(admitted, action, Purpose::of(reason.as_ref())).await?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let room = self.leases.check_room(session.id, grant.bounds().lease_max_live);
        room.map_err(|error| explained(session, error)).inspect_err(failed)?;
        let (credential, found) = self.look_up(session, &grant, &resource).await.inspect_err(failed)?;
        self.check_found(admitted, grant.action(), &found.resource)?;
        // Once more: a reload may have taken the right away while the value was fetched.
        let grant = self.again(admitted, &grant)?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let lease = self.leases.grant(session, &grant, found, ttl);
        let lease = lease.map_err(|error| explained(session, error)).inspect_err(failed)?;
        let unheld = Unheld { broker: self, session, id: Some(lease.id) };
        let recorded = self.record_acquired(session, &lease, reason.as_ref()).await;
        recorded.and_then(|()| self.still_leased(session, lease.id)).inspect_err(|_| {
            let _ = self.leases.release(session.id, lease.id);
        })?;
        unheld.held();
        Ok(Leased { lease, credential })
    }

    /// The value again, under a live lease and today's policy.
    pub async fn read_lease(&self, admitted: &Admitted, id: LeaseId) -> Result<Leased> {
        let session = &admitted.session;
        let Lease { resource, identity, delivery, approval, .. } = self.own_lease(admitted, id)?;
        let action = Action::Acquire(resource.clone(), delivery);
        let grant = self.under(admitted, action, approval.as_ref())?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let (credential, found) = self.look_up(session, &grant, &resource).await.inspect_err(failed)?;
        let grant = self.again(admitted, &grant)?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        // The lease is for the identity that the role had when it was granted.
        if found.identity != identity {
            return Err(BrokerError::LeaseRevoked).inspect_err(failed);
        }
        let counted = self.leases.count_use(session.id, id);
        let lease = counted.map_err(|error| self.refuse_lease(admitted, id, error))?;
        self.record_read(session, &lease).await?;
        self.still_leased(session, id)?;
        Ok(Leased { lease, credential })
    }

    /// Moves the end of a live lease, as far as the role lets it.
    pub fn renew(&self, admitted: &Admitted, id: LeaseId, ttl: Option<Duration>) -> Result<Lease> {
        let session = &admitted.session;
        let lease = self.own_lease(admitted, id)?;
        let action = Action::Acquire(lease.resource.clone(), lease.delivery);
        let grant = self.under(admitted, action, lease.approval.as_ref())?;
        let bounds = grant.bounds();
        let ttl = ttl.unwrap_or(bounds.lease_default_ttl);
        // Before it is moved: a lease that was is not moved back.
        self.record_renewed(session, &lease)?;
        let renewed = self.leases.renew(session.id, id, ttl, bounds.lease_max_ttl);
        renewed.map_err(|error| self.refuse_lease(admitted, id, error))
    }

    /// Gives a lease back.
    pub fn release(&self, admitted: &Admitted, id: LeaseId) -> Result<()> {
        let session = &admitted.session;
        let released = self.leases.release(session.id, id);
        let lease = released.map_err(|error| self.refuse_lease(admitted, id, error))?;
        self.record_released(session, &lease);
        Ok(())
    }

    /// The live leases of the session.
    pub fn list_leases(&self, admitted: &Admitted) -> Vec<Lease> {
        self.leases.list(admitted.session.id)
    }

    /// What happens to the session's leases from now on.
    pub fn watch_leases(&self, admitted: &Admitted) -> Result<Watch> {
        let events = self.leases.watch(admitted.session.id);
        let events = events.map_err(|error| explained(&admitted.session, error))?;
        Ok(Watch { events, session: admitted.session.clone(), stopping: self.stopping.clone() })
    }

    fn own_lease(&self, admitted: &Admitted, id: LeaseId) -> Result<Lease> {
        let found = self.leases.find(admitted.session.id, id);
        found.map_err(|error| self.refuse_lease(admitted, id, error))
    }

    fn refuse_lease(&self, admitted: &Admitted, id: LeaseId, error: LeaseError) -> BrokerError {
        self.refuse_lease_handle(admitted, id, error);
        explained(&admitted.session, error)
    }

    /// The last check before a leased value leaves: neither the lease nor its session has ended.
    fn still_leased(&self, session: &Session, id: LeaseId) -> Result<()> {
        match self.leases.find(session.id, id) {
            Ok(_) | Err(LeaseError::SessionEnded) => self.still_open(session),
            Err(error) => Err(error.into()),
        }
    }

    /// A session that ended meanwhile explains best why there is no value.
    async fn look_up(
        &self,
        session: &Session,
        grant: &Grant,
        resource: &Resource,
    ) -> Result<(Credential, Found)> {
        let fetched = async {
            let identity = self.identity_of(session, grant.role()).await?;
            let credential = self.vault.credential(identity, resource).await?;
            let found =
                Found { identity, resource: credential.resource.clone(), ends_at: credential.expires_at };
            Ok::<_, BrokerError>((credential, found))
        };
        let fetched = self.while_open(session, fetched).await;
        for identity in self.vault.take_minted() {
            self.record_minted(session, identity);
        }
        fetched.map_err(|error| session.end().map_or(error, BrokerError::from))
    }
}

/// A lease whose caller went away while it was recorded: nobody knows its handle, so it is given back.
struct Unheld<'a> {
    broker: &'a Broker,
    session: &'a Session,
    id: Option<LeaseId>,
}

impl Unheld<'_> {
    fn held(mut self) {
        self.id = None;
    }
}

impl Drop for Unheld<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if let Ok(lease) = self.broker.leases.release(self.session.id, id) {
            // It was acquired before it was given back.
            self.broker.audit.flush();
            self.broker.record_released(self.session, &lease);
        }
    }
}

/// Why the session ended, if it has.
pub(super) fn explained_end(session: &Session) -> Option<BrokerError> {
    session.end().map(BrokerError::from)
}

/// The session knows best why it ended.
fn explained(session: &Session, error: LeaseError) -> BrokerError {
    match (error, session.end()) {
        (LeaseError::SessionEnded, Some(end)) => end.into(),
        (error, _) => error.into(),
    }
}

impl Watch {
    /// The next event. After [`Seen::Ended`] there is none.
    pub async fn next(&mut self) -> Seen {
        let event = tokio::select! {
            event = self.events.recv() => event,
            () = self.stopping.cancelled() => return Seen::Ended(BrokerError::Draining),
        };
        match event {
            Ok(event) => Seen::Event(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Seen::Missed,
            Err(broadcast::error::RecvError::Closed) => {
                let end = self.session.end();
                Seen::Ended(end.map_or(BrokerError::SessionRevoked, BrokerError::from))
            }
        }
    }
}
