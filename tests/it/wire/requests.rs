//! Requests that are no gRPC calls, or calls of what is not there.

use http::{HeaderValue, Method, StatusCode};
use tonic::Code;

use super::Victim;
use super::frames::{END_STREAM, Frames, HEADERS, request};
use super::raw::{DESCRIBE, OPEN, Wire, framed, full, post};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_or_method_is_told_apart_from_a_refusal() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for path in [
        "/",
        "/ravi.broker.v1.SessionService",
        "/ravi.broker.v1.SessionService/",
        "/ravi.broker.v1.SessionService/NoSuchMethod",
        "/ravi.broker.v1.SessionService/OpenSession/",
        "/ravi.broker.v1.SessionService/opensession",
        "/ravi.broker.v1.SessionService/../SessionService/OpenSession",
        "/ravi.broker.v1.SessionService/Open%53ession",
        "//ravi.broker.v1.SessionService/OpenSession",
        "/ravi.broker.v1.SessionService/OpenSession?x=1",
        "/ravi.broker.v1.NoSuchService/OpenSession",
        "/ravi.broker.v2.SessionService/OpenSession",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let answer = wire.post(path, framed(b"")).await;
        assert_eq!(answer.refusal(), (Code::Unimplemented, "METHOD_UNKNOWN".to_owned()), "{path}");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_grpc_reaches_no_service() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        let mut request = post(DESCRIBE, full(framed(b"")));
        *request.method_mut() = method.clone();
        let answer = wire.send(request).await;
        assert_eq!(answer.http, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    for content_type in [
        None,
        Some("application/json"),
        Some("application/grpc-web"),
        Some("application/grpcx"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
    ] {
        let mut request = post(DESCRIBE, full(framed(b"")));
        request.headers_mut().remove("content-type");
        if let Some(content_type) = content_type {
            request.headers_mut().insert("content-type", content_type.parse().unwrap());
        }
        let answer = wire.send(request).await;
        assert_eq!(answer.http, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type:?}");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_content_type_is_served() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
        let mut request = post(OPEN, full(framed(b"")));
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        wire.send(request).await.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_8_kib_are_refused() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let with_headers = |count: usize| {
        let mut request = post(OPEN, full(framed(b"")));
        for number in 0..count {
            let name: http::HeaderName = format!("x-filler-{number}").parse().unwrap();
            request.headers_mut().insert(name, "x".repeat(1024).parse().unwrap());
        }
        request
    };
    let few = wire.send(with_headers(6)).await;
    few.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    let many = wire.send(with_headers(9)).await;
    assert_eq!(many.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let again = wire.post(OPEN, framed(b"")).await;
    again.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_message_never_comes_ends_at_its_own_time_limit() {
    let victim = Victim::start().await;
    for limit in ["1n", "1m", "0S"] {
        let mut connection = Frames::open(&victim.stack.setup.agent_socket).await;
        let call = request(1, 0, OPEN, &[("grpc-timeout", limit)]);
        assert!(connection.send(&call).await);
        let answer = connection.until(HEADERS).await.expect("an answer");
        assert_eq!(answer.flags & END_STREAM, END_STREAM, "{limit}");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_that_is_none_is_ignored() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for limit in ["", "soon", "-1S", "1", "999999999S", "\u{b9}S"] {
        let mut request = post(OPEN, full(framed(b"")));
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_bytes(limit.as_bytes()).unwrap());
        wire.send(request).await.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    }
    victim.is_unharmed().await;
}
