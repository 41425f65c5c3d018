//! SMS, grouped and flat (docs/ravi-api.md §3.3, §3.4).

use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::address::is_e164;
use super::auth::{Call, Scope};
use super::body::Fields;
use super::outbox::post_text;
use super::reply::{Refusal, Reply, ok, with_status};
use super::state::{Api, Direction, Identity, Phone, Text, World, stamp};

/// `GET /api/sms-inbox/`: conversations, that with the latest message first.
pub(super) async fn conversations(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let unread_only = call.params.truth("has_unread") == Some(true);
    let found = grouped(&world, call.scope(&world)?);
    let rows = found.iter().filter(|talk| !unread_only || talk.unread() > 0).map(|talk| {
        let latest = talk.texts.last();
        json!({
            "conversation_id": talk.id(),
            "from_number": talk.remote,
            "phone": talk.identity.name,
            "phone_number": talk.phone.number,
            "preview": latest.map(|text| preview(&text.body)),
            "message_count": talk.texts.len(),
            "unread_count": talk.unread(),
            "latest_message_dt": latest.map(|text| stamp(text.created)),
        })
    });
    ok(&rows.collect::<Vec<_>>())
}

/// `GET /api/sms-inbox/{conversation_id}/`.
pub(super) async fn conversation(State(api): State<Api>, call: Call, Path(id): Path<String>) -> Reply {
    let mut world = api.world();
    let scope = call.scope(&world)?;
    let found = grouped(&world, scope);
    let talk = found.iter().find(|talk| talk.id() == id).ok_or_else(Refusal::not_found)?;
    let answer = json!({
        "conversation_id": id,
        "from_number": talk.remote,
        "phone": talk.identity.name,
        "message_count": talk.texts.len(),
        "messages": talk.texts.iter().map(|text| json!({
            "id": text.id,
            "body": text.body,
            "direction": text.direction.name(),
            "is_read": text.is_read,
            "created_dt": stamp(text.created),
        })).collect::<Vec<_>>(),
    });
    let read: Vec<i64> = talk.texts.iter().map(|text| text.id).collect();
    mark_read(&mut world, &read);
    ok(&answer)
}

struct Conversation<'a> {
    identity: &'a Identity,
    phone: &'a Phone,
    remote: &'a str,
    /// Oldest first, never empty.
    texts: Vec<&'a Text>,
}

impl Conversation<'_> {
    fn id(&self) -> String {
        format!("{}_{}", self.phone.id, self.remote)
    }

    fn unread(&self) -> usize {
        self.texts.iter().filter(|text| !text.is_read).count()
    }
}

fn grouped(world: &World, scope: Scope) -> Vec<Conversation<'_>> {
    let mut found: Vec<Conversation<'_>> = Vec::new();
    for text in world.texts.iter().filter(|text| scope.sees(text.identity)) {
        let known = found
            .iter_mut()
            .find(|talk| talk.identity.id == text.identity && talk.remote == text.remote.as_str());
        if let Some(talk) = known {
            talk.texts.push(text);
        } else if let Some((identity, phone)) = line_of(world, text.identity) {
            found.push(Conversation { identity, phone, remote: &text.remote, texts: vec![text] });
        }
    }
    found.sort_by_key(|talk| std::cmp::Reverse(talk.texts.last().map(|text| (text.created, text.id))));
    found
}

fn line_of(world: &World, identity: i64) -> Option<(&Identity, &Phone)> {
    let identity = world.identity(identity)?;
    Some((identity, identity.phone.as_ref()?))
}

/// The first 80 characters.
pub(super) fn preview(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `GET /api/messages/`: newest first.
pub(super) async fn messages(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let scope = call.scope(&world)?;
    let is_read = call.params.truth("is_read");
    let rows = scope.rows(&world.texts).into_iter().rev();
    let wanted = rows.filter(|text| is_read.is_none_or(|wanted| text.is_read == wanted));
    ok(&wanted.filter_map(|text| message_json(&api, &world, text)).collect::<Vec<_>>())
}

/// `GET /api/messages/{id}/`.
pub(super) async fn message(State(api): State<Api>, call: Call, Path(id): Path<String>) -> Reply {
    let mut world = api.world();
    let scope = call.scope(&world)?;
    let id: i64 = id.parse().map_err(|_| Refusal::not_found())?;
    let found = world.texts.iter().find(|text| text.id == id && scope.sees(text.identity));
    let answer = found.and_then(|text| message_json(&api, &world, text)).ok_or_else(Refusal::not_found)?;
    mark_read(&mut world, &[id]);
    ok(&answer)
}

/// `POST /api/messages/send/`.
pub(super) async fn send(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let (identity, _) = call.writer(&world)?;
    let to = fields.required("to_number");
    if !is_e164(&to) {
        fields.wrong("to_number", "Enter a valid phone number.");
    }
    let body = fields.required("body");
    let limit = world.behaviour.text_limit;
    if u32::try_from(body.chars().count()).is_ok_and(|count| count > limit) {
        fields.wrong("body", &format!("Ensure this field has no more than {limit} characters."));
    }
    fields.finish()?;
    let id = post_text(&api, &mut world, identity, to, body)?;
    let text = world.texts.iter().find(|text| text.id == id);
    let answer = text.and_then(|text| message_json(&api, &world, text)).ok_or_else(Refusal::broken)?;
    with_status(StatusCode::CREATED, &answer)
}

fn message_json(api: &Api, world: &World, text: &Text) -> Option<Value> {
    let (identity, phone) = line_of(world, text.identity)?;
    let (from, to) = match text.direction {
        Direction::Incoming => (&text.remote, &phone.number),
        Direction::Outgoing => (&phone.number, &text.remote),
    };
    Some(json!({
        "id": text.id,
        "url": format!("{}/api/messages/{}/", api.origin, text.id),
        "from_number": from,
        "to_number": to,
        "body": text.body,
        "message_sid": format!("SM{:032x}", text.id),
        "phone": identity.name,
        "direction": text.direction.name(),
        "is_read": text.is_read,
        "created_dt": stamp(text.created),
    }))
}

fn mark_read(world: &mut World, ids: &[i64]) {
    if world.behaviour.reading_marks_read {
        world.texts.iter_mut().filter(|text| ids.contains(&text.id)).for_each(|text| text.is_read = true);
    }
}
