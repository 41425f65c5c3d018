//! Newline-delimited JSON-RPC on a pair of streams, with bounds. What is too long, no JSON or no request
//! gets an answer of the protocol; what needs none is dropped. Nothing here ends the service but the end
//! of the input or a host that has closed the output. A line may hold a secret in either direction: no
//! buffer keeps what has gone through it.

use std::io;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, GetExtensions, JsonRpcMessage, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

/// Longest line that is read. A request of any tool is far below it.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;
/// Requests under way at once; hosts send a handful.
pub(super) const MAX_CALLS: usize = 64;
/// What one read takes at most.
const READ_BYTES: usize = 8 * 1024;
/// Answers that wait for the host to read them.
const MAX_WAITING_ANSWERS: usize = 64;
/// A host that does not read its answers is not waited for at the end.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// 32 KiB: several times as deep as parsing goes.
const DEAD_STACK_WORDS: usize = 4096;

// Error codes of JSON-RPC 2.0, section 5.1.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
/// First of the range that the specification leaves to servers.
const BUSY: i32 = -32000;

/// The transport. One task writes, so that a write is never cut in half by a cancelled read.
pub(super) struct Lines<R> {
    input: Unread<R>,
    /// The line read so far.
    line: Vec<u8>,
    /// The rest of the line is dropped.
    oversized: bool,
    /// An answer of the transport itself that has not been handed to the writer.
    reply: Option<Vec<u8>>,
    calls: Arc<Semaphore>,
    /// Set once the protocol's opening is over; what is no request is dropped before.
    established: Arc<AtomicBool>,
    /// Absent once closed.
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

/// What reading a line came to.
enum Line {
    Whole,
    Oversized,
    End,
}

/// What a line is.
enum Decoded {
    Message(Box<ClientJsonRpcMessage>),
    Refused(Vec<u8>),
    Ignored,
}

impl<R: AsyncRead + Send + Unpin> Lines<R> {
    pub(super) fn new(
        input: R,
        output: impl AsyncWrite + Send + Unpin + 'static,
        established: Arc<AtomicBool>,
    ) -> Self {
        let (outbox, lines) = mpsc::channel(MAX_WAITING_ANSWERS);
        Self {
            input: Unread::new(input),
            line: Vec::new(),
            oversized: false,
            reply: None,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            established,
            outbox: Some(outbox),
            writer: Some(tokio::spawn(write(output, lines))),
        }
    }

    /// Safe to cancel: a partial line stays in `self.line`.
    async fn read_line(&mut self) -> Line {
        loop {
            let Ok(available) = self.input.fill().await else { return Line::End };
            if available.is_empty() {
                let whole = !take(&mut self.oversized) && !self.line.is_empty();
                return if whole { Line::Whole } else { Line::End };
            }
            let newline = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            if self.oversized || self.line.len() + part.len() > MAX_LINE_BYTES {
                self.oversized = true;
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let taken = newline.map_or(available.len(), |at| at + 1);
            self.input.take(taken);
            if newline.is_some() {
                return if take(&mut self.oversized) { Line::Oversized } else { Line::Whole };
            }
        }
    }

    fn decode(&self, line: &[u8]) -> Decoded {
        if line.trim_ascii().is_empty() {
            return Decoded::Ignored;
        }
        match serde_json::from_slice::<ClientJsonRpcMessage>(line) {
            Ok(message) => self.admit(message),
            Err(_) => refuse(line).map_or(Decoded::Ignored, Decoded::Refused),
        }
    }

    fn admit(&self, mut message: ClientJsonRpcMessage) -> Decoded {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
                    let id = serde_json::to_value(&request.id).unwrap_or(Value::Null);
                    return Decoded::Refused(error(id, BUSY, "too many requests at once; wait for answers"));
                };
                // Travels with the request and is given back when its handler is done.
                request.request.extensions_mut().insert(Arc::new(permit));
            }
            JsonRpcMessage::Notification(notification) => {
                let cancels =
                    matches!(notification.notification, ClientNotification::CancelledNotification(_));
                if !cancels || !self.established.load(Ordering::Relaxed) {
                    return Decoded::Ignored;
                }
            }
            // The adapter asks the host nothing.
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => return Decoded::Ignored,
        }
        Decoded::Message(Box::new(message))
    }
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for Lines<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let line = serde_json::to_vec(&message).map_err(io::Error::from);
        let outbox = self.outbox.clone();
        async move {
            let mut line = line?;
            line.push(b'\n');
            let outbox = outbox.ok_or(io::ErrorKind::NotConnected)?;
            outbox.send(line).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            // A host that does not read its answers is not read from.
            let room = self.outbox.as_ref()?.reserve().await.ok()?;
            if let Some(reply) = self.reply.take() {
                room.send(reply);
                continue;
            }
            drop(room);
            let decoded = match self.read_line().await {
                Line::End => return None,
                Line::Oversized => {
                    Decoded::Refused(error(Value::Null, INVALID_REQUEST, "the line is longer than 64 KiB"))
                }
                Line::Whole => {
                    let line = take(&mut self.line);
                    let decoded = self.decode(&line);
                    wipe_dead_stack();
                    decoded
                }
            };
            match decoded {
                Decoded::Message(message) => return Some(*message),
                Decoded::Refused(reply) => self.reply = Some(reply),
                Decoded::Ignored => {}
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.outbox = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        match timeout(FLUSH_DEADLINE, writer).await {
            Ok(Ok(result)) => result,
            _ => Err(io::ErrorKind::TimedOut.into()),
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

/// Overwrites the stack below the caller, where the parser that just returned has left pieces of its
/// line: the search for line breaks loads it into vector registers, and these are spilled.
#[inline(never)]
fn wipe_dead_stack() {
    let mut frames = [0_u64; DEAD_STACK_WORDS];
    frames.zeroize();
    std::hint::black_box(&frames);
}

async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        output.write_all(&line).await?;
        output.flush().await?;
    }
    Ok(())
}

/// The answer to a line that is no message of the protocol; none to one that expects none.
fn refuse(line: &[u8]) -> Option<Vec<u8>> {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return Some(error(Value::Null, PARSE_ERROR, "the line is not JSON"));
    };
    let id = value.get("id");
    let notification = id.is_none() && value.get("method").is_some();
    let answer = value.get("result").is_some() || value.get("error").is_some();
    if notification || answer {
        return None;
    }
    let id = id.filter(|id| id.is_string() || id.is_i64()).cloned().unwrap_or(Value::Null);
    Some(error(id, INVALID_REQUEST, "not a request of JSON-RPC 2.0"))
}

fn error(id: Value, code: i32, message: &str) -> Vec<u8> {
    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
    format!("{answer}\n").into_bytes()
}
