//! One HTTP/2 connection: its bounds, and its life from the first byte to the last.
//!
//! A connection is *retired* when it should not be kept: it says GOAWAY, the calls under way finish, and
//! then it is dropped with all its buffers, which the allocator wipes. Clients of gRPC connect again by
//! themselves. Serves any byte stream, so that what is not a socket of ours can be served by the same
//! rules. May import `grpc` and layers 0 to 2.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::calls::{Calls, answer_within, deadline};
use super::retirement::{AFTER_LOCK, LINGER, Retirement, Triggers};
use crate::grpc::{MAX_HEADER_BYTES, Retire, Within};
use crate::peer::PeerInfo;

/// Streams of one connection at once.
const STREAMS: u32 = 128;
/// Received bytes that may wait unread, of one stream and of one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Provoked resets that are borne before the connection is closed (CVE-2023-44487, CVE-2025-8671).
const PENDING_RESETS: usize = 64;
const LOCAL_RESETS: usize = 256;
/// A peer that answers no ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);
/// Headers of former requests, tokens among them, that a client may refer to (RFC 7541 §4.2): none, so
/// that none is kept.
const HEADER_TABLE: u32 = 0;

/// How long things may last on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until a call begins to answer. A client may ask for less with `grpc-timeout`.
    pub(super) call: Duration,
    /// Without an open call, until the connection is retired. Up to a quarter later.
    pub(super) idle: Duration,
    /// Until the client has taken an answer that began, unless it is a stream. Up to a quarter later.
    pub(super) taken: Duration,
    /// From a lock until what is left is cut off, but for streams.
    pub(super) locked: Duration,
    /// Until what is left of a retired connection is cut off.
    pub(super) linger: Duration,
}

impl Default for Times {
    /// Upstream's own deadline is 30 s.
    fn default() -> Self {
        Self {
            call: Duration::from_secs(60),
            idle: Duration::from_secs(15),
            taken: Duration::from_secs(10),
            locked: AFTER_LOCK,
            linger: LINGER,
        }
    }
}

/// Serves one connection to its end. Each request carries the peer and a [`Retire`] in its extensions.
pub(super) async fn serve<I, S>(io: I, peer: PeerInfo, service: S, times: Times, triggers: Triggers)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (calls, retire) = (Calls::default(), Retire::default());
    let (counted, handle) = (calls.clone(), retire.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let call = counted.open(Retire::streams_answer(request.uri().path()));
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(handle.clone());
        let within = deadline(request.headers(), times.call);
        request.extensions_mut().insert(Within(within));
        answer_within(within, service.clone().oneshot(request), call)
    });
    let mut connection = pin!(bounded().serve_connection(TokioIo::new(io), service));
    let mut untaken = pin!(calls.untaken(times.taken));
    let mut taken_away = pin!(Retirement::taken_away(retire.clone()));
    let mut retirement = triggers.watch(retire, calls.clone(), times);
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = retirement.due() => connection.as_mut().graceful_shutdown(),
        () = untaken.as_mut() => return tracing::debug!("a client did not take an answer: cut off"),
        () = taken_away.as_mut() => return tracing::debug!("a session was taken away: cut off"),
    }
    tokio::select! {
        ended = connection.as_mut() => note(ended),
        () = untaken => tracing::debug!("a client did not take an answer: cut off"),
        () = taken_away => tracing::debug!("a session was taken away: cut off"),
        () = retirement.overdue() => {
            // What a stream said last may not have been written yet: as much as the client takes now.
            let _ = connection.now_or_never();
            tracing::debug!("a retired connection was cut off");
        }
    }
}

fn bounded() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .header_table_size(HEADER_TABLE)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT);
    builder
}

/// Clients that break off or break the rules are nothing to the operator.
fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use hyper::body::Frame;
    use hyper::client::conn::http2::{SendRequest, handshake};
    use tokio::io::DuplexStream;
    use tokio::sync::{Notify, watch};
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;
    use tonic::Status;

    use super::*;
    use crate::peer::{Credentials, Peer};

    const SHORT: Times = Times {
        call: Duration::from_secs(60),
        idle: Duration::from_millis(40),
        taken: Duration::from_secs(10),
        locked: Duration::from_millis(40),
        linger: HANG,
    };
    /// Only so that a hang becomes a failure.
    const HANG: Duration = Duration::from_secs(20);

    type Sender = SendRequest<Empty<bytes::Bytes>>;

    fn peer() -> PeerInfo {
        let (socket, _) = UnixStream::pair().unwrap();
        PeerInfo(Arc::new(Peer::attest(&socket, Credentials { uid: 0, gid: 0, pid: 0 })))
    }

    /// A service whose answers wait for `release`, a stream's at its end, and a client of it. The task ends when the
    /// server has closed the connection.
    async fn connected(release: Arc<Notify>) -> (Sender, JoinHandle<()>) {
        connected_until(release, Triggers::on_stop(CancellationToken::new()), SHORT).await
    }

    async fn connected_until(
        release: Arc<Notify>,
        triggers: Triggers,
        times: Times,
    ) -> (Sender, JoinHandle<()>) {
        let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
        let service = tower::service_fn(move |request: Request<Body>| {
            let release = release.clone();
            assert!(request.extensions().get::<PeerInfo>().is_some());
            let streams = Retire::streams_answer(request.uri().path());
            let released = async move { release.notified().await };
            async move {
                if streams {
                    let end = async { Ok::<_, Status>(Frame::trailers(HeaderMap::new())) };
                    let end = Box::pin(released.then(|()| end));
                    return Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(stream::once(end)))));
                }
                released.await;
                Ok(Response::new(Body::empty()))
            }
        });
        tokio::spawn(serve(far, peer(), service, times, triggers));
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        let closed = tokio::spawn(async move { drop(connection.await) });
        (sender, closed)
    }

    async fn bounded<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(HANG, what).await.expect("it did not happen in time")
    }

    fn request() -> Request<Empty<bytes::Bytes>> {
        Request::post("http://localhost/a/b").body(Empty::new()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_without_a_call_is_retired() {
        let (_sender, closed) = connected(Arc::default()).await;
        bounded(closed).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_with_an_open_call_is_kept_until_it_is_answered() {
        let release = Arc::new(Notify::new());
        let (mut sender, closed) = connected(release.clone()).await;
        let answer = tokio::spawn(sender.send_request(request()));
        // Others come after it, are idle, and go.
        for _ in 0..3 {
            let (_idle, gone) = connected(Arc::default()).await;
            bounded(gone).await.unwrap();
        }
        assert!(!closed.is_finished(), "retired over an open call");
        release.notify_one();
        assert!(bounded(answer).await.unwrap().unwrap().status().is_success());
        bounded(closed).await.unwrap();
    }

    fn watching() -> Request<Empty<bytes::Bytes>> {
        let watch = "http://localhost/ravi.broker.v1.LeaseService/WatchLeases";
        Request::post(watch).body(Empty::new()).unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_ends_late_after_a_lock_is_told_why_before_its_connection_is_cut_off() {
        let (lock, locked) = watch::channel(());
        let triggers = || Triggers::on_stop(CancellationToken::new()).or_lock(locked.clone());
        let release = Arc::new(Notify::new());
        let (mut sender, closed) = connected_until(release.clone(), triggers(), SHORT).await;
        let stream = bounded(sender.send_request(watching())).await.unwrap();
        // One on which something else is open as well is not waited for, which shows that it is time.
        let (mut other, cut_off) = connected_until(Arc::default(), triggers(), SHORT).await;
        let call = tokio::spawn(other.send_request(request()));
        // What is answered came after the call, which has arrived then.
        drop(bounded(other.send_request(watching())).await.unwrap());
        lock.send_replace(());
        bounded(cut_off).await.unwrap();
        assert!(bounded(call).await.unwrap().is_err());
        release.notify_one();
        let end = bounded(stream.into_body().collect()).await.expect("the stream is told");
        assert!(end.trailers().is_some());
        bounded(closed).await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_does_not_end_after_a_lock_is_cut_off_all_the_same() {
        let (lock, locked) = watch::channel(());
        let triggers = Triggers::on_stop(CancellationToken::new()).or_lock(locked);
        let times = Times { linger: Duration::from_millis(40), ..SHORT };
        let (mut sender, closed) = connected_until(Arc::default(), triggers, times).await;
        let stream = bounded(sender.send_request(watching())).await.unwrap();
        lock.send_replace(());
        bounded(closed).await.unwrap();
        assert!(stream.into_body().collect().await.is_err());
    }

    #[tokio::test]
    async fn a_call_is_answered_at_its_deadline_if_not_before() {
        let (mut sender, _closed) = connected(Arc::default()).await;
        let mut request = request();
        request.headers_mut().insert("grpc-timeout", "1m".parse().unwrap());
        let answer = bounded(sender.send_request(request)).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], (tonic::Code::Cancelled as i32).to_string());
    }
}
