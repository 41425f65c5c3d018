//! The stream of connections that the server reads: accept that survives every error, and caps.
//!
//! A connection over a cap is accepted and closed at once, so that it does not block the others in the
//! backlog. It is counted, and logged at every doubling of the count, not each time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Bound;
use super::bind::{Lock, SocketFile};
use super::connection::Connection;
use crate::peer::{Credentials, Peer, is_foreign};
use crate::sys;

/// After a failed accept. At the descriptor limit the listener stays readable: without the pause it
/// would take a whole CPU.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose connections are accepted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everyone whom the socket's mode lets in: roles decide.
    Everyone,
    /// Our own user and root: the admin socket.
    Operator,
}

/// Caps on open connections of one socket.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// Of one user id.
    pub per_uid: usize,
}

/// Accepted connections, each with its peer. Ends only when `stop` is cancelled.
#[derive(Debug)]
pub struct Incoming {
    listener: Option<UnixListener>,
    file: Option<SocketFile>,
    _lock: Option<Lock>,
    admission: Admission,
    connections: Connections,
    pause: Option<Pin<Box<Sleep>>>,
    failing: bool,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Incoming {
    /// Starts to accept. Must run inside a tokio runtime.
    ///
    /// When `stop` is cancelled the listener closes and the name of a socket that we bound is removed
    /// at once: later clients see that nobody is there instead of waiting for a daemon that drains. The
    /// lock is held until the stream is dropped, so that a successor starts after the drain.
    pub fn new(
        bound: Bound,
        admission: Admission,
        limits: Limits,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let Bound { listener, file, lock } = bound;
        // What connects from now on inherits it; one of the service manager's may not have had it so far.
        sys::socket::name_senders(&listener)?;
        Ok(Self {
            listener: Some(UnixListener::from_std(listener)?),
            file,
            _lock: lock,
            admission,
            connections: Connections::new(limits),
            pause: None,
            failing: false,
            stopped: Box::pin(stop.clone().cancelled_owned()),
            stop,
        })
    }

    /// The counters, which stay readable after the stream was given away.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    fn admit(&self, stream: UnixStream) -> Option<Connection> {
        // Who connected before the listener had the option did not inherit it. What was sent before the accept
        // has its sender all the same.
        let named = sys::socket::name_senders(&stream).ok();
        let credentials = named.and_then(|()| sys::peer::credentials(&stream).ok());
        let admitted = credentials.filter(|&credentials| self.admission.allows(credentials));
        let permitted = admitted.and_then(|credentials| {
            self.connections.open_one(credentials.uid).map(|permit| (credentials, permit))
        });
        let Some((credentials, permit)) = permitted else {
            self.connections.count_refusal();
            return None;
        };
        let peer = Arc::new(Peer::attest(&stream, credentials));
        Some(Connection::new(stream, peer, self.admission, permit, self.stop.clone()))
    }

    fn rest(&mut self, error: &io::Error) {
        self.connections.0.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing {
            tracing::warn!(%error, "cannot accept connections for now; trying again");
        }
        self.failing = true;
        self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
    }
}

impl Stream for Incoming {
    type Item = Result<Connection, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.stopped.as_mut().poll(cx).is_ready() {
                this.file = None;
                this.listener = None;
            }
            let Some(listener) = &this.listener else { return Poll::Ready(None) };
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match ready!(listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    this.failing = false;
                    if let Some(connection) = this.admit(stream) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Err(error) => this.rest(&error),
            }
        }
    }
}

impl Admission {
    pub(super) fn allows(self, credentials: Credentials) -> bool {
        let operator = || credentials.uid == 0 || credentials.uid == Uid::effective().as_raw();
        match self {
            Self::Everyone => true,
            Self::Operator => !is_foreign(credentials) && operator(),
        }
    }
}

/// Counters of one socket's connections. Clones show the same numbers.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Counters>);

/// Lock order: none; `open` is held for a few instructions and never over an `.await`.
#[derive(Debug)]
struct Counters {
    limits: Limits,
    open: Mutex<Open>,
    refused: AtomicU64,
    failures: AtomicU64,
}

/// `by_uid` has an entry only for users with an open connection, so `limits.total` bounds it.
#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_uid: HashMap<u32, usize>,
}

impl Connections {
    fn new(limits: Limits) -> Self {
        let open = Mutex::default();
        Self(Arc::new(Counters { limits, open, refused: AtomicU64::new(0), failures: AtomicU64::new(0) }))
    }

    /// Open now.
    pub fn open(&self) -> usize {
        self.lock().total
    }

    /// Closed at once since the start: over a cap, or not the operator.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Failed accepts since the start, for example at the descriptor limit.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    fn open_one(&self, uid: u32) -> Option<Permit> {
        let Limits { total, per_uid } = self.0.limits;
        let mut open = self.lock();
        let of_user = open.by_uid.get(&uid).copied().unwrap_or(0);
        if open.total >= total || of_user >= per_uid {
            return None;
        }
        open.total += 1;
        open.by_uid.insert(uid, of_user + 1);
        drop(open);
        Some(Permit { connections: self.clone(), uid })
    }

    fn close_one(&self, uid: u32) {
        let mut open = self.lock();
        open.total = open.total.saturating_sub(1);
        let of_user = open.by_uid.remove(&uid).unwrap_or(0);
        if of_user > 1 {
            open.by_uid.insert(uid, of_user - 1);
        }
    }

    fn count_refusal(&self) {
        let refused = self.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if refused.is_power_of_two() {
            tracing::warn!(refused, "connections were closed at once: over a cap, or not the operator");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place under the caps, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    connections: Connections,
    uid: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.close_one(self.uid);
    }
}
