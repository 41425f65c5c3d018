//! One request and its answer on one connection of HTTP/1.1, which ends with it.
//!
//! Connections are not kept: the buffers of an idle one would hold the last key and value, and a write
//! on a connection that the server closes meanwhile would end in doubt. No task outlives the call.
//! Invariant: no more of an answer is held than the call has room for, usually 1 MiB, and nothing of an error's
//! text but a bounded hint.

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use zeroize::Zeroizing;

use super::call::Keep;
use super::elide::Elider;
use super::retry::Fault;
use super::{AnswerFault, UpstreamError};

/// Most bytes that are read of an answer whose long texts are left out.
const MAX_PASSED: usize = 64 * 1024 * 1024;
/// Largest error body that is looked into, in bytes.
const HINT: Room = Room { answer: 4096, text: None };
/// Room for the head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// First room for an answer of undeclared length, in bytes.
const FIRST_ROOM: usize = 16 * 1024;

/// How much of an answer is held, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Of the whole: beyond that it is dropped.
    pub(super) answer: usize,
    /// Of one text in it: a longer one is left out, see [`Elider`]. `None`: all of each.
    pub(super) text: Option<usize>,
}

impl Room {
    /// For what is small.
    pub(super) const USUAL: Self = Self { answer: 1024 * 1024, text: None };

    fn most_passed(self) -> usize {
        if self.text.is_some() { MAX_PASSED } else { self.answer }
    }
}

/// An answer, judged by nobody yet.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// `Retry-After` in seconds.
    pub(super) retry_after: Option<u64>,
    pub(super) is_json: bool,
    /// As far as it is kept.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// Sends the request and reads the answer. From here on it may have reached the server.
pub(super) async fn exchange<T>(
    io: T,
    request: Request<Full<Bytes>>,
    keeps: impl Fn(StatusCode) -> Keep,
    room: Room,
) -> Result<Reply, Fault>
where
    T: Read + Write + Unpin,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let (mut sender, connection) = http.handshake(io).await.map_err(|_| Fault::Lost)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|_| Fault::Lost)?;
        let (head, body) = response.into_parts();
        let is_json = is_json(&head.headers);
        let body = match keeps(head.status) {
            Keep::Answer if is_json => Some(read(body, room).await?),
            Keep::Hint if is_json => read(body, HINT).await.ok(),
            _ => None,
        };
        Ok(Reply { status: head.status, retry_after: retry_after(&head.headers), is_json, body })
    };
    match select(std::pin::pin!(answer), std::pin::pin!(connection)).await {
        Either::Left((reply, _)) => reply,
        // The connection is done; what it received is still to be taken out.
        Either::Right((_, answer)) => answer.await,
    }
}

async fn read(mut body: Incoming, room: Room) -> Result<Zeroizing<Vec<u8>>, Fault> {
    const TOO_LARGE: Fault = Fault::Final(UpstreamError::Answer(AnswerFault::TooLarge));
    let size = body.size_hint();
    if size.lower() > room.most_passed() as u64 {
        return Err(TOO_LARGE);
    }
    let first = size.exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(FIRST_ROOM);
    let mut buffer = Zeroizing::new(Vec::with_capacity(first.min(room.answer)));
    let mut elider = Elider::new(room.text.unwrap_or(usize::MAX));
    let mut passed = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Truncated)?;
        let Some(data) = frame.data_ref() else { continue };
        passed += data.len();
        if passed > room.most_passed() {
            return Err(TOO_LARGE);
        }
        match room.text {
            Some(_) => elider.push(data, &mut buffer),
            None => buffer.extend_from_slice(data),
        }
        if buffer.len() > room.answer {
            return Err(TOO_LARGE);
        }
    }
    Ok(buffer)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}
