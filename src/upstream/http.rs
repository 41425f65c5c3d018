//! The transport: one origin, a deadline for all attempts together, a bound on requests in flight.
//!
//! Redirects are not followed, proxies and their variables are not looked at, and an answer is judged
//! by its status alone. Events hold method, endpoint, status and duration: no name, no value, no text.

mod events;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT,
};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::call::{Auth, Call, Keep};
use super::exchange::{Reply, Room, exchange};
use super::meters::Meters;
use super::resolve::{Reach, Resolver};
use super::retry::{self, Fault};
use super::tls::{self, SettingsError};
use super::wire::{MALFORMED, Page, Throttle};
use super::{AnswerFault, Budget, KeyId, Keys, OpenKey, Result, UpstreamError};
use crate::clock::{BootInstant, Clock};
use crate::types::BaseUrl;

/// A call's time in all, further attempts and pages included.
const DEADLINE: Duration = Duration::from_secs(30);
/// One attempt of a call that may be repeated.
const READ_ATTEMPT: Duration = Duration::from_secs(10);
/// Until the next address of the host is tried.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Requests under way at once.
const MAX_IN_FLIGHT: usize = 64;
/// Of these, with more than the usual room for the answer.
const MAX_ROOMY: usize = 16;
/// Pages of one list.
const MAX_PAGES: usize = 20;
pub(super) const AGENT: &str = concat!("ravi-broker/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the client is built from.
pub struct Settings {
    /// The origin of Ravi's API.
    pub base_url: BaseUrl,
    /// PEM certificates that are trusted in place of the built-in roots.
    pub ca_pem: Option<Vec<u8>>,
}

/// Sends calls. Shared by all callers; holds no lock over a wait.
pub(super) struct Http {
    base: BaseUrl,
    connector: HttpsConnector<HttpConnector<Resolver>>,
    keys: Arc<dyn Keys>,
    budget: Arc<dyn Budget>,
    clock: Arc<dyn Clock>,
    in_flight: Semaphore,
    roomy: Semaphore,
    sent: AtomicU64,
    meters: Arc<Meters>,
}

impl Http {
    pub(super) fn new(
        settings: Settings,
        keys: Arc<dyn Keys>,
        budget: Arc<dyn Budget>,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, SettingsError> {
        let tls = tls::client_config(settings.ca_pem.as_deref())?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(Reach::All));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        Ok(Self {
            base: settings.base_url,
            connector: HttpsConnector::from((tcp, tls)),
            keys,
            budget,
            clock,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            roomy: Semaphore::new(MAX_ROOMY),
            sent: AtomicU64::new(0),
            meters: Arc::default(),
        })
    }

    pub(super) fn origin(&self) -> &str {
        self.base.origin()
    }

    pub(super) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The end of a call that begins now.
    pub(super) fn deadline(&self) -> BootInstant {
        self.deadline_in(DEADLINE)
    }

    /// The end of a call that begins now and takes another time than the usual.
    pub(super) fn deadline_in(&self, time: Duration) -> BootInstant {
        self.clock.now() + time
    }

    /// One answer.
    pub(super) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        self.fetch_until(&call, self.deadline()).await
    }

    /// One answer, within what is left of an earlier deadline.
    pub(super) async fn fetch_until<T: DeserializeOwned>(&self, call: &Call, end: BootInstant) -> Result<T> {
        parse(&self.run(call, end).await?)
    }

    /// All rows of a list, page by page.
    pub(super) async fn list<T: DeserializeOwned>(&self, mut call: Call, end: BootInstant) -> Result<Vec<T>> {
        let own_query = call.own_query().to_owned();
        let mut rows = Vec::new();
        for _ in 0..MAX_PAGES {
            let page: Page<T> = self.fetch_until(&call, end).await?;
            rows.extend(page.rows);
            let Some(link) = page.next else { return Ok(rows) };
            call = call
                .next_page(&link, self.origin(), &own_query)
                .ok_or(UpstreamError::Answer(AnswerFault::Redirect))?;
        }
        Err(UpstreamError::Answer(AnswerFault::TooLarge))
    }

    /// Sends a call until it is answered or may not be repeated. The reply is a success, or a refusal
    /// that the call declared to be an answer.
    pub(super) async fn run(&self, call: &Call, end: BootInstant) -> Result<Reply> {
        let mut attempt = 1;
        loop {
            let fault = match self.attempt(call, end).await {
                Ok(reply) => return Ok(reply),
                Err(fault) => fault,
            };
            let now = self.clock.now();
            let Some(wait) = retry::wait(call.effect(), attempt, &fault, end.since(now), dice()) else {
                return Err(retry::give_up(call.effect(), fault));
            };
            self.clock.sleep_until(now + wait).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call, end: BootInstant) -> std::result::Result<Reply, Fault> {
        let end = match call.effect() {
            retry::Effect::Read => end.min(self.clock.now() + READ_ATTEMPT),
            retry::Effect::Write => end,
        };
        let _permits = self.within(end, self.permits(call)).await.ok_or(Fault::Unreached)?;
        let (request, key) = self.request(call).map_err(Fault::Final)?;
        let over = |retry_after| Fault::Final(UpstreamError::BudgetReached { retry_after });
        self.budget.take(call.identity).map_err(over)?;
        let started = self.clock.now();
        let outcome = self.send(call, request, end).await;
        let took = self.clock.now().since(started);
        self.meters.count(call, &outcome, took);
        tracing::debug!(
            method = %call.method,
            endpoint = call.template,
            status = outcome.as_ref().ok().map(|reply| reply.status.as_u16()),
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "upstream"
        );
        let reply = outcome?;
        if let (StatusCode::UNAUTHORIZED, Some(key)) = (reply.status, key) {
            self.keys.reject(key.id, key.generation);
            return Err(Fault::Final(UpstreamError::KeyRejected));
        }
        judge(call, reply)
    }

    /// The rarer one first: who waits for it keeps none of the others from anybody. Neither is ever closed.
    async fn permits(&self, call: &Call) -> [Option<SemaphorePermit<'_>>; 2] {
        let roomy = if call.room == Room::USUAL { None } else { self.roomy.acquire().await.ok() };
        [roomy, self.in_flight.acquire().await.ok()]
    }

    async fn send(
        &self,
        call: &Call,
        request: Request<Full<Bytes>>,
        end: BootInstant,
    ) -> std::result::Result<Reply, Fault> {
        let connecting = self.connector.clone().oneshot(self.base.uri().clone());
        let connection = self.within(end, connecting).await.and_then(std::result::Result::ok);
        let connection = connection.ok_or(Fault::Unreached)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.within(end, exchange(connection, request, |status| call.keeps(status), call.room))
            .await
            .unwrap_or(Err(Fault::Lost))
    }

    async fn within<F: Future>(&self, end: BootInstant, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.clock.sleep_until(end) => None,
        }
    }

    fn request(&self, call: &Call) -> Result<(Request<Full<Bytes>>, Option<UsedKey>)> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.target())
            .header(HOST, self.base.authority())
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close");
        // Some front ends refuse a write that does not say how long it is, an empty one included.
        if call.method != http::Method::GET && call.body().is_empty() {
            request = request.header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut used = None;
        if let Some((id, key)) = self.open_key(call.auth)? {
            request = request.header(AUTHORIZATION, bearer(&key)?);
            used = Some(UsedKey { id, generation: key.generation });
        }
        let request = request.body(Full::new(call.body())).map_err(|_| UpstreamError::Invalid)?;
        Ok((request, used))
    }

    fn open_key(&self, auth: Auth) -> Result<Option<(KeyId, OpenKey)>> {
        let open = |id| self.keys.open(id).map(|key| (id, key));
        let key = match auth {
            Auth::Keyless => return Ok(None),
            Auth::Management => open(KeyId::Management),
            Auth::Identity(identity) => open(KeyId::Identity(identity)),
            Auth::Either(identity) => open(KeyId::Identity(identity)).or_else(|| open(KeyId::Management)),
        };
        key.map(Some).ok_or(UpstreamError::NoKey)
    }
}

/// Which key went out, for the case that it is rejected.
struct UsedKey {
    id: KeyId,
    generation: u64,
}

/// The header's value, built in a buffer of its exact size that is wiped. The copy in the request is
/// freed with it, and the allocator wipes that.
fn bearer(key: &OpenKey) -> Result<HeaderValue> {
    const SCHEME: &[u8] = b"Bearer ";
    let mut line = Zeroizing::new(Vec::with_capacity(SCHEME.len() + key.value.len()));
    line.extend_from_slice(SCHEME);
    line.extend_from_slice(key.value.expose().as_bytes());
    let mut value = HeaderValue::from_bytes(&line).map_err(|_| UpstreamError::NoKey)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Status to outcome (docs/ravi-api.md §3.0), never by text.
fn judge(call: &Call, reply: Reply) -> std::result::Result<Reply, Fault> {
    let error = match reply.status.as_u16() {
        200..=299 => return Ok(reply),
        300..=399 => UpstreamError::Answer(AnswerFault::Redirect),
        400 if reply.body.is_some() => match call.keeps(reply.status) {
            Keep::Hint => return Ok(reply),
            _ => UpstreamError::Invalid,
        },
        402 => UpstreamError::PlanRequired,
        // A 401 to a call without a key: there is none to reject.
        401 | 403 => UpstreamError::Refused,
        404 if call.names_object() => UpstreamError::NotFound,
        // A collection that does not exist: this is not Ravi's API.
        404 | 408 | 421 | 425 => UpstreamError::Unavailable,
        409 => UpstreamError::Conflict,
        429 => return Err(Fault::Throttled(asked(&reply))),
        400..=499 => UpstreamError::Invalid,
        502..=504 => return Err(Fault::Busy),
        500..=599 => return Err(Fault::Broken),
        _ => MALFORMED,
    };
    Err(Fault::Final(error))
}

fn asked(reply: &Reply) -> Duration {
    let body: Option<Throttle> = parse(reply).ok();
    retry::throttle(body.and_then(|body| body.retry_after_seconds), reply.retry_after)
}

/// Reads JSON. What serde has to say about it quotes the answer and is dropped.
pub(super) fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T> {
    let body = reply.body.as_ref().filter(|_| reply.is_json).ok_or(MALFORMED)?;
    serde_json::from_slice(body).map_err(|_| MALFORMED)
}

/// Spreads waits; nothing depends on it being unpredictable.
fn dice() -> u32 {
    let mut bytes = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
