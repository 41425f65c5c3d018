//! Keys: who is calling (`Authorization: Bearer`), for which identity (`?identity=`), and the
//! endpoints that mint and list identity keys (docs/ravi-api.md §2.1, §2.2).

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::request::Parts;
use http::{StatusCode, header};
use serde_json::json;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::secret::Secret;

use super::behaviour::{MintStatus, MismatchStatus, WithoutIdentity, WrongKindStatus};
use super::body::Fields;
use super::query::Params;
use super::random;
use super::reply::{Refusal, Reply, ok, with_status};
use super::state::{Api, Entry, Key, KeyKind, MAX_KEYS, Owned, World, stamp};

pub(super) const MANAGEMENT_PREFIX: &str = "ravi_mgmt_";
pub(super) const IDENTITY_PREFIX: &str = "ravi_id_";

/// An authenticated request.
pub(super) struct Call {
    pub(super) caller: KeyKind,
    pub(super) params: Params,
    swapped: bool,
}

/// Marks a request that the fault "wrong identity" answers with rows of another identity.
#[derive(Clone, Copy)]
pub(super) struct Swapped;

impl FromRequestParts<Api> for Call {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let world = api.world();
        let caller = presented(parts).and_then(|key| kind_of(&world, key));
        Ok(Self {
            caller: caller.ok_or_else(Refusal::unauthenticated)?,
            params: Params::parse(parts.uri.query().unwrap_or("")),
            swapped: parts.extensions.get::<Swapped>().is_some(),
        })
    }
}

fn presented(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| key.trim())
}

fn kind_of(world: &World, presented: &str) -> Option<KeyKind> {
    let same = |key: &&Key| bool::from(key.value.expose().as_bytes().ct_eq(presented.as_bytes()));
    world.keys.iter().find(same).map(|key| key.kind)
}

/// Which rows a call sees.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    /// `None`: the whole account.
    fence: Option<i64>,
    swapped: bool,
}

impl Scope {
    pub(super) fn sees(self, identity: i64) -> bool {
        self.fence.is_none_or(|own| own == identity)
    }

    /// The visible rows, those of the newest identity first: a client that takes the first row of an
    /// account-wide list takes the wrong one.
    pub(super) fn rows<R: Owned>(self, rows: &[R]) -> Vec<&R> {
        let mut visible: Vec<&R> = rows.iter().filter(|row| self.sees(row.owner())).collect();
        visible.sort_by_key(|row| std::cmp::Reverse(row.owner()));
        visible
    }

    /// One visible row. Under the fault "wrong identity" it is any row of the other identity.
    pub(super) fn row<R: Entry>(self, rows: &[R], uuid: &str) -> Option<usize> {
        let wanted = Uuid::try_parse(uuid).ok();
        let exact = rows.iter().position(|row| self.sees(row.owner()) && Some(row.uuid()) == wanted);
        let any = || rows.iter().position(|row| self.swapped && self.sees(row.owner()));
        exact.or_else(any)
    }
}

impl Call {
    /// What a read may see.
    pub(super) fn scope(&self, world: &World) -> Result<Scope, Refusal> {
        let fence = self.fence(world)?;
        if fence.is_none() && world.behaviour.without_identity == WithoutIdentity::Refused {
            return Err(identity_required());
        }
        let other = fence.filter(|_| self.swapped).and_then(|own| world.other_than(own));
        Ok(Scope { fence: other.map(|identity| identity.id).or(fence), swapped: other.is_some() })
    }

    /// Whose rows a write changes; a management key must say.
    pub(super) fn writer(&self, world: &World) -> Result<(i64, Scope), Refusal> {
        let identity = self.fence(world)?.ok_or_else(identity_required)?;
        Ok((identity, Scope { fence: Some(identity), swapped: false }))
    }

    /// Under the fault "wrong identity".
    pub(super) fn is_swapped(&self) -> bool {
        self.swapped
    }

    /// Refuses all but the management key.
    pub(super) fn management(&self, world: &World) -> Result<(), Refusal> {
        match self.caller {
            KeyKind::Management => Ok(()),
            KeyKind::Identity(_) => Err(wrong_kind(world, "Management key required.")),
        }
    }

    /// Refuses all but an identity key.
    pub(super) fn identity_key(&self, world: &World) -> Result<i64, Refusal> {
        match self.caller {
            KeyKind::Identity(own) => Ok(own),
            KeyKind::Management => Err(wrong_kind(world, "Identity-scoped key required.")),
        }
    }

    /// An identity key is fenced to its own identity, whatever the query says.
    pub(super) fn fence(&self, world: &World) -> Result<Option<i64>, Refusal> {
        let asked = self.params.given("identity");
        let named =
            asked.and_then(|text| Uuid::try_parse(text).ok()).and_then(|uuid| world.identity_of(uuid));
        let named = named.map(|identity| identity.id);
        match (self.caller, asked, named) {
            (KeyKind::Management, None, _) => Ok(None),
            (KeyKind::Management, Some(_), Some(id)) => Ok(Some(id)),
            (KeyKind::Identity(own), None, _) => Ok(Some(own)),
            (KeyKind::Identity(own), Some(_), Some(id)) if own == id => Ok(Some(own)),
            (_, Some(_), _) => Err(mismatch(world)),
        }
    }
}

fn identity_required() -> Refusal {
    Refusal::bad_request("Identity is required.")
}

/// The call names what belongs to another identity.
pub(super) fn mismatch(world: &World) -> Refusal {
    match world.behaviour.mismatch_status {
        MismatchStatus::BadRequest => Refusal::bad_request("Identity not found"),
        MismatchStatus::Forbidden => {
            Refusal::detail(StatusCode::FORBIDDEN, "You do not have permission to perform this action.")
        }
        MismatchStatus::NotFound => Refusal::not_found(),
    }
}

fn wrong_kind(world: &World, text: &str) -> Refusal {
    match world.behaviour.wrong_kind_status {
        WrongKindStatus::Unauthorized => Refusal::detail(StatusCode::UNAUTHORIZED, text),
        WrongKindStatus::Forbidden => Refusal::detail(StatusCode::FORBIDDEN, text),
    }
}

/// `POST /api/auth/keys/identity/`.
pub(super) async fn mint(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    call.management(&world)?;
    let identity_uuid = fields.required("identity_uuid");
    let label = fields.text("label").unwrap_or_default();
    fields.finish()?;
    let named = Uuid::try_parse(&identity_uuid).ok().and_then(|uuid| world.identity_of(uuid));
    let Some((id, uuid)) = named.map(|identity| (identity.id, identity.uuid)) else {
        return Err(Refusal::bad_request("Identity not found"));
    };
    let status = mint_status(&world);
    let key = add_identity_key(&api, &mut world, id, &label)?;
    with_status(status, &json!({ "key": key.expose(), "identity_uuid": uuid.to_string(), "label": label }))
}

/// 201 or 200, as the behaviour says.
pub(super) fn mint_status(world: &World) -> StatusCode {
    match world.behaviour.mint_status {
        MintStatus::Created => StatusCode::CREATED,
        MintStatus::Ok => StatusCode::OK,
    }
}

/// Makes a key, keeps it and returns a copy for the answer.
pub(super) fn add_identity_key(
    api: &Api,
    world: &mut World,
    identity: i64,
    label: &str,
) -> Result<Secret, Refusal> {
    if world.keys.len() >= MAX_KEYS {
        return Err(Refusal::bad_request("The account holds too many keys."));
    }
    let value = random::key(IDENTITY_PREFIX)?;
    let copy = Secret::copy_of(value.expose());
    let kind = KeyKind::Identity(identity);
    world.keys.push(Key { kind, value, label: label.to_owned(), created: api.wall() });
    Ok(copy)
}

/// `GET /api/auth/keys/identity/`. Ravi does not document the answer; this form is invented.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Refusal> {
    let world = api.world();
    let scope = call.scope(&world)?;
    let rows = world.keys.iter().filter_map(|key| {
        let KeyKind::Identity(id) = key.kind else { return None };
        let identity = world.identity(id).filter(|_| scope.sees(id))?;
        Some(json!({
            "identity_uuid": identity.uuid.to_string(),
            "label": key.label,
            "created_dt": stamp(key.created),
        }))
    });
    ok(&rows.collect::<Vec<_>>())
}
