//! gRPC over a blocking socket, as little of it as an agent needs that has no runtime and no threads: a
//! process that was forked from a test. What it sends and receives is the protocol itself (RFC 9113, RFC 7541),
//! so a connection can be begun by one process and gone on with by another.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use ravi_broker::pb;
use ravi_broker::secret::Secret;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `SETTINGS_HEADER_TABLE_SIZE` 0: every header block can be read alone.
const NO_TABLE: &[u8] = &[0, 1, 0, 0, 0, 0];
/// `grpc-status` 16, UNAUTHENTICATED, as the value of a header: two Huffman codes of 5 and 6 bits, padded.
const UNAUTHENTICATED: &[u8] = &[0x82, 0x0b, 0x9f];
/// Nothing here waits longer.
const LONGEST: Duration = Duration::from_secs(30);

/// One end of a connection to the agent socket.
pub(crate) struct Bare {
    socket: UnixStream,
    next: u32,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message.
    Accepted(Vec<u8>),
    /// As every token is that is of no live session of the caller's: `UNAUTHENTICATED`.
    Unauthenticated,
    /// With another status.
    Failed,
    /// The daemon closed the connection.
    Closed,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Bare {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::greet(UnixStream::connect(path).expect("the daemon accepts"))
    }

    /// Begins a connection.
    pub(crate) fn greet(mut socket: UnixStream) -> Self {
        let settings = frame(SETTINGS, 0, 0, NO_TABLE);
        // A socket that the daemon has closed already shows that at the first read.
        let _ = socket.write_all(&[PREFACE, &settings].concat());
        Self::resume(socket, 1)
    }

    /// Goes on with one that was begun, by whomever, with `next` as its next stream.
    pub(crate) fn resume(socket: UnixStream, next: u32) -> Self {
        socket.set_read_timeout(Some(LONGEST)).expect("a timeout");
        Self { socket, next }
    }

    /// The socket and its next stream.
    pub(crate) fn into_parts(self) -> (OwnedFd, u32) {
        (self.socket.into(), self.next)
    }

    /// Sends a call. Returns its stream.
    pub(crate) fn call(&mut self, path: &str, token: Option<&Secret>, message: &impl Message) -> u32 {
        let stream = self.next;
        self.next += 2;
        let body = message.encode_to_vec();
        let length = u32::try_from(body.len()).expect("a short message").to_be_bytes();
        let body = [&[0][..], &length, &body].concat();
        let headers = frame(HEADERS, END_HEADERS, stream, &headers(path, token));
        let data = frame(DATA, END_STREAM, stream, &body);
        let _ = self.socket.write_all(&[headers, data].concat());
        stream
    }

    /// Waits for the first message of a stream, or its end.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        let mut message = Vec::new();
        while let Ok(frame) = self.frame() {
            let last = frame.flags & END_STREAM != 0;
            match frame.kind {
                PING if frame.flags & ACK == 0 => self.pong(&frame.payload),
                GOAWAY if last_stream(&frame.payload) < stream => return Answer::Closed,
                DATA if frame.stream == stream => {
                    message.extend_from_slice(&frame.payload);
                    if whole(&message) {
                        return Answer::Accepted(message.split_off(5));
                    }
                }
                HEADERS if frame.stream == stream && last => return refused(&frame.payload),
                _ => {}
            }
        }
        Answer::Closed
    }

    /// Sends a call and waits for its answer.
    pub(crate) fn ask(&mut self, path: &str, token: Option<&Secret>, message: &impl Message) -> Answer {
        let stream = self.call(path, token, message);
        self.answer(stream)
    }

    /// Opens a session. Its token, if the role matched.
    pub(crate) fn open(&mut self, role: &str) -> Option<Secret> {
        let stream = self.call_open(role);
        self.opened(stream)
    }

    pub(crate) fn call_open(&mut self, role: &str) -> u32 {
        let message = pb::OpenSessionRequest { role: role.to_owned(), ..Default::default() };
        self.call("/ravi.broker.v1.SessionService/OpenSession", None, &message)
    }

    pub(crate) fn opened(&mut self, stream: u32) -> Option<Secret> {
        let Answer::Accepted(message) = self.answer(stream) else { return None };
        let opened = pb::OpenSessionResponse::decode(&*message).expect("an answer");
        Some(Secret::new(opened.token))
    }

    /// Presents a token.
    pub(crate) fn present(&mut self, token: &Secret) -> Answer {
        let path = "/ravi.broker.v1.SessionService/DescribeSession";
        self.ask(path, Some(token), &pb::DescribeSessionRequest {})
    }

    /// Answers pings until the daemon closes the connection.
    pub(crate) fn idle(&mut self) {
        let _ = self.socket.set_read_timeout(None);
        while let Ok(frame) = self.frame() {
            if frame.kind == PING && frame.flags & ACK == 0 {
                self.pong(&frame.payload);
            }
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let _ = self.socket.write_all(&frame(PING, ACK, 0, payload));
    }

    fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}

/// What is read of the end of a stream by somebody who only listens: feed it what arrives.
#[derive(Default)]
pub(crate) struct Ending(Vec<u8>);

impl Ending {
    /// Whether the stream has ended with these bytes.
    pub(crate) fn has_come(&mut self, bytes: &[u8], stream: u32) -> bool {
        self.of(bytes).contains(&stream)
    }

    /// The streams that have ended with these bytes.
    pub(crate) fn of(&mut self, bytes: &[u8]) -> Vec<u32> {
        self.0.extend_from_slice(bytes);
        let mut ended = Vec::new();
        while let Some((head, rest)) = self.0.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if rest.len() < length {
                break;
            }
            if matches!(head[3], HEADERS | DATA) && head[4] & END_STREAM != 0 {
                ended.push(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            }
            self.0.drain(..9 + length);
        }
        ended
    }
}

/// Without an entry in a table, and without Huffman codes.
fn headers(path: &str, token: Option<&Secret>) -> Vec<u8> {
    // `:method: POST`, `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &[&str]| {
        block.extend_from_slice(name);
        let length: usize = value.iter().map(|part| part.len()).sum();
        block.push(u8::try_from(length).ok().filter(|&length| length < 127).expect("a short value"));
        value.iter().for_each(|part| block.extend_from_slice(part.as_bytes()));
    };
    field(&[0x04], &[path]);
    field(&[0x01], &["localhost"]);
    // `content-type`, the 31st of the static table.
    field(&[0x0f, 0x10], &["application/grpc"]);
    field(b"\x00\x02te", &["trailers"]);
    if let Some(token) = token {
        // `authorization`, the 23rd.
        field(&[0x0f, 0x08], &["Bearer ", token.expose()]);
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The prefix of a message says how long it is.
fn whole(message: &[u8]) -> bool {
    let Some(prefix) = message.first_chunk::<5>() else { return false };
    let [_, length @ ..] = *prefix;
    message.len() - 5 >= u32::from_be_bytes(length) as usize
}

fn refused(block: &[u8]) -> Answer {
    match block.windows(UNAUTHENTICATED.len()).any(|window| window == UNAUTHENTICATED) {
        true => Answer::Unauthenticated,
        false => Answer::Failed,
    }
}

fn last_stream(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |stream| u32::from_be_bytes(*stream) & 0x7fff_ffff)
}
