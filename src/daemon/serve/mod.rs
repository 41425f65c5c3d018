//! Which services are on which socket, and the loop that accepts their connections.

mod calls;
mod connection;
mod link;
mod retirement;

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt;
use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Layer;

use self::connection::Times;
use self::retirement::Triggers;
use super::listen::{Connection, Incoming};
use crate::broker::Broker;
use crate::grpc::{Admin, Agent, Edge, MAX_MESSAGE_BYTES, Meter};
use crate::link::PREFACE;

/// What health checks call the server as a whole.
const WHOLE_SERVER: &str = "";

/// Serves the agent socket until `stop`, then lets the calls under way finish. A lock of the broker ends
/// every connection.
pub(super) async fn agents(
    agent: Agent,
    meter: Meter,
    incoming: Incoming,
    broker: Arc<Broker>,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let names = [
        name(&agent.sessions()),
        name(&agent.leases()),
        name(&agent.vault()),
        name(&agent.inbox()),
        name(&agent.identities()),
    ];
    let announcing = announce(health, names, broker.serving(), stop.clone());
    let routes = Routes::new(health_service.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(agent.sessions())
        .add_service(agent.leases())
        .add_service(agent.vault())
        .add_service(agent.inbox())
        .add_service(agent.identities());
    let triggers = Triggers::on_stop(stop).or_lock(broker.locks());
    let service = meter.layer(Edge::Agent.layer(routes.prepare()));
    tokio::join!(announcing, accept(incoming, service, triggers, Some(broker)));
}

/// Serves the admin socket until `stop`, then lets the calls under way finish.
pub(super) async fn operator(admin: Admin, meter: Meter, incoming: Incoming, stop: CancellationToken) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let names = [name(&admin.service())];
    // The operator is served even while agents are not.
    let always = watch::Sender::new(true);
    let announcing = announce(health, names, always.subscribe(), stop.clone());
    let routes =
        Routes::new(health_service.max_decoding_message_size(MAX_MESSAGE_BYTES)).add_service(admin.service());
    let triggers = Triggers::on_stop(stop);
    let service = meter.layer(Edge::Admin.layer(routes.prepare()));
    tokio::join!(announcing, accept(incoming, service, triggers, None));
}

/// Serves each connection in a task of its own, until no more come in and the last has ended. How many
/// there are at once is bounded by `incoming`, which keeps the socket's lock until then.
async fn accept<S: Service>(
    mut incoming: Incoming,
    service: S,
    triggers: Triggers,
    sessions: Option<Arc<Broker>>,
) {
    let connections = TaskTracker::new();
    while let Some(Ok(connection)) = incoming.next().await {
        let (service, triggers, sessions) = (service.clone(), triggers.clone(), sessions.clone());
        connections.spawn(serve(connection, service, triggers, sessions));
    }
    connections.close();
    connections.wait().await;
}

/// Serves one connection by what it begins with. `sessions` are those of the agent socket.
async fn serve<S: Service>(
    connection: Connection,
    service: S,
    triggers: Triggers,
    sessions: Option<Arc<Broker>>,
) {
    let Some(begun) = connection.begin().await else { return };
    match sessions {
        Some(broker) if begun.first().starts_with(PREFACE) => {
            link::serve(begun, broker, service, triggers).await;
        }
        sessions => {
            let (peer, spoken) = (begun.peer(), begun.spoken());
            let stranger = spoken.stranger();
            connection::serve(spoken, peer.clone(), service, Times::default(), triggers).await;
            if let (Some(broker), Some(pid)) = (sessions, stranger.pid()) {
                broker.refuse_stranger(&peer.0, pid);
            }
        }
    }
}

/// What answers the requests of a socket.
trait Service:
    tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Service for S
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
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
