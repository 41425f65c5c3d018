//! What belongs to identities and their owner (docs/ravi-api.md §3.2): phones, mail addresses, the owner,
//! domains. With a management key and no `?identity=`, phones and addresses are account-wide.

use axum::extract::State;
use serde_json::json;

use super::auth::{Call, Scope};
use super::reply::{Reply, ok};
use super::seed::{MAIL_DOMAIN, MAIL_DOMAIN_UUID};
use super::state::{Api, Identity, Owned, World, stamp};

/// `GET /api/phone/`.
pub(super) async fn phones(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let rows = visible(&world, call.scope(&world)?).filter_map(|identity| {
        let phone = identity.phone.as_ref()?;
        Some(json!({
            "id": phone.id,
            "phone_number": phone.number,
            "provider": "twilio",
            "created_dt": stamp(phone.created),
        }))
    });
    ok(&rows.collect::<Vec<_>>())
}

/// `GET /api/email/`. `id` is the number that compose takes.
pub(super) async fn emails(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let rows = visible(&world, call.scope(&world)?).filter_map(|identity| {
        let inbox = identity.inbox.as_ref()?;
        Some(json!({
            "id": inbox.id,
            "email": inbox.address,
            "created_dt": stamp(identity.created),
        }))
    });
    ok(&rows.collect::<Vec<_>>())
}

impl Owned for Identity {
    fn owner(&self) -> i64 {
        self.id
    }
}

fn visible(world: &World, scope: Scope) -> impl Iterator<Item = &Identity> {
    scope.rows(&world.identities).into_iter()
}

/// `GET /api/master/`.
pub(super) async fn owner(State(api): State<Api>, _: Call) -> Reply {
    let world = api.world();
    ok(&json!({ "first_name": world.owner.first_name, "last_name": world.owner.last_name }))
}

/// `GET /api/domains/`, with a management key.
pub(super) async fn domains(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    call.management(&world)?;
    ok(&json!([{
        "uuid": MAIL_DOMAIN_UUID.to_string(),
        "domain": MAIL_DOMAIN,
        "is_platform": true,
        "is_verified": true,
        "created_dt": "2026-01-05T09:00:00Z",
    }]))
}
