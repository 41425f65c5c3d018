//! What can be made to go wrong, and how an answer is spoilt. A fault stands between the connection and
//! the endpoints, so that every path can have it. Imports `auth`, `reply`, `state`, `traffic`.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::auth::Swapped;
use super::reply::{Refusal, html, typed};
use super::state::{Api, World};

const MAX_DELAY_MS: u64 = 3_600_000;
const MAX_OVERSIZED: usize = 64 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// A fault for the requests that it applies to. The first armed one that applies is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Beginning of the path, for example `/api/secrets/`.
    pub path_prefix: String,
    /// `None`: every method.
    #[serde(default)]
    pub method: Option<String>,
    /// How many requests; `None`: all.
    #[serde(default)]
    pub times: Option<u32>,
    /// Waits this long, in milliseconds, besides.
    #[serde(default)]
    pub delay_ms: u64,
    /// The request is carried out first, so that only its answer is lost or late.
    #[serde(default)]
    pub takes_effect: bool,
    /// What the client gets.
    pub answer: Answer,
}

/// What the client gets instead of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The answer after all: for a delay alone.
    Real,
    /// The answer after all, once [`Control::release`](super::Control::release) is called.
    Held,
    /// 429.
    Throttled {
        /// `retry_after_seconds` in the body.
        #[serde(default)]
        retry_after_seconds: Option<u64>,
        /// The header `Retry-After`, as it stands.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// That status with `{"detail": …}`.
    Status(u16),
    /// That status with a page of HTML.
    Html(u16),
    /// That status with no body.
    Empty(u16),
    /// The first half of the answer, under the length of the whole; then the connection closes.
    Truncated,
    /// 200 and a JSON body of at least that many bytes, its length not declared.
    Oversized(usize),
    /// Rows, or the row written, as if they were another identity's.
    WrongIdentity,
    /// 302 to that address.
    Redirect(String),
    /// Nothing, until the client goes away.
    Hang,
    /// The connection is reset (RST).
    Reset,
    /// Passwords and values begin with `e2e::`, as under Ravi's retired encryption.
    LegacyEncrypted,
}

impl Fault {
    /// For every request whose path begins so.
    pub fn new(path_prefix: &str, answer: Answer) -> Self {
        let path_prefix = path_prefix.to_owned();
        Self { path_prefix, method: None, times: None, delay_ms: 0, takes_effect: false, answer }
    }

    /// For the next `times` requests; at least 1.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// For that method alone, in upper case.
    pub fn on(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// After that time.
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// With the request carried out first.
    pub fn taking_effect(mut self) -> Self {
        self.takes_effect = true;
        self
    }

    pub(super) fn applies(&self, method: &str, path: &str) -> bool {
        path.starts_with(&self.path_prefix) && self.method.as_deref().is_none_or(|wanted| wanted == method)
    }

    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let status_is_good = match &self.answer {
            Answer::Status(status) | Answer::Html(status) | Answer::Empty(status) => {
                (200..=599).contains(status)
            }
            _ => true,
        };
        let header_is_good = match &self.answer {
            Answer::Throttled { retry_after: Some(text), .. } | Answer::Redirect(text) => {
                HeaderValue::from_str(text).is_ok()
            }
            _ => true,
        };
        let rules = [
            (self.path_prefix.starts_with('/'), "path_prefix begins with a slash"),
            (self.path_prefix.len() <= 1024, "path_prefix has at most 1024 bytes"),
            (self.times != Some(0), "times is at least 1"),
            (self.delay_ms <= MAX_DELAY_MS, "delay_ms is at most an hour"),
            (status_is_good, "a status is 200 to 599"),
            (header_is_good, "a header has printable characters only"),
            (
                !matches!(self.answer, Answer::Oversized(bytes) if bytes > MAX_OVERSIZED),
                "oversized is at most 64 MiB",
            ),
        ];
        rules.into_iter().find(|(good, _)| !good).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}

/// The connection is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reset on demand")]
pub(super) struct Reset;

/// Counts a request and answers it, with the fault that is due.
pub(super) async fn serve(api: &Api, router: Router, mut request: Request) -> Result<Response, Reset> {
    let (fault, mut released) = api.traffic.arrive(request.method().as_str(), request.uri().path());
    let Some(fault) = fault else { return Ok(answered(router, request).await) };
    let is_read = request.method() == Method::GET;
    if is_read && fault.answer == Answer::WrongIdentity {
        request.extensions_mut().insert(Swapped);
    }
    let mut pending = Some(request);
    let mut real = None;
    if fault.takes_effect {
        real = run(&router, &mut pending).await;
    }
    if fault.delay_ms > 0 {
        api.clock.sleep_until(api.clock.now() + Duration::from_millis(fault.delay_ms)).await;
    }
    if fault.answer == Answer::Held {
        let _ = released.changed().await;
    }
    if fault.answer.needs_the_real_one() && real.is_none() {
        real = run(&router, &mut pending).await;
    }
    spoil(api, fault.answer, real.unwrap_or_else(no_answer), is_read).await
}

async fn run(router: &Router, request: &mut Option<Request>) -> Option<Response> {
    Some(answered(router.clone(), request.take()?).await)
}

async fn answered(router: Router, request: Request) -> Response {
    router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {})
}

fn no_answer() -> Response {
    Refusal::broken().into_response()
}

impl Answer {
    fn needs_the_real_one(&self) -> bool {
        matches!(
            self,
            Self::Real | Self::Held | Self::Truncated | Self::WrongIdentity | Self::LegacyEncrypted
        )
    }
}

async fn spoil(api: &Api, answer: Answer, real: Response, is_read: bool) -> Result<Response, Reset> {
    Ok(match answer {
        Answer::Real | Answer::Held => real,
        Answer::Throttled { retry_after_seconds, retry_after } => throttled(retry_after_seconds, retry_after),
        Answer::Status(code) => Refusal::detail(status(code), "A fault was asked for.").into_response(),
        Answer::Html(code) => html(status(code), "<!doctype html>\n<title>Error</title><h1>Error</h1>\n"),
        Answer::Empty(code) => status(code).into_response(),
        Answer::Truncated => truncated(real).await,
        Answer::Oversized(bytes) => oversized(bytes),
        Answer::WrongIdentity if is_read => real,
        Answer::WrongIdentity => rewritten(real, &|field| give_to_another(&api.world(), field)).await,
        Answer::Redirect(location) => redirect(&location),
        Answer::LegacyEncrypted => rewritten(real, &encrypt).await,
        Answer::Hang => std::future::pending().await,
        Answer::Reset => return Err(Reset),
    })
}

/// Checked when the fault was armed.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn throttled(seconds: Option<u64>, header_text: Option<String>) -> Response {
    let mut body = json!({ "detail": "Request was throttled." });
    if let Some(seconds) = seconds {
        body["retry_after_seconds"] = seconds.into();
    }
    let mut response = typed(StatusCode::TOO_MANY_REQUESTS, "application/json", body.to_string());
    if let Some(value) = header_text.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn redirect(location: &str) -> Response {
    let mut response = StatusCode::FOUND.into_response();
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

async fn truncated(real: Response) -> Response {
    let (mut parts, body) = real.into_parts();
    let bytes = whole(body).await;
    let half = bytes.slice(..bytes.len() / 2);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    // The pause lets the half be sent before the failure ends the connection.
    let failure = stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    });
    Response::from_parts(parts, Body::from_stream(stream::iter([Ok(half)]).chain(failure)))
}

/// Bodies of the endpoints are in memory already: they cannot fail.
async fn whole(body: Body) -> Bytes {
    body.collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}

fn oversized(bytes: usize) -> Response {
    let filler = Bytes::from(vec![b'a'; CHUNK]);
    let chunks = stream::repeat(filler).take(bytes.div_ceil(CHUNK));
    let begin = stream::iter([Bytes::from_static(b"{\"detail\":\"")]);
    let end = stream::iter([Bytes::from_static(b"\"}")]);
    let body = begin.chain(chunks).chain(end).map(Ok::<_, Infallible>);
    typed(StatusCode::OK, "application/json", Body::from_stream(body))
}

/// A field of an answer, by name.
type FieldOf<'a> = (&'a str, &'a mut Value);

async fn rewritten(real: Response, change: &(dyn Fn(FieldOf<'_>) + Sync)) -> Response {
    let (parts, body) = real.into_parts();
    let bytes = whole(body).await;
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) => {
            walk(&mut value, change);
            typed(parts.status, "application/json", value.to_string())
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}

fn walk(value: &mut Value, change: &dyn Fn(FieldOf<'_>)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                change((name, field));
                walk(field, change);
            }
        }
        _ => {}
    }
}

/// The answer to a write names another identity as the owner.
fn give_to_another(world: &World, (name, field): FieldOf<'_>) {
    let other = match name {
        "identity" => field.as_i64().and_then(|id| world.other_than(id)).map(|other| Value::from(other.id)),
        "identity_uuid" | "uuid" => field
            .as_str()
            .and_then(|text| Uuid::try_parse(text).ok())
            .and_then(|uuid| world.identity_of(uuid))
            .and_then(|identity| world.other_than(identity.id))
            .map(|other| Value::from(other.uuid.to_string())),
        _ => None,
    };
    if let Some(other) = other {
        *field = other;
    }
}

fn encrypt((name, field): FieldOf<'_>) {
    if matches!(name, "password" | "value") && field.is_string() {
        *field = Value::from(format!("e2e::{}", BASE64.encode(&[0x5a; 80])));
    }
}
