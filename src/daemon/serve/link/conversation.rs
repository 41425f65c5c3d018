//! One conversation of a link: a connection of its own, sealed to the process that began it.

use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use zeroize::{Zeroize, Zeroizing};

use super::bare;
use crate::daemon::serve::Service;
use crate::daemon::serve::connection::{self, Times};
use crate::daemon::serve::retirement::Triggers;
use crate::link::{Broken, HEAD, Head, Kind, MAX_PLAIN, Opener, Sealer, TAG};
use crate::peer::{Credentials, PeerInfo};

/// Bytes of a conversation that may wait in each direction.
const WINDOW: usize = 64 * 1024;

/// The one that is open. Has no `Debug`: it holds a key. Ended, and its keys wiped, when dropped.
pub(super) struct Conversation {
    number: u64,
    speaker: PeerInfo,
    speaker_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    opener: Opener,
    input: WriteHalf<DuplexStream>,
    /// Serves it and carries its answers; ended with it.
    tasks: JoinSet<()>,
}

impl Conversation {
    /// Begins to serve it.
    pub(super) fn begin<S: Service>(
        number: u64,
        speaker: PeerInfo,
        (sealer, opener): (Sealer, Opener),
        (outbox, answers): (mpsc::Sender<Vec<u8>>, TaskTracker),
        service: S,
        triggers: &Triggers,
    ) -> Self {
        let (near, far) = duplex(WINDOW);
        let (output, input) = split(near);
        let serving = connection::serve(far, speaker.clone(), service, Times::default(), triggers.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(answers.track_future(serving));
        tasks.spawn(answers.track_future(answer(number, output, sealer, outbox)));
        let speaker_ended = Box::pin(speaker.0.ended());
        Self { number, speaker, speaker_ended, opener, input, tasks }
    }

    /// Under which its frames come.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it was begun by this sender. While the pinned process lives nobody else has its pid; once it has
    /// ended its pid may be of anybody.
    pub(super) fn is_of(&self, sender: Credentials) -> bool {
        let speaker = &self.speaker.0;
        let same = speaker.process.is_some_and(|process| process.pid == sender.pid);
        same && speaker.uid == sender.uid && speaker.is_alive()
    }

    /// Opens its next frame and hands on what is in it.
    ///
    /// # Errors
    /// It is not the next frame: the conversation is over.
    pub(super) async fn take(&mut self, head: &Head, payload: &mut [u8]) -> Result<(), Broken> {
        let plain = self.opener.open(head, payload)?;
        // What is served may have ended; what it has still to say is on its way.
        let _ = self.input.write_all(plain).await;
        Ok(())
    }

    /// Returns when all its answers are on their way, or its speaker has ended. Cancel safe.
    pub(super) async fn over(&mut self) {
        let served = async { while self.tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = &mut self.speaker_ended => {}
            () = served => {}
        }
    }
}

/// Seals a conversation's answers and carries them out, until it is over.
async fn answer(
    number: u64,
    mut output: ReadHalf<DuplexStream>,
    mut sealer: Sealer,
    outbox: mpsc::Sender<Vec<u8>>,
) {
    let mut bytes = Zeroizing::new(vec![0; MAX_PLAIN]);
    loop {
        let length = output.read(&mut bytes).await.unwrap_or(0);
        let kind = if length > 0 { Kind::Data } else { Kind::Close };
        let mut frame = Vec::with_capacity(HEAD + length + TAG);
        let sealed = sealer.seal(kind, &bytes[..length], &mut frame);
        bytes[..length].zeroize();
        let over = sealed.is_err() || kind == Kind::Close;
        let frame = if sealed.is_ok() { frame } else { bare(Kind::Refused, number, &[]) };
        if outbox.send(frame).await.is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;

    use http::Response;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;
    use tonic::body::Body;

    use super::*;
    use crate::link::{End, Ephemeral};
    use crate::peer::Peer;
    use crate::sys::socket::Pin;

    /// A conversation of a process that waits for input, and the frames that it is answered with.
    fn begun() -> (Child, Credentials, Conversation, Sealer, mpsc::Receiver<Vec<u8>>) {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let sender = Credentials { uid: 1000, gid: 1000, pid: child.id() };
        let speaker = Peer::of_sender(sender, Pin::Absent);
        let (client, broker) = (Ephemeral::new().unwrap(), Ephemeral::new().unwrap());
        let (clients, brokers) = (*client.public(), *broker.public());
        let (sealer, _) = client.agree(End::Client, 7, &brokers).unwrap();
        let keys = broker.agree(End::Broker, 7, &clients).unwrap();
        let service = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let (outbox, frames) = mpsc::channel(16);
        let triggers = Triggers::on_stop(CancellationToken::new());
        let outlet = (outbox, TaskTracker::new());
        let speaker = PeerInfo(Arc::new(speaker));
        (child, sender, Conversation::begin(7, speaker, keys, outlet, service, &triggers), sealer, frames)
    }

    /// The first has died, and its pid may have been given to another process of the session.
    #[tokio::test]
    async fn a_conversation_is_of_the_process_that_began_it_and_of_none_that_has_its_pid_later() {
        let (mut child, sender, mut conversation, _, _frames) = begun();
        assert!(conversation.is_of(sender));
        assert!(!conversation.is_of(Credentials { pid: std::process::id(), ..sender }));
        assert!(!conversation.is_of(Credentials { uid: 1001, ..sender }));
        assert!(timeout(std::time::Duration::ZERO, conversation.over()).await.is_err(), "over too early");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!conversation.is_of(sender));
        let ended = timeout(std::time::Duration::from_secs(20), conversation.over()).await;
        assert!(ended.is_ok(), "its keys outlive its process");
    }

    #[tokio::test]
    async fn a_conversation_takes_its_next_frame_and_no_other() {
        let (mut child, _, mut conversation, mut sealer, _frames) = begun();
        let mut frames = [b"PRI * HTTP/2.0", b"\r\n\r\nSM\r\n\r\n\0\0\0\x04"].map(|bytes| {
            let mut frame = Vec::new();
            sealer.seal(Kind::Data, bytes, &mut frame).unwrap();
            frame
        });
        let [first, second] = &mut frames;
        let mut take = async |frame: &mut [u8]| {
            let (head, payload) = frame.split_first_chunk_mut().unwrap();
            conversation.take(&Head::read(head).unwrap(), payload).await
        };
        let mut again = first.clone();
        assert_eq!(take(first).await, Ok(()));
        assert_eq!(take(&mut again).await, Err(Broken), "a frame was taken twice");
        assert_eq!(take(second).await, Err(Broken), "the conversation went on");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
