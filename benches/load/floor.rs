//! The floor: tonic as it comes, on a Unix socket, answering `AcquireLease` with a constant of the size that
//! the daemon's answer has. What the daemon costs beyond it is what custody, limits and the trail cost.

use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use clap::Args;
use ravi_broker::pb;
use ravi_broker::pb::lease_service_server::{LeaseService, LeaseServiceServer};
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Where it listens.
#[derive(Args)]
pub(crate) struct Floor {
    #[arg(long)]
    socket: PathBuf,
}

/// Shaped like the daemon's answer for `secret/OPENAI_API_KEY`.
struct Constant(pb::AcquireLeaseResponse);

impl Floor {
    pub(crate) fn run(self) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&self.socket).unwrap();
            let service = LeaseServiceServer::new(Constant::new());
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
    }
}

impl Constant {
    fn new() -> Self {
        let lasting = |seconds| Some(prost_types::Duration { seconds, nanos: 123_456_789 });
        let lease = pb::Lease {
            lease_id: "lse_0123456789abcdefghijklmn".into(),
            resource: "secret/OPENAI_API_KEY".into(),
            expires_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 123_456_789 }),
            expires_in: lasting(299),
            renewable_for: lasting(3599),
            revocable: false,
            uses: 1,
            delivery: pb::Delivery::Shown.into(),
            padding: Bytes::from_static(&[0; 384]),
        };
        let credential = pb::Credential { value: "x".repeat(51), username: String::new() };
        Self(pb::AcquireLeaseResponse { lease: Some(lease), credential: Some(credential) })
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("the floor answers AcquireLease alone"))
}

#[tonic::async_trait]
impl LeaseService for Constant {
    async fn acquire_lease(
        &self,
        _request: Request<pb::AcquireLeaseRequest>,
    ) -> Answer<pb::AcquireLeaseResponse> {
        Ok(Response::new(self.0.clone()))
    }

    async fn read_lease(&self, _request: Request<pb::ReadLeaseRequest>) -> Answer<pb::ReadLeaseResponse> {
        none()
    }

    async fn renew_lease(&self, _request: Request<pb::RenewLeaseRequest>) -> Answer<pb::RenewLeaseResponse> {
        none()
    }

    async fn release_lease(
        &self,
        _request: Request<pb::ReleaseLeaseRequest>,
    ) -> Answer<pb::ReleaseLeaseResponse> {
        none()
    }

    async fn list_leases(&self, _request: Request<pb::ListLeasesRequest>) -> Answer<pb::ListLeasesResponse> {
        none()
    }

    type WatchLeasesStream = Pin<Box<dyn Stream<Item = Result<pb::WatchLeasesResponse, Status>> + Send>>;

    async fn watch_leases(
        &self,
        _request: Request<pb::WatchLeasesRequest>,
    ) -> Answer<Self::WatchLeasesStream> {
        none()
    }
}
