//! One gRPC call with any bytes in any place, and its answer as it came.

use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

use crate::support::bounded;

pub(super) const OPEN: &str = "/ravi.broker.v1.SessionService/OpenSession";
pub(super) const DESCRIBE: &str = "/ravi.broker.v1.SessionService/DescribeSession";
pub(super) const ACQUIRE: &str = "/ravi.broker.v1.LeaseService/AcquireLease";
pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A connection that takes whatever it is given.
#[derive(Clone)]
pub(super) struct Wire(Channel);

/// What came back.
pub(super) struct Answer {
    pub(super) http: StatusCode,
    /// Absent where the answer is not gRPC's.
    pub(super) status: Option<Status>,
    /// Wherever in the answer it stood.
    pub(super) denial: Option<String>,
}

impl Wire {
    pub(super) async fn connect(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        Self(endpoint.connect_with_connector(connector).await.expect("the daemon accepts"))
    }

    pub(super) fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// A well-formed call of `path` with these bytes as its body.
    pub(super) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(post(path, full(body))).await
    }

    /// The same with a token.
    pub(super) async fn call(&self, path: &str, token: &str, message: &impl Message) -> Answer {
        let mut request = post(path, full(framed(&message.encode_to_vec())));
        let header = format!("Bearer {token}").parse().expect("a header value");
        request.headers_mut().insert("authorization", header);
        self.send(request).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = bounded(self.0.clone().oneshot(request)).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = bounded(body.collect()).await.expect("an answer that ends");
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = status(&head.headers).or_else(|| status(&trailers));
        let denial = head.headers.get("denial-id").or_else(|| trailers.get("denial-id"));
        let denial = denial.map(|id| id.to_str().expect("text").to_owned());
        Answer { http: head.status, status, denial }
    }
}

impl Answer {
    /// The code and the reason. Every error of the broker has both.
    #[track_caller]
    pub(super) fn refusal(&self) -> (Code, String) {
        let status = self.status.as_ref().expect("an answer of gRPC");
        let info = status.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"));
        assert_eq!(info.domain, "broker.ravi.id");
        (status.code(), info.reason)
    }

    #[track_caller]
    pub(super) fn assert_refused(&self, code: Code, reason: &str) {
        assert_eq!(self.refusal(), (code, reason.to_owned()), "{:?}", self.status);
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// A request as every gRPC client makes it.
pub(super) fn post(path: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri(format!("http://localhost{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).expect("a request")
}

pub(super) fn full(body: impl Into<Bytes>) -> Body {
    Body::new(Full::new(body.into()))
}

/// A body that begins with these bytes and never ends.
pub(super) fn endless(begin: impl Into<Bytes>) -> Body {
    let first = Ok::<_, std::convert::Infallible>(Frame::data(begin.into()));
    Body::new(StreamBody::new(stream::once(async { first }).chain(stream::pending())))
}

/// A message behind its prefix: not compressed, so long.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    prefixed(0, u32::try_from(message.len()).expect("a short message"), message)
}

/// Bytes behind a prefix that says anything.
pub(super) fn prefixed(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[compressed][..], &length.to_be_bytes(), bytes].concat()
}
