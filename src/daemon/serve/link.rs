//! A link: one socket on which the processes of a session take turns (`crate::link`).
//!
//! Each frame is judged by who sent it, as the kernel says. One conversation is open at a time, and each is
//! served like a connection of its own. Frames of a process that may not use the session are dropped; they
//! end nothing and disturb nobody. May import what its neighbours may.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Interest, ReadHalf, WriteHalf, duplex, split};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::Service;
use super::connection::{self, Times};
use super::retirement::Triggers;
use crate::broker::Broker;
use crate::daemon::listen::{Begun, Permit};
use crate::grpc::Linked;
use crate::link::{self, HEAD, Head, Kind, MAX_PAYLOAD};
use crate::peer::{Credentials, Peer, PeerInfo};
use crate::session::Session;
use crate::sys::socket::{Pin, Received, receive_pinned};

/// Frames to the client that may wait.
const OUTBOX: usize = 16;
/// Bytes of a conversation that may wait in each direction.
const WINDOW: usize = 64 * 1024;
/// A conversation that takes no bytes for this long is over.
const STALLED: Duration = Duration::from_secs(10);
/// Room for the longest frame and one more head.
const READ: usize = HEAD + MAX_PAYLOAD + HEAD;

/// Serves a link to its end: that of its socket, of its session or of the daemon.
pub(super) async fn serve<S: Service>(begun: Begun, broker: Arc<Broker>, service: S, triggers: Triggers) {
    let peer = begun.peer();
    let (stream, first, permit) = begun.into_parts();
    let token = first.strip_prefix(link::PREFACE).and_then(bind_token);
    let session = token.and_then(|token| broker.bind_link(&peer.0, token));
    let stream = Arc::new(stream);
    let (outbox, frames) = mpsc::channel(OUTBOX);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_frames(stream.clone(), frames));
    let answer = if session.is_some() { Kind::Bound } else { Kind::Refused };
    let _ = outbox.send(framed(answer, 0, &[])).await;
    if let Some(session) = session {
        let mut link =
            Link { broker, session, service, triggers, stream, outbox, current: None, _permit: permit };
        tasks.spawn(async move { link.run().await });
        // The end of either ends both.
        tasks.join_next().await;
    } else {
        drop(outbox);
        tasks.join_next().await;
    }
}

/// The token of a bind frame that is the whole of these bytes.
fn bind_token(bytes: &[u8]) -> Option<&str> {
    let (head, payload) = bytes.split_first_chunk()?;
    let head = Head::read(head).filter(|head| head.kind == Kind::Bind && head.length == payload.len())?;
    debug_assert_eq!(head.length, payload.len());
    std::str::from_utf8(payload).ok()
}

struct Link<S> {
    broker: Arc<Broker>,
    session: Arc<Session>,
    service: S,
    triggers: Triggers,
    stream: Arc<UnixStream>,
    outbox: mpsc::Sender<Zeroizing<Vec<u8>>>,
    current: Option<Conversation>,
    _permit: Permit,
}

/// The one that is open.
struct Conversation {
    number: u64,
    speaker: u32,
    input: WriteHalf<DuplexStream>,
    /// Serves it and carries its answers; ended with it.
    _tasks: JoinSet<()>,
}

impl<S: Service> Link<S> {
    async fn run(&mut self) {
        let (session, triggers) = (self.session.clone(), self.triggers.clone());
        // Also over a frame that is not done with: whoever takes nothing out of the link would hold it up.
        tokio::select! {
            () = self.take_all() => {}
            () = session.ended() => {}
            () = triggers.stopped() => {}
        }
    }

    async fn take_all(&mut self) {
        let mut reader = Reader::new(self.stream.clone());
        while let Ok(Some(frame)) = reader.next().await {
            self.take(frame).await;
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame.head.kind {
            Kind::Open => self.open(frame).await,
            Kind::Data => self.carry(frame).await,
            Kind::Close if self.speaks(&frame) => self.current = None,
            _ => {}
        }
    }

    /// Begins a conversation with a process of the session; the one before it is over.
    async fn open(&mut self, frame: Frame) {
        let peer = Arc::new(Peer::of_sender(frame.sender, frame.pin));
        if !self.broker.link_admits(&self.session, &peer) {
            return;
        }
        let (near, far) = duplex(WINDOW);
        let (output, input) = split(near);
        let linked = Linked(self.session.id);
        let service = self.service.clone().map_request(move |mut request: Request<Body>| {
            request.extensions_mut().insert(linked);
            request
        });
        let number = frame.head.conversation;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection::serve(far, PeerInfo(peer), service, Times::default(), self.triggers.clone()));
        tasks.spawn(answer(number, output, self.outbox.clone()));
        self.current = Some(Conversation { number, speaker: frame.sender.pid, input, _tasks: tasks });
        let _ = self.outbox.send(framed(Kind::Opened, number, &[])).await;
    }

    async fn carry(&mut self, frame: Frame) {
        if !self.speaks(&frame) {
            return;
        }
        let Some(current) = &mut self.current else { return };
        let written = tokio::time::timeout(STALLED, current.input.write_all(&frame.payload)).await;
        if !matches!(written, Ok(Ok(()))) {
            self.current = None;
        }
    }

    fn speaks(&self, frame: &Frame) -> bool {
        let Some(current) = &self.current else { return false };
        let own = (current.number, current.speaker) == (frame.head.conversation, frame.sender.pid);
        if !own && current.number == frame.head.conversation {
            self.broker.refuse_stranger(&self.session.opener, frame.sender.pid);
        }
        own
    }
}

/// Carries a conversation's answers out, until it is over.
async fn answer(number: u64, mut output: ReadHalf<DuplexStream>, outbox: mpsc::Sender<Zeroizing<Vec<u8>>>) {
    let mut bytes = Zeroizing::new(vec![0; MAX_PAYLOAD]);
    while let Ok(length @ 1..) = output.read(&mut bytes).await {
        if outbox.send(framed(Kind::Data, number, &bytes[..length])).await.is_err() {
            return;
        }
    }
    let _ = outbox.send(framed(Kind::Close, number, &[])).await;
}

async fn write_frames(stream: Arc<UnixStream>, mut frames: mpsc::Receiver<Zeroizing<Vec<u8>>>) {
    while let Some(frame) = frames.recv().await {
        let mut left = &frame[..];
        while !left.is_empty() {
            match stream.async_io(Interest::WRITABLE, || stream.try_write(left)).await {
                Ok(written) => left = &left[written..],
                Err(_) => return,
            }
        }
    }
}

fn framed(kind: Kind, conversation: u64, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + payload.len()));
    link::write(kind, conversation, payload, &mut bytes);
    bytes
}

/// A frame and who sent it.
struct Frame {
    head: Head,
    payload: Zeroizing<Vec<u8>>,
    sender: Credentials,
    pin: Pin,
}

/// Takes frames out of the stream. Bytes of a sender that stops in the middle of a frame are dropped when the
/// next sender's come, also if that one has got its pid.
struct Reader {
    stream: Arc<UnixStream>,
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
    sender: Option<Credentials>,
    /// Of the sender, for each frame that lies in the buffer.
    pin: Pin,
}

impl Reader {
    fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: Zeroizing::new(vec![0; READ]), filled: 0, sender: None, pin: Pin::Absent }
    }

    /// The next frame; `None` at the end, or when what a process sends is no frame.
    async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(sender) = self.sender
                && let Some((head, payload)) = self.take()?
            {
                return Ok(Some(Frame { head, payload, sender, pin: self.pin.again() }));
            }
            // Cancel safe: nothing is taken out of the stream before it is in the buffer.
            let mut chunk = Zeroizing::new(vec![0; READ - self.filled]);
            let received =
                self.stream.async_io(Interest::READABLE, || receive_pinned(&self.stream, &mut chunk)).await?;
            let Received { length, sender, pin } = received;
            if length == 0 {
                return Ok(None);
            }
            if self.sender.map(|sender| sender.pid) != sender.map(|sender| sender.pid) || self.pin.has_ended()
            {
                self.filled = 0;
            }
            (self.sender, self.pin) = (sender, pin);
            self.buffer[self.filled..self.filled + length].copy_from_slice(&chunk[..length]);
            self.filled += length;
        }
    }

    /// The frame that the buffer begins with, if it is whole. What is no frame is dropped.
    fn take(&mut self) -> io::Result<Option<(Head, Zeroizing<Vec<u8>>)>> {
        let Some(head) = self.buffer[..self.filled].first_chunk() else { return Ok(None) };
        let Some(head) = Head::read(head) else {
            self.filled = 0;
            return Ok(None);
        };
        let end = HEAD + head.length;
        if self.filled < end {
            return Ok(None);
        }
        let payload = Zeroizing::new(self.buffer[HEAD..end].to_vec());
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        Ok(Some((head, payload)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::socket::name_senders;

    /// Both frames come in one go. The second must not be of whoever has the pid when it is looked at.
    #[tokio::test]
    async fn each_frame_of_a_sender_is_pinned_to_it() {
        let (near, far) = UnixStream::pair().unwrap();
        name_senders(&near).unwrap();
        let far = OwnedFd::from(far.into_std().unwrap());
        let twice = r"printf '\003\0\0\0\0\0\0\0\0\0\0\0\0\0\0\001\003\0\0\0\0\0\0\0\0\0\0\0\0\0\0\002'";
        let mut child = Command::new("sh").args(["-c", twice]).stdout(Stdio::from(far)).spawn().unwrap();
        child.wait().unwrap();
        let mut reader = Reader::new(Arc::new(near));
        for number in [1, 2] {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!(frame.head, Head { kind: Kind::Open, length: 0, conversation: number });
            assert!(!matches!(frame.pin, Pin::Absent), "frame {number} is of anybody with the pid");
            assert!(!Peer::of_sender(frame.sender, frame.pin).is_alive());
        }
        assert!(reader.next().await.unwrap().is_none());
    }
}
