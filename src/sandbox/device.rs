//! The device-code login (docs/ravi-api.md §2.3, RFC 8628): start, poll with and without waiting, and the
//! page on which a person decides. A device code pays out once.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::clock::BootInstant;
use crate::secret::Secret;

use super::auth::MANAGEMENT_PREFIX;
use super::body::Fields;
use super::identities::identity_json;
use super::random;
use super::reply::{Refusal, Reply, html, ok};
use super::state::{Api, Decision, Key, KeyKind, Login, MAX_KEYS, MAX_LOGINS, World};

/// What RFC 8628 adds to the interval with each `slow_down`.
const SLOW_DOWN_SECONDS: u32 = 5;

/// `POST /api/auth/device/`.
pub(super) async fn start(State(api): State<Api>, _: Fields) -> Reply {
    let now = api.clock.now();
    let mut world = api.world();
    if world.logins.len() >= MAX_LOGINS {
        world.logins.retain(|login| login.expires > now);
    }
    if world.logins.len() >= MAX_LOGINS {
        return Err(Refusal::detail(StatusCode::TOO_MANY_REQUESTS, "Request was throttled."));
    }
    let login = new_login(&world, now)?;
    let answer = json!({
        "device_code": login.device_code.expose(),
        "user_code": login.user_code,
        "verification_uri": format!("{}/api/auth/device/verify/", api.origin),
        "expires_in": world.behaviour.device_expires_in,
        "interval": world.behaviour.device_interval,
    });
    world.logins.push(login);
    ok(&answer)
}

fn new_login(world: &World, now: BootInstant) -> Result<Login, Refusal> {
    let behaviour = &world.behaviour;
    Ok(Login {
        device_code: random::key("")?,
        user_code: random::user_code()?,
        expires: now + Duration::from_secs(behaviour.device_expires_in.into()),
        interval_seconds: behaviour.device_interval,
        last_poll: None,
        decision: if behaviour.auto_approve { Decision::Approved } else { Decision::Pending },
    })
}

/// `POST /api/auth/device/token/`.
pub(super) async fn token(State(api): State<Api>, mut fields: Fields) -> Reply {
    let device_code = Secret::new(fields.required("device_code"));
    let wait = fields.truth("wait");
    fields.finish()?;
    let mut changed = api.logins_changed.subscribe();
    let deadline = begin_poll(&api, &device_code)?;
    loop {
        if let Some(answer) = look(&api, &device_code)? {
            return Ok(answer);
        }
        if !wait || api.clock.now() >= deadline {
            return Err(Refusal::oauth("authorization_pending", "The login has not been approved yet."));
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = api.clock.sleep_until(deadline) => {}
        }
    }
}

/// Notes the poll and says until when it may be held. A pending login polled too fast is told so.
fn begin_poll(api: &Api, device_code: &Secret) -> Result<BootInstant, Refusal> {
    let now = api.clock.now();
    let mut world = api.world();
    let hold = Duration::from_secs(world.behaviour.device_hold.into());
    let login = find(&mut world, device_code)?;
    let interval = Duration::from_secs(login.interval_seconds.into());
    let too_fast = login.last_poll.is_some_and(|last| now.since(last) < interval);
    login.last_poll = Some(now);
    if too_fast && login.decision == Decision::Pending && now < login.expires {
        login.interval_seconds = login.interval_seconds.saturating_add(SLOW_DOWN_SECONDS);
        return Err(Refusal::oauth("slow_down", "Polled before the interval was over."));
    }
    Ok(login.expires.min(now + hold))
}

/// `None`: still pending.
fn look(api: &Api, device_code: &Secret) -> Result<Option<Response>, Refusal> {
    let now = api.clock.now();
    let mut world = api.world();
    let login = find(&mut world, device_code)?;
    match login.decision {
        Decision::Collected => Err(unknown_code()),
        Decision::Denied => Err(Refusal::oauth("access_denied", "The login was denied.")),
        _ if now >= login.expires => Err(Refusal::oauth("expired_token", "The device code has expired.")),
        Decision::Pending => Ok(None),
        Decision::Approved => {
            login.decision = Decision::Collected;
            pay_out(api, &mut world).map(Some)
        }
    }
}

fn find<'a>(world: &'a mut World, device_code: &Secret) -> Result<&'a mut Login, Refusal> {
    let wanted = device_code.expose().as_bytes();
    let same = |login: &&mut Login| bool::from(login.device_code.expose().as_bytes().ct_eq(wanted));
    world.logins.iter_mut().find(same).ok_or_else(unknown_code)
}

fn unknown_code() -> Refusal {
    Refusal::oauth("invalid_grant", "The device code is unknown or was used already.")
}

/// The outcome "login" of docs/ravi-api.md §2.3: the management key and every identity.
fn pay_out(api: &Api, world: &mut World) -> Reply {
    let management_key = management_key(api, world)?;
    let identities: Vec<_> =
        world.identities.iter().map(|identity| identity_json(&world.behaviour, identity)).collect();
    ok(&json!({
        "management_key": management_key.expose(),
        "identities": identities,
        "user": {
            "id": world.owner.id,
            "email": world.owner.email,
            "first_name": world.owner.first_name,
            "last_name": world.owner.last_name,
        },
    }))
}

/// The key of the account, or a new one if it was revoked.
fn management_key(api: &Api, world: &mut World) -> Result<Secret, Refusal> {
    if let Some(key) = world.keys.iter().find(|key| key.kind == KeyKind::Management) {
        return Ok(Secret::copy_of(key.value.expose()));
    }
    if world.keys.len() >= MAX_KEYS {
        return Err(Refusal::bad_request("The account holds too many keys."));
    }
    let value = random::key(MANAGEMENT_PREFIX)?;
    let copy = Secret::copy_of(value.expose());
    world.keys.push(Key { kind: KeyKind::Management, value, label: "login".to_owned(), created: api.wall() });
    Ok(copy)
}

/// Decides the pending login of that code, or all of them. Returns how many.
pub(super) fn decide(api: &Api, user_code: Option<&str>, decision: Decision) -> usize {
    let now = api.clock.now();
    let mut world = api.world();
    let open = |login: &&mut Login| {
        let named = user_code.is_none_or(|code| login.user_code.eq_ignore_ascii_case(code));
        named && login.decision == Decision::Pending && login.expires > now
    };
    let decided = world.logins.iter_mut().filter(open).map(|login| login.decision = decision).count();
    drop(world);
    api.logins_changed.send_replace(());
    decided
}

#[derive(Deserialize)]
pub(super) struct PageQuery {
    #[serde(default)]
    user_code: String,
}

/// `GET /device` and `GET /api/auth/device/verify/`: where Ravi has its sign-in page.
pub(super) async fn page(Query(query): Query<PageQuery>) -> Response {
    let plain = query.user_code.len() <= 16
        && query.user_code.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    let code = if plain { query.user_code.as_str() } else { "" };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>Sandbox login</title></head>\n<body>\
         <h1>Approve this login?</h1><form method=\"post\">\
         <label>Code <input name=\"user_code\" value=\"{code}\" required></label>\
         <button formaction=\"/__sandbox__/device/approve/\">Approve</button>\
         <button formaction=\"/__sandbox__/device/deny/\">Deny</button></form></body>\n</html>\n"
    );
    let mut response = html(StatusCode::OK, page);
    let policy = http::HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
