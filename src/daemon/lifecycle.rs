//! The life of the daemon: ready, reload, drain, end.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{App, Host};
use super::error::StartError;
#[cfg(feature = "otlp")]
use super::export::Exporting;
use super::listen::{Admission, Incoming, Limits};
use super::{notify, serve};
use crate::audit::Verb;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::grpc::{Admin, Agent, CallMeters, Meter, Process};
use crate::limit::UpstreamBudget;

/// Connections on the admin socket: a few people and tools.
const ADMIN_CONNECTIONS: Limits = Limits { total: 32, per_uid: 32 };
/// Between two rounds that forget identities whose budget is whole again.
const BUDGET_ROUND: Duration = Duration::from_secs(60);
/// For calls that were cut off to say so.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Serves until a signal says to stop, drains, wipes.
pub(super) async fn run(app: App) -> Result<(), StartError> {
    let App { broker, budget, agent, admin, scrape, host, config, clock } = app;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let limits = Limits { total: config.limits.connections, per_uid: config.limits.connections_per_uid };
    let agents = Incoming::new(agent, Admission::Everyone, limits, stop.clone())?;
    let operators = Incoming::new(admin, Admission::Operator, ADMIN_CONNECTIONS, stop.clone())?;
    host.count(agents.connections());

    broker.record_daemon(Verb::DaemonStarted).map_err(|_| audit_unavailable())?;
    if broker.resume_lock() {
        tracing::warn!("the broker was locked before it ended and still is; `ravi-broker unlock` ends that");
    }
    let servers = TaskTracker::new();
    let agent = Agent::new(broker.clone(), clock.clone());
    let calls = CallMeters::new(clock.clone(), host.export().spans());
    servers.spawn(serve::agents(agent, Meter(calls.clone()), agents, broker.clone(), stop.clone()));
    let admin = Admin::new(broker.clone(), host.clone(), calls.clone(), clock.clone());
    servers.spawn(serve::operator(admin.clone(), Meter(calls), operators, stop.clone()));
    let mut scraped = JoinSet::new();
    if let Some(scrape) = scrape {
        scraped.spawn(scrape.serve(admin.clone(), clock.clone(), stop.clone())?);
    }
    #[cfg(feature = "otlp")]
    let exporting = Exporting::start(&config.otlp, host.export(), admin, clock.clone(), host.started_at())?;
    servers.spawn(broker.dispatcher()?.run());
    servers.close();
    let mut upkeep = upkeep(&broker, &budget, &clock);
    notify::ready("serving");
    tracing::info!(roles = config.roles.len(), "serving");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(host.clone()).await,
        }
    }
    drain(&broker, &servers, &stop, config.limits.grace).await;
    #[cfg(feature = "otlp")]
    if let Some(exporting) = exporting {
        exporting.end().await;
    }
    upkeep.abort_all();
    let _ = broker.record_daemon(Verb::DaemonStopping);
    Ok(())
}

fn upkeep(broker: &Arc<Broker>, budget: &Arc<UpstreamBudget>, clock: &Arc<dyn Clock>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(broker.clone().expire_sessions());
    tasks.spawn(broker.clone().expire_leases());
    tasks.spawn(broker.clone().expire_approvals());
    tasks.spawn(broker.clone().announce_rotations());
    tasks.spawn(broker.clone().keep_house());
    tasks.spawn(broker.clone().keep_trail());
    tasks.spawn(broker.clone().attend_dispatches());
    let (budget, round) = (budget.clone(), clock.clone());
    tasks.spawn(async move {
        loop {
            round.sleep_until(round.now() + BUDGET_ROUND).await;
            budget.prune();
        }
    });
    if let Some(limit) = notify::watchdog_limit() {
        let clock = clock.clone();
        tasks.spawn(async move { notify::feed_watchdog(&*clock, limit, || true).await });
    }
    tasks
}

/// What came of it is in the log: nobody waits for an answer to a signal.
async fn reload(host: Arc<Host>) {
    if tokio::task::spawn_blocking(move || host.reload()).await.is_err() {
        notify::ready("serving; the last reload failed");
    }
}

/// No new calls, streams end, calls under way get the grace time; then everything is wiped.
async fn drain(broker: &Broker, servers: &TaskTracker, stop: &CancellationToken, grace: Duration) {
    notify::stopping("draining");
    tracing::info!(grace_seconds = grace.as_secs(), "draining");
    broker.drain();
    stop.cancel();
    let drained = tokio::time::timeout(grace, servers.wait()).await.is_ok();
    if !drained {
        tracing::warn!("the grace time is over; calls that are still under way are cut off");
    }
    broker.shut();
    if !drained {
        // They end with their sessions: their callers are told, and their records come before the last one.
        let _ = tokio::time::timeout(LAST_WORDS, servers.wait()).await;
    }
    tracing::info!("every value and key is wiped");
}

fn audit_unavailable() -> StartError {
    StartError::Runtime(std::io::Error::other("the first audit record cannot be written"))
}
