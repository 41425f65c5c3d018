//! One conversation over a link: a connection like any other, sealed to this process and the broker.
//!
//! What is in the buffers here is sealed, but for the frame that is being handed out, which is wiped as it goes.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroize;

use super::{Inherited, LOOK, OPENED_WITHIN, TURN_WITHIN, inherited, lock, record};
use crate::client::error::ConnectFailure;
use crate::link::{self, End, Ephemeral, HEAD, Head, Kind, MAX_PAYLOAD, Opener, PUBLIC_KEY, Sealer, TAG};
use crate::sys::time::register_shared;

/// Longest piece that is taken out of the descriptor at once.
const READ: usize = HEAD + MAX_PAYLOAD;

/// One connection over the link.
pub(in crate::client) struct Conversation {
    sealer: Sealer,
    opener: Opener,
    /// Of the frame that the received bytes begin with: what it carried and is still to be handed out.
    plain: Range<usize>,
    over: bool,
    wire: Wire,
}

/// The descriptor while it is this process's turn, which ends with this.
struct Wire {
    socket: AsyncFd<Arc<OwnedFd>>,
    number: u64,
    /// Read and not yet taken apart.
    received: Vec<u8>,
    /// A frame that is being written.
    frame: Vec<u8>,
    _turn: OwnedMutexGuard<()>,
}

impl Conversation {
    /// Waits for the turn and begins.
    ///
    /// # Errors
    /// One of those about links.
    pub(in crate::client) async fn open() -> Result<Self, ConnectFailure> {
        let Inherited { socket, turn } = inherited().ok_or(ConnectFailure::LinkEnded)?;
        let waiting = async {
            let turn = turn.clone().lock_owned().await;
            while !lock(socket)? {
                tokio::time::sleep(LOOK).await;
            }
            Wire::new(socket, turn)
        };
        let waited = tokio::time::timeout(TURN_WITHIN, waiting).await;
        let wire = waited.map_err(|_| ConnectFailure::LinkBusy)?.map_err(|_| ConnectFailure::LinkEnded)?;
        let opened = tokio::time::timeout(OPENED_WITHIN, Self::begin(wire)).await;
        opened.map_err(|_| ConnectFailure::LinkSilent)?.map_err(|_| ConnectFailure::LinkEnded)
    }

    /// Says that it begins, reads past what an earlier conversation has left, and agrees on the keys.
    async fn begin(mut wire: Wire) -> io::Result<Self> {
        let own = Ephemeral::new().map_err(io::Error::other)?;
        link::write(Kind::Open, wire.number, own.public(), &mut wire.frame);
        std::future::poll_fn(|cx| wire.poll_put(cx)).await?;
        let sign = Head { kind: Kind::Opened, length: PUBLIC_KEY, conversation: wire.number }.bytes();
        let theirs = loop {
            if let Some(at) = wire.received.windows(HEAD).position(|window| window == sign) {
                wire.received.drain(..at);
                if let Some(theirs) = wire.received.get(HEAD..HEAD + PUBLIC_KEY) {
                    break <[u8; PUBLIC_KEY]>::try_from(theirs).map_err(io::Error::other)?;
                }
            } else {
                // The sign may be cut in two.
                let passed = wire.received.len().saturating_sub(HEAD - 1);
                wire.received.drain(..passed);
            }
            std::future::poll_fn(|cx| wire.poll_fill(cx)).await?;
        };
        wire.received.drain(..HEAD + PUBLIC_KEY);
        let (sealer, opener) = own.agree(End::Client, wire.number, &theirs).map_err(io::Error::other)?;
        Ok(Self { sealer, opener, plain: 0..0, over: false, wire })
    }

    /// Seals the next frame; returns how much of the bytes it carries.
    fn put(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<usize> {
        self.wire.frame.clear();
        self.sealer.seal(kind, bytes, &mut self.wire.frame).map_err(io::Error::other)
    }

    /// Opens the next frame, if it is there as a whole.
    fn next_frame(&mut self) -> io::Result<bool> {
        let received = &mut self.wire.received;
        let Some(head) = received.first_chunk() else { return Ok(false) };
        let head = Head::read(head).map_err(invalid)?;
        let end = HEAD + head.length;
        if received.len() < end {
            return Ok(false);
        }
        match head.kind {
            Kind::Data | Kind::Close if head.conversation == self.wire.number => {
                let plain = self.opener.open(&head, &mut received[HEAD..end]).map_err(invalid)?;
                self.plain = HEAD..HEAD + plain.len();
                self.over = head.kind == Kind::Close;
            }
            Kind::Refused if head.conversation == self.wire.number => {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        if self.plain.is_empty() {
            received.drain(..end);
        }
        Ok(true)
    }

    /// Hands out what the frame carried, as much as fits.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let taken = self.plain.len().min(buf.remaining());
        let part = &mut self.wire.received[self.plain.start..self.plain.start + taken];
        buf.put_slice(part);
        part.zeroize();
        self.plain.start += taken;
        if self.plain.is_empty() {
            self.wire.received.drain(..self.plain.end + TAG);
        }
    }
}

impl Wire {
    fn new(socket: &Arc<OwnedFd>, turn: OwnedMutexGuard<()>) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        Ok(Self {
            socket: register_shared(socket.clone(), Interest::READABLE | Interest::WRITABLE)?,
            number: u64::from_ne_bytes(number),
            received: Vec::with_capacity(2 * READ),
            frame: Vec::with_capacity(READ),
            _turn: turn,
        })
    }

    /// Reads more; an error at the end of the link.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let mut chunk = [0; READ];
            match ready.try_io(|socket| Ok(read(socket.get_ref(), &mut chunk)?)) {
                Ok(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(length)) => {
                    self.received.extend_from_slice(&chunk[..length]);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Writes the prepared frame, whole: a socket takes it at once or not at all.
    fn poll_put(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frame.is_empty() {
            let mut ready = ready!(self.socket.poll_write_ready(cx))?;
            match ready.try_io(|socket| Ok(write(socket.get_ref(), &self.frame)?)) {
                Ok(Ok(written)) if written == self.frame.len() => self.frame.clear(),
                Ok(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Conversation {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !this.plain.is_empty() {
                this.hand_out(buf);
                return Poll::Ready(Ok(()));
            }
            if this.over {
                return Poll::Ready(Ok(()));
            }
            if !this.next_frame()? {
                ready!(this.wire.poll_fill(cx))?;
            }
        }
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What was sealed before is written before.
        ready!(this.wire.poll_put(cx))?;
        let taken = this.put(Kind::Data, bytes)?;
        // Taken over: if it does not fit now, the next write or flush goes on with it.
        let _ = this.wire.poll_put(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.poll_put(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.poll_put(cx)
    }
}

impl Drop for Conversation {
    /// Says that it is over. The broker also ends it when the next one begins, or its speaker ends.
    fn drop(&mut self) {
        if self.wire.frame.is_empty() && self.put(Kind::Close, &[]).is_ok() {
            let _ = write(self.wire.socket.get_ref(), &self.wire.frame);
        }
        if !self.plain.is_empty() {
            self.wire.received.zeroize();
        }
    }
}

impl Drop for Wire {
    /// Gives the turn to the next.
    fn drop(&mut self) {
        let _ = fcntl(self.socket.get_ref(), FcntlArg::F_SETLK(&record(libc::F_UNLCK)));
    }
}

fn invalid<E>(_: E) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
