//! The frames of a link, each with who sent it, as the kernel says.

use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::link::{HEAD, Head, MAX_PAYLOAD};
use crate::peer::Credentials;
use crate::sys::socket::{Pin, Received, receive_pinned};

/// Room for the longest frame and one more head.
const READ: usize = HEAD + MAX_PAYLOAD + HEAD;

/// A frame and who sent it.
pub(super) struct Frame {
    pub(super) head: Head,
    /// As it came. Zeroizing since it may be opened in place.
    pub(super) payload: Zeroizing<Vec<u8>>,
    pub(super) sender: Credentials,
    pub(super) pin: Pin,
}

/// Takes frames out of the stream. Bytes of a sender that stops in the middle of a frame are dropped when the
/// next sender's come, also if that one has got its pid.
pub(super) struct Reader {
    stream: Arc<UnixStream>,
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
    sender: Option<Credentials>,
    /// Of the sender, for each frame that lies in the buffer.
    pin: Pin,
}

impl Reader {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: Zeroizing::new(vec![0; READ]), filled: 0, sender: None, pin: Pin::Absent }
    }

    /// The next frame; `None` at the end, or when what a process sends is no frame.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
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
        let Ok(head) = Head::read(head) else {
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
    use crate::link::Kind;
    use crate::peer::Peer;
    use crate::sys::socket::name_senders;

    /// Both frames come in one go. The second must not be of whoever has the pid when it is looked at.
    #[tokio::test]
    async fn each_frame_of_a_sender_is_pinned_to_it() {
        let (near, far) = UnixStream::pair().unwrap();
        name_senders(&near).unwrap();
        let far = OwnedFd::from(far.into_std().unwrap());
        let twice = r"printf '\003\002\0\0\0\0\0\0\0\0\0\0\0\0\0\001\003\002\0\0\0\0\0\0\0\0\0\0\0\0\0\002'";
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
