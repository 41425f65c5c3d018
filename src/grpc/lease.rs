//! `LeaseService`.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status};

use super::{Agent, Answer, Retire, convert};
use crate::broker::{BrokerError, Seen, Watch};
use crate::lease::{Event, EventKind};
use crate::limit::Class;
use crate::pb;
use crate::pb::lease_service_server::LeaseService;
use crate::pb::watch_leases_response::Kind;

#[tonic::async_trait]
impl LeaseService for Agent {
    async fn acquire_lease(
        &self,
        request: Request<pb::AcquireLeaseRequest>,
    ) -> Answer<pb::AcquireLeaseResponse> {
        let retire = Retire::of(request.extensions());
        let (admitted, (resource, delivery, ttl, reason)) = self.admit(request, Class::Read, |message| {
            let resource = convert::name("resource", &message.resource)?;
            let delivery = convert::delivery(message.delivery)?;
            Ok((resource, delivery, convert::ttl(message.ttl)?, convert::reason(&message.reason)?))
        })?;
        let leased = self.broker.acquire(&admitted, resource, delivery, ttl, reason).await?;
        retire.after_answer(&admitted, &leased.credential.value);
        let (lease, credential) = convert::leased(leased, &*self.clock);
        Ok(Response::new(pb::AcquireLeaseResponse { lease, credential }))
    }

    async fn read_lease(&self, request: Request<pb::ReadLeaseRequest>) -> Answer<pb::ReadLeaseResponse> {
        let retire = Retire::of(request.extensions());
        let (admitted, id) =
            self.admit(request, Class::Read, |message| convert::lease_id(&message.lease_id))?;
        let leased = self.broker.read_lease(&admitted, id).await?;
        retire.after_answer(&admitted, &leased.credential.value);
        let (lease, credential) = convert::leased(leased, &*self.clock);
        Ok(Response::new(pb::ReadLeaseResponse { lease, credential }))
    }

    async fn renew_lease(&self, request: Request<pb::RenewLeaseRequest>) -> Answer<pb::RenewLeaseResponse> {
        let (admitted, (id, ttl)) = self.admit(request, Class::Read, |message| {
            Ok((convert::lease_id(&message.lease_id)?, convert::ttl(message.ttl)?))
        })?;
        let lease = self.broker.renew(&admitted, id, ttl)?;
        Ok(Response::new(pb::RenewLeaseResponse { lease: Some(convert::lease(&lease, &*self.clock)) }))
    }

    async fn release_lease(
        &self,
        request: Request<pb::ReleaseLeaseRequest>,
    ) -> Answer<pb::ReleaseLeaseResponse> {
        let (admitted, id) = self.admit_return(request, |message| convert::lease_id(&message.lease_id))?;
        self.broker.release(&admitted, id)?;
        Ok(Response::new(pb::ReleaseLeaseResponse {}))
    }

    async fn list_leases(&self, request: Request<pb::ListLeasesRequest>) -> Answer<pb::ListLeasesResponse> {
        let (admitted, _) = self.admit(request, Class::Read, Ok)?;
        let leases = self.broker.list_leases(&admitted);
        let leases = leases.iter().map(|lease| convert::lease(lease, &*self.clock)).collect();
        Ok(Response::new(pb::ListLeasesResponse { leases }))
    }

    type WatchLeasesStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchLeasesResponse, Status>> + Send + 'static>>;

    async fn watch_leases(
        &self,
        request: Request<pb::WatchLeasesRequest>,
    ) -> Answer<Self::WatchLeasesStream> {
        let retire = Retire::of(request.extensions());
        let (admitted, _) = self.admit(request, Class::Read, Ok)?;
        let watch = self.broker.watch_leases(&admitted)?;
        Ok(Response::new(Box::pin(stream::unfold(Some((watch, retire)), next_event))))
    }
}

type Watching = Option<(Watch, Retire)>;

/// An error is the stream's last item.
async fn next_event(watching: Watching) -> Option<(Result<pb::WatchLeasesResponse, Status>, Watching)> {
    let (mut watch, retire) = watching?;
    let seen = tokio::select! {
        biased;
        seen = watch.next() => seen,
        () = retire.ending() => Seen::Ended(BrokerError::ConnectionRetired),
    };
    match seen {
        Seen::Event(event) => Some((Ok(wire_event(&event)), Some((watch, retire)))),
        Seen::Missed => {
            let missed = pb::WatchLeasesResponse { kind: Kind::Missed.into(), ..Default::default() };
            Some((Ok(missed), Some((watch, retire))))
        }
        Seen::Ended(error) => Some((Err(error.into()), None)),
    }
}

fn wire_event(event: &Event) -> pb::WatchLeasesResponse {
    let kind = match event.kind {
        EventKind::Rotated => Kind::Rotated,
        EventKind::Expiring => Kind::Expiring,
        EventKind::Expired => Kind::Expired,
        EventKind::Revoked => Kind::Revoked,
    };
    pb::WatchLeasesResponse {
        kind: kind.into(),
        lease_id: event.lease.to_string(),
        resource: event.resource.to_string(),
    }
}
