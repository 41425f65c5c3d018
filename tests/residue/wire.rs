//! The generated clients on a channel that remembers which calls were made.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use ravi_broker::pb::admin_service_client::AdminServiceClient;
use ravi_broker::pb::identity_service_client::IdentityServiceClient;
use ravi_broker::pb::inbox_service_client::InboxServiceClient;
use ravi_broker::pb::lease_service_client::LeaseServiceClient;
use ravi_broker::pb::session_service_client::SessionServiceClient;
use ravi_broker::pb::vault_service_client::VaultServiceClient;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Error};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type Recorded = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Error>;

/// The paths of the calls that were made.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<BTreeSet<String>>>);

/// One connection.
pub(crate) struct Wire {
    channel: Recorded,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Calls {
    /// Calls that `proto/` has and nobody made.
    pub(crate) fn missing(&self) -> Vec<String> {
        let made = self.0.lock().unwrap();
        promised().into_iter().filter(|call| !made.contains(call)).collect()
    }
}

impl Wire {
    pub(crate) async fn connect(socket: &Path, calls: &Calls) -> Self {
        let calls = calls.clone();
        let recorded =
            channel(socket, |endpoint| endpoint).await.map_request(move |request: http::Request<Body>| {
                calls.0.lock().unwrap().insert(request.uri().path().to_owned());
                request
            });
        Self { channel: BoxCloneSyncService::new(recorded), authorization: None }
    }

    /// Sends the token with every further call; not marked as sensitive, as clients in other languages send
    /// it, so that it goes into the header table of the connection.
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token fits a header");
        self.authorization = Some(value);
        self
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Recorded> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeaseServiceClient<Recorded> {
        LeaseServiceClient::new(self.channel.clone())
    }

    pub(crate) fn vault(&self) -> VaultServiceClient<Recorded> {
        VaultServiceClient::new(self.channel.clone())
    }

    pub(crate) fn identities(&self) -> IdentityServiceClient<Recorded> {
        IdentityServiceClient::new(self.channel.clone())
    }

    pub(crate) fn inbox(&self) -> InboxServiceClient<Recorded> {
        InboxServiceClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Recorded> {
        AdminServiceClient::new(self.channel.clone())
    }
}

/// A connection with settings of its own.
pub(crate) async fn channel(socket: &Path, change: impl FnOnce(Endpoint) -> Endpoint) -> Channel {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = change(Endpoint::from_static("http://localhost"));
    endpoint.connect_with_connector(connector).await.expect("the daemon accepts")
}

/// `/package.Service/Call` of every call that the files under `proto/` declare.
fn promised() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/ravi/broker/v1");
    let mut calls = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut service = "";
        for line in text.lines() {
            let mut words = line.split([' ', '(']).filter(|word| !word.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(name)) => calls.push(format!("/ravi.broker.v1.{service}/{name}")),
                _ => {}
            }
        }
    }
    assert!(calls.len() >= 27, "only {} calls were found", calls.len());
    calls
}
