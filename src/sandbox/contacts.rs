//! Contacts (docs/ravi-api.md §3.10): made by hand, or by traffic. Invented, since not documented: that a
//! contact needs an address or a number, that neither may repeat within an identity, and the source `manual`.

use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::address::{is_e164, is_email};
use super::auth::Call;
use super::body::Fields;
use super::random;
use super::reply::{Refusal, Reply, no_content, ok, with_status};
use super::state::{Api, Contact, MAX_ENTRIES, World, stamp};

/// Of contacts made by traffic; their last digits count on.
const AUTO_UUID: u128 = 0xc047_0000_0000_4000_8000_0000_0000_0000;

/// `GET /api/contacts/`.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let rows = call.scope(&world)?.rows(&world.contacts);
    ok(&rows.into_iter().map(contact_json).collect::<Vec<_>>())
}

/// `GET /api/contacts/{uuid}/`.
pub(super) async fn read(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let world = api.world();
    let index = call.scope(&world)?.row(&world.contacts, &uuid).ok_or_else(no_contact)?;
    ok(&contact_json(&world.contacts[index]))
}

/// `GET /api/contacts/find/`: the one with exactly that address or number, or both.
pub(super) async fn find(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let (email, number) = (call.params.given("email"), call.params.given("phone_number"));
    if email.is_none() && number.is_none() {
        return Err(Refusal::bad_request("Either email or phone_number is required."));
    }
    let rows = call.scope(&world)?.rows(&world.contacts);
    let found = rows.into_iter().find(|contact| {
        email.is_none_or(|email| contact.email.eq_ignore_ascii_case(email))
            && number.is_none_or(|number| contact.phone_number == number)
    });
    ok(&contact_json(found.ok_or_else(no_contact)?))
}

/// `GET /api/contacts/search/?q=`: any part of a name or address, in any case of letters.
pub(super) async fn search(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let Some(wanted) = call.params.given("q").map(str::to_lowercase) else {
        return Err(Refusal::field("q", "This field is required."));
    };
    let matches = |contact: &&Contact| {
        let texts = [&contact.email, &contact.display_name, &contact.nickname];
        texts.into_iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    let rows = call.scope(&world)?.rows(&world.contacts);
    ok(&rows.into_iter().filter(matches).map(contact_json).collect::<Vec<_>>())
}

/// `POST /api/contacts/`.
pub(super) async fn create(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let (identity, _) = call.writer(&world)?;
    let mut contact = blank(random::uuid()?, identity, "manual", api.wall());
    let given = change(&mut fields, &world, None, &mut contact);
    fields.finish()?;
    given?;
    if world.contacts.len() >= MAX_ENTRIES {
        return Err(Refusal::bad_request("There are too many contacts."));
    }
    let reply = with_status(StatusCode::CREATED, &contact_json(&contact));
    world.contacts.push(contact);
    reply
}

/// `PATCH /api/contacts/{uuid}/`.
pub(super) async fn update(
    State(api): State<Api>,
    call: Call,
    Path(uuid): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (_, scope) = call.writer(&world)?;
    let index = scope.row(&world.contacts, &uuid).ok_or_else(no_contact)?;
    let mut contact = world.contacts[index].copy();
    let given = change(&mut fields, &world, Some(contact.uuid), &mut contact);
    fields.finish()?;
    given?;
    contact.updated = api.wall();
    world.contacts[index] = contact;
    ok(&contact_json(&world.contacts[index]))
}

/// `DELETE /api/contacts/{uuid}/`.
pub(super) async fn delete(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let mut world = api.world();
    let (_, scope) = call.writer(&world)?;
    let index = scope.row(&world.contacts, &uuid).ok_or_else(no_contact)?;
    world.contacts.remove(index);
    no_content()
}

/// Writes the given fields into `contact`, and judges the whole. `own`: the row that is being changed.
fn change(
    fields: &mut Fields,
    world: &World,
    own: Option<Uuid>,
    contact: &mut Contact,
) -> Result<(), Refusal> {
    for (name, place) in [
        ("email", &mut contact.email),
        ("phone_number", &mut contact.phone_number),
        ("display_name", &mut contact.display_name),
        ("nickname", &mut contact.nickname),
    ] {
        if let Some(text) = fields.text(name) {
            *place = text;
        }
    }
    if fields.has("is_trusted") {
        contact.is_trusted = fields.truth("is_trusted");
    }
    if !contact.email.is_empty() && !is_email(&contact.email) {
        fields.wrong("email", "Enter a valid email address.");
    }
    if !contact.phone_number.is_empty() && !is_e164(&contact.phone_number) {
        fields.wrong("phone_number", "Enter a valid phone number.");
    }
    if contact.email.is_empty() && contact.phone_number.is_empty() {
        return Err(Refusal::bad_request("Either email or phone_number is required."));
    }
    let same = |other: &Contact| {
        other.identity == contact.identity
            && Some(other.uuid) != own
            && (is_same(&other.email, &contact.email) || is_same(&other.phone_number, &contact.phone_number))
    };
    match world.contacts.iter().any(same) {
        true => Err(Refusal::bad_request("This contact already exists.")),
        false => Ok(()),
    }
}

fn is_same(one: &str, other: &str) -> bool {
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

/// Somebody wrote to the identity, or it to them: counts it, and makes the contact if there is room. What is
/// neither an address nor a number makes none.
pub(super) fn note(world: &mut World, identity: i64, reached: &str, at: Timestamp) {
    let (is_number, is_address) = (is_e164(reached), is_email(reached));
    let known = world.contacts.iter_mut().find(|contact| {
        contact.identity == identity
            && (is_same(&contact.email, reached) || is_same(&contact.phone_number, reached))
    });
    if let Some(contact) = known {
        contact.interactions += 1;
        contact.last_interaction = contact.last_interaction.max(Some(at));
        return;
    }
    if !(is_number || is_address) || world.contacts.len() >= MAX_ENTRIES {
        return;
    }
    let uuid = Uuid::from_u128(AUTO_UUID + u128::from(world.fresh_id().unsigned_abs()));
    let mut contact = blank(uuid, identity, "auto", at);
    let place = if is_number { &mut contact.phone_number } else { &mut contact.email };
    place.push_str(reached);
    contact.interactions = 1;
    contact.last_interaction = Some(at);
    world.contacts.push(contact);
}

fn blank(uuid: Uuid, identity: i64, source: &'static str, created: Timestamp) -> Contact {
    Contact {
        uuid,
        identity,
        email: String::new(),
        phone_number: String::new(),
        display_name: String::new(),
        nickname: String::new(),
        is_trusted: false,
        source,
        interactions: 0,
        last_interaction: None,
        created,
        updated: created,
    }
}

impl Contact {
    fn copy(&self) -> Self {
        Self {
            email: self.email.clone(),
            phone_number: self.phone_number.clone(),
            display_name: self.display_name.clone(),
            nickname: self.nickname.clone(),
            ..*self
        }
    }
}

fn no_contact() -> Refusal {
    Refusal::detail(StatusCode::NOT_FOUND, "No Contact matches the given query.")
}

fn contact_json(contact: &Contact) -> Value {
    json!({
        "uuid": contact.uuid.to_string(),
        "identity": contact.identity,
        "email": contact.email,
        "phone_number": contact.phone_number,
        "display_name": contact.display_name,
        "nickname": contact.nickname,
        "is_trusted": contact.is_trusted,
        "source": contact.source,
        "interaction_count": contact.interactions,
        "last_interaction_dt": contact.last_interaction.map(stamp),
        "created_dt": stamp(contact.created),
        "updated_dt": stamp(contact.updated),
    })
}
