//! JSON-RPC on a pair of streams, with bounds. What is too long, no JSON or no request gets an answer of the
//! protocol; what needs none is dropped. Nothing here ends the service but the end of the input, a header
//! that cannot be read or a host that has closed the output. A message may hold a secret in either
//! direction: no buffer keeps what has gone through it.

mod batch;
mod input;
mod skim;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, GetExtensions, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use batch::{Batch, Batches, Collected};
#[cfg(test)]
pub(super) use input::MAX_MESSAGE_BYTES;
use input::{Input, Received};

/// Requests under way at once, and in one batch; hosts send a handful.
pub(super) const MAX_CALLS: usize = 64;
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

/// What the server and the transport tell each other.
#[derive(Default)]
pub(super) struct Link {
    /// Set by the server once the protocol's opening is over; what is no request is dropped before.
    pub(super) established: AtomicBool,
    /// Set by the server where the revision that was agreed on has batches.
    pub(super) batches: AtomicBool,
    /// Done once the input has ended: nobody will ask for what a long wait brings.
    pub(super) ended: CancellationToken,
}

/// The transport. One task writes, so that a write is never cut in half by a cancelled read.
pub(super) struct Wire<R> {
    input: Input<R>,
    framed: Arc<AtomicBool>,
    link: Arc<Link>,
    /// Messages of a batch that have not been handed on.
    queue: VecDeque<ClientJsonRpcMessage>,
    batches: Batches,
    /// An answer of the transport itself that has not been handed to the writer.
    reply: Option<Vec<u8>>,
    /// What follows cannot be read.
    unreadable: bool,
    calls: Arc<Semaphore>,
    /// Absent once closed.
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

/// What one message is.
enum Decoded {
    Message(Box<ClientJsonRpcMessage>),
    Refused(Vec<u8>),
    Ignored,
}

impl<R: AsyncRead + Send + Unpin> Wire<R> {
    pub(super) fn new(input: R, output: impl AsyncWrite + Send + Unpin + 'static, link: Arc<Link>) -> Self {
        let (outbox, answers) = mpsc::channel(MAX_WAITING_ANSWERS);
        let input = Input::new(input);
        Self {
            framed: input.framed(),
            input,
            link,
            queue: VecDeque::new(),
            batches: Batches::default(),
            reply: None,
            unreadable: false,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            outbox: Some(outbox),
            writer: Some(tokio::spawn(write(output, answers))),
        }
    }

    /// Takes what was read. Returns false where there is nothing more to read.
    fn take(&mut self, received: Received) -> bool {
        match received {
            Received::End => return false,
            Received::Unreadable => {
                self.reply = Some(error(Value::Null, PARSE_ERROR, "the header has no usable Content-Length"));
                self.unreadable = true;
            }
            Received::Oversized(id) => {
                self.reply = Some(error(id, INVALID_REQUEST, "the message is longer than 1 MiB"));
            }
            Received::Message(text) => {
                self.decode(&text);
                wipe_dead_stack();
            }
        }
        true
    }

    fn decode(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        if text.first() == Some(&b'[') && self.link.batches.load(Ordering::Relaxed) {
            return self.decode_batch(text);
        }
        let decoded = match serde_json::from_slice::<ClientJsonRpcMessage>(text) {
            Ok(message) => self.admit(message),
            Err(_) if text.is_empty() => Decoded::Ignored,
            Err(_) => refuse(text).map_or(Decoded::Ignored, Decoded::Refused),
        };
        match decoded {
            Decoded::Message(message) => self.queue.push_back(*message),
            Decoded::Refused(reply) => self.reply = Some(reply),
            Decoded::Ignored => {}
        }
    }

    /// Of revision 2025-03-26 and before it.
    fn decode_batch(&mut self, text: &[u8]) {
        let Ok(items) = serde_json::from_slice::<Vec<Value>>(text) else {
            self.reply = Some(error(Value::Null, PARSE_ERROR, "the message is not JSON"));
            return;
        };
        if items.is_empty() || items.len() > MAX_CALLS {
            self.reply = Some(error(Value::Null, INVALID_REQUEST, "a batch has 1 to 64 messages"));
            return;
        }
        let mut batch = Batch::default();
        for item in items {
            let decoded = if item.get("method").is_some_and(|method| method == "initialize") {
                let id = item.get("id").cloned().unwrap_or_default();
                Decoded::Refused(error(id, INVALID_REQUEST, "initialize is not part of a batch"))
            } else {
                match ClientJsonRpcMessage::deserialize(&item).ok() {
                    Some(message) => self.admit(message),
                    None => refuse_value(&item).map_or(Decoded::Ignored, Decoded::Refused),
                }
            };
            match decoded {
                Decoded::Refused(answer) => batch.answer(answer),
                Decoded::Ignored => {}
                Decoded::Message(message) => {
                    if let JsonRpcMessage::Request(request) = &*message {
                        batch.expect(request.id.clone());
                    }
                    self.queue.push_back(*message);
                }
            }
        }
        self.reply = self.batches.add(batch);
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
                if !cancels || !self.link.established.load(Ordering::Relaxed) {
                    return Decoded::Ignored;
                }
            }
            // The adapter asks the host nothing.
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => return Decoded::Ignored,
        }
        Decoded::Message(Box::new(message))
    }

    /// A request that is cancelled gets no answer, and its batch none from it.
    fn give_up_cancelled(&mut self, message: &ClientJsonRpcMessage) {
        let JsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        if let Some(id) = &cancelled.params.request_id {
            self.reply = self.batches.give_up(id);
        }
    }
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for Wire<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let text = serde_json::to_vec(&message).map(|text| match answered(&message) {
            Some(id) => self.batches.collect(id, text),
            None => Collected::Alone(text),
        });
        let framed = self.framed.load(Ordering::Relaxed);
        let outbox = self.outbox.clone();
        async move {
            let (Collected::Alone(text) | Collected::Complete(text)) = text? else { return Ok(()) };
            let outbox = outbox.ok_or(io::ErrorKind::NotConnected)?;
            outbox.send(frame(text, framed)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            // A host that does not read its answers is not read from.
            let Ok(room) = self.outbox.as_ref()?.reserve().await else { break };
            if let Some(reply) = self.reply.take() {
                room.send(frame(reply, self.framed.load(Ordering::Relaxed)));
                continue;
            }
            drop(room);
            if let Some(message) = self.queue.pop_front() {
                self.give_up_cancelled(&message);
                return Some(message);
            }
            if self.unreadable {
                break;
            }
            let received = self.input.next().await;
            if !self.take(received) {
                break;
            }
        }
        self.link.ended.cancel();
        // Before the opening nobody closes the transport, and what was answered has to arrive.
        if !self.link.established.load(Ordering::Relaxed) {
            let _ = self.close().await;
        }
        None
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

/// The request that a message answers.
fn answered(message: &ServerJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        _ => None,
    }
}

/// As the host frames what it sends.
fn frame(mut text: Vec<u8>, framed: bool) -> Vec<u8> {
    if framed {
        return [format!("Content-Length: {}\r\n\r\n", text.len()).as_bytes(), &text].concat();
    }
    text.push(b'\n');
    text
}

/// Overwrites the stack below the caller, where the parser that just returned has left pieces of its
/// message: the search for line breaks loads it into vector registers, and these are spilled.
#[inline(never)]
fn wipe_dead_stack() {
    let mut frames = [0_u64; DEAD_STACK_WORDS];
    frames.zeroize();
    std::hint::black_box(&frames);
}

async fn write(mut output: impl AsyncWrite + Unpin, mut answers: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        output.write_all(&answer).await?;
        output.flush().await?;
    }
    Ok(())
}

/// The answer to what is no message of the protocol; none to what expects none.
fn refuse(text: &[u8]) -> Option<Vec<u8>> {
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => refuse_value(&value),
        Err(_) => Some(error(Value::Null, PARSE_ERROR, "the message is not JSON")),
    }
}

fn refuse_value(value: &Value) -> Option<Vec<u8>> {
    if value.is_array() {
        return Some(error(Value::Null, INVALID_REQUEST, "this revision of the protocol has no batches"));
    }
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
    answer.to_string().into_bytes()
}
