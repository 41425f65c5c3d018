//! The two gRPC servers, with the bounds that every connection has.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use super::listen::Incoming;
use crate::grpc::{Admin, Agent, Edge, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES};

/// Streams of one connection at once. Tonic's own default is none at all.
const STREAMS: u32 = 128;
/// Received bytes that may wait unread, of one stream and of one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Provoked resets that are borne before the connection is closed (CVE-2023-44487, CVE-2025-8671).
const PENDING_RESETS: usize = 64;
const LOCAL_RESETS: usize = 256;
/// A peer that answers no ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);
/// Longest time until a call begins to answer; upstream's own deadline is 30 s.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// What health checks call the server as a whole.
const WHOLE_SERVER: &str = "";

/// Serves the agent socket until `stop`, then lets the calls under way finish.
pub(super) async fn agents(
    agent: Agent,
    incoming: Incoming,
    serving: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let names =
        [name(&agent.sessions()), name(&agent.leases()), name(&agent.vault()), name(&agent.identities())];
    let announcing = announce(health, names, serving, stop.clone());
    let router = bounded()
        .add_service(health_service.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(agent.sessions())
        .add_service(agent.leases())
        .add_service(agent.vault())
        .add_service(agent.identities());
    tokio::join!(announcing, run(router, incoming, stop, "agent"));
}

/// Serves the admin socket until `stop`, then lets the calls under way finish.
pub(super) async fn operator(admin: Admin, incoming: Incoming, stop: CancellationToken) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let names = [name(&admin.service())];
    // The operator is served even while agents are not.
    let always = watch::Sender::new(true);
    let announcing = announce(health, names, always.subscribe(), stop.clone());
    let router = bounded()
        .add_service(health_service.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(admin.service());
    tokio::join!(announcing, run(router, incoming, stop, "admin"));
}

/// What a server wraps its services in.
type Layers = Stack<Edge, Identity>;

fn bounded() -> Server<Layers> {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_WAIT))
        .timeout(CALL_DEADLINE)
        .layer(Edge)
}

async fn run(router: Router<Layers>, incoming: Incoming, stop: CancellationToken, socket: &'static str) {
    let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, socket, "the server ended with an error");
    }
}

fn name<S: tonic::server::NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// Keeps the health service true: a broker that is locked, or cannot write its audit trail, serves
/// nobody. At the end it tells those who watch, and ends their streams: the drain would wait for them.
async fn announce<const N: usize>(
    mut health: HealthReporter,
    names: [&'static str; N],
    mut serving: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let all = || names.into_iter().chain([WHOLE_SERVER]);
    let mut told = None;
    loop {
        let stopping = stop.is_cancelled();
        let serves = *serving.borrow_and_update() && !stopping;
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        if told.replace(serves) != Some(serves) {
            for name in all() {
                health.set_service_status(name, status).await;
            }
        }
        if stopping {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            Ok(()) = serving.changed() => {}
        }
    }
    for name in all() {
        health.clear_service_status(name).await;
    }
}
