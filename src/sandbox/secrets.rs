//! The secret vault (docs/ravi-api.md §3.8). Keys are upper-cased, then must match `^[A-Z][A-Z0-9_]*$`, and
//! are unique within an identity.

use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;

use crate::secret::Secret;

use super::auth::Call;
use super::behaviour::{ListValues, SecretLookup};
use super::body::Fields;
use super::random;
use super::reply::{Refusal, Reply, no_content, ok, with_status};
use super::state::{Api, MAX_ENTRIES, SecretRow, World, stamp};

/// `GET /api/secrets/`, with `?key=` for one of them.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let shown = world.behaviour.list_values == ListValues::Shown;
    let any_case = world.behaviour.secret_lookup == SecretLookup::AnyCase;
    let wanted = call.params.given("key");
    let is_wanted = |row: &&SecretRow| {
        wanted.is_none_or(|key| row.key == key || any_case && row.key.eq_ignore_ascii_case(key))
    };
    let all = call.scope(&world)?.rows(&world.secrets);
    let mut rows: Vec<_> = all.iter().copied().filter(is_wanted).collect();
    if rows.is_empty() && call.is_swapped() {
        rows.extend(all.first());
    }
    ok(&rows.into_iter().map(|row| Wire::new(row, shown)).collect::<Vec<_>>())
}

/// `GET /api/secrets/{uuid}/`.
pub(super) async fn read(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let world = api.world();
    let index = call.scope(&world)?.row(&world.secrets, &uuid).ok_or_else(no_entry)?;
    ok(&Wire::new(&world.secrets[index], true))
}

/// `POST /api/secrets/`.
pub(super) async fn create(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let (identity, _) = call.writer(&world)?;
    let given = fields.required("key");
    let key = checked_key(&mut fields, &world, identity, &given, None);
    let value = Secret::new(fields.required("value"));
    let notes = fields.secret("notes").unwrap_or_else(|| Secret::copy_of(""));
    fields.finish()?;
    if world.secrets.len() >= MAX_ENTRIES {
        return Err(Refusal::bad_request("The vault is full."));
    }
    let now = api.wall();
    let uuid = random::uuid()?;
    let row = SecretRow { uuid, identity, key, value, notes, created: now, updated: now };
    let reply = with_status(StatusCode::CREATED, &Wire::new(&row, true));
    world.secrets.push(row);
    reply
}

/// `PATCH /api/secrets/{uuid}/`.
pub(super) async fn update(
    State(api): State<Api>,
    call: Call,
    Path(uuid): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (identity, scope) = call.writer(&world)?;
    let index = scope.row(&world.secrets, &uuid).ok_or_else(no_entry)?;
    let given = fields.text("key");
    let key = given.map(|key| checked_key(&mut fields, &world, identity, &key, Some(index)));
    let value = fields.secret("value");
    if value.as_ref().is_some_and(Secret::is_empty) {
        fields.wrong("value", "This field may not be blank.");
    }
    let notes = fields.secret("notes");
    fields.finish()?;
    let now = api.wall();
    let row = &mut world.secrets[index];
    row.key = key.unwrap_or_else(|| std::mem::take(&mut row.key));
    if let Some(value) = value {
        row.value = value;
    }
    if let Some(notes) = notes {
        row.notes = notes;
    }
    row.updated = now;
    ok(&Wire::new(row, true))
}

/// `DELETE /api/secrets/{uuid}/`.
pub(super) async fn delete(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let mut world = api.world();
    let (_, scope) = call.writer(&world)?;
    let index = scope.row(&world.secrets, &uuid).ok_or_else(no_entry)?;
    world.secrets.remove(index);
    no_content()
}

/// Upper-cases and checks form and uniqueness; `own` is the row that is being changed.
fn checked_key(fields: &mut Fields, world: &World, identity: i64, given: &str, own: Option<usize>) -> String {
    let key = given.to_uppercase();
    let is_taken =
        |(index, row): (usize, &SecretRow)| row.identity == identity && row.key == key && Some(index) != own;
    if !is_key(&key) {
        fields.wrong("key", "Enter a valid key: letters, digits and underscores, starting with a letter.");
    } else if world.secrets.iter().enumerate().any(is_taken) {
        fields.wrong("key", "A secret with this key already exists.");
    }
    key
}

fn is_key(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_uppercase())
        && key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn no_entry() -> Refusal {
    Refusal::detail(StatusCode::NOT_FOUND, "No SecretEntry matches the given query.")
}

#[derive(Serialize)]
struct Wire<'a> {
    uuid: String,
    identity: i64,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    notes: &'a str,
    created_dt: String,
    updated_dt: String,
}

impl<'a> Wire<'a> {
    fn new(row: &'a SecretRow, with_value: bool) -> Self {
        Self {
            uuid: row.uuid.to_string(),
            identity: row.identity,
            key: &row.key,
            value: with_value.then(|| row.value.expose()),
            notes: row.notes.expose(),
            created_dt: stamp(row.created),
            updated_dt: stamp(row.updated),
        }
    }
}
