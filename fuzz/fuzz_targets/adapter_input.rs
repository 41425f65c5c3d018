//! What a host writes to the adapter: any bytes, in reads of any length. The adapter ends by itself with the input,
//! and all that it wrote is protocol, framed as what it was asked.
//!
//! The first byte is the length of the reads. There is no daemon: every call fails, and says so.

#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use libfuzzer_sys::fuzz_target;
use ravi_broker::mcp::{self, Access};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let Some((&length, input)) = data.split_first() else { return };
    let output = Output::default();
    let written = Arc::clone(&output.0);
    let input = Input { left: input.to_vec(), length: usize::from(length) * 8 + 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let access = Access::Role("fuzzed".parse().expect("a role"));
    let served = mcp::serve(access, vec!["/nonexistent/broker.sock".into()], input, output, std::future::pending());
    assert!(runtime.block_on(served).is_ok(), "the adapter failed");
    let written = written.lock().expect("nobody else writes");
    messages(&written).for_each(|message| check(message));
});

fn check(message: &[u8]) {
    let value: Value = serde_json::from_slice(message).expect("what is written is JSON");
    let alone = std::slice::from_ref(&value);
    let messages = value.as_array().map_or(alone, Vec::as_slice);
    assert!(!messages.is_empty() && messages.iter().all(|message| message["jsonrpc"] == "2.0"));
}

/// Lines, or messages that a header announces.
fn messages(mut written: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = written.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = (&written[..end], &written[end + 1..]);
        let Some(length) = line.strip_prefix(b"Content-Length: ") else {
            written = rest;
            return Some(line);
        };
        let length: usize = std::str::from_utf8(length).ok()?.trim().parse().expect("a length");
        let rest = rest.strip_prefix(b"\r\n").expect("the header ends");
        let (message, rest) = rest.split_at(length);
        written = rest;
        Some(message)
    })
}

struct Input {
    left: Vec<u8>,
    length: usize,
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.length.min(self.left.len()).min(into.remaining());
        into.put_slice(&self.left[..length]);
        self.left.drain(..length);
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().expect("nobody else writes").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
