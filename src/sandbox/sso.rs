//! Sign-in tokens (docs/ravi-api.md §3.11): `rvt_` and a signed JWT, good for five minutes, as often as one
//! likes. Only an identity key gets one; anybody may have one verified.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::extract::State;
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::secret::Secret;

use super::auth::Call;
use super::body::Fields;
use super::reply::{Refusal, Reply, ok, with_status};
use super::state::{Api, Identity, World, stamp};

const PREFIX: &str = "rvt_";
const LIFE: Duration = Duration::from_secs(300);

/// `POST /api/sso/token/`.
pub(super) async fn token(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let own = call.identity_key(&world)?;
    if !world.behaviour.paid_plan {
        return Err(Refusal::plan_required("Active subscription required."));
    }
    let identity = world.identity(own).ok_or_else(Refusal::not_found)?;
    let now = api.clock.wall();
    let expires = now.checked_add(LIFE).map_err(|_| Refusal::broken())?;
    let token = sign(&world, identity, now, expires)?;
    let expires_at = Timestamp::from_second(expires.as_second()).map_err(|_| Refusal::broken())?;
    let answer = json!({ "token": token.expose(), "expires_at": stamp(expires_at) });
    with_status(StatusCode::CREATED, &answer)
}

fn sign(world: &World, identity: &Identity, now: Timestamp, expires: Timestamp) -> Result<Secret, Refusal> {
    let claims = json!({
        "identity_uuid": identity.uuid.to_string(),
        "iat": now.as_second(),
        "exp": expires.as_second(),
    });
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
    let signed = format!("{header}.{claims}");
    let signature = hmac::sign(&world.sso_key, signed.as_bytes());
    Ok(Secret::new(format!("{PREFIX}{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))))
}

/// `POST /api/sso/verify/`, without a key.
pub(super) async fn verify(State(api): State<Api>, mut fields: Fields) -> Reply {
    let token = Secret::new(fields.required("token"));
    fields.finish()?;
    let world = api.world();
    let identity = bearer(&world, token.expose(), api.clock.wall());
    let identity = identity.ok_or_else(|| Refusal::bad_request("Invalid or expired token."))?;
    ok(&json!({
        "identity_uuid": identity.uuid.to_string(),
        "identity_name": identity.name,
        "identity_email": identity.inbox.as_ref().map(|inbox| inbox.address.as_str()),
        "identity_phone": identity.phone.as_ref().map(|phone| phone.number.as_str()),
        "created_at": stamp(identity.created),
        "owner": {
            "name": format!("{} {}", world.owner.first_name, world.owner.last_name),
            "email": world.owner.email,
        },
    }))
}

/// Whose token it is, if the signature and the time are good.
fn bearer<'a>(world: &'a World, token: &str, now: Timestamp) -> Option<&'a Identity> {
    let (signed, signature) = token.strip_prefix(PREFIX)?.rsplit_once('.')?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    hmac::verify(&world.sso_key, signed.as_bytes(), &signature).ok()?;
    let (_, claims) = signed.split_once('.')?;
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    if claims["exp"].as_i64()? <= now.as_second() {
        return None;
    }
    world.identity_of(Uuid::try_parse(claims["identity_uuid"].as_str()?).ok()?)
}
