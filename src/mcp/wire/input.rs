//! What is read: one message at a time, delimited by a newline or announced by a `Content-Length` header as
//! in the Language Server Protocol, whichever the host begins with. Bounded: of a message that is too long
//! nothing is kept but its id. No buffer keeps what has gone through it. Imports nothing of this crate.

use std::io;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::{Zeroize, Zeroizing};

use super::skim::Skim;

/// Longest message that is read: a mail of the greatest length, however it is escaped, is below it.
pub(in crate::mcp) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Longest line of a header.
const MAX_HEADER_BYTES: usize = 1024;
/// What one read takes at most.
const READ_BYTES: usize = 8 * 1024;

/// What was read.
pub(super) enum Received {
    /// One message, undecoded.
    Message(Vec<u8>),
    /// One that is too long, and its id.
    Oversized(Value),
    /// A header that says nothing about where its message ends: what follows cannot be read.
    Unreadable,
    /// The input has ended.
    End,
}

/// The input and the place in it.
pub(super) struct Input<R> {
    unread: Unread<R>,
    part: Part,
    framing: Framing,
    /// The same for the writer: what is answered is framed as what was asked.
    framed: Arc<AtomicBool>,
}

/// How messages are told apart.
enum Framing {
    /// Nothing has come yet.
    Undecided,
    Lines,
    /// Reading the header; with what it said of the length.
    Header(Option<usize>),
    Body,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            unread: Unread::new(input),
            part: Part::line(MAX_MESSAGE_BYTES),
            framing: Framing::Undecided,
            framed: Arc::default(),
        }
    }

    /// Set once the host is known to announce lengths.
    pub(super) fn framed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.framed)
    }

    /// Safe to cancel: a partial message stays in `self.part`.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            let Ok(available) = self.unread.fill().await else { return Received::End };
            if available.is_empty() {
                return self.last();
            }
            let (taken, complete) = self.part.add(available);
            self.unread.take(taken);
            if complete && let Some(received) = self.completed() {
                return received;
            }
        }
    }

    /// A last line needs no newline. A message that was announced and did not come is none.
    fn last(&mut self) -> Received {
        match self.framing {
            Framing::Undecided | Framing::Lines if !self.part.is_empty() => {
                self.completed().unwrap_or(Received::End)
            }
            _ => Received::End,
        }
    }

    /// What the part that just ended comes to. `None`: it was no message.
    fn completed(&mut self) -> Option<Received> {
        match self.framing {
            Framing::Undecided => {
                if self.part.bytes.trim_ascii().is_empty() && self.part.skim.is_none() {
                    self.part = Part::line(MAX_MESSAGE_BYTES);
                    return None;
                }
                if begins_header(&self.part.bytes) {
                    self.framing = Framing::Header(None);
                    self.framed.store(true, Ordering::Relaxed);
                    return self.header_line();
                }
                self.framing = Framing::Lines;
                self.message(Part::line(MAX_MESSAGE_BYTES))
            }
            Framing::Lines => self.message(Part::line(MAX_MESSAGE_BYTES)),
            Framing::Header(_) => self.header_line(),
            Framing::Body => {
                self.framing = Framing::Header(None);
                self.message(Part::line(MAX_HEADER_BYTES))
            }
        }
    }

    fn message(&mut self, next: Part) -> Option<Received> {
        let Part { bytes, skim, .. } = std::mem::replace(&mut self.part, next);
        Some(skim.map_or(Received::Message(bytes), |skim| Received::Oversized(skim.id())))
    }

    fn header_line(&mut self) -> Option<Received> {
        let Framing::Header(known) = &mut self.framing else { return Some(Received::Unreadable) };
        let Part { bytes, skim, .. } = std::mem::replace(&mut self.part, Part::line(MAX_HEADER_BYTES));
        if skim.is_some() {
            return Some(Received::Unreadable);
        }
        match header(&bytes) {
            Header::Length(length) => *known = Some(length),
            Header::Other => {}
            Header::Wrong => return Some(Received::Unreadable),
            Header::End => match take(known) {
                // Blank lines between messages are let through, and messages of no bytes.
                None | Some(0) => {}
                Some(length) => {
                    self.framing = Framing::Body;
                    self.part = Part::counted(length);
                }
            },
        }
        None
    }
}

/// A line of a header.
enum Header {
    Length(usize),
    /// For example `Content-Type`.
    Other,
    Wrong,
    /// The blank line.
    End,
}

fn begins_header(line: &[u8]) -> bool {
    line.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")) && line.contains(&b':')
}

fn header(line: &[u8]) -> Header {
    let Ok(line) = std::str::from_utf8(line) else { return Header::Wrong };
    let line = line.trim();
    if line.is_empty() {
        return Header::End;
    }
    let Some((name, value)) = line.split_once(':') else { return Header::Wrong };
    if !name.trim_end().eq_ignore_ascii_case("content-length") {
        return Header::Other;
    }
    let digits = value.trim();
    // `parse` would take a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map_or(Header::Wrong, Header::Length)
}

/// What is read at the moment: to the next newline, or so many bytes.
struct Part {
    bytes: Vec<u8>,
    /// Bytes that are still to come; `None`: to the newline.
    left: Option<usize>,
    limit: usize,
    /// It is too long; the rest goes by.
    skim: Option<Skim>,
}

impl Part {
    fn line(limit: usize) -> Self {
        Self { bytes: Vec::new(), left: None, limit, skim: None }
    }

    fn counted(length: usize) -> Self {
        Self { left: Some(length), ..Self::line(MAX_MESSAGE_BYTES) }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.skim.is_none()
    }

    /// Takes what belongs to it. Returns how much was looked at, and whether it is complete.
    fn add(&mut self, available: &[u8]) -> (usize, bool) {
        let Some(left) = &mut self.left else {
            let newline = available.iter().position(|&byte| byte == b'\n');
            self.append(&available[..newline.unwrap_or(available.len())]);
            return newline.map_or((available.len(), false), |at| (at + 1, true));
        };
        let count = available.len().min(*left);
        *left -= count;
        let complete = *left == 0;
        self.append(&available[..count]);
        (count, complete)
    }

    fn append(&mut self, piece: &[u8]) {
        if let Some(skim) = &mut self.skim {
            skim.read(piece);
        } else if self.bytes.len() + piece.len() > self.limit {
            let mut skim = Skim::default();
            skim.read(&take(&mut self.bytes));
            skim.read(piece);
            self.skim = Some(skim);
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }
}

/// What was read of the input and not looked at yet; a buffered reader of the runtime would keep the rest.
struct Unread<R> {
    input: R,
    bytes: Zeroizing<Vec<u8>>,
    /// Where in `bytes` it lies.
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Unread<R> {
    fn new(input: R) -> Self {
        Self { input, bytes: Zeroizing::new(vec![0; READ_BYTES]), start: 0, end: 0 }
    }

    /// All there is, or what comes next; nothing at the end of the input. Safe to cancel.
    async fn fill(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.end = self.input.read(&mut self.bytes).await?;
            self.start = 0;
        }
        Ok(&self.bytes[self.start..self.end])
    }

    /// Wipes the first `count` bytes, which have been looked at.
    fn take(&mut self, count: usize) {
        let next = (self.start + count).min(self.end);
        self.bytes[self.start..next].zeroize();
        self.start = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is received, in a word each.
    async fn received(input: &[u8]) -> Vec<String> {
        let mut input = Input::new(input);
        let mut all = Vec::new();
        loop {
            match input.next().await {
                Received::Message(bytes) => all.push(String::from_utf8(bytes).unwrap()),
                Received::Oversized(id) => all.push(format!("oversized {id}")),
                Received::Unreadable => {
                    all.push("unreadable".into());
                    return all;
                }
                Received::End => return all,
            }
        }
    }

    #[tokio::test]
    async fn the_first_bytes_decide_how_messages_are_told_apart() {
        assert_eq!(received(b"\n\n{1}\n\n{2}").await, ["{1}", "", "{2}"]);
        let framed =
            b"\r\nContent-Length: 3\r\n\r\n{1}CONTENT-LENGTH:3\r\nContent-Type: x\r\n\r\n{\n}\r\n\r\n";
        assert_eq!(received(framed).await, ["{1}", "{\n}"]);
        let type_first = b"Content-Type: application/json\nContent-Length: 2\n\n{}";
        assert_eq!(received(type_first).await, ["{}"]);
        assert_eq!(received(b"{}\nContent-Length: 2\n").await, ["{}", "Content-Length: 2"]);
    }

    #[tokio::test]
    async fn a_header_without_a_usable_length_ends_what_can_be_read() {
        for wrong in ["-1", "+1", "x", "", "99999999999999999999999"] {
            let input = format!("Content-Length: {wrong}\r\n\r\n{{}}");
            assert_eq!(received(input.as_bytes()).await, ["unreadable"], "{wrong}");
        }
        let long = format!("Content-Length: 2\r\nX: {}\r\n\r\n{{}}", "x".repeat(MAX_HEADER_BYTES));
        assert_eq!(received(long.as_bytes()).await, ["unreadable"]);
        assert_eq!(received(b"Content-Length: 2\r\nnot a header\r\n\r\n{}").await, ["unreadable"]);
    }

    #[tokio::test]
    async fn what_is_too_long_goes_by_and_leaves_its_id() {
        let long = format!("{{\"id\":4,\"x\":\"{}\"}}", "x".repeat(MAX_MESSAGE_BYTES));
        assert_eq!(received(format!("{long}\n{{}}").as_bytes()).await, ["oversized 4", "{}"]);
        let framed = format!("Content-Length: {}\r\n\r\n{long}Content-Length: 2\r\n\r\n{{}}", long.len());
        assert_eq!(received(framed.as_bytes()).await, ["oversized 4", "{}"]);
    }

    #[tokio::test]
    async fn a_message_that_was_announced_and_did_not_come_is_none() {
        assert!(received(b"Content-Length: 10\r\n\r\n{}").await.is_empty());
        assert!(received(b"Content-Length: 10\r\n").await.is_empty());
    }
}
