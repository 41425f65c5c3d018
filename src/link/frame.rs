//! The form of a frame. Pure; imports nothing.

/// What a link begins with; HTTP/2 begins with `PRI`.
pub const PREFACE: &[u8; 8] = b"RAVILINK";
/// Of the form of what follows, in every head. One installation speaks one version; no other is served.
/// Before 2 the frames of a conversation were not sealed.
pub const VERSION: u8 = 2;
/// Bytes before a payload.
pub const HEAD: usize = 16;
/// Longest payload. With its head it fits into one buffer of the socket.
pub const MAX_PAYLOAD: usize = 16 * 1024 - HEAD;
/// Names the inherited descriptor: a number, which is worth nothing to others.
pub const VARIABLE: &str = "RAVI_BROKER_LINK_FD";

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the broker: the token of the session that the link is for.
    Bind = 1,
    /// From the broker: it is.
    Bound = 2,
    /// To the broker, with a public key: a conversation begins; the one before it is over.
    Open = 3,
    /// From the broker, with a public key: it has begun.
    Opened = 4,
    /// Sealed bytes of the conversation.
    Data = 5,
    /// No more of them. Sealed.
    Close = 6,
    /// From the broker: no, or no longer.
    Refused = 7,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is for.
    pub kind: Kind,
    /// Bytes that follow.
    pub length: usize,
    /// Of which conversation.
    pub conversation: u64,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// They are of another version of the link.
    #[error("the other end speaks another version of the link")]
    OtherVersion,
    /// They are of nothing that we know.
    #[error("the other end does not speak as a link does")]
    Malformed,
}

impl Head {
    /// Reads a head.
    ///
    /// # Errors
    /// What it is instead.
    pub fn read(bytes: &[u8; HEAD]) -> Result<Self, NoHead> {
        let [kind, version, high, low, 0, 0, 0, 0, conversation @ ..] = *bytes else {
            return Err(NoHead::Malformed);
        };
        let kind = match kind {
            1 => Kind::Bind,
            2 => Kind::Bound,
            3 => Kind::Open,
            4 => Kind::Opened,
            5 => Kind::Data,
            6 => Kind::Close,
            7 => Kind::Refused,
            _ => return Err(NoHead::Malformed),
        };
        if version != VERSION {
            return Err(NoHead::OtherVersion);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let conversation = u64::from_be_bytes(conversation);
        if length > MAX_PAYLOAD {
            return Err(NoHead::Malformed);
        }
        Ok(Self { kind, length, conversation })
    }

    /// As it is written.
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = self.kind as u8;
        bytes[1] = VERSION;
        bytes[2..4].copy_from_slice(&u16::try_from(self.length).unwrap_or(u16::MAX).to_be_bytes());
        bytes[8..].copy_from_slice(&self.conversation.to_be_bytes());
        bytes
    }
}

/// A frame that is not sealed, put behind what is in the buffer. Takes at most [`MAX_PAYLOAD`] bytes of the
/// payload, and returns how many.
pub fn write(kind: Kind, conversation: u64, payload: &[u8], into: &mut Vec<u8>) -> usize {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    into.extend(Head { kind, length: payload.len(), conversation }.bytes());
    into.extend(payload);
    payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_as_it_was_written_and_takes_no_more_than_fits() {
        let mut bytes = Vec::new();
        assert_eq!(write(Kind::Data, 7, &[9; 70_000], &mut bytes), MAX_PAYLOAD);
        let head = Head::read(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(head, Head { kind: Kind::Data, length: MAX_PAYLOAD, conversation: 7 });
        assert_eq!(bytes.len(), HEAD + MAX_PAYLOAD);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let good = Head { kind: Kind::Open, length: 0, conversation: u64::MAX }.bytes();
        assert!(Head::read(&good).is_ok());
        for (at, byte) in [(0, 0), (0, 8), (2, 0xff), (4, 1), (7, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Head::read(&bad), Err(NoHead::Malformed), "{at}");
        }
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        let mut head = Head { kind: Kind::Bind, length: 64, conversation: 0 }.bytes();
        for version in [0, 1, VERSION + 1] {
            head[1] = version;
            assert_eq!(Head::read(&head), Err(NoHead::OtherVersion), "{version}");
        }
    }
}
