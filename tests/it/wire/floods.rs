//! Floods inside one connection: streams, resets, headers, pings.

use tokio::io::AsyncWriteExt;

use super::Victim;
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, PING,
    REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, literal, request, reset,
};
use super::raw::{DESCRIBE, framed};
use crate::support::bounded;

/// Identifiers of the client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_128_streams_and_no_more() {
    let victim = Victim::start().await;
    let mut connection = Frames::open(&victim.stack.setup.agent_socket).await;
    connection.until(SETTINGS).await.expect("the daemon's settings");
    assert!(connection.send(&frame(SETTINGS, ACK, 0, &[])).await);
    let opened: Vec<u8> = streams(200).flat_map(|stream| request(stream, 0, DESCRIBE, &[])).collect();
    assert!(connection.send(&opened).await);
    for stream in streams(200).skip(128) {
        let refused = connection.until(RST_STREAM).await.expect("a reset");
        assert_eq!((refused.stream, refused.error()), (stream, REFUSED_STREAM));
    }
    // Those within the limit hang; a neighbour does not.
    victim.is_unharmed().await;
    let message = frame(DATA, END_STREAM, 1, &framed(b""));
    assert!(connection.send(&message).await);
    assert_eq!(connection.until(HEADERS).await.expect("an answer").stream, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_that_are_reset_at_once_end_the_connection() {
    let victim = Victim::start().await;
    let connection = Frames::open(&victim.stack.setup.agent_socket).await;
    let flood =
        streams(10_000).flat_map(|stream| [request(stream, END_STREAM, DESCRIBE, &[]), reset(stream)]);
    let goodbye = connection.flood(flood.flatten().collect()).await;
    assert_eq!(goodbye, Some(ENHANCE_YOUR_CALM));
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_that_the_daemon_is_made_to_send_end_the_connection() {
    let victim = Victim::start().await;
    let connection = Frames::open(&victim.stack.setup.agent_socket).await;
    // A window that grows beyond 2^31-1 is an error of its stream (RFC 9113, section 6.9.1).
    let mistake = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
    let flood = streams(10_000).flat_map(|stream| [request(stream, 0, DESCRIBE, &[]), mistake(stream)]);
    let goodbye = connection.flood(flood.flatten().collect()).await;
    assert_eq!(goodbye, Some(ENHANCE_YOUR_CALM));
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_go_on_without_end_end_the_connection() {
    let victim = Victim::start().await;
    let connection = Frames::open(&victim.stack.setup.agent_socket).await;
    let mut flood = frame(HEADERS, 0, 1, &block(DESCRIBE, &[]));
    let more = frame(CONTINUATION, 0, 1, &literal("x-filler", &"x".repeat(15 * 1024)));
    for _ in 0..2_000 {
        flood.extend_from_slice(&more);
    }
    flood.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    assert!(connection.flood(flood).await.is_some(), "a good-bye with its reason");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_settings_whose_answers_are_not_read_are_held_back() {
    let victim = Victim::start().await;
    for question in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])] {
        let mut connection = Frames::open(&victim.stack.setup.agent_socket).await;
        let flood: Vec<u8> = question.iter().copied().cycle().take(question.len() * 2_000_000).collect();
        // The daemon stops to read when its answers go nowhere, so most of this is never taken: either
        // the write waits, or the connection is closed.
        let sending = connection.0.write_all(&flood);
        tokio::select! {
            sent = sending => assert!(sent.is_err(), "all of it was taken and nothing answered"),
            () = bounded(victim.is_unharmed()) => {}
        }
    }
    victim.is_unharmed().await;
}
