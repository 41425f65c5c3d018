//! The calls of one connection: counted while they are open, and answered in time.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// How long the caller wants to wait, for example `250m` (gRPC over HTTP/2, "Timeout").
const TIMEOUT: &str = "grpc-timeout";
const MAX_TIMEOUT_DIGITS: usize = 8;

/// Counts a connection's calls. Clones count the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(Arc<Counters>);

/// Nobody waits on them, so a call costs little.
#[derive(Debug, Default)]
struct Counters {
    open: AtomicUsize,
    /// Of the open ones, those that are answered with a stream.
    streams: AtomicUsize,
    begun: AtomicU64,
    untaken: Mutex<Untaken>,
}

/// Answers of one message that have begun and that the client has not taken to the end. Bounded by the
/// connection's streams.
#[derive(Debug, Default)]
struct Untaken {
    /// Counts answers, in the order in which they began.
    begun: u64,
    waiting: BTreeSet<u64>,
}

impl Calls {
    /// Counts one more, until the guard is dropped. Is it to be answered with a stream?
    pub(super) fn open(&self, streams: bool) -> OpenCall {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.streams.fetch_add(usize::from(streams), Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        OpenCall { calls: self.clone(), streams, answer: None }
    }

    /// Returns once there was no open call for this long, or up to a quarter longer.
    pub(super) async fn idle(&self, time: Duration) {
        self.without(time, || self.0.open.load(Ordering::Relaxed) > 0).await;
    }

    /// The same, but that streams do not count: they may last for good.
    pub(super) async fn quiet(&self, time: Duration) {
        let counters = &self.0;
        self.without(time, || {
            counters.open.load(Ordering::Relaxed) > counters.streams.load(Ordering::Relaxed)
        })
        .await;
    }

    /// Returns once no stream is open, or after this time.
    pub(super) async fn streams_ended(&self, time: Duration) {
        const LOOKS: u32 = 20;
        for _ in 0..LOOKS {
            // What an ended stream has said was handed to the connection before: see `Drop` below.
            if self.0.streams.load(Ordering::Acquire) == 0 {
                return;
            }
            tokio::time::sleep(time / LOOKS).await;
        }
    }

    async fn without(&self, time: Duration, open: impl Fn() -> bool) {
        const LOOKS: u32 = 4;
        let (mut quiet, mut seen) = (0, self.begun());
        while quiet < LOOKS {
            tokio::time::sleep(time / LOOKS).await;
            let begun = self.begun();
            let busy = begun != seen || open();
            (quiet, seen) = (if busy { 0 } else { quiet + 1 }, begun);
        }
    }

    /// Returns once a client has left an answer untaken for this long, or up to a quarter longer: it could
    /// keep it here for good by giving the stream no window (RFC 9113 §5.2).
    pub(super) async fn untaken(&self, time: Duration) {
        const LOOKS: u32 = 4;
        let (mut same, mut seen) = (0, None);
        while same < LOOKS {
            tokio::time::sleep(time / LOOKS).await;
            let oldest = self.untaken_answers().waiting.first().copied();
            same = if oldest.is_some() && oldest == seen { same + 1 } else { 0 };
            seen = oldest;
        }
    }

    fn untaken_answers(&self) -> MutexGuard<'_, Untaken> {
        self.0.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }
}

/// A call is open until its answer is sent or given up.
#[derive(Debug)]
pub(super) struct OpenCall {
    calls: Calls,
    streams: bool,
    /// Its number, once it has begun.
    answer: Option<u64>,
}

impl OpenCall {
    /// From now on the client can take the answer, and must if it is no stream.
    fn answered(&mut self) {
        if self.streams {
            return;
        }
        let mut untaken = self.calls.untaken_answers();
        untaken.begun += 1;
        let number = untaken.begun;
        untaken.waiting.insert(number);
        drop(untaken);
        self.answer = Some(number);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(number) = self.answer {
            self.calls.untaken_answers().waiting.remove(&number);
        }
        self.calls.0.streams.fetch_sub(usize::from(self.streams), Ordering::Release);
        self.calls.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for an answer to begin, or makes one that says that it did not.
pub(super) async fn answer_within(
    time: Duration,
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    mut call: OpenCall,
) -> Result<Response<Answer>, Infallible> {
    let response = match tokio::time::timeout(time, answer).await {
        Ok(answered) => answered?,
        Err(_) => Status::cancelled("the call has taken too long").into_http(),
    };
    call.answered();
    Ok(response.map(|body| Answer { body, _call: call }))
}

/// What is shorter: the caller's own limit or ours. One that cannot be read is none.
pub(super) fn deadline(headers: &HeaderMap, ours: Duration) -> Duration {
    let given = headers.get(TIMEOUT).and_then(|value| timeout(value.to_str().ok()?));
    given.map_or(ours, |given| given.min(ours))
}

fn timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = &text[..unit_at];
    if digits.len() > MAX_TIMEOUT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 60 * 60)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// An answer's body, which keeps its call open.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    _call: OpenCall,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_not_idle_while_a_call_is_open() {
        let (busy, quiet) = (Calls::default(), Calls::default());
        let open = busy.open(false);
        tokio::select! {
            () = busy.idle(Duration::from_millis(10)) => panic!("idle over an open call"),
            () = quiet.idle(Duration::from_millis(200)) => {}
        }
        drop(open);
        busy.idle(Duration::from_millis(10)).await;
    }

    #[tokio::test]
    async fn a_stream_leaves_a_connection_quiet_but_not_idle() {
        let (calls, all) = (Calls::default(), Duration::from_millis(10));
        let _stream = calls.open(true);
        calls.quiet(all).await;
        tokio::select! {
            () = calls.idle(all) => panic!("idle over an open stream"),
            () = calls.quiet(Duration::from_millis(200)) => {}
        }
        let (_call, other) = (calls.open(false), Calls::default());
        tokio::select! {
            () = calls.quiet(all) => panic!("quiet over an open call"),
            () = other.quiet(Duration::from_millis(200)) => {}
        }
    }

    #[test]
    fn a_callers_time_limit_is_read_by_its_unit() {
        let limits = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0S", Some(Duration::ZERO)),
        ];
        for (text, limit) in limits {
            assert_eq!(timeout(text), limit, "{text}");
        }
        for text in ["", "S", "1", "soon", "-1S", "+1S", "1 S", "999999999S", "1s", "1\u{b5}"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_callers_time_limit_can_only_shorten_ours() {
        let ours = Duration::from_secs(60);
        let with = |text: &str| HeaderMap::from_iter([(TIMEOUT.parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(deadline(&HeaderMap::new(), ours), ours);
        assert_eq!(deadline(&with("1S"), ours), Duration::from_secs(1));
        assert_eq!(deadline(&with("99999999H"), ours), ours);
    }
}
