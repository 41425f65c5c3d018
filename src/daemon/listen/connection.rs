//! One accepted connection. Until its client has sent the 24 bytes that every HTTP/2 connection begins
//! with, it has a deadline and ends when the daemon stops: the keep-alive of HTTP/2 begins after them, so a
//! client that says nothing would hold its place for good, and a drain up to the end of its grace time.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::incoming::Permit;
use crate::peer::{Peer, PeerInfo};

/// For the client's first bytes. A client on this machine sends them at once.
const GREETING_WITHIN: Duration = Duration::from_secs(5);
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113 §3.4).
const GREETING_BYTES: usize = 24;

/// An accepted connection and its peer.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    peer: PeerInfo,
    /// `None`: the client has begun to speak HTTP/2.
    greeting: Option<Greeting>,
    _permit: Permit,
}

/// What a connection waits for at first.
#[derive(Debug)]
struct Greeting {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    /// Must run inside a tokio runtime.
    pub(super) fn new(stream: UnixStream, peer: Arc<Peer>, permit: Permit, stop: CancellationToken) -> Self {
        let greeting = Greeting {
            missing: GREETING_BYTES,
            deadline: Box::pin(tokio::time::sleep(GREETING_WITHIN)),
            stopped: Box::pin(stop.cancelled_owned()),
        };
        Self { stream, peer: PeerInfo(peer), greeting: Some(greeting), _permit: permit }
    }

    /// Who connected.
    pub fn peer(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl Greeting {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Connection {
    /// Reads as the end of the stream when the client's greeting is overdue.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some(greeting) = &mut this.greeting else { return read };
        if read.is_pending() {
            return if greeting.is_over(cx) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        greeting.missing = greeting.missing.saturating_sub(buf.filled().len() - before);
        if greeting.missing == 0 {
            this.greeting = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
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
