//! One accepted connection, and whose it is.
//!
//! The kernel names the sender of every byte. A connection belongs to the process that sends its first one,
//! which need not be the one that connected: a socket can be passed on and inherited. It has to be of the same
//! user, unless root connected: a service of somebody else must not be made to ask for whoever hands it a socket to
//! write to. A byte of any other process ends it, since a request could be of both. Until its client has greeted, a connection has a
//! deadline and ends when the daemon stops: the keep-alive of HTTP/2 begins after the greeting, so a client
//! that says nothing would hold its place for good, and a drain up to the end of its grace time.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use zeroize::Zeroizing;

use super::incoming::{Admission, Permit};
use crate::peer::{Credentials, Peer, PeerInfo};
use crate::sys::socket::{Received, receive_into, receive_pinned};

/// For the client's first bytes. A client on this machine sends them at once.
const GREETING_WITHIN: Duration = Duration::from_secs(5);
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113 §3.4).
const GREETING_BYTES: usize = 24;
/// A launcher that is root may start programs of other users.
const ROOT: u32 = 0;
/// Bytes that are read in one go.
const READ: usize = 16 * 1024;

/// An accepted connection. Nothing was read from it.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    connected: Arc<Peer>,
    admission: Admission,
    stop: CancellationToken,
    permit: Permit,
}

/// A connection whose first bytes have come.
pub struct Begun {
    stream: UnixStream,
    first: Zeroizing<Vec<u8>>,
    speaker: Arc<Peer>,
    /// Its process id and user: whose bytes alone are taken.
    sender: (u32, u32),
    greeting: Greeting,
    permit: Permit,
}

/// The bytes of a connection of one process.
pub struct Spoken {
    stream: UnixStream,
    /// What was read already, and how much of it was taken.
    first: Option<(Zeroizing<Vec<u8>>, usize)>,
    /// Its process id and user.
    speaker: (u32, u32),
    stranger: Stranger,
    /// `None`: the client has begun to speak HTTP/2.
    greeting: Option<Greeting>,
    _permit: Permit,
}

/// The process that sent on a connection that is not its own, once there was one.
#[derive(Clone, Debug, Default)]
pub struct Stranger(Arc<OnceLock<u32>>);

impl Stranger {
    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.0.get().copied()
    }
}

/// What a connection waits for at first.
#[derive(Debug)]
struct Greeting {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        connected: Arc<Peer>,
        admission: Admission,
        permit: Permit,
        stop: CancellationToken,
    ) -> Self {
        Self { stream, connected, admission, stop, permit }
    }

    /// Who connected.
    pub fn peer(&self) -> PeerInfo {
        PeerInfo(self.connected.clone())
    }

    /// Waits for the first bytes. `None`: they did not come in time, or not from whom the socket is for.
    pub async fn begin(self) -> Option<Begun> {
        let Self { stream, connected, admission, stop, permit } = self;
        let mut greeting = Greeting {
            missing: GREETING_BYTES,
            deadline: Box::pin(tokio::time::sleep(GREETING_WITHIN)),
            stopped: Box::pin(stop.cancelled_owned()),
        };
        let mut first = Zeroizing::new(vec![0; READ]);
        let received = tokio::select! {
            received = stream.async_io(Interest::READABLE, || receive_pinned(&stream, &mut first)) => received.ok()?,
            () = &mut greeting.deadline => return None,
            () = &mut greeting.stopped => return None,
        };
        let Received { length, sender, pin } = received;
        let sender = sender.filter(|_| length > 0)?;
        first.truncate(length);
        // A process that has given up its user since then is not who connected: it may be the program of another.
        let same_process = connected.process.is_some_and(|process| process.pid == sender.pid);
        let connector = same_process && connected.uid == sender.uid;
        let speaker = match connector {
            true => connected,
            false if may_inherit(&connected, sender) && admission.allows(sender) => {
                Arc::new(Peer::of_sender(sender, pin))
            }
            false => return None,
        };
        greeting.missing = greeting.missing.saturating_sub(length);
        let pid = match (speaker.process, admission) {
            (Some(process), _) => process.pid,
            // For the operator the user is enough: a lock must work where nothing else is known of who asks.
            (None, Admission::Operator) => sender.pid,
            // What is not known now may be by the time that its client connects again.
            (None, Admission::Everyone) => 0,
        };
        let sender = (pid, speaker.uid);
        Some(Begun { stream, first, speaker, sender, greeting, permit })
    }
}

/// Whether the sender may speak on what another process connected.
fn may_inherit(connected: &Peer, sender: Credentials) -> bool {
    connected.uid == sender.uid || connected.uid == ROOT
}

impl Begun {
    /// Who speaks.
    pub fn peer(&self) -> PeerInfo {
        PeerInfo(self.speaker.clone())
    }

    /// What it began with.
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// The stream of its bytes.
    pub fn spoken(self) -> Spoken {
        let Self { stream, first, sender, greeting, permit, .. } = self;
        Spoken {
            stream,
            first: Some((first, 0)),
            speaker: sender,
            stranger: Stranger::default(),
            greeting: Some(greeting).filter(|greeting| greeting.missing > 0),
            _permit: permit,
        }
    }

    /// The socket itself, with what has been read of it, for whoever tells senders apart.
    pub fn into_parts(self) -> (UnixStream, Zeroizing<Vec<u8>>, Permit) {
        (self.stream, self.first, self.permit)
    }
}

impl Greeting {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready()
    }
}

impl Spoken {
    /// Tells whether another process sent on this connection, also after it was given away.
    pub fn stranger(&self) -> Stranger {
        self.stranger.clone()
    }

    /// Reads into the buffer; an error if the bytes are of another process.
    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let filled = buf.filled().len();
            let received = self.stream.try_io(Interest::READABLE, || receive_into(&self.stream, buf, READ));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Received { length: 0, .. }) => return Poll::Ready(Ok(0)),
                Ok(Received { length, sender, .. }) => {
                    if sender.map(|sender| (sender.pid, sender.uid)) != Some(self.speaker) {
                        buf.set_filled(filled);
                        let _ = self.stranger.0.set(sender.map_or(0, |sender| sender.pid));
                        return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
                    }
                    return Poll::Ready(Ok(length));
                }
            }
        }
    }
}

impl AsyncRead for Spoken {
    /// Reads as the end of the stream when the client's greeting is overdue.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some((first, taken)) = &mut this.first {
            let part = &first[*taken..];
            let part = &part[..part.len().min(buf.remaining())];
            buf.put_slice(part);
            *taken += part.len();
            if *taken == first.len() {
                this.first = None;
            }
            return Poll::Ready(Ok(()));
        }
        let read = this.poll_receive(cx, buf);
        let Some(greeting) = &mut this.greeting else { return read.map_ok(drop) };
        match read {
            Poll::Pending if greeting.is_over(cx) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(length)) => {
                greeting.missing = greeting.missing.saturating_sub(length);
                if greeting.missing == 0 {
                    this.greeting = None;
                }
                Poll::Ready(Ok(()))
            }
            other => other.map_ok(drop),
        }
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
