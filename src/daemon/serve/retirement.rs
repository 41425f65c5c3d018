//! When a connection is retired, and how long it may then take.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::connection::Times;
use crate::grpc::Retire;

/// With no open call but streams, until a connection is retired that was asked to be. Not at once: a client
/// may miss a GOAWAY that comes while it sends its next call, and some then report that call as failed.
const AFTER_VALUE: Duration = Duration::from_secs(1);
/// What is still open this long after a lock is closed hard: whoever asked for it wants it over now. A stream ends by
/// itself then, and is told why: if that is late, it is not its client's fault, and it is waited for a while longer.
pub(super) const AFTER_LOCK: Duration = Duration::from_secs(1);
/// How long what is under way may still be taken once a session was taken away. Within what is promised for the kill
/// switch.
const AFTER_END: Duration = Duration::from_millis(30);
/// A client that does not close its side of a retired connection, on which no call is open, is not waited
/// for any longer; nor is one that does not take the end of a stream.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// What retires the connections of one socket.
#[derive(Clone)]
pub(super) struct Triggers {
    /// The daemon stops; its grace time is the bound.
    stop: CancellationToken,
    /// Changes whenever the broker is locked. `None`: the socket is served all the same.
    locked: Option<watch::Receiver<()>>,
}

impl Triggers {
    /// Until `stop`, over every lock.
    pub(super) fn on_stop(stop: CancellationToken) -> Self {
        Self { stop, locked: None }
    }

    /// On each change of `locked` as well.
    pub(super) fn or_lock(self, locked: watch::Receiver<()>) -> Self {
        Self { locked: Some(locked), ..self }
    }

    /// The same for what can also come to an end by itself: when the token is cancelled.
    pub(super) fn with_own_end(self) -> (Self, CancellationToken) {
        let end = self.stop.child_token();
        (Self { stop: end.clone(), ..self }, end)
    }

    /// Returns when the daemon stops.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// For one connection, which begins now.
    pub(super) fn watch(self, retire: Retire, calls: Calls, times: Times) -> Retirement {
        let Self { stop, mut locked } = self;
        if let Some(locked) = &mut locked {
            locked.mark_unchanged();
        }
        Retirement { stop, locked, retire, calls, times, was_locked: false, over_streams: false }
    }
}

/// The end of one connection.
pub(super) struct Retirement {
    stop: CancellationToken,
    locked: Option<watch::Receiver<()>>,
    retire: Retire,
    calls: Calls,
    times: Times,
    was_locked: bool,
    /// What streams on was told to end; what cannot be told is cut off.
    over_streams: bool,
}

impl Retirement {
    /// Returns when the connection should take no more calls.
    pub(super) async fn due(&mut self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = lock(&mut self.locked) => self.was_locked = true,
            () = after_value(&self.retire, &self.calls) => {
                self.over_streams = true;
                self.retire.end_streams();
            }
            () = self.calls.idle(self.times.idle) => {}
        }
    }

    /// Returns when a session was taken away that was answered with a value on this connection, a moment after its
    /// streams were told. How much of an answer its client has not taken is not known here, so that nothing is left.
    pub(super) async fn taken_away(retire: Retire) {
        retire.taken_away().await;
        tokio::time::sleep(AFTER_END).await;
    }

    /// Returns when a retired connection is to be cut off.
    pub(super) async fn overdue(&mut self) {
        let Times { locked, linger, .. } = self.times;
        if !self.was_locked {
            tokio::select! {
                () = lock(&mut self.locked) => {}
                () = self.calls.quiet(linger), if self.over_streams => return,
                () = self.calls.idle(linger) => return,
            }
        }
        tokio::time::sleep(locked).await;
        self.calls.streams_ended(linger).await;
    }
}

/// Waits until the connection has carried a value and is quiet. Streams do not count: they would keep it
/// for good.
async fn after_value(retire: &Retire, calls: &Calls) {
    retire.asked().await;
    calls.quiet(AFTER_VALUE).await;
}

/// Waits for the next lock.
async fn lock(locked: &mut Option<watch::Receiver<()>>) {
    let told = match locked {
        Some(locked) => locked.changed().await.is_ok(),
        None => false,
    };
    if !told {
        // Nobody is left who could lock.
        std::future::pending::<()>().await;
    }
}
