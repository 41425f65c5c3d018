//! Connections that do not speak HTTP/2, say nothing, or are too many.

use std::path::Path;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Victim;
use super::frames::{Frames, HEADERS, PREFACE, SETTINGS, block, frame};
use crate::support::bounded;

/// Sends the bytes and returns what the daemon said until it closed the connection.
async fn said_until_closed(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The daemon may close before it has read everything.
    let _ = bounded(stream.write_all(bytes)).await;
    let mut said = Vec::new();
    let _ = bounded(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_2_is_hung_up_on() {
    let victim = Victim::start().await;
    let noise: Vec<u8> = (0..65_536_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let http_1 = b"POST /ravi.broker.v1.SessionService/OpenSession HTTP/1.1\r\nHost: localhost\r\n\
                   Content-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let upgrade = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 501]].concat();
    let huge_frame = [PREFACE, &[0xff; 4096]].concat();
    for socket in [&victim.stack.setup.agent_socket, &victim.stack.setup.admin_socket] {
        for bytes in [&noise[..], http_1, upgrade, &client_hello, &huge_frame, &[0; 64]] {
            let said = said_until_closed(socket, bytes).await;
            assert!(!said.starts_with(b"HTTP/1."), "HTTP/1.1 was spoken");
        }
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_anywhere_harms_nobody() {
    let victim = Victim::start().await;
    let headers = frame(HEADERS, 5, 1, &block("/ravi.broker.v1.SessionService/OpenSession", &[]));
    let whole = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers].concat();
    for cut in 0..whole.len() {
        let mut stream = UnixStream::connect(&victim.stack.setup.agent_socket).await.unwrap();
        stream.write_all(&whole[..cut]).await.unwrap();
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_block_nobody() {
    let victim = Victim::start().await;
    let socket = &victim.stack.setup.agent_socket;
    let silent = join_all((0..100).map(|_| UnixStream::connect(socket))).await;
    let halves = join_all((0..100).map(|_| async {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(&PREFACE[..12]).await.unwrap();
        stream
    }))
    .await;
    victim.is_unharmed().await;
    assert!(silent.iter().all(Result::is_ok));
    drop(halves);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_user_are_capped_and_the_operator_still_gets_in() {
    const CAP: usize = 32;
    let victim = Victim::with(&format!("[limits]\nconnections_per_uid = {CAP}\n")).await;
    let socket = &victim.stack.setup.agent_socket;
    let admin = victim.stack.admin().await;
    // The connections of the honest clients before have to be gone.
    bounded(async { while admin.status().await.unwrap().connections > 0 {} }).await;

    let mut greeted = Vec::new();
    for _ in 0..300 {
        let mut connection = Frames::open(socket).await;
        if connection.receive().await.is_some() {
            greeted.push(connection);
        }
    }
    assert_eq!(greeted.len(), CAP);
    assert_eq!(admin.status().await.unwrap().connections as usize, CAP);
    let another_operator = victim.stack.admin().await;
    another_operator.status().await.unwrap();

    drop(greeted);
    bounded(async { while admin.status().await.unwrap().connections > 0 {} }).await;
    victim.is_unharmed().await;
}
