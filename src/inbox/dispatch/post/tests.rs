//! Against listeners of this test, on loopback. The clock stands still unless a test moves it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::clock::manual::ManualClock;

/// Reads one request and writes the answer. Returns the request.
async fn answering(listener: TcpListener, answer: &'static [u8]) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"hello") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request is cut off");
    }
    let _ = stream.write_all(answer).await;
    String::from_utf8(request).unwrap()
}

async fn listener() -> (TcpListener, CallbackUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a/b?c=d", listener.local_addr().unwrap()).parse().unwrap();
    (listener, url)
}

fn parcel(to: &CallbackUrl) -> Parcel<'_> {
    let body = Zeroizing::new(b"hello".to_vec());
    let headers = HeaderMap::new();
    Parcel { to, allow_remote: false, headers, content_type: "text/plain; charset=utf-8", body }
}

fn post(clock: &ManualClock) -> Post {
    Post::new(Arc::new(clock.clone())).unwrap()
}

#[tokio::test]
async fn one_request_is_written_and_its_answer_read() {
    let (listener, url) = listener().await;
    let answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy";
    let server = tokio::spawn(answering(listener, answer));
    let reply = post(&ManualClock::new()).send(parcel(&url)).await.unwrap();
    assert_eq!((reply.status, reply.retry_after), (429, Some(Duration::from_secs(7))));
    assert_eq!(&*reply.body, b"busy");
    let request = server.await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("post /a/b?c=d http/1.1\r\n"), "{request}");
    for header in ["content-type: text/plain; charset=utf-8", "content-length: 5", "connection: close"] {
        assert!(request.contains(header), "{request}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let (listener, url) = listener().await;
    let (elsewhere, _) = self::listener().await;
    let location = format!(
        "HTTP/1.1 307 Away\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let server = tokio::spawn(answering(listener, location.leak().as_bytes()));
    assert_eq!(post(&ManualClock::new()).send(parcel(&url)).await.unwrap().status, 307);
    server.await.unwrap();
    let called = tokio::select! {
        biased;
        _ = elsewhere.accept() => true,
        () = tokio::task::yield_now() => false,
    };
    assert!(!called, "the redirect was followed");
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_its_bound() {
    let (listener, url) = listener().await;
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        while stream.write_all(b"400\r\n").await.is_ok() && stream.write_all(&[b'x'; 1024]).await.is_ok() {
            if stream.write_all(b"\r\n").await.is_err() {
                break;
            }
        }
    });
    let reply = post(&ManualClock::new()).send(parcel(&url)).await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, MAX_ANSWER));
    endless.await.unwrap();
}

#[tokio::test]
async fn headers_without_end_are_no_answer() {
    let (listener, url) = listener().await;
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {}
    });
    assert_eq!(post(&ManualClock::new()).send(parcel(&url)).await.err(), Some(PostError::Lost));
    endless.await.unwrap();
}

#[tokio::test]
async fn who_does_not_answer_is_waited_for_ten_seconds() {
    let (listener, url) = listener().await;
    let clock = ManualClock::new();
    let post = Arc::new(post(&clock));
    let sending = tokio::spawn(async move { post.send(parcel(&url)).await.err() });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    clock.advance(DEADLINE - Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert!(!sending.is_finished(), "it gave up too soon");
    clock.advance(Duration::from_millis(1));
    assert_eq!(sending.await.unwrap(), Some(PostError::TimedOut));
}

#[tokio::test]
async fn another_machine_is_not_connected_to_unless_that_is_allowed() {
    let post = post(&ManualClock::new());
    for to in ["https://192.0.2.1/", "https://[2001:db8::1]/", "https://0.0.0.0/"] {
        let to: CallbackUrl = to.parse().unwrap();
        assert_eq!(post.send(parcel(&to)).await.err(), Some(PostError::Elsewhere), "{to}");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_who_hangs_up_gives_no_answer() {
    let (listener, url) = listener().await;
    let hangs_up = tokio::spawn(answering(listener, b""));
    let post = post(&ManualClock::new());
    assert_eq!(post.send(parcel(&url)).await.err(), Some(PostError::Lost));
    hangs_up.await.unwrap();
    assert_eq!(post.send(parcel(&url)).await.err(), Some(PostError::Unreachable));
}

#[tokio::test]
async fn a_callback_in_the_clear_is_none_where_tls_is_due() {
    let (listener, url) = listener().await;
    let to: CallbackUrl = url.to_string().replacen("http:", "https:", 1).parse().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 1024];
        let read = stream.read(&mut hello).await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        hello[..read].to_vec()
    });
    assert_eq!(post(&ManualClock::new()).send(parcel(&to)).await.err(), Some(PostError::Unreachable));
    let sent = server.await.unwrap();
    assert!(!sent.windows(5).any(|part| part == b"hello"), "the message went out in the clear");
}
