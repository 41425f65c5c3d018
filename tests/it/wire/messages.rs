//! Bodies that are not the message that the method takes.

use ravi_broker::pb;
use tonic::Code;

use super::Victim;
use super::raw::{ACQUIRE, CHECK, DESCRIBE, OPEN, Wire, endless, framed, full, post, prefixed};
use crate::support::bounded;

const LIMIT: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protobuf_are_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let no_such_wire_type = vec![0x07];
    let endless_varint = vec![0xff; 11];
    let text_that_is_not_utf8 = vec![0x0a, 2, 0xff, 0xfe];
    let length_beyond_the_end = vec![0x0a, 0x7f, b'x'];
    // A start-group tag again and again: a parser that recurses as deep as it is told overflows its stack.
    let nested_groups = vec![0x0b; LIMIT - 1];
    for bytes in
        [no_such_wire_type, endless_varint, text_that_is_not_utf8, length_beyond_the_end, nested_groups]
    {
        for path in [OPEN, ACQUIRE] {
            let answer = wire.post(path, framed(&bytes)).await;
            answer.assert_refused(Code::Internal, "ARGUMENT_INVALID");
            let said = answer.status.unwrap();
            assert_eq!(said.message(), "the request cannot be read", "nothing of the caller's is repeated");
        }
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_whole_message_is_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for body in [vec![], vec![0], vec![0, 0, 0, 0], prefixed(0, 5, b"abc"), prefixed(7, 0, b"")] {
        wire.post(OPEN, body).await.assert_refused(Code::Internal, "ARGUMENT_INVALID");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_64_kib_is_read_and_a_larger_one_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    // Field 15, a text: unknown to the message and so left out.
    let sized = |length: usize| {
        let rest = u8::try_from((length - 4) >> 14).unwrap();
        let (low, high) = ((length - 4) & 0x7f, ((length - 4) >> 7) & 0x7f);
        let mut message = vec![0x7a, low as u8 | 0x80, high as u8 | 0x80, rest];
        message.resize(length, b'x');
        message
    };
    let largest = wire.post(OPEN, framed(&sized(LIMIT))).await;
    largest.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    wire.post(OPEN, framed(&sized(LIMIT + 1))).await.assert_refused(Code::OutOfRange, "ARGUMENT_INVALID");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_4_gib_without_a_body_is_refused_before_memory_is_set_aside() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    // As many as one connection may have, on every kind of service; 4 MiB is tonic's own limit.
    for (path, claimed) in [(ACQUIRE, u32::MAX), (CHECK, u32::MAX), (CHECK, 4 << 20), (DESCRIBE, 4 << 20)] {
        let calls = (0..128).map(|_| wire.send(post(path, endless(prefixed(0, claimed, b"x")))));
        for answer in bounded(futures_util::future::join_all(calls)).await {
            answer.assert_refused(Code::OutOfRange, "ARGUMENT_INVALID");
        }
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_message_is_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let unsaid = wire.post(OPEN, prefixed(1, 3, b"abc")).await;
    unsaid.assert_refused(Code::Internal, "ARGUMENT_INVALID");
    for encoding in ["gzip", "deflate", "zstd", "identity,gzip", "no such encoding"] {
        let mut request = post(OPEN, full(prefixed(1, 3, b"abc")));
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let answer = wire.send(request).await;
        answer.assert_refused(Code::Unimplemented, "METHOD_UNKNOWN");
        assert!(!answer.status.unwrap().message().contains(encoding), "{encoding}");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_thirty_thousand_scopes_is_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let mut open = pb::OpenSessionRequest { role: "notes".to_owned(), ..Default::default() };
    open.scopes = vec![String::new(); 30_000];
    wire.call(OPEN, "", &open).await.assert_refused(Code::InvalidArgument, "ARGUMENT_INVALID");
    victim.is_unharmed().await;
}
