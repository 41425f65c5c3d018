//! Identities (docs/ravi-api.md §3.1): list, read, create, provision a phone. Update and delete answer 405.

use std::time::Duration;

use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::auth::{Call, add_identity_key, mint_status};
use super::behaviour::{Absent, Behaviour, Visible};
use super::body::Fields;
use super::random;
use super::reply::{Refusal, Reply, ok, with_status};
use super::seed::MAIL_DOMAIN;
use super::state::{Api, Identity, Inbox, KeyKind, MAX_IDENTITIES, Phone, World, stamp};

/// How an identity looks on the wire.
pub(super) fn identity_json(behaviour: &Behaviour, identity: &Identity) -> Value {
    let absent = match behaviour.absent {
        Absent::Null => Value::Null,
        Absent::Empty => Value::from(""),
    };
    let or_absent = |text: Option<&str>| text.map_or(absent.clone(), Value::from);
    json!({
        "uuid": identity.uuid.to_string(),
        "name": identity.name,
        "inbox": or_absent(identity.inbox.as_ref().map(|inbox| inbox.address.as_str())),
        "phone": or_absent(identity.phone.as_ref().map(|phone| phone.number.as_str())),
        "created_dt": stamp(identity.created),
        "updated_dt": stamp(identity.updated),
    })
}

/// `GET /api/identities/`. Takes no `?identity=`.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let visible = world.identities.iter().filter(|identity| sees(&call, &world, identity));
    ok(&visible.map(|identity| identity_json(&world.behaviour, identity)).collect::<Vec<_>>())
}

/// `GET /api/identities/{uuid}/`.
pub(super) async fn read(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let world = api.world();
    let named = find(&world, &uuid).filter(|identity| sees(&call, &world, identity));
    let named = named.ok_or_else(Refusal::not_found)?;
    let shown = if call.is_swapped() { world.other_than(named.id).unwrap_or(named) } else { named };
    ok(&identity_json(&world.behaviour, shown))
}

fn find<'a>(world: &'a World, uuid: &str) -> Option<&'a Identity> {
    uuid::Uuid::try_parse(uuid).ok().and_then(|uuid| world.identity_of(uuid))
}

fn sees(call: &Call, world: &World, identity: &Identity) -> bool {
    match call.caller {
        KeyKind::Management => true,
        KeyKind::Identity(own) => own == identity.id || world.behaviour.identities_visible == Visible::All,
    }
}

/// `POST /api/identities/`: takes the address as `email_identifier` and `domain`, or as `email`.
pub(super) async fn create(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    call.management(&world)?;
    if !world.behaviour.paid_plan || world.identities.len() >= MAX_IDENTITIES {
        return Err(Refusal::plan_required("A paid plan is required."));
    }
    let name = fields.filled("name");
    let address = requested_address(&mut fields);
    let with_phone = fields.truth("provision_phone");
    fields.finish()?;
    let identity = new_identity(&api, &mut world, name, address, with_phone)?;
    let mut answer = identity_json(&world.behaviour, &identity);
    let id = identity.id;
    world.identities.push(identity);
    let key = add_identity_key(&api, &mut world, id, "created")?;
    answer["api_key"] = Value::from(key.expose());
    with_status(mint_status(&world), &answer)
}

fn requested_address(fields: &mut Fields) -> Option<String> {
    let local = fields.filled("email_identifier");
    let domain = fields.filled("domain");
    let email = fields.filled("email");
    if domain.is_some() && local.is_none() {
        return fields.wrong("domain", "A domain needs an email_identifier.");
    }
    let (local, domain) = match (local, email) {
        (Some(local), _) => (local, domain),
        (None, Some(email)) => match email.split_once('@') {
            Some((local, domain)) => (local.to_owned(), Some(domain.to_owned())),
            None => (email, None),
        },
        (None, None) => return None,
    };
    if !is_local_part(&local) {
        return fields.wrong("email_identifier", "Enter a valid email identifier.");
    }
    if domain.as_ref().is_some_and(|domain| domain != MAIL_DOMAIN) {
        return fields.wrong("domain", "This domain is not available.");
    }
    Some(format!("{local}@{MAIL_DOMAIN}"))
}

/// 3 to 30 of a-z, 0-9, dot and hyphen; letters or digits at both ends; no `..` and no `--`.
fn is_local_part(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (3..=30).contains(&bytes.len())
        && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'.' || byte == b'-')
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1])
        && !text.contains("..")
        && !text.contains("--")
}

fn new_identity(
    api: &Api,
    world: &mut World,
    name: Option<String>,
    address: Option<String>,
    with_phone: bool,
) -> Result<Identity, Refusal> {
    let id = world.fresh_id();
    let name = name.unwrap_or_else(|| format!("Robin Sample {id}"));
    let address = address.unwrap_or_else(|| format!("robin.sample.{id}@{MAIL_DOMAIN}"));
    let is_taken =
        |identity: &Identity| identity.inbox.as_ref().is_some_and(|inbox| inbox.address == address);
    if world.identities.iter().any(is_taken) {
        return Err(Refusal::detail(StatusCode::CONFLICT, "This email address is already taken."));
    }
    let now = api.wall();
    let phone = with_phone.then(|| new_phone(api, world));
    let inbox = Some(Inbox { id: world.fresh_id(), address });
    Ok(Identity { id, uuid: random::uuid()?, name, inbox, phone, created: now, updated: now })
}

/// `POST /api/identities/{uuid}/provision-phone/`.
pub(super) async fn provision_phone(
    State(api): State<Api>,
    call: Call,
    Path(uuid): Path<String>,
    mut fields: Fields,
) -> Reply {
    let (wait, reply) = provisioned(&api, &call, &uuid, &mut fields)?;
    api.clock.sleep_until(api.clock.now() + wait).await;
    reply
}

/// The phone is there when this returns; only the answer is to wait.
fn provisioned(
    api: &Api,
    call: &Call,
    uuid: &str,
    fields: &mut Fields,
) -> Result<(Duration, Reply), Refusal> {
    let mut world = api.world();
    call.management(&world)?;
    let country = fields.filled("country_code").unwrap_or_else(|| "US".to_owned());
    if !matches!(country.as_str(), "US" | "CA") {
        fields.wrong("country_code", "This country is not supported.");
    }
    fields.finish()?;
    let id = find(&world, uuid).map(|identity| identity.id).ok_or_else(Refusal::not_found)?;
    if !world.behaviour.paid_plan {
        return Err(Refusal::plan_required("Active paid subscription required."));
    }
    if world.identity(id).is_some_and(|identity| identity.phone.is_some()) {
        return Err(Refusal::detail(StatusCode::CONFLICT, "This identity already has a phone number."));
    }
    if !world.behaviour.phones_available {
        return Err(Refusal::detail(
            StatusCode::SERVICE_UNAVAILABLE,
            "No phone number can be had right now.",
        ));
    }
    let phone = new_phone(api, &mut world);
    let wait = Duration::from_secs(world.behaviour.provision_seconds.into());
    let status = mint_status(&world);
    let World { identities, behaviour, .. } = &mut *world;
    let identity = identities.iter_mut().find(|identity| identity.id == id).ok_or_else(Refusal::not_found)?;
    identity.updated = phone.created;
    identity.phone = Some(phone);
    Ok((wait, with_status(status, &identity_json(behaviour, identity))))
}

/// A number of the range that is kept free for fiction, which has more of them than there are identities.
fn new_phone(api: &Api, world: &mut World) -> Phone {
    let id = world.fresh_id();
    let taken = |number: &str| {
        world.identities.iter().any(|other| other.phone.as_ref().is_some_and(|phone| phone.number == number))
    };
    let mut numbers = (id..id + 100).map(|at| format!("+1202555{:04}", 100 + at % 100));
    Phone { id, number: numbers.find(|number| !taken(number)).unwrap_or_default(), created: api.wall() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts_follow_the_documented_rules() {
        for good in ["abc", "a.b-c", "x1y"] {
            assert!(is_local_part(good), "{good}");
        }
        for bad in ["ab", "a..b", "a--b", "-ab", "ab.", "Abc", &"a".repeat(31)] {
            assert!(!is_local_part(bad), "{bad}");
        }
    }
}
