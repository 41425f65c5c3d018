//! `GET /api/events/stream/` (docs/ravi-api.md §4), off unless switched on. Documented are the path, the kinds
//! `email` and `sms`, and `Last-Event-ID`. Invented are the ids, the empty payload and the heartbeats. The
//! past that can be replayed is a bounded ring: who reads too slowly misses events, and holds up nobody.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::auth::{Call, Scope};
use super::reply::{Refusal, Reply, typed};
use super::state::Api;

const MAX_KEPT: usize = 256;
const MAX_STREAMS: usize = 32;
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What arrived.
#[derive(Clone, Copy)]
pub(super) enum EventKind {
    Email,
    Sms,
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

pub(super) struct Events {
    ring: Mutex<Ring>,
    /// Changes with every event, and when streams have to look around.
    changes: watch::Sender<()>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Ring {
    /// Never goes back, not even with a reset.
    latest: u64,
    kept: VecDeque<Event>,
}

struct Event {
    id: u64,
    identity: i64,
    kind: EventKind,
}

impl Default for Events {
    fn default() -> Self {
        let (changes, _) = watch::channel(());
        Self { ring: Mutex::default(), changes, places: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

impl Events {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the streams that see that identity.
    pub(super) fn emit(&self, identity: i64, kind: EventKind) {
        let mut ring = self.ring();
        ring.latest += 1;
        let id = ring.latest;
        if ring.kept.len() == MAX_KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Event { id, identity, kind });
        drop(ring);
        self.wake();
    }

    /// Has every stream look whether it is still wanted.
    pub(super) fn wake(&self) {
        self.changes.send_replace(());
    }

    /// Forgets what could be replayed.
    pub(super) fn reset(&self) {
        self.ring().kept.clear();
        self.wake();
    }

    /// What came after `cursor`, as it goes over the wire, and the new cursor.
    fn after(&self, cursor: u64, scope: Scope) -> (String, u64) {
        let ring = self.ring();
        let due = ring.kept.iter().filter(|event| event.id > cursor && scope.sees(event.identity));
        let frame = |event: &Event| format!("id: {}\nevent: {}\ndata: {{}}\n\n", event.id, event.kind.name());
        (due.map(frame).collect(), ring.latest)
    }
}

struct Subscriber {
    api: Api,
    scope: Scope,
    cursor: u64,
    changes: watch::Receiver<()>,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

/// `GET /api/events/stream/`.
pub(super) async fn stream(State(api): State<Api>, call: Call, headers: HeaderMap) -> Reply {
    let scope = {
        let world = api.world();
        if !world.behaviour.events {
            return Err(Refusal::not_found());
        }
        call.scope(&world)?
    };
    let busy = || Refusal::detail(StatusCode::SERVICE_UNAVAILABLE, "Too many event streams.");
    let place = api.events.places.clone().try_acquire_owned().map_err(|_| busy())?;
    let changes = api.events.changes.subscribe();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let latest = api.events.ring().latest;
    let cursor = last.map_or(latest, |last: u64| last.min(latest));
    let subscriber = Subscriber { api, scope, cursor, changes, greeted: false, _place: place };
    Ok(streamed(Body::from_stream(stream::unfold(subscriber, Subscriber::next))))
}

fn streamed(body: Body) -> Response {
    let mut response = typed(StatusCode::OK, "text/event-stream", body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Subscriber {
    /// The next piece of the stream; `None` once it was switched off.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !self.greeted {
            self.greeted = true;
            return Some((Ok(Bytes::from_static(b": open\n\n")), self));
        }
        let clock = self.api.clock.clone();
        let mut heartbeat = clock.sleep_until(clock.now() + HEARTBEAT);
        loop {
            if !self.api.world().behaviour.events {
                return None;
            }
            let (text, cursor) = self.api.events.after(self.cursor, self.scope);
            self.cursor = cursor;
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), self));
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = &mut heartbeat => return Some((Ok(Bytes::from_static(b": heartbeat\n\n")), self)),
            }
        }
    }
}
