//! The daemon's process: composition, sockets, life cycle. May import everything below, and `grpc`.

mod app;
mod args;
mod confine;
mod error;
mod export;
mod lifecycle;
pub mod listen;
pub mod notify;
mod scrape;
mod serve;
mod settings;

use std::sync::Arc;
use std::time::Duration;

pub use self::args::Args;
pub use self::error::StartError;
pub use self::settings::{ConfigFile, Settings};
use crate::audit::Verb;
use crate::broker::Broker;
use crate::clock::SystemClock;
use crate::peer;
use crate::secret::Secret;
use crate::sys::Protection;
use crate::sys::harden::raise_descriptor_limit;

/// Two for each connection, and some for files and upstream.
const DESCRIPTORS: u64 = 8192;
/// Work that is still under way when the daemon has drained is given up after this.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// Runs the daemon until it is told to stop. `management_key` is that of an embedded sandbox, which has no
/// file or login to give it.
pub fn run(
    settings: Settings,
    management_key: Option<Secret>,
    protections: Vec<Protection>,
) -> Result<(), StartError> {
    if let Err(error) = raise_descriptor_limit(DESCRIPTORS) {
        tracing::warn!(%error, "the descriptor limit cannot be raised");
    }
    // Before the runtime: a daemon that cannot do its work safely does not start a thread.
    let app = app::App::build(settings, Arc::new(SystemClock), management_key, protections)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = app.broker.clone();
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = lifecycle::run(app) => ended,
            () = peer::attestor_ended() => Err(stop_at_once(&broker)),
        }
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// Without its attestor the daemon cannot tell who asks: no grace for calls under way.
fn stop_at_once(broker: &Broker) -> StartError {
    notify::stopping("the attestor has ended");
    broker.drain();
    broker.shut();
    let _ = broker.record_daemon(Verb::DaemonStopping);
    StartError::AttestorEnded
}
