//! What stands around every call of a socket: what is no gRPC request is refused before a service sees
//! it, the errors that tonic makes by itself get the broker's details, and every call of an agent has an id under
//! which the operator can ask why it was refused. May import `status`, `retire` and `types`.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{Either, Join, Map, Ready, join, ready};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Retire, status};
use crate::types::DenialId;

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// The layer, by the socket that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The agent socket.
    Agent,
    /// The admin socket: the operator is told at once why a call is refused, so it needs no id.
    Admin,
}

/// A service with the edge around it.
#[derive(Clone, Debug)]
pub struct Edged<S>(S, Edge);

impl<S> Layer<S> for Edge {
    type Service = Edged<S>;

    fn layer(&self, service: S) -> Edged<S> {
        Edged(service, *self)
    }
}

impl<S> Service<Request<Body>> for Edged<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, Map<Join<S::Future, Ready<Option<DenialId>>>, Finish>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        Retire::after_request(request.uri().path(), request.extensions());
        let id = (self.1 == Edge::Agent).then(next_id);
        if let Some(refusal) = refusal(&request) {
            return Either::Left(ready(finish((Ok(refusal), id))));
        }
        if let Some(id) = id {
            request.extensions_mut().insert(id);
        }
        Either::Right(join(self.0.call(request), ready(id)).map(finish as Finish))
    }
}

type Answer = Result<Response<Body>, Infallible>;
type Finish = fn((Answer, Option<DenialId>)) -> Answer;

fn finish((answer, id): (Answer, Option<DenialId>)) -> Answer {
    answer.map(|answer| status::explain(answer, id))
}

/// Unlike any other of this process, and without a meaning: neither how many calls there were nor which
/// come next can be read off it.
fn next_id() -> DenialId {
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let [high, low] = KEYS.each_ref().map(|key| u128::from(key.hash_one(call)));
    DenialId((high << 64 | low).to_be_bytes())
}

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
