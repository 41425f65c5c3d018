//! What stands around every call of a socket: what is no gRPC request is refused before a service sees
//! it, and the errors that tonic makes by itself get the broker's details. May import
//! `status` and `retire` alone.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::{Either, MapOk, Ready, ready};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Retire, status};

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// The layer.
#[derive(Clone, Copy, Debug)]
pub struct Edge;

/// A service with the edge around it.
#[derive(Clone, Debug)]
pub struct Edged<S>(S);

impl<S> Layer<S> for Edge {
    type Service = Edged<S>;

    fn layer(&self, service: S) -> Edged<S> {
        Edged(service)
    }
}

impl<S> Service<Request<Body>> for Edged<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, MapOk<S::Future, Explain>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Retire::after_request(request.uri().path(), request.extensions());
        match refusal(&request) {
            Some(refusal) => Either::Left(ready(Ok(refusal))),
            None => Either::Right(self.0.call(request).map_ok(status::explain as Explain)),
        }
    }
}

type Explain = fn(Response<Body>) -> Response<Body>;

/// The protocol has one form of a request: POST, its content type, a path and no query.
fn refusal(request: &Request<Body>) -> Option<Response<Body>> {
    if request.method() != Method::POST {
        return Some(refused(StatusCode::METHOD_NOT_ALLOWED));
    }
    if !is_grpc(request.headers()) {
        return Some(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    request.uri().query().map(|_| status::unread(Code::Unimplemented).into_http())
}

/// `application/grpc`, alone or with the message format (`+proto`) or a parameter after it.
fn is_grpc(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let rest = given.strip_prefix(CONTENT_TYPE);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn refused(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
