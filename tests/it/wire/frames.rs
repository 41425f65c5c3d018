//! HTTP/2 by hand (RFC 9113): frames in any order and of any content. Headers are written without
//! compression, and those of an answer are not read.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::bounded;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came in.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a reset or a good-bye.
    pub(super) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A connection that was opened by the rules and sends what it likes.
pub(super) struct Frames(pub(super) UnixStream);

impl Frames {
    /// After the preface and an empty SETTINGS.
    pub(super) async fn open(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.expect("the daemon accepts");
        // A connection over a cap is closed before it is read from.
        let _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        Self(stream)
    }

    /// False: the daemon has closed the connection.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        bounded(self.0.write_all(bytes)).await.is_ok()
    }

    pub(super) async fn receive(&mut self) -> Option<Frame> {
        bounded(receive(&mut self.0)).await
    }

    /// Reads on until a frame of this kind; `None`: the daemon has closed the connection.
    pub(super) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.receive().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Sends everything while reading everything. Returns the error code of the good-bye, if there was
    /// one, after the connection was closed.
    pub(super) async fn flood(self, bytes: Vec<u8>) -> Option<u32> {
        let (mut input, mut output) = self.0.into_split();
        let sent = async {
            // Fails when the daemon has had enough.
            let _ = output.write_all(&bytes).await;
            let _ = output.shutdown().await;
        };
        let read = async {
            let mut goodbye = None;
            while let Some(frame) = receive(&mut input).await {
                if frame.kind == GOAWAY {
                    goodbye = Some(frame.error());
                }
            }
            goodbye
        };
        bounded(async { tokio::join!(sent, read).1 }).await
    }
}

async fn receive(input: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    input.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    input.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A request's headers; `flags` on top of END_HEADERS.
pub(super) fn request(stream: u32, flags: u8, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(path, more))
}

/// A header block of literals that are not indexed (RFC 7541, section 6.2.2).
pub(super) fn block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    usual.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
}

pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// A string that is not Huffman-coded, its length as an integer of a seven-bit prefix.
fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => bytes.push(length),
        _ => {
            let mut rest = text.len() - 127;
            bytes.push(127);
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).expect("below 128") | 128);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).expect("below 128"));
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
