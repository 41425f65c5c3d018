//! Mail, grouped and flat (docs/ravi-api.md §3.5, §3.6): reading. `compose` sends.

use axum::extract::{Path, State};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::attachments::attachments_json;
use super::auth::{Call, Scope};
use super::behaviour::ListShape;
use super::query::Params;
use super::reply::{Refusal, Reply, ok};
use super::sms::preview;
use super::state::{Api, Inbox, Mail, World, stamp};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// `GET /api/email-inbox/`: threads, that with the latest message first.
pub(super) async fn threads(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let unread_only = call.params.truth("has_unread") == Some(true);
    let inbox = call.params.given("inbox");
    let found = grouped(&world, call.scope(&world)?);
    let rows = found
        .iter()
        .filter(|thread| !unread_only || unread(thread) > 0)
        .filter(|thread| inbox.is_none_or(|wanted| is_inbox(&world, thread, wanted)))
        .filter_map(|thread| thread_json(&world, thread));
    ok(&rows.collect::<Vec<_>>())
}

/// Mails of one thread and one identity, oldest first, never empty.
type Thread<'a> = Vec<&'a Mail>;

fn grouped(world: &World, scope: Scope) -> Vec<Thread<'_>> {
    let mut found: Vec<Thread<'_>> = Vec::new();
    for mail in world.mails.iter().filter(|mail| scope.sees(mail.identity)) {
        let same = |thread: &&mut Thread<'_>| {
            thread.iter().any(|other| other.identity == mail.identity && other.thread_id == mail.thread_id)
        };
        match found.iter_mut().find(same) {
            Some(thread) => thread.push(mail),
            None => found.push(vec![mail]),
        }
    }
    found.sort_by_key(|thread| std::cmp::Reverse(thread.last().map(|mail| (mail.created, mail.id))));
    found
}

fn unread(thread: &Thread<'_>) -> usize {
    thread.iter().filter(|mail| !mail.is_read).count()
}

fn address_of<'a>(world: &'a World, mail: &Mail) -> Option<&'a Inbox> {
    world.identity(mail.identity)?.inbox.as_ref()
}

/// Whether `inbox` is the number or the address is not documented; both are taken.
fn is_inbox(world: &World, thread: &Thread<'_>, wanted: &str) -> bool {
    let inbox = thread.first().and_then(|mail| address_of(world, mail));
    inbox.is_some_and(|inbox| inbox.address == wanted || inbox.id.to_string() == wanted)
}

fn thread_json(world: &World, thread: &Thread<'_>) -> Option<Value> {
    let (first, latest) = (thread.first()?, thread.last()?);
    Some(json!({
        "thread_id": first.thread_id,
        "subject": first.subject,
        "preview": preview(&latest.text),
        "from_email": latest.from,
        "inbox": address_of(world, first).map(|inbox| inbox.address.as_str()),
        "message_count": thread.len(),
        "unread_count": unread(thread),
        "latest_message_dt": stamp(latest.created),
        "oldest_message_dt": stamp(first.created),
    }))
}

/// `GET /api/email-inbox/{thread_id}/`.
pub(super) async fn thread(State(api): State<Api>, call: Call, Path(id): Path<String>) -> Reply {
    let mut world = api.world();
    let found = grouped(&world, call.scope(&world)?);
    let named = |thread: &&Thread<'_>| thread.iter().any(|mail| mail.thread_id == id);
    let thread = found.iter().find(named).ok_or_else(Refusal::not_found)?;
    let answer = json!({
        "thread_id": id,
        "subject": thread.first().map(|mail| mail.subject.as_str()),
        "message_count": thread.len(),
        "messages": thread.iter().map(|mail| Value::Object(message_json(&api, &world, mail))).collect::<Vec<_>>(),
    });
    let read: Vec<i64> = thread.iter().map(|mail| mail.id).collect();
    mark_read(&mut world, &read);
    ok(&answer)
}

fn message_json(api: &Api, world: &World, mail: &Mail) -> Map<String, Value> {
    let fields = [
        ("id", json!(mail.id)),
        ("from_email", json!(mail.from)),
        ("to_email", json!(mail.to)),
        ("cc", json!(mail.cc.join(", "))),
        ("subject", json!(mail.subject)),
        ("text_content", json!(mail.text)),
        ("html_content", json!(mail.html)),
        ("direction", json!(mail.direction.name())),
        ("is_read", json!(mail.is_read)),
        ("attachments", attachments_json(api, world, &mail.attachments)),
        ("created_dt", json!(stamp(mail.created))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `EmailMessageDetail`.
pub(super) fn detail_json(api: &Api, world: &World, mail: &Mail) -> Value {
    let mut detail = message_json(api, world, mail);
    detail.insert("url".to_owned(), json!(format!("{}/api/email-messages/{}/", api.origin, mail.id)));
    detail.insert("message_id".to_owned(), json!(mail.message_id));
    detail.insert("thread_id".to_owned(), json!(mail.thread_id));
    Value::Object(detail)
}

/// `GET /api/email-messages/`.
pub(super) async fn messages(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let scope = call.scope(&world)?;
    let filter = Filter::parse(&call.params, world.behaviour.created_after_inclusive)?;
    let limit = call.params.whole("limit")?.filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    let page = Page { limit: limit.min(MAX_LIMIT), offset: call.params.whole("offset")?.unwrap_or(0) };
    let mut found: Vec<&Mail> =
        world.mails.iter().filter(|mail| scope.sees(mail.identity) && filter.lets(mail)).collect();
    let shape = world.behaviour.email_messages;
    if shape == ListShape::Array {
        found.reverse();
    }
    let rows = found.iter().skip(page.offset).take(page.limit).map(|mail| detail_json(&api, &world, mail));
    let results: Vec<Value> = rows.collect();
    match shape {
        ListShape::Array => ok(&results),
        ListShape::Paged => ok(&json!({
            "count": found.len(),
            "next": page.next(found.len()).map(|page| page.url(&api, &call.params)),
            "previous": page.previous().map(|page| page.url(&api, &call.params)),
            "results": results,
        })),
    }
}

#[derive(Clone, Copy)]
struct Page {
    limit: usize,
    offset: usize,
}

impl Page {
    fn next(self, count: usize) -> Option<Self> {
        let offset = self.offset.saturating_add(self.limit);
        (offset < count).then_some(Self { offset, ..self })
    }

    fn previous(self) -> Option<Self> {
        (self.offset > 0).then_some(Self { offset: self.offset.saturating_sub(self.limit), ..self })
    }

    /// Absolute, with the filters of the request.
    fn url(self, api: &Api, params: &Params) -> String {
        let mut url = format!("{}/api/email-messages/?limit={}", api.origin, self.limit);
        if self.offset > 0 {
            url.push_str(&format!("&offset={}", self.offset));
        }
        for name in ["identity", "created_after", "direction", "from_email", "is_read", "thread_id"] {
            if let Some(value) = params.given(name) {
                let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                url.push_str(&format!("&{name}={value}"));
            }
        }
        url
    }
}

struct Filter<'a> {
    created_after: Option<Timestamp>,
    inclusive: bool,
    direction: Option<&'a str>,
    from_email: Option<&'a str>,
    thread_id: Option<&'a str>,
    is_read: Option<bool>,
}

impl<'a> Filter<'a> {
    fn parse(params: &'a Params, inclusive: bool) -> Result<Self, Refusal> {
        let created_after = params.given("created_after").map(str::parse).transpose();
        Ok(Self {
            created_after: created_after
                .map_err(|_| Refusal::field("created_after", "Enter a valid date/time."))?,
            inclusive,
            direction: params.given("direction"),
            from_email: params.given("from_email"),
            thread_id: params.given("thread_id"),
            is_read: params.truth("is_read"),
        })
    }

    fn lets(&self, mail: &Mail) -> bool {
        self.created_after.is_none_or(|after| mail.created > after || self.inclusive && mail.created == after)
            && self.direction.is_none_or(|direction| mail.direction.name() == direction)
            && self.from_email.is_none_or(|from| mail.from.eq_ignore_ascii_case(from))
            && self.thread_id.is_none_or(|thread| mail.thread_id == thread)
            && self.is_read.is_none_or(|is_read| mail.is_read == is_read)
    }
}

/// `GET /api/email-messages/{id}/`: the number, not the `Message-ID`.
pub(super) async fn message(State(api): State<Api>, call: Call, Path(id): Path<String>) -> Reply {
    let mut world = api.world();
    let scope = call.scope(&world)?;
    let id: i64 = id.parse().map_err(|_| Refusal::not_found())?;
    let found = world.mails.iter().find(|mail| mail.id == id && scope.sees(mail.identity));
    let answer = detail_json(&api, &world, found.ok_or_else(Refusal::not_found)?);
    mark_read(&mut world, &[id]);
    ok(&answer)
}

fn mark_read(world: &mut World, ids: &[i64]) {
    if world.behaviour.reading_marks_read {
        world.mails.iter_mut().filter(|mail| ids.contains(&mail.id)).for_each(|mail| mail.is_read = true);
    }
}
