//! The link: a connection that a launcher leaves open for what it starts, for sandboxes in which a process
//! may neither connect to a socket nor send on one. Both ends speak in frames; this is their form. Pure.
//!
//! A link begins with [`PREFACE`] and a frame [`Kind::Bind`] with the launcher's session token. From then on
//! the session's processes take turns: each opens a conversation under a random number, and what is in its
//! frames is a connection like any other. A frame is written by one `write(2)`, which a Unix socket takes
//! whole; so frames of two processes never mix, and the kernel names the sender of each. A reader that
//! was killed may leave part of a frame behind: whoever comes next reads on until its own [`Kind::Opened`].

/// What a link begins with; HTTP/2 begins with `PRI`.
pub const PREFACE: &[u8; 8] = b"RAVILINK";
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
    /// To the broker: a conversation begins; the one before it is over.
    Open = 3,
    /// From the broker: it has begun.
    Opened = 4,
    /// Bytes of the conversation.
    Data = 5,
    /// No more of them.
    Close = 6,
    /// From the broker: no.
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

impl Head {
    /// Reads a head. `None`: it is none.
    pub fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let [kind, 0, high, low, 0, 0, 0, 0, conversation @ ..] = *bytes else { return None };
        let kind = match kind {
            1 => Kind::Bind,
            2 => Kind::Bound,
            3 => Kind::Open,
            4 => Kind::Opened,
            5 => Kind::Data,
            6 => Kind::Close,
            7 => Kind::Refused,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let conversation = u64::from_be_bytes(conversation);
        (length <= MAX_PAYLOAD).then_some(Self { kind, length, conversation })
    }
}

/// A frame of at most [`MAX_PAYLOAD`] bytes of the payload, put behind what is in the buffer. Returns how many
/// bytes of the payload it took.
pub fn write(kind: Kind, conversation: u64, payload: &[u8], into: &mut Vec<u8>) -> usize {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let length = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    into.extend([kind as u8, 0, length[0], length[1], 0, 0, 0, 0]);
    into.extend(conversation.to_be_bytes());
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
        let mut good = Vec::new();
        write(Kind::Open, u64::MAX, &[], &mut good);
        let good: [u8; HEAD] = good.try_into().unwrap();
        assert!(Head::read(&good).is_some());
        for (at, byte) in [(0, 0), (0, 8), (1, 1), (2, 0xff), (4, 1), (7, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Head::read(&bad), None, "{at}");
        }
    }
}
