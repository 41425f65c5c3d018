//! A link: one socket on which the processes of a session take turns (`crate::link`).
//!
//! Each frame is judged by who sent it, as the kernel says. One conversation is open at a time, and each is
//! served like a connection of its own, sealed to the process that began it. Frames of a process that may not
//! use the session are dropped: they are answered by nothing, and no conversation ends by them. Such a process
//! can still harm whom it cannot read or speak for: whoever holds the descriptor can read away what it cannot
//! open, which breaks the conversation, and can shut the socket down, which ends the link.
//! May import what its neighbours may.

mod conversation;
mod reader;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::ServiceExt;

use self::conversation::Conversation;
use self::reader::{Frame, Reader};
use super::Service;
use super::retirement::Triggers;
use crate::broker::Broker;
use crate::daemon::listen::{Begun, Permit};
use crate::grpc::Linked;
use crate::link::{self, End, Ephemeral, HEAD, Head, Kind, PREFACE};
use crate::peer::{Peer, PeerInfo};
use crate::session::Session;

/// Frames to the client that may wait.
const OUTBOX: usize = 16;
/// A conversation that takes no bytes for this long is over.
const STALLED: Duration = Duration::from_secs(10);
/// When the session has ended, or the daemon stops: for the answers under way, and once more for what of them
/// is still to be written.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves a link to its end: that of its socket, of its session or of the daemon.
pub(super) async fn serve<S: Service>(begun: Begun, broker: Arc<Broker>, service: S, triggers: Triggers) {
    let peer = begun.peer();
    let (stream, first, permit) = begun.into_parts();
    let token = first.strip_prefix(PREFACE).and_then(bind_token);
    let session = token.and_then(|token| broker.bind_link(&peer.0, token));
    drop(first);
    let stream = Arc::new(stream);
    let (outbox, frames) = mpsc::channel(OUTBOX);
    let mut writer = JoinSet::new();
    writer.spawn(write_frames(stream.clone(), frames));
    let answer = if session.is_some() { Kind::Bound } else { Kind::Refused };
    let _ = outbox.send(bare(answer, 0, &[])).await;
    if let Some(session) = session {
        let (triggers, end) = triggers.with_own_end();
        let link = Link {
            broker,
            session,
            service,
            triggers,
            end,
            answers: TaskTracker::new(),
            stream,
            outbox,
            current: None,
            _permit: permit,
        };
        tokio::select! {
            () = link.run() => {}
            _ = writer.join_next() => return,
        }
    } else {
        drop(outbox);
    }
    let _ = timeout(LAST_ANSWERS, writer.join_next()).await;
}

/// The token of a bind frame that is the whole of these bytes. A launcher of another version gets none: it is
/// refused in a frame that tells it why.
fn bind_token(bytes: &[u8]) -> Option<&str> {
    let (head, payload) = bytes.split_first_chunk()?;
    let head = Head::read(head).ok()?;
    let whole = head.kind == Kind::Bind && head.length == payload.len();
    std::str::from_utf8(payload).ok().filter(|_| whole)
}

struct Link<S> {
    broker: Arc<Broker>,
    session: Arc<Session>,
    service: S,
    triggers: Triggers,
    /// Has the conversations finish what they are about.
    end: CancellationToken,
    /// Those who are about it.
    answers: TaskTracker,
    stream: Arc<UnixStream>,
    outbox: mpsc::Sender<Vec<u8>>,
    current: Option<Conversation>,
    _permit: Permit,
}

impl<S: Service> Link<S> {
    async fn run(mut self) {
        let ending = self.ending();
        // Also over a frame that is not done with: whoever takes nothing out of the link would hold it up.
        tokio::select! {
            () = self.take_all() => {}
            () = ending => {}
        }
    }

    /// Returns when the link is to end. The call that ends a session is answered before that.
    fn ending(&self) -> impl Future<Output = ()> + use<S> {
        let (session, triggers) = (self.session.clone(), self.triggers.clone());
        let (end, answers) = (self.end.clone(), self.answers.clone());
        async move {
            tokio::select! {
                () = session.ended() => {}
                () = triggers.stopped() => {}
            }
            end.cancel();
            answers.close();
            let _ = timeout(LAST_ANSWERS, answers.wait()).await;
        }
    }

    async fn take_all(&mut self) {
        let mut reader = Reader::new(self.stream.clone());
        loop {
            let frame = tokio::select! {
                frame = reader.next() => frame,
                () = over(&mut self.current) => {
                    self.current = None;
                    continue;
                }
            };
            let Ok(Some(frame)) = frame else { return };
            match frame.head.kind {
                Kind::Open => self.open(frame).await,
                Kind::Data | Kind::Close => self.carry(frame).await,
                _ => {}
            }
        }
    }

    /// Begins a conversation with a process of the session; the one before it is over.
    async fn open(&mut self, frame: Frame) {
        let speaker = Arc::new(Peer::of_sender(frame.sender, frame.pin));
        if !self.broker.link_admits(&self.session, &speaker) {
            return;
        }
        let number = frame.head.conversation;
        let agreed = Ephemeral::new().and_then(|own| {
            let public = *own.public();
            Ok((public, own.agree(End::Broker, number, &frame.payload)?))
        });
        let Ok((public, keys)) = agreed else { return self.refuse(number).await };
        self.current = None;
        // Before any answer, since the client reads on to it.
        let _ = self.outbox.send(bare(Kind::Opened, number, &public)).await;
        let linked = Linked(self.session.id);
        let service = self.service.clone().map_request(move |mut request: Request<Body>| {
            request.extensions_mut().insert(linked);
            request
        });
        let outlet = (self.outbox.clone(), self.answers.clone());
        let begun = Conversation::begin(number, PeerInfo(speaker), keys, outlet, service, &self.triggers);
        self.current = Some(begun);
    }

    /// Takes a frame of the conversation that is open, if it is one.
    async fn carry(&mut self, mut frame: Frame) {
        let Some(current) = &mut self.current else { return };
        let number = current.number();
        if frame.head.conversation != number {
            return;
        }
        if !current.is_of(frame.sender) {
            return self.broker.refuse_stranger(&self.session.opener, frame.sender.pid);
        }
        let carried = timeout(STALLED, current.take(&frame.head, &mut frame.payload)).await;
        if !matches!(carried, Ok(Ok(()))) {
            self.current = None;
            self.refuse(number).await;
        } else if frame.head.kind == Kind::Close {
            self.current = None;
        }
    }

    /// Tells the client that its conversation is over. Takes nothing more until there is room for that: whoever
    /// breaks conversations without reading is not faster than one that reads.
    async fn refuse(&mut self, conversation: u64) {
        let _ = self.outbox.send(bare(Kind::Refused, conversation, &[])).await;
    }
}

/// Returns when the conversation that is open has come to its end.
async fn over(current: &mut Option<Conversation>) {
    match current {
        Some(current) => current.over().await,
        None => std::future::pending().await,
    }
}

async fn write_frames(stream: Arc<UnixStream>, mut frames: mpsc::Receiver<Vec<u8>>) {
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

/// A frame that is not sealed.
fn bare(kind: Kind, conversation: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    link::write(kind, conversation, payload, &mut bytes);
    bytes
}
