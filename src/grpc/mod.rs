//! The wire: one file per service. Decodes, takes the peer from the connection, calls one verb of the
//! broker, encodes. Decides nothing. May import `broker` and everything below, and `pb`.

mod admin;
mod approval;
mod convert;
mod dispatch;
mod edge;
mod identity;
mod inbox;
mod lease;
mod message;
mod meter;
mod persona;
mod retire;
mod send;
mod session;
mod status;
mod vault;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};
use tracing::Instrument;

pub use self::admin::{Admin, Process, Reloaded};
pub use self::edge::Edge;
use self::meter::OfRole;
pub use self::meter::{CallMeters, Meter};
pub use self::retire::Retire;
use crate::broker::{Admitted, Broker, BrokerError, Caller};
use crate::clock::Clock;
use crate::limit::Class;
use crate::pb::identity_service_server::IdentityServiceServer;
use crate::pb::inbox_service_server::InboxServiceServer;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::pb::session_service_server::SessionServiceServer;
use crate::pb::vault_service_server::VaultServiceServer;
use crate::peer::{Peer, PeerInfo};
use crate::types::{DenialId, SessionId};

/// A request message larger than this is refused.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Headers larger than this in sum are refused.
pub const MAX_HEADER_BYTES: u32 = 8 * 1024;

const AUTHORIZATION: &str = "authorization";
const SCHEME: &str = "Bearer ";

/// The services of the agent socket.
#[derive(Clone)]
pub struct Agent {
    broker: Arc<Broker>,
    clock: Arc<dyn Clock>,
    /// Files that are being taken in, each in memory.
    uploads: Arc<Semaphore>,
}

/// How long the caller of a request waits for its answer at most.
#[derive(Clone, Copy, Debug)]
pub struct Within(pub Duration);

impl Within {
    /// What waits for somebody ends a little earlier, so that the answer says so.
    fn for_waits(self) -> Duration {
        self.0 - (self.0 / 5).min(Duration::from_millis(500))
    }
}

/// The session of a link, for the calls that come over it: they need no token.
#[derive(Clone, Copy, Debug)]
pub struct Linked(pub SessionId);

type Answer<T> = Result<Response<T>, Status>;

impl Agent {
    /// Serves this broker.
    pub fn new(broker: Arc<Broker>, clock: Arc<dyn Clock>) -> Self {
        Self { broker, clock, uploads: Arc::new(Semaphore::new(send::MAX_UPLOADS)) }
    }

    /// The session service.
    pub fn sessions(&self) -> SessionServiceServer<Self> {
        SessionServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The lease service.
    pub fn leases(&self) -> LeaseServiceServer<Self> {
        LeaseServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The vault service.
    pub fn vault(&self) -> VaultServiceServer<Self> {
        VaultServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The identity service.
    pub fn identities(&self) -> IdentityServiceServer<Self> {
        IdentityServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The inbox service.
    pub fn inbox(&self) -> InboxServiceServer<Self> {
        InboxServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Lets the call in, then reads its message: who may not call learns nothing about its form.
    fn admit<T, P>(
        &self,
        request: Request<T>,
        class: Class,
        parse: impl FnOnce(T) -> Result<P, BrokerError>,
    ) -> Result<(Admitted, P), Status> {
        self.let_in(request, |caller| self.broker.admit(caller, class), parse)
    }

    /// Lets a call in that only gives something back.
    fn admit_return<T, P>(
        &self,
        request: Request<T>,
        parse: impl FnOnce(T) -> Result<P, BrokerError>,
    ) -> Result<(Admitted, P), Status> {
        self.let_in(request, |caller| self.broker.admit_return(caller), parse)
    }

    fn let_in<T, P>(
        &self,
        request: Request<T>,
        admit: impl FnOnce(Caller<'_>) -> Result<Admitted, BrokerError>,
        parse: impl FnOnce(T) -> Result<P, BrokerError>,
    ) -> Result<(Admitted, P), Status> {
        let (metadata, extensions, message) = request.into_parts();
        let admitted = admit(caller(&metadata, &extensions)?)?;
        OfRole::note(&extensions, || self.broker.role_of(&admitted));
        let admitted = match extensions.get::<Within>() {
            Some(within) => admitted.answer_by(self.clock.now() + within.for_waits()),
            None => admitted,
        };
        let parsed = parse(message).inspect_err(|_| self.broker.refuse_form(&admitted))?;
        Ok((admitted, parsed))
    }

    /// Runs a change to its end even if the caller goes away meanwhile: half of it may be done upstream. One that
    /// still waits for the operator then is not begun.
    async fn to_the_end<T, F>(admitted: Admitted, change: impl FnOnce(Admitted) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BrokerError>> + Send + 'static,
    {
        let _wanted = admitted.wanted();
        let outcome =
            tokio::spawn(change(admitted).in_current_span()).await.unwrap_or(Err(BrokerError::Internal));
        Ok(outcome?)
    }
}

/// Who makes the call, and under which id it is refused if it is.
fn caller<'a>(metadata: &'a MetadataMap, extensions: &'a Extensions) -> Result<Caller<'a>, Status> {
    let denial = *extensions.get::<DenialId>().ok_or(BrokerError::Internal)?;
    let linked = extensions.get::<Linked>().map(|linked| linked.0);
    Ok(Caller { peer: peer(extensions)?, token: token(metadata), linked, denial })
}

/// The process that the kernel named when the connection was accepted.
fn peer(extensions: &Extensions) -> Result<&Arc<Peer>, Status> {
    let info = extensions.get::<PeerInfo>().ok_or(BrokerError::Internal)?;
    Ok(&info.0)
}

/// The token, in the one form that the API has. Two headers are none: which of them counts is not guessed.
fn token(metadata: &MetadataMap) -> Option<&str> {
    let mut headers = metadata.get_all(AUTHORIZATION).iter();
    let (header, None) = (headers.next()?, headers.next()) else { return None };
    header.to_str().ok()?.strip_prefix(SCHEME)
}
